# FIFOs, their owners and modes; moved and linked.
FROM base
RUN mkfifo /p && mkdir /d && mkfifo -m 640 /d/q && chown 4:5 /p
RUN mv /p /r && ln /d/q /d/s
RUN rm /d/q
