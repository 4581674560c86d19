# Debian's programs: users that are added and changed to, a package with scripts and a setuid program that apt-get installs
# from a repository, a socket, which no layer holds, and the usual way out of a changed root, which leads nowhere.
FROM scratch AS debian
ADD debian.tar /
ENV DEBIAN_FRONTEND=noninteractive
FROM debian AS repository
ARG SOURCE_DATE_EPOCH
COPY --chmod=644 <<control /p/DEBIAN/control
Package: our
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: ours
control
COPY --chmod=755 <<postinst /p/DEBIAN/postinst
#!/bin/sh
set -e
useradd --system --no-create-home our
install -d -o our -g adm -m 2750 /var/lib/our
chown daemon:adm /usr/share/our
postinst
RUN chmod 755 /p/DEBIAN && mkdir -p /p/usr/bin /p/usr/share /p/etc && cp /bin/true /p/usr/bin/our-su && chmod 4755 /p/usr/bin/our-su && \
    echo 1 > /p/etc/our.conf && echo f > /p/usr/share/our && dpkg-deb --build --root-owner-group /p /our.deb
RUN mkdir /repository && mv /our.deb /repository && cd /repository && \
    { cat /p/DEBIAN/control; echo "Filename: ./our.deb"; stat -c 'Size: %s' our.deb; echo "SHA256: $(sha256sum our.deb | cut -c 1-64)"; } > Packages
FROM debian
RUN useradd -m -s /bin/bash app && usermod -aG staff app && mkdir /x && cp -a /etc/skel/. /x && chown -R app:app /x && stat -c '%U %a' /x > /stat && \
    su app -c 'id; touch /x/mine; mkdir /x/d; ln -s a /x/l' > /su && sed -i 's/#/##/' /x/.bashrc && find /x -printf '%p %M %U %G %s\n' | grep -v ^d | sort > /ls && \
    setpriv --reuid app --regid app --init-groups id > /setpriv && rm -f /etc/*- /var/log/lastlog /var/log/faillog
# What holds the time of the build, or numbers of its files, is removed, as no two builds could be the same otherwise.
RUN --mount=from=repository,source=/repository,target=/repository rm -rf /etc/apt/sources.list.d/* && \
    echo 'deb [trusted=yes] file:/repository ./' > /etc/apt/sources.list && apt-get update && apt-get install -y our && \
    dpkg -V our && stat -c '%n %U:%G %a' /var/lib/our /usr/share/our /usr/bin/our-su > /our && su our -s /bin/sh -c 'id -un' | grep -x our && \
    rm -rf /var/lib/apt/* /var/log/* /var/cache/* /var/lib/dpkg/*-old /etc/*-
RUN perl -e '$) = "1000 1000 7"; $( = 1000; $< = 1000; $> = 1000; print "$( $) $< $>\n"; print open(F, ">/x/perl") ? 1 : 0; $> = 0; print $!{EPERM} ? 1 : 0' > /perl
RUN perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) and bind(S, sockaddr_un("/x/socket")) or die' && test -S /x/socket
RUN --mount=type=secret,id=outside perl -e 'open(F, "/run/secrets/outside"); $it = <F>; mkdir "/y"; chroot "/y" or die; chdir ".." for 1..50; chroot "." or die; exit(open(F, $it) ? 1 : 0)' && rmdir /y
USER app
RUN id > ~/id && test $(id -u) = 1000 && echo ok > /x/more
USER root
RUN touch -d '2001-02-03 04:05:06.123456789' /nanoseconds && cp -a /nanoseconds /copied
RUN cp -a /home/app /home/copy && tar -C /home -cf - app | tar -C /srv -xf - && mv /x/l /x/moved
