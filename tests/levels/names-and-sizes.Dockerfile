# Long names and paths, names with spaces, newlines and bytes that are no text, files with holes, and empty ones.
FROM base
RUN long=$(printf '%0200d' 7) && mkdir -p /$long/$long/$long && echo a > /$long/$long/$long/$long && ln -s /$long/$long/$long/$long /l && ln -s /l /m
RUN mkdir /n && cd /n && touch 'a b' "$(printf 'new\nline')" "$(printf '\303\244\342\202\254')" "$(printf 'no\377text')" 'a\b' '*' -- -x
RUN truncate -s 9M /hole && echo end >> /hole && dd if=/bin/busybox of=/holes bs=4k count=3 seek=500 2>/dev/null && : > /empty && truncate -s 1M /nothing
RUN echo middle | dd of=/hole bs=1M seek=4 conv=notrunc 2>/dev/null; truncate -s 2 /holes
COPY --from=base ["/etc/passwd", "/n/c d"]
