//! The level `in-place`, inside an ordinary container: Debian's podman and runc with Docker's default seccomp profile (no
//! mount, unshare, pivot_root) and capabilities, from a root filesystem that holds nothing but kiln. That the images are root's is
//! `levels_root`'s to test. With root, to start containers, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, text};
use rustix::thread::CapabilitySet;
use std::fs;

#[test]
fn the_container_is_left_as_it_was_found() {
    let Some(place) = Place::new("left") else { return };
    place.file("context/good", &format!("{BASE}RUN mkdir /made && echo x > /made/x\n"));
    place.file("context/bad", &format!("{BASE}RUN mkdir /made && chmod 700 / && exit 7\n"));
    let script = "look() { b ls -lAR /etc /run /kiln/home; b stat -c '%n %a %u %g' /*; b stat -c '%n %a %u %g' /; b cat /etc/hosts; }
        look > /kiln/before
        cd /workspace/context
        kiln build -f good -t x . || exit 1
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 2
        kiln build -f bad -t x . ; test $? = 1 || exit 3
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 4
        kiln build -f good -t x . || exit 5
        look > /kiln/after; b diff /kiln/before /kiln/after || exit 6
        for code in 'kill -9 $$' 'kill -SEGV $$' '(sleep 1000 &); kill -TERM $$'; do
            { b cat good; echo \"RUN $code\"; } > /kiln/killed
            kiln build -f /kiln/killed . ; test $? = 1 || exit 8
            look > /kiln/after; b diff /kiln/before /kiln/after || exit 9
        done
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
    // The context is among what is set aside, as well as the folder that kiln is started in.
    let script = "list() { b stat -c '%n %a %u %g %F' / /*; b ls -lA /etc /src; }
        b cp -r /workspace/context /src
        list > /kiln/before
        cd /src
        for signal in TERM INT KILL; do
            /kiln/kiln build -f slow . & pid=$!
            until test -e /made/x; do b usleep 10000; done
            b kill -$signal $pid; wait $pid
            test $signal = KILL || { list > /kiln/after; b diff /kiln/before /kiln/after || exit 1; }
            kiln build -f good . || exit 2
            list > /kiln/after; b diff /kiln/before /kiln/after || exit 3
        done
        ! b ps | b grep -q 'sleep 1000' || b ps";
    let output = place.container(&[AS_DOCKER, "--init=false"], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn builds_of_one_container_wait_for_each_other() {
    let Some(place) = Place::new("turns") else { return };
    place.file(
        "context/slow",
        &format!(
            "{BASE}RUN mkdir /made && touch /made/x && until test -e /made/go; do usleep 10000; done; rm /made/go\n"
        ),
    );
    place.file("context/good", &format!("{BASE}RUN touch /good\nCOPY good /copied\n"));
    let script = "list() { b stat -c '%n %a %u %g %F' / /*; b ls -lA /etc /src; }
        b cp -r /workspace/context /src
        list > /kiln/before
        cd /src
        kiln build -q --build-arg SOURCE_DATE_EPOCH=1 -t slow -f slow . > /kiln/first & first=$!
        until test -e /made/x; do b usleep 10000; done
        kiln build -q --build-arg SOURCE_DATE_EPOCH=1 -t good -f good . > /kiln/second 2> /kiln/said & second=$!
        until b grep -q 'waiting for another build in this container' /kiln/said; do b usleep 10000; done
        b touch /made/go
        wait $first || exit 1
        wait $second || { b cat /kiln/said; exit 2; }
        list > /kiln/after; b diff /kiln/before /kiln/after >&2 || exit 3
        b cat /kiln/second";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
    let root = place.as_root(&["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1", "-f", "context/good", "context"]);
    let digests = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(digests.lines().last(), Some(String::from_utf8_lossy(&root.stdout).trim()), "{}", text(&output));
}

#[test]
fn a_process_reaches_nothing_but_its_stage() {
    let Some(place) = Place::new("walls") else { return };
    place.file(
        "context/Dockerfile",
        &format!(
            "{BASE}RUN ! ls -l /proc/1/fd /proc/$PPID/fd | grep -e '->' && ! ls -l /proc/1/cwd/ && ! head -c 1 /proc/$PPID/mem && ! cat /kiln/store/in-place/crash-journal /kiln/store/in-place/own/etc/mtab\n\
             RUN for f in /kiln/home/.docker/config.json /kiln/kiln /kiln/store/kiln-store /workspace/secret /proc/1/environ \\
                /proc/$PPID/environ /proc/1/mem /proc/1/root/kiln/kiln; do ! head -c 1 $f || exit 1; done\n\
             RUN for d in /kiln /kiln/store /workspace; do ! touch $d/new && ! mkdir $d/dir && ! mv /etc $d/ || exit 1; done\n\
             RUN ! rm /kiln/kiln && ! mv /kiln/kiln /etc/x && ! ln /kiln/kiln /etc/y && ! kill -9 1\n\
             RUN ! env | grep -q s3cr3t\n\
             RUN cd /kiln/store/in-place/pools/0 && for d in directories/*; do echo planted > $d/f; done; for f in files/*; do echo planted > $f; done; true\n\
             RUN mkdir /planted && touch /empty && test -z \"$(ls -A /planted)\" && test ! -s /empty\n\
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
    assert!(!text(&output).contains("there is no Landlock here"), "{}", text(&output));
}

/// Docker's seccomp profile, as of a kernel that has no Landlock; with its flag.
fn without_landlock(place: &Place) -> String {
    let profile = kiln::sandbox::seccomp::oci::profile(CapabilitySet::SYS_CHROOT).to_string();
    assert!(profile.contains("\"landlock_create_ruleset\""));
    let file = place.path("seccomp.json");
    fs::write(&file, profile.replace("\"landlock_", "\"no_")).unwrap();
    format!("--security-opt=seccomp={}", file.display())
}

#[test]
fn without_landlock_credentials_are_in_kilns_memory_alone() {
    let Some(place) = Place::new("removal") else { return };
    let seccomp = without_landlock(&place);
    place.file("home/token", "s3cr3t").file("home/aws", "[default]\naws_secret_access_key = s3cr3t\n");
    let look = "for f in /proc/1/environ /proc/$PPID/environ /proc/$PPID/mem /kiln/home/.docker/config.json /workspace/home/token \\
            /workspace/home/aws; do ! head -c 1 $f || exit 1; done; ! ls -l /proc/1/fd /proc/$PPID/fd | grep -e '->' && ! env | grep s3cr3t && \\
            ! grep -r -E 's3cr3t|dTpzM2NyM3Q' /kiln/home /workspace/home";
    place.file(
        "context/good",
        &format!("{BASE}RUN --mount=type=secret,id=s test $(cat /run/secrets/s) = s3cr3t\nRUN {look}\nCOPY token /\nRUN test -e /token\nUSER me\nRUN {look}\n"),
    );
    place.file("context/token", "in the context").file("context/bad", &format!("{BASE}RUN exit 7\n"));
    place.file("context/slow", &format!("{BASE}RUN echo > /started; sleep 1000\n"));
    let script = "look() { b ls -l --full-time /kiln/home/.docker /workspace/home /workspace/context/token; b cat /kiln/home/.docker/* /workspace/home/*; }
        export AWS_SHARED_CREDENTIALS_FILE=/workspace/home/aws
        look > /kiln/before
        build() { kiln build --force-in-place --progress plain --secret id=s,src=/workspace/home/token --secret id=c,src=/workspace/context/token -f $1 .; }
        same() { look > /kiln/after; b diff /kiln/before /kiln/after || exit $1; }
        cd /workspace/context
        build good || exit 1
        same 2
        build bad; test $? = 1 || exit 3
        same 4
        for signals in TERM HUP 'INT INT' 'TERM TERM'; do
            /kiln/kiln build --force-in-place --no-cache -f slow --secret id=s,src=/workspace/home/token . & pid=$!
            until test -e /started; do b usleep 10000; done
            test ! -e /workspace/home/token || exit 5
            for signal in $signals; do b kill -$signal $pid; done
            wait $pid
            # What the second signal left is put right by the supervisor.
            same 6
        done
        for killed in supervisor worker; do
            /kiln/kiln build --force-in-place --no-cache -f slow --secret id=s,src=/workspace/home/token . & pid=$!
            until test -e /started; do b usleep 10000; done
            worker=$(b cat /proc/$pid/task/$pid/children)
            test ! -e /workspace/home/token && test ! -e /workspace/home/aws || exit 7
            if test $killed = worker; then b kill -KILL $worker; else b kill -KILL $pid; fi
            wait $pid; test $? = 137 || exit 8
            while b grep State: /proc/$worker/status 2> /dev/null | b grep -qv Z; do b usleep 10000; done
            same 9
        done";
    let output = place.container(&[AS_DOCKER, &seccomp], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
    assert!(text(&output).contains("warning: there is no Landlock here"), "{}", text(&output));
}

#[test]
fn without_landlock_nothing_runs_unless_it_is_forced() {
    let Some(place) = Place::new("exposed") else { return };
    let seccomp = without_landlock(&place);
    place.file("config.json", "{}").file("context/Dockerfile", &format!("{BASE}RUN true\n"));
    let mount = format!("-v={}:/kiln/home/.docker/config.json:ro", place.path("config.json").display());
    let output = place.container(&[AS_DOCKER, &seccomp], "kiln build /workspace/context");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output));
    for part in ["there is no Landlock here", "could change kiln's program", "--force-in-place"] {
        assert!(text(&output).contains(part), "{part}: {}", text(&output));
    }
    // Credentials that are mounted cannot be hidden.
    let output = place.container(&[AS_DOCKER, &seccomp, &mount], "kiln build --force-in-place /workspace/context");
    assert!(output.status.success(), "{}", text(&output));
    assert!(text(&output).contains("read and change everything else"), "{}", text(&output));
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
