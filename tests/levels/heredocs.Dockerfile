# Heredocs: of COPY, of RUN with a shell and with several.
FROM base
COPY --chmod=640 --chown=me <<one <<"two" /in/
a $PATH
one
b $PATH
two
RUN <<EOF
set -e
cat /in/* > /out
echo one > /one
EOF
RUN <<EOF sh -e
cat /one > /shell
EOF
RUN cat <<-A <<-"B" > /several
	first $((1+1))
	A
	second $((1+1))
	B
