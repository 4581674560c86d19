# Bind mounts that nobody may write to.
FROM base AS other
RUN mkdir /d
FROM base
RUN --mount=type=bind,target=/context --mount=type=bind,from=other,source=d,target=/r ! touch /context/x && ! touch /r/x && touch /tmp/x
