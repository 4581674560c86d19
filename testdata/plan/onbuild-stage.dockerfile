FROM busybox AS base
ONBUILD WORKDIR /w
ONBUILD COPY <<EOF x
hi
EOF
FROM base AS child
RUN y
FROM child
RUN z
