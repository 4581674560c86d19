FROM busybox
ARG V=1
COPY <<one <<"two" src <<-three /d/
a $V "q" \$V
one
b $V
two
	c
three
ADD --chmod=755 --chown=u <<run /bin/run
#!/bin/sh
run
