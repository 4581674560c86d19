# A change and a move through one name of a file that a layer below has under two.
FROM base
RUN mkdir /d && echo a > /d/a && ln /d/a /d/b
RUN chmod 600 /d/b && mv /d/a /d/c
