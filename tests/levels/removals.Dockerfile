# Whiteouts, opaque folders, and folders that come back.
FROM base
RUN mkdir -p /d/e /keep/sub && touch /d/1 /d/e/2 /keep/1 /keep/sub/2
RUN rm -r /d && mkdir /d && touch /d/3
RUN rm /d/3 && rm -r /keep/sub && mkdir -m 700 /keep/sub
RUN rm -rf /keep && mkdir -p /keep/sub && touch /keep/sub/3; touch /gone && rm /gone; rm -r /d
FROM base
COPY --from=1 / /all
