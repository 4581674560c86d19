FROM busybox AS a
COPY x /x
RUN make
FROM busybox AS b
COPY x /x
RUN make
FROM scratch
COPY --from=a /a /
COPY --from=b /b /
