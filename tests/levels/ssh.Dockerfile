# An agent's socket, where SSH_AUTH_SOCK says and where the Dockerfile does.
FROM base
RUN --mount=type=ssh,required test -S "$SSH_AUTH_SOCK" && echo $SSH_AUTH_SOCK > /where && stat -c '%u %g %a' $SSH_AUTH_SOCK > /seen
RUN --mount=type=ssh,target=/tmp/agent,mode=0660 stat -c '%u %g %a' /tmp/agent >> /seen && test "$SSH_AUTH_SOCK" = /tmp/agent
RUN test -z "$SSH_AUTH_SOCK" && ls -A /run /tmp > /left; true
