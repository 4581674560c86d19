# Users and groups that a RUN adds, and who a step is when USER names them in all the ways there are.
FROM base
RUN echo you:x:1001:1001::/home/you:/bin/sh >> /etc/passwd && \
    printf 'you:x:1001:\nstaff:x:50:me,you\nwheel:x:10:you\n' >> /etc/group && mkdir -p /home/you && chown you:you /home/you
USER me
RUN id > /tmp/me && test $(id -u) = 1000 && mkdir /tmp/d && ln -s a /tmp/l && mkfifo /tmp/p
USER you
RUN id > /tmp/you && echo ~ > /home/you/home
USER me:staff
RUN id > /tmp/staff && mkdir -m 2770 /tmp/staffs && touch /tmp/staffs/f
USER 1000:33
RUN id > /tmp/numbers
USER 4321
RUN id -u > /tmp/unknown; id -g >> /tmp/unknown
USER root
RUN id > /tmp/root && chgrp staff /tmp/root && echo b >> /tmp/me
USER you
