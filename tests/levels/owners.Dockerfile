# chown of files, folders and links, by number and by name; what a change keeps of it, and what stat tells of it.
FROM base
RUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65000:33 /d && chown -h 1:2 /d/e/l
RUN echo more >> /d/e/f
RUN mkdir /o && touch /o/f && ln -s f /o/l && chown -R 5:6 /o && chown -h 7:8 /o/l && \
    stat -c '%n %u %g %F' /o /o/f /o/l /bin > /list; cp -a /o /copy; tar -cf - /copy | tar -C /tmp -xf -; sed -i s/o/o/ /list
RUN chown me /o/f && chgrp me /o && chown -h me: /o/l
USER me
RUN umask 077; echo x > /tmp/private; mkdir /tmp/dir; cd /tmp/dir && echo y > ../tmpfile && echo z > ./../dir/./q
