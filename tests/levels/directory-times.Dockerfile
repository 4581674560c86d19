# What is done to the links and pipes of a directory, and not to its entries, leaves the directory's time as it is.
FROM base
RUN mkdir -p /a/b /q && cd /a && touch f b/f && ln -s f l && ln -s f b/l && mkfifo p && mkfifo b/p
RUN find /a /q -type d -exec touch -d '2001-02-03 04:05:06' {} +
RUN chown 5:6 /a/f && chown -h 7:8 /a/l && chown 9 /a/p && chown -R 3:3 /a/b && chmod 700 /a/b/f
RUN touch -h -d '2002-01-01 00:00:00' /a/l /a/b/l && stat -c '%n %Y %u:%g' /a /a/b > /said
RUN ln /a/p /q/p && touch -d '2001-02-03 04:05:06' /q && stat -c '%n %Y' /a /q >> /said
