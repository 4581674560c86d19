# Owners beyond the 65,536 numbers that a range has.
FROM base
RUN touch /a && chown 70000:4000000000 /a
