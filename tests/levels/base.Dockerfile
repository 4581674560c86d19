# What the others start with: each is built as if it stood below this one.
FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /tmp && chmod 1777 /tmp && echo root:x:0:0::/:/bin/sh > /etc/passwd && \
    echo me:x:1000:1000::/:/bin/sh >> /etc/passwd && echo me:x:1000: > /etc/group
