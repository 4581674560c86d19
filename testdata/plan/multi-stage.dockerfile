FROM alpine AS build
RUN make
FROM alpine AS unused
RUN never
FROM busybox
COPY --from=build /out /bin/
COPY --from=0 /doc /doc
COPY --from=Build /out /bin/
