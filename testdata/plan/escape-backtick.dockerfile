# escape=`
FROM busybox
ENV A=b`
 C=d`$e
WORKDIR C:\$A
