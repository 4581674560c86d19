# Cache mounts: their owner and mode, kept between steps, and what they leave of the folder that they hide.
FROM base AS filled
RUN mkdir /d && echo a > /d/a && chown -R 3:4 /d
FROM base
RUN mkdir -p /c/deep && echo hidden > /c/deep/hidden
RUN --mount=type=cache,target=/c/deep,uid=1000,gid=1000,mode=700 stat -c '%n %u %g %a %F' /c/deep > /list; touch /c/deep/x && ! test -e /c/deep/hidden
RUN --mount=type=cache,target=/c/deep,uid=1000,gid=1000,mode=700 test -e /c/deep/x && ls -d /c /t /run > /left; true
RUN --mount=type=cache,from=filled,source=/d,target=/from cat /from/a > /a && echo more >> /from/a && stat -c '%u %g' /from/a >> /list
USER me
RUN --mount=type=cache,target=/new/folder,id=mine,uid=1000 echo mine > /new/folder/f && test $(cat /new/folder/f) = mine
USER root
RUN --mount=type=cache,target=/elsewhere,id=mine,uid=1000 cp /elsewhere/f /mine && cat /c/deep/hidden
