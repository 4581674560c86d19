# Stages that copy from each other, by name, by number and from a base's; one that isn't needed.
FROM base AS one
RUN echo a > /a && chown 3:4 /a && mkdir -p /deep/er && echo b > /deep/er/b && chmod 700 /deep
FROM base AS unneeded
RUN exit 1
FROM one AS two
RUN echo more >> /deep/er/b && rm /a
FROM base
RUN touch /here
COPY --from=one /a /b
COPY --from=1 --chown=me /a /c
COPY --from=two /deep /deep
RUN test ! -e /a && cat /b /c /deep/er/b > /d
COPY --from=two / /all
