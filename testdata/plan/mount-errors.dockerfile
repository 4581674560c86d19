FROM busybox AS a
ARG KIND=tmpsf
RUN --mount=target=/ x
RUN --mount=type=$KIND,target=/x x
RUN --mount=type=ssh,source=x x
RUN --mount=from=b,target=/b x
FROM a AS b
