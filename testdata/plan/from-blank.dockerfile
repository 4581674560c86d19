FROM ${BASE}
RUN x
FROM a/b:
FROM Upper
