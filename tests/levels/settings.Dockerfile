# The image's configuration, and variables that a RUN sees.
FROM base
ARG V=1
ARG SOURCE_DATE_EPOCH
ENV A=a B="b $V" PATH=/bin:/usr/bin
SHELL ["/bin/sh", "-e", "-c"]
RUN test "$B" = "b 1" && env | grep -v -e HOSTNAME | sort > /env
LABEL one=1 "two words"="2"
EXPOSE 80/tcp 53/udp
VOLUME /data /more
RUN mkdir -p /data && echo kept > /data/kept
STOPSIGNAL 9
HEALTHCHECK --interval=5s CMD true
ONBUILD RUN touch /onbuild
ENTRYPOINT ["sh"]
CMD ["-c", "id"]
