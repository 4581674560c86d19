# WORKDIR: made, relative, with variables, owned by the user; files of the network's; the host's name.
FROM base
ENV D=of/d
WORKDIR /made/here
RUN echo a > /etc/motd && cat /etc/hosts > /dev/null && grep localhost /etc/hosts > hosts && pwd > where
WORKDIR $D
RUN pwd > where && touch ../beside
USER 1000:33
WORKDIR /tmp/own
RUN stat -c '%u %g %a' . > /tmp/list; rmdir /tmp/own 2>/dev/null; umask >> /tmp/list
USER me
WORKDIR later
RUN pwd > /tmp/pwd
