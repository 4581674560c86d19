#: --no-cache-filter B
FROM busybox AS a
RUN x
FROM a AS b
COPY f /
RUN y
