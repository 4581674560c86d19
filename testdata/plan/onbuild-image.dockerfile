#: --build-arg A=1
FROM onbuild
RUN own
