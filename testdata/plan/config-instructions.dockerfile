FROM busybox
EXPOSE 80 443/tcp 53/UDP 9000-9002
ARG PORTS="1 2/udp"
EXPOSE $PORTS
VOLUME /data
VOLUME ["/a b", "/c"]
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=1m30s --timeout=250ms --retries=3 CMD curl -f http://x
HEALTHCHECK NONE
MAINTAINER me <me@example.com>
LABEL a=1 "b c"="d e"
LABEL old style
ONBUILD RUN later
SHELL ["/bin/sh", "-e"]
CMD echo "hi"
ENTRYPOINT ["/e", "x"]
CMD ["after"]
USER 5:6
