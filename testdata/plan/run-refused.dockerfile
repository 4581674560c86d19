FROM busybox
RUN --security=insecure x
RUN --network=host x
RUN --device=gpu x
