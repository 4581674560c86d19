# A heredoc that says what program reads it.
FROM base
RUN <<EOF
#!/bin/awk -f
BEGIN { print "of its own" > "/awk" }
EOF
