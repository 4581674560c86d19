#: --build-arg http_proxy=http://p --build-arg HTTPS_PROXY=http://q --build-arg https_proxy=http://r
FROM busybox
RUN one
ARG http_proxy
RUN two
