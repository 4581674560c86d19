#: --target 0
FROM scratch AS a
COPY a /
FROM scratch
COPY b /
