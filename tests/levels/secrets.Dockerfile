# Secrets as files and as variables, required and not.
FROM base
RUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s,mode=0440 test "$S" = hidden && \
    test "$(cat /run/secrets/s)" = hidden && stat -c %a /run/secrets/s > /seen && env | grep -v -e ^S= -e HOSTNAME | sort > /env
RUN --mount=type=secret,id=s,target=/root/.token,required --mount=type=secret,id=none test "$(cat /root/.token)" = hidden && ! test -e /run/secrets/none
USER me
RUN --mount=type=secret,id=s,uid=1000 cat /run/secrets/s > /dev/null && ! test -e /root/.token
USER root
RUN ls -A /root /run > /left; true
