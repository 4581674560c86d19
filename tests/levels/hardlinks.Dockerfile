# Files with several names, some of which go, or come later.
FROM base AS made
RUN mkdir /h && echo a > /h/a && ln /h/a /h/b && ln /h/a /h/c && echo d > /h/d && ln /h/d /h/e && chown 4:5 /h/b
RUN rm /h/a /h/e
RUN mkdir /i && echo 1 > /i/one && ln /i/one /h/two && ln /h/two /i/three && rm /i/one
FROM base AS copied
COPY --from=made /i /to/
FROM made
COPY --from=copied /to /from
