#: --build-arg GIVEN=cli --build-arg TAG=3.20
ARG TAG=latest
ARG GIVEN=default
ARG UNGIVEN=global
ARG CHAIN=${UNGIVEN}-x
FROM alpine:${TAG} AS one
ARG GIVEN
ARG UNGIVEN
ARG LOCAL=own CHAIN NONE
ENV E=$LOCAL-$CHAIN
RUN echo $GIVEN $UNGIVEN
ARG E=arg-wins-later
RUN echo $E
