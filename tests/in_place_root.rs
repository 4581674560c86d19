//! The level `in-place`, inside an ordinary container: Debian's podman and runc with Docker's default seccomp profile (no
//! mount, unshare, pivot_root) and capabilities, from a root filesystem that holds nothing but kiln. With root, to start it,
//! and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, run, text};
use std::fs;

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 16] = [
    (
        "stages",
        "FROM base AS one\nRUN echo a > /a && chown 3:4 /a\nFROM base\nRUN touch /here\nCOPY --from=one /a /b\nCOPY --from=one --chown=me /a /c\nRUN test ! -e /a && cat /b /c > /d\n",
    ),
    ("users", "FROM base\nUSER me\nRUN id > /tmp/id && test $(id -u) = 1000 && ! touch /bin/x && ! mkdir /new\n"),
    (
        "owners",
        "FROM base\nRUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65000:33 /d && chown -h 1:2 /d/e/l\nRUN echo more >> /d/e/f\n",
    ),
    (
        "set-id bits",
        "FROM base\nRUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g\nCOPY --chmod=4711 --chown=5:6 busybox /t\n",
    ),
    ("capabilities and attributes", "FROM base\nADD files.tar /\nRUN cp -a /marked/. /copied && mv /marked /moved\n"),
    (
        "hardlinks, pipes and devices",
        "FROM base\nRUN mkdir /h && echo a > /h/a && ln /h/a /h/b && ln /h/a /h/c && mkfifo /p /h/p && mknod /h/null c 1 3\nRUN rm /h/a && chmod 600 /h/b /h/c\n",
    ),
    (
        "removals",
        "FROM base\nRUN mkdir -p /d/e && touch /d/1 /d/e/2\nRUN rm -r /d && mkdir /d && touch /d/3\nRUN rm /d/3\nFROM base\nCOPY --from=1 / /all\n",
    ),
    (
        "mounts",
        "FROM base\nRUN --mount=type=cache,target=/c/deep,uid=1000,gid=1000,mode=700 --mount=type=tmpfs,target=/t \\\n --mount=type=bind,source=busybox,target=/bb --mount=type=secret,id=s,uid=7,mode=0440 --network=none \\\n stat -c '%n %u %g %a %F' /bin /c/deep /bb /run/secrets/s > /list; test -s /bb && test $(cat /run/secrets/s) = hush && touch /c/deep/x /t/y\nRUN --mount=type=cache,target=/c/deep,uid=1000,gid=1000,mode=700 test -e /c/deep/x && ls -d /c /t /run > /left; true\n",
    ),
    (
        "names in the root",
        "FROM base\nRUN mkdir /data && echo x > /data/f && cd / && mkdir -m 700 rel && echo top > topfile && ln -s data link && mv /data /data2 && mv /topfile /etc/ && mv /etc/topfile /topf\nRUN rm -r /data2 && echo file > /data2 && rm /topf /link && rmdir /rel\n",
    ),
    ("a root of its own", "FROM base\nRUN chmod 711 / && chown 8:9 /\nRUN stat -c '%a %u %g' / > /stat\n"),
    ("work folders", "FROM base\nWORKDIR /srv/app\nUSER me\nWORKDIR own\nRUN pwd > /tmp/pwd\n"),
    (
        "nothing",
        "FROM base\nRUN true\nRUN touch /etc/x && rm /etc/x\nRUN grep localhost /etc/hosts && cp /etc/resolv.conf /r && rm /r\n",
    ),
    (
        "a group of its own",
        "FROM base\nRUN echo g:x:4242: >> /etc/group && mkdir /old\nUSER root:g\nRUN umask 027 && id -g > /result && mkdir /d && ln -s result /l && mv /result /r && mkfifo /p && ! mv /old /older/x && mv /old /new\n",
    ),
    (
        "a root for everybody",
        "FROM base\nRUN echo more:x:77:me >> /etc/group && chgrp 77 / && chmod 1775 /\nUSER me\nRUN cd / && echo a > a && mkdir d && ln -s a l && mv a b && mkfifo p && rm p && ! rm l/../etc && ! mv /tmp /mine && ! rmdir /etc\n",
    ),
    (
        "scripts",
        "FROM base\nRUN <<EOF\n#!/bin/sh -e\necho $0 $- > /zero\nfalse || cat $0 >> /zero\nEOF\nUSER me\nRUN <<'END'\n#! /bin/sh\ncat $0 > /tmp/me\nEND\nRUN ! test -e /dev/pipes\n",
    ),
    (
        "here-documents",
        "FROM base\nRUN <<EOF\necho one > /one\necho two > /two\nEOF\nCOPY <<EOF /three\nthree\nEOF\nRUN <<EOF sh -e\ncat /one /two /three > /four\nEOF\n",
    ),
];

/// An archive with a file's capabilities and an attribute of a user's, neither of which a build can set with busybox.
fn marked(place: &Place) {
    let folder = place.path("files");
    fs::create_dir_all(folder.join("marked")).unwrap();
    let file = folder.join("marked/ping");
    fs::copy("/bin/busybox", &file).unwrap();
    run("setcap", &["cap_net_raw+ep", file.to_str().unwrap()]);
    rustix::fs::setxattr(&file, "user.kiln", b"yes", rustix::fs::XattrFlags::empty()).unwrap();
    let (archive, folder) = (place.path("context/files.tar"), folder.display().to_string());
    let archive = archive.display().to_string();
    run("tar", &["--xattrs", "--xattrs-include=*", "--format=pax", "-C", &folder, "-cf", &archive, "marked"]);
}

/// Builds with the same result each time.
const BUILD: [&str; 6] = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "--secret", "id=s,src=SECRET"];

fn build(secret: &str) -> Vec<String> {
    BUILD.iter().map(|word| word.replace("SECRET", secret)).collect()
}

#[test]
fn the_same_images_as_roots() {
    let Some(place) = Place::new("same") else { return };
    marked(&place);
    place.file("secret", "hush");
    for (number, (_, dockerfile)) in CASES.iter().enumerate() {
        place.file(&format!("cases/{number}"), &format!("{BASE}{dockerfile}"));
    }
    let flags = build("/workspace/secret").join(" ");
    let script = format!(
        "for n in $(b seq 0 {}); do kiln {flags} -t x -f /workspace/cases/$n /workspace/context || echo failed; done",
        CASES.len() - 1
    );
    let output = place.container(&[AS_DOCKER], &script);
    let ids = String::from_utf8_lossy(&output.stdout).into_owned();
    let in_place: Vec<&str> = ids.lines().collect();
    assert_eq!(in_place.len(), CASES.len(), "{}", text(&output));
    let mut different = Vec::new();
    for (number, (about, _)) in CASES.iter().enumerate() {
        let mut args = build("secret");
        args.extend(["-t", "x", "-f", &format!("cases/{number}"), "context"].map(String::from));
        let root = place.as_root(&args.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(root.status.success(), "{about}, as root: {}", text(&root));
        assert!(root.stdout.starts_with(b"sha256:"), "{about}: {}", text(&root));
        if in_place[number] != String::from_utf8_lossy(&root.stdout).trim_end() {
            different.push(about);
        }
    }
    assert!(different.is_empty(), "{different:?}: {}", text(&output));
}

#[test]
fn the_container_is_left_as_it_was_found() {
    let Some(place) = Place::new("left") else { return };
    place.file("context/good", &format!("{BASE}RUN mkdir /made && echo x > /made/x\n"));
    place.file("context/bad", &format!("{BASE}RUN mkdir /made && chmod 700 / && exit 7\n"));
    let script = "look() { b ls -laR /etc /run /kiln/home; b stat -c '%n %a %u %g' /*; b stat -c '%n %a %u %g' /; b cat /etc/hosts; }
        look > /kiln/before
        cd /workspace/context
        kiln build -f good -t x . || exit 1
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 2
        kiln build -f bad -t x . ; test $? = 1 || exit 3
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 4
        kiln build -f good -t x . || exit 5
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 6
        test -z \"$(b ls /kiln/store/tmp)\" || exit 7";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
    assert!(text(&output).contains("CACHED"), "{}", text(&output));
}

#[test]
fn what_a_killed_build_left_is_put_right() {
    let Some(place) = Place::new("killed") else { return };
    place.file("context/slow", &format!("{BASE}RUN mkdir /made && echo started > /made/x && sleep 1000\n"));
    place.file("context/good", &format!("{BASE}RUN touch /good\n"));
    let script = "list() { b ls / /etc; }
        list > /kiln/before
        cd /workspace/context
        for signal in KILL TERM; do
            /kiln/kiln build -f slow . & pid=$!
            until test -e /made/x; do b usleep 10000; done
            b kill -$signal $pid; wait $pid
            kiln build -f good . || exit 1
            list > /kiln/after; b diff /kiln/before /kiln/after || exit 2
        done
        ! b ps | b grep -q 'sleep 1000' || b ps";
    let output = place.container(&[AS_DOCKER, "--init=false"], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn a_process_reaches_nothing_but_its_stage() {
    let Some(place) = Place::new("walls") else { return };
    place.file(
        "context/Dockerfile",
        &format!(
            "{BASE}RUN for f in /kiln/home/.docker/config.json /kiln/kiln /kiln/store/kiln-store /workspace/secret /proc/1/environ \\
                /proc/$PPID/environ /proc/1/mem /proc/1/root/kiln/kiln; do ! head -c 1 $f || exit 1; done\n\
             RUN for d in /kiln /kiln/store /workspace; do ! touch $d/new && ! mkdir $d/dir && ! mv /etc $d/ || exit 1; done\n\
             RUN ! rm /kiln/kiln && ! mv /kiln/kiln /etc/x && ! ln /kiln/kiln /etc/y && ! kill -9 1\n\
             RUN ! env | grep -q s3cr3t\n\
             RUN echo left > /dev/shm/left && echo left > /dev/left\n\
             RUN test ! -e /dev/shm/left && test ! -e /dev/left\n\
             RUN (setsid sleep 1000 &) ; sleep 1001 & echo gone\n\
             RUN ! ps | grep -v grep | grep -q 'sleep 100'\n\
             RUN --network=none ! nc 127.0.0.1 1 && ! ping -c 1 127.0.0.1\n"
        ),
    );
    place.file("secret", "s3cr3t");
    let output = place.container(&[AS_DOCKER], "kiln build --progress plain /workspace/context");
    assert!(output.status.success(), "{}", text(&output));
    assert!(!text(&output).contains("can read this container's files"), "{}", text(&output));
}

#[test]
fn a_build_without_a_process_needs_no_capability() {
    let Some(place) = Place::new("none") else { return };
    place.file("context/dir/a", "a").file("context/dir/b", "b");
    let dockerfile =
        "FROM scratch AS x\nCOPY --chown=5:6 --chmod=4750 dir /d\nFROM scratch\nCOPY --from=x / /\nCOPY dir/a /d/b\n";
    place.file("context/Dockerfile", dockerfile);
    let flags = "build -q --build-arg SOURCE_DATE_EPOCH=1700000000 -t x";
    let output = place.container(&["--cap-drop=ALL"], &format!("kiln {flags} /workspace/context"));
    assert!(output.status.success(), "{}", text(&output));
    let root = place.as_root(&format!("{flags} context").split(' ').collect::<Vec<_>>());
    assert_eq!(output.stdout, root.stdout, "{}{}", text(&output), text(&root));
    // A process is refused before anything is done, with the reason.
    place.file("context/Dockerfile", "FROM scratch\nCOPY dir /d\nRUN [\"/x\"]\n");
    let output = place.container(&["--cap-drop=ALL"], "kiln build /workspace/context");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    assert!(text(&output).contains("capabilities CHOWN"), "{}", text(&output));
}

#[test]
fn it_refuses_outside_of_its_image() {
    let Some(place) = Place::new("outside") else { return };
    place.file("context/Dockerfile", &format!("{BASE}RUN true\n"));
    let refused = place.as_root(&["build", "--isolation", "in-place", "context"]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    assert!(text(&refused).contains("--force-in-place"), "{}", text(&refused));
    let script = "b rm /kiln/.in-place; kiln build /workspace/context; test $? = 4 || exit 1
        kiln build --force-in-place /workspace/context";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{}", text(&output));
    let info = place.container(&[AS_DOCKER], "kiln info");
    assert!(text(&info).contains("in-place:     works"), "{}", text(&info));
}
