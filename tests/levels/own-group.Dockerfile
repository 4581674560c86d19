# A user root whose group isn't root's makes and moves names in /.
FROM base
RUN echo g:x:4242: >> /etc/group && mkdir /old
USER root:g
RUN umask 027 && id -g > /result && mkdir /d && ln -s result /l && mv /result /r && mkfifo /p && \
    ! mv /old /older/x && mv /old /new
