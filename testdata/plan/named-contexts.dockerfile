#: --build-context local=dir --build-context alpine=docker-image://busybox:1 --build-context stage=target:other
#: --build-context gitctx=https://h.invalid/r.git#main --build-context file=https://h.invalid/f --build-context lay=oci-layout:///p@x
#: --build-context replaced=docker-image://full
FROM alpine AS replaced
RUN gone
FROM alpine:latest AS other
COPY --from=local / /l/
COPY --from=gitctx a /g/
COPY --from=file context /f
COPY --from=lay / /y
COPY --from=replaced /r /r
RUN --mount=from=local,target=/m x
FROM local
COPY --from=stage / /s
RUN x
