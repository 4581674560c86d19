# COPY and ADD with their flags.
FROM base AS other
RUN mkdir -p /o/p && echo 1 > /o/p/1 && chown -R 8:9 /o
FROM base
WORKDIR /w
COPY --chown=me tree a/
COPY --chown=1:2 --chmod=u=rwX,go=rX tree b/
COPY --chmod=4750 tree/f tree/sub/* c/
COPY --link --chown=33 tree /linked
COPY --link --from=other /o /linked/o
COPY --from=other --chown=me:me /o/p/1 one
COPY --exclude=sub --exclude=*.txt tree excluded/
COPY --parents tree/./sub/g /parents/
ADD --chown=5:5 marked.tar /added/
ADD --chmod=640 tree/f f
RUN mv a/f b2 && stat -c '%n %A %u %g' . * */* > /list
