FROM empty
COPY a /
