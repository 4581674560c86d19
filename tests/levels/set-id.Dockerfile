# Setuid, setgid and sticky bits: by chmod, by COPY, inherited by what is made in a folder, and lost by chown and by writing.
FROM base
RUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g && touch /g/f && mkdir /g/d && cp /s /lost && chown 9 /lost
COPY --chmod=4711 --chown=5:6 busybox /t
RUN cp /bin/busybox /u && chmod 000 /u && mkdir -m 3777 /sticky
RUN touch /g/d/e && echo x >> /u && chmod g-s /g
