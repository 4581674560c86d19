FROM busybox
WORKDIR rel
WORKDIR /a/../b//c/
WORKDIR ../d
WORKDIR /
USER u:g
WORKDIR /e
