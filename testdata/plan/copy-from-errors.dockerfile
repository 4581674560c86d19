FROM busybox AS me
COPY --from=$X a /
COPY --from=7 a /
COPY --from=-1 a /
