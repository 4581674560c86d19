FROM busybox
COPY --from=alpine:3 /etc/os-release /
COPY --from=scratch / /
COPY --from=busybox /bin/busybox /b
