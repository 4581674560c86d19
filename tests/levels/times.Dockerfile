# Times: old and before 1970; of files, folders and links; and what a later step leaves of them.
FROM base
RUN mkdir /t && touch -d @1000 /t/old && touch -d '1960-01-02 03:04:05' /t/older && touch -d '2001-02-03 04:05:06' /t/exact && \
    ln -s x /t/l && touch -h -d @5 /t/l && touch -d @77 /t
RUN stat -c '%n %y' /t/* > /times && chmod 600 /t/old && cp -p /t/exact /copied && touch -d @78 /t
COPY tree /tree
FROM base
COPY --from=1 /t /t
