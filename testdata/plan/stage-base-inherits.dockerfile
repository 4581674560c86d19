FROM busybox AS a
ARG V=1
ENV E=2
USER app
WORKDIR /w
CMD ["c"]
SHELL ["/bin/ash", "-e", "-c"]
FROM a
ENTRYPOINT ["e"]
RUN echo $V $E
