#: --platform linux/amd64,linux/arm64
FROM --platform=$BUILDPLATFORM alpine AS tools
RUN fetch
FROM alpine
COPY . /src
COPY --from=tools /t /t
RUN make
