ARG VERSION=1
FROM busybox:${VERSON}
FROM --platform=linux/amd64 busybox:${VERSION:-x}
FROM --platform=$TARGETPLATFORM busybox AS c
FROM busybox:${NOTHING}
