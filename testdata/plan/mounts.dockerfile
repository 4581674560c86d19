FROM alpine AS dep
FROM busybox
WORKDIR /w
ARG KIND=cache ID=i
RUN --mount=target=/src --mount=type=bind,from=dep,source=lib,target=lib,rw x
RUN --mount=type=cache,target=/root/.cache --mount=type=$KIND,id=$ID,target=c,sharing=locked,mode=700,uid=1,gid=2 x
RUN --mount=type=cache,from=dep,source=/seed,target=/c,mode=0700,ro x
RUN --mount=type=cache,from=dep,target=/c x
RUN --mount=type=tmpfs,target=/t --mount=type=tmpfs,target=/t2,size=1.5m x
RUN --mount=type=secret,id=a --mount=type=secret,target=b/c,required,mode=0444,uid=3 x
RUN --mount=type=secret,id=tok,env=TOKEN --mount=type=secret,id=k,env=K,target=/k echo $TOKEN
RUN --mount=type=ssh --mount=type=ssh,id=k,required=true x
RUN --mount=type=bind,from=alpine:3,target=/a x
RUN --mount=type=bind,from=scratch,target=/a x
