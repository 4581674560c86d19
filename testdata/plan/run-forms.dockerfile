FROM busybox
RUN ["/bin/x", "a b", "$HOME"]
RUN a \
 && b
RUN <<EOF
set -e
make
EOF
RUN <<-"S"
	#!/usr/bin/env python3
	print("$HOME")
S
RUN <<A cat <<B
1
A
2
B
RUN --network=none x
RUN --network=default --security=sandbox x
