FROM busybox
WORKDIR /app
COPY src/ .
ENV MODE=fast
RUN make $MODE "$HOME"
CMD ["./app"]
