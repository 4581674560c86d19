# A file's capabilities, its owner and an attribute of a user's, in an archive; copied and moved.
FROM base AS marked
ADD marked.tar /
FROM marked
RUN cp -a /marked/. /copied && mv /marked/ping /copied/moved
COPY --from=marked /marked /from
COPY --from=marked --chown=1:2 /marked/ping /owned
