FROM busybox AS me
COPY --chmod=64a a /
COPY --chmod=10000 a /
COPY --chmod=u+q a /
COPY --from=later x /
COPY https://h.invalid/x /
COPY https://h.invalid/x.git /
ADD --checksum=sha256:1 https://h.invalid/x /
ADD --checksum=sha256:aa a /
ADD --checksum=sha256:aa a b /
ADD https://h.invalid/r.git?bad=1 /
ADD --keep-git-dir=true https://h.invalid/r.git?keep-git-dir=false /
FROM me AS later
