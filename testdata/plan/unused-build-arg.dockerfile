#: --build-arg NOBODY=1 --build-arg no_proxy=x --build-arg TARGETARCH=z
FROM scratch
