# A tmpfs: empty, over a folder that is there and where there is none.
FROM base
RUN mkdir /t && touch /t/hidden
RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/new ls -A /t /new > /list && touch /t/x /new/y && stat -c '%u %g %a' /t >> /list
RUN ls -A /t /new > /after 2>/dev/null; true
