# A lower layer's file loses some of its names: the others are still names of one file.
FROM base AS made
RUN mkdir /a /b /c /d && echo x > /a/f && ln /a/f /b/f && ln /a/f /c/f && ln /a/f /d/f
RUN rm /a/f
RUN mv /d/f /d/g
FROM base
COPY --from=made / /all
