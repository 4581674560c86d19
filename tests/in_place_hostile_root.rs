//! What hostile builds try at the level `in-place`, where all that keeps them off are rules and filters: to change what isn't
//! theirs, and to leave something to the next one. In containers by Debian's podman and runc; with root, to start them, and
//! Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, text};

/// Builds the files `context/1`, `context/2`… in one container, one after the other, each with all its steps.
fn builds(name: &str, dockerfiles: &[&str], after: &str) {
    let Some(place) = Place::new(name) else { return };
    for (number, dockerfile) in dockerfiles.iter().enumerate() {
        place.file(&format!("context/{}", number + 1), &format!("{BASE}{dockerfile}"));
    }
    let script = format!(
        "cd /workspace/context; for n in $(b seq {}); do
            b timeout 100 /kiln/kiln build --no-cache --progress plain -f $n . || {{ echo build $n failed; exit 1; }}
        done\n{after}",
        dockerfiles.len()
    );
    let output = place.container(&[AS_DOCKER], &script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn a_run_changes_no_attribute_of_what_is_closed() {
    builds(
        "attributes",
        &["FROM base
RUN mkdir /ok && touch /ok/f && chmod 640 /ok/f && chown 5:6 /ok /ok/f && touch -d @1 /ok/f && \\
    test \"$(stat -c '%a %u %g %Y' /ok/f)\" = '640 5 6 1' && chmod 711 / && ls / | grep -q ok && chmod 755 / && chown 1:1 /dev/stdout
RUN for f in /kiln /kiln/kiln /kiln/store /kiln/home/.docker/config.json /kiln/store/in-place/pools/0/directories /workspace /workspace/context/1; do \\
        ! chmod 4777 $f && ! chown 1000 $f && ! chown -h 1000 $f && ! touch -c $f || exit 1; \\
        cd /kiln && ! chmod 4777 ../$f && ln -sfn $f /link && ! chmod 4777 /link || exit 2; \\
    done
RUN ! ls /kiln && ! ls /kiln/store/in-place/pools/0/directories && ! ls /workspace && cd /kiln && ! ls && ls .. | grep -q kiln
USER 1000:1000
RUN ls / | grep -q kiln && ! ls /kiln && ! chmod 777 /kiln/kiln
"],
        "test \"$(b stat -c '%a %u' /kiln/kiln /kiln/home/.docker/config.json | b sort -u | b tr '\\n' ,)\" = '644 0,755 0,' || exit 2
        test \"$(b stat -c %u /workspace/context/1)\" = 0 || exit 3",
    );
}

#[test]
fn a_cache_mount_comes_back_as_the_folder_that_it_was() {
    let second = "FROM base\nRUN --mount=type=cache,target=/c test -d /c && test ! -L /c && test -z \"$(ls -A /c)\" && \
                  ! cat /c/.docker/config.json && ! cat /c/config.json\n";
    builds(
        "swapped",
        &["FROM base\nRUN --mount=type=cache,target=/c mv /c /moved && ln -s /kiln/home /c\n", second],
        "test -e /kiln/home/.docker/config.json",
    );
    builds("piped", &["FROM base\nRUN --mount=type=cache,target=/c rmdir /c && mkfifo /c\n", second], "");
}

#[test]
fn no_mount_and_no_work_folder_leads_to_what_is_closed() {
    let Some(place) = Place::new("links") else { return };
    let links = "RUN ln -s /kiln /x && ln -s /kiln/home /y && ln -s /workspace /w\n";
    for (number, line) in [
        "RUN --mount=type=bind,from=base,source=/bin/busybox,target=/x/git true",
        "RUN --mount=type=cache,target=/y/.docker true",
        "RUN --mount=type=tmpfs,target=/y/new/deep true",
        "RUN --mount=type=tmpfs,target=/kiln true",
        "WORKDIR /x/made\nRUN true",
        "WORKDIR /w/made\nRUN true",
    ]
    .iter()
    .enumerate()
    {
        place.file(&format!("context/{number}"), &format!("{BASE}{links}{line}\n"));
    }
    let script = "b ls -a /kiln /kiln/home /kiln/home/.docker /workspace > /tmp.before
        for n in 0 1 2 3 4 5; do
            kiln build -f /workspace/context/$n /workspace/context && { echo $n was built; exit 1; }
        done
        b ls -a /kiln /kiln/home /kiln/home/.docker /workspace > /tmp.after
        b sed -i /store/d /tmp.before; b sed -i /store/d /tmp.after
        b diff /tmp.before /tmp.after";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn devices_and_shared_memory_are_for_the_next_run_what_they_were() {
    builds(
        "devices",
        &[
            "FROM base
RUN rm /dev/null && echo stdin > /dev/null; rm /dev/urandom; echo known > /dev/urandom; rm /dev/fd /dev/zero; \\
    chmod 0 /dev/random; mkfifo /dev/left; chown 7 /dev/tty; mkdir -p /dev/shm/left/deep; chmod 700 /dev/shm /dev; \\
    chmod 600 /dev/pts/ptmx; chown 5:6 /dev/pts/ptmx; chmod 777 /dev/pts; test $(stat -c %a%u /dev/pts/ptmx) = 6005
",
            "FROM base
USER 1000
RUN test -z \"$(cat)\" && for d in null zero full random urandom tty; do test -c /dev/$d && test $(stat -c %a%u /dev/$d) = 6660 || exit 1; done; \\
    test $(stat -c %a%u /dev/pts/ptmx) = 6660 && test $(stat -c %a /dev/pts) = 755 && head -c 8 /dev/random > /dev/null && test -e /dev/fd/0 && test ! -e /dev/left && test ! -e /dev/shm/left && touch /dev/shm/x
",
        ],
        "",
    );
}

#[test]
fn a_killed_build_leaves_no_process_that_the_next_one_meets() {
    let Some(place) = Place::new("orphans") else { return };
    let hides = "(setsid sh -c '(setsid sleep 1234 &); sleep 1235' &); setsid sleep 1236 & ";
    place.file("context/slow", &format!("{BASE}RUN {hides} echo > /tmp/started; sleep 1237\n"));
    place.file("context/good", &format!("{BASE}RUN ! ps | grep -v grep | grep 'sleep 123'\n"));
    let script = "cd /workspace/context; b sleep 1111 & setup=$!
        /kiln/kiln build --secret id=s,src=/workspace/context/good -f slow . & pid=$!
        until test -e /tmp/started; do b usleep 10000; done
        b kill -KILL $pid; wait $pid
        kiln build -f good . || exit 1
        ! b ps | b grep -v grep | b grep 'sleep 123' || exit 2
        test -z \"$(b ls /kiln/store/in-place/binds)\" || exit 3
        b kill $setup";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}
