# A RUN with no network of any kind.
FROM base
RUN --network=none ! nc -w 1 127.0.0.1 1 2>/dev/null && cat /etc/hosts > /dev/null && echo none > /none
RUN --network=default test -e /etc/resolv.conf && echo some > /some
