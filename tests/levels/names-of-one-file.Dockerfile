# A change, a move and a removal of one of the names that a file of a layer below has.
FROM base
RUN mkdir /d && echo a > /d/a && ln /d/a /d/b && ln /d/a /d/e
RUN chmod 600 /d/b && mv /d/a /d/c
FROM base
COPY --from=1 /d /d
