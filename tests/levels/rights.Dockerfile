# What a user may not: write to root's folders, read what is root's alone, change owners.
FROM base
RUN mkdir -m 700 /private && echo x > /private/f && cp /private/f /f && chmod 600 /f
USER me
RUN ! touch /bin/x && ! mkdir /new && ! cat /private/f && ! cat /f && ! chown me /f && ! chmod 666 /f && id > /tmp/id
