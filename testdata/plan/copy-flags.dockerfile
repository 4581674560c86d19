FROM busybox
ARG OWNER=app:www MODE=640
WORKDIR /work
COPY --chown=$OWNER --chmod=$MODE a b ./
COPY --chown=7 --chmod=u=rwX,go-w --link x y
COPY --link --exclude=*.md --exclude=**/t ../up/./x /deep/../d/.
COPY --parents a/./b/c* d /p/
COPY ["a b", "/c d/"]
ADD --unpack=false x.tar /a
ADD x.tar /b
ADD --unpack x.tar /c
