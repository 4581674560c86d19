# Heredocs that say what program reads them, which they find by a name that is nowhere afterwards.
FROM base
RUN <<EOF
#!/bin/awk -f
BEGIN { print "of its own" > "/awk" }
EOF
RUN <<EOF
#!/bin/sh -e
echo $0 $- > /zero
false || cat $0 >> /zero
EOF
USER me
RUN <<'END'
#! /bin/sh
cat $0 > /tmp/me
END
RUN ! test -e /dev/pipes
