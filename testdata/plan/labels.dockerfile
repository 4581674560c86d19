#: --label a=cli --label b=new
FROM busybox
LABEL a=file
