# Symbolic links: absolute, dangling, in circles, to folders; copied through, changed and owned.
FROM base AS made
RUN mkdir -p /real/sub && echo f > /real/sub/f && ln -s /real /absolute && ln -s real/sub /relative && ln -s nowhere /dangling && \
    ln -s b /real/a && ln -s a /real/b && ln -s ../../../../etc /real/sub/out
COPY busybox /absolute/copied
COPY --chown=7 tree/f /relative/
RUN echo g > /relative/g && rm /dangling && ln -s elsewhere /dangling && ln -sfn sub /real/a && touch -h -d @1000 /real/b
RUN mkdir /d && ln -s a /d/1 && ln -s b /d/2 && ln -s c /d/3 && chown -h 5:6 /d/1 /d/2
RUN mv /d/1 /d/one; chown -h 7:8 /d/2 /d/3
FROM base
COPY --from=made /absolute /relative /to/
COPY --from=made /d /d
COPY tree/link /link
