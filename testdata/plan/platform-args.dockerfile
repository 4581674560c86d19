#: --platform linux/arm64 --target final
FROM --platform=$BUILDPLATFORM alpine AS build
ARG TARGETARCH TARGETPLATFORM BUILDARCH TARGETSTAGE
RUN cross $TARGETARCH
FROM alpine AS final
COPY --from=build /x /x
