FROM full
ARG REPO=https://git.invalid/o/r.git
ADD https://h.invalid/dir/file.txt?x=1 /a/
ADD --checksum=sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 --unpack $URL /b
ADD --keep-git-dir ${REPO}#v1:sub /r
ADD $REPO?branch=main&submodules=false local.tar git@h.invalid:o/r /mix/
