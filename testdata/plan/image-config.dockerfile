FROM full
RUN pwd
WORKDIR sub
RUN pwd
ENTRYPOINT x
CMD y
LABEL l=mine m="a b"
