# Files that get a second name in / itself, and files with attributes that are moved there.
FROM base
ADD marked.tar /
RUN echo a > /a && ln /a /b && ln /a /tmp/c
RUN mv /marked/ping /moved
