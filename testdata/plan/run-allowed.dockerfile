#: --allow security.insecure --allow network.host --add-host h:1.2.3.4 --shm-size 1024 --network none
FROM busybox
RUN --security=insecure x
RUN --network=host x
RUN x
