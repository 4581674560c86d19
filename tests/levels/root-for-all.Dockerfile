# A / that a group may write to, with the sticky bit.
FROM base
RUN echo more:x:77:me >> /etc/group && chgrp 77 / && chmod 1775 /
USER me
RUN cd / && echo a > a && mkdir d && ln -s a l && mv a b && mkfifo p && rm p && \
    ! rm l/../etc && ! mv /tmp /mine && ! rmdir /etc
