#: --platform linux/amd64,linux/arm64 --build-context base::linux/arm64=docker-image://arm --build-context base=docker-image://any
FROM base
