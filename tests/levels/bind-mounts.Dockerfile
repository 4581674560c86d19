# Bind mounts of the context and of a stage, for reading and for writing that nobody keeps.
FROM base AS other
RUN mkdir /d && echo a > /d/a && echo b > /d/b && chown 5:6 /d/b && rm /bin/vi
FROM base
RUN --mount=type=bind,source=busybox,target=/bb --mount=type=bind,target=/context test -s /bb && cat /context/tree/f > /f
RUN --mount=type=bind,from=other,source=d,target=/r --mount=type=bind,from=other,target=/w,rw cat /r/* > /all && \
    touch /w/bin/x && rm /w/d/a && ! test -e /w/bin/vi && ls -R /w/d > /list && stat -c '%n %u %g' /r/* >> /list
RUN test ! -e /w/bin/x && ls -d /r /w /bb > /left; true
