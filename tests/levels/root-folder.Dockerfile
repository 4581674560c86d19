# Names that stand in / itself, and the mode and owner of /.
FROM base
RUN mkdir /data && echo x > /data/f && cd / && mkdir -m 700 rel && echo top > topfile && ln -s data link && mv /data /data2 && mv /topfile /etc/ && mv /etc/topfile /topf
RUN rm -r /data2 && echo file > /data2 && rm /topf /link && rmdir /rel
RUN chmod 711 / && chown 8:9 /
RUN stat -c '%a %u %g' / > /stat
