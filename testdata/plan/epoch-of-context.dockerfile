#: --build-arg SOURCE_DATE_EPOCH=context --context-time 1234
FROM busybox
ARG SOURCE_DATE_EPOCH
RUN x
