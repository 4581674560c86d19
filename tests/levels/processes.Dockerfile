# Steps that end in many ways at once: processes of their own, signals, limits, output.
FROM base
RUN sh -c 'kill -9 $$' || echo $? > /killed; (sleep 0.01; echo late > /late) & wait
RUN trap 'echo term > /term' TERM; kill -TERM $$; yes | head -n 100000 | wc -l > /count
RUN for n in 1 2 3 4 5 6 7 8; do (echo $n > /n$n) & done; wait; test $$ -lt 10000 && ulimit -n > /dev/null; umask > /umask
