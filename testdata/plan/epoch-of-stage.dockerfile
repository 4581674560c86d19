#: --build-arg SOURCE_DATE_EPOCH=src --target final
FROM scratch AS src
ARG REF=v1
ADD https://h.invalid/r.git#$REF /
FROM busybox AS final
ARG SOURCE_DATE_EPOCH
RUN x
