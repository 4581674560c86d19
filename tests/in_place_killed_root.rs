//! What is left of a build at the level `in-place` that is killed, interrupted or starved: nothing. `/` is as it was, and no process
//! of a RUN lives. In containers by Debian's podman and runc; with root, to start them, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, text};

/// A RUN whose processes hide in sessions of their own, ignore signals, or are stopped, and all sleep for 123 seconds and some more.
/// One of them waits for kiln's lock on `/`.
const HIDES: &str = "RUN mkdir /made; echo > /dev/shm/left; (setsid sh -c '(setsid sleep 1234 &); sleep 1235' &); \
    (setsid sh -c 'trap \"\" HUP INT TERM; setsid sleep 1231; sleep 1232' &); \
    (/hostile lock 1238 &); (/hostile hide 1239 &); (sleep 1233 & kill -STOP $!); setsid sleep 1236 & \
    sleep 0.5; echo > /started; sleep 1237\n";

/// Functions for scripts: `look` prints what is in `/`; `same N` exits with N unless that is as it was at `before`; `alive` prints
/// the processes that sleep for 123 seconds and some more, and `dead N` exits with N if there are any.
const FUNCTIONS: &str = "look() { b stat -c '%n %a %u %g' / /*; b ls -lA /etc /run /dev/shm; }
    before() { look > /kiln/before; }
    same() { look > /kiln/after; b diff /kiln/before /kiln/after || exit $1; }
    alive() { b ps -o pid,ppid,stat,args | b grep -e 'sleep 123' -e 'lock 123' -e 'hide 123' | b grep -v grep; }
    dead() { ! alive || exit $1; }
    started() { until test -e /started; do b usleep 10000; done; }
    worker() { b cat /proc/$1/task/$1/children; }
    gone() { while b grep State: /proc/$1/status 2> /dev/null | b grep -qv Z; do b usleep 10000; done; }
    cd /workspace/context; before\n";

fn place(name: &str) -> Option<Place> {
    let place = Place::new(name)?;
    let hostile = place.path("context/hostile");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/hostile.c");
    container::run("cc", &["-static", "-O1", "-o", hostile.to_str().unwrap(), source]);
    place
        .file("context/slow", &format!("{BASE}COPY hostile /hostile\n{HIDES}"))
        .file("context/good", &format!("{BASE}RUN touch /good\n"));
    place.file("context/none", &format!("{BASE}COPY good /good\n"));
    Some(place)
}

/// A script that must go well, with these functions; what it says.
fn script(place: &Place, flags: &[&str], script: &str) -> String {
    let flags: Vec<&str> =
        [AS_DOCKER, "--pids-limit=300", "--memory=1g", "--timeout=200"].iter().chain(flags).copied().collect();
    let output = place.container(&flags, &format!("{FUNCTIONS}{script}"));
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
    text(&output)
}

#[test]
fn a_killed_worker_is_cleaned_up_by_its_supervisor() {
    let Some(place) = place("worker") else { return };
    let said = script(
        &place,
        &[],
        "/kiln/kiln build -f slow . & pid=$!
        started
        b kill -KILL $(worker $pid)
        wait $pid; test $? = 137 || exit 1
        same 2; dead 3
        kiln build -f good . || exit 4
        same 5",
    );
    assert!(said.contains("kiln was killed by signal 9 (SIGKILL)") && said.contains("/ is as it was before"), "{said}");
}

#[test]
fn a_killed_supervisor_is_cleaned_up_by_its_worker() {
    let Some(place) = place("supervisor") else { return };
    script(
        &place,
        &[],
        "/kiln/kiln build -f slow . & pid=$!
        started
        worker=$(worker $pid)
        b kill -KILL $pid
        wait $pid; test $? = 137 || exit 1
        gone $worker
        same 2; dead 3
        kiln build -f good . || exit 4
        same 5",
    );
}

#[test]
fn what_both_left_is_cleaned_up_by_the_next_build_even_without_a_run() {
    let Some(place) = place("both") else { return };
    for next in ["good", "none"] {
        let said = script(
            &place,
            &[],
            &format!(
                "/kiln/kiln build -f slow . & pid=$!
                started
                b kill -KILL $(worker $pid) $pid
                wait $pid; test $? = 137 || exit 1
                alive > /dev/null || exit 2
                b timeout 100 /kiln/kiln build -f {next} . || exit 3
                b rm /dev/shm/left
                same 4; dead 5"
            ),
        );
        assert!(!said.contains("waiting for another build"), "{said}");
    }
}

#[test]
fn an_interrupted_build_leaves_nothing_and_a_signal_counts_once() {
    let Some(place) = place("signals") else { return };
    for (signal, target, code) in [
        ("INT", "$pid", 130),
        ("TERM", "$pid", 130),
        ("INT", "-$pid", 130),
        ("HUP", "$pid", 129),
        ("HUP", "-$pid", 129),
    ] {
        let said = script(
            &place,
            &[],
            // A command in the background has no process group of its own here, and ignores SIGINT.
            &format!(
                "/kiln/busybox setsid /kiln/kiln build -f slow . & pid=$!
                started
                b kill -{signal} {target}
                wait $pid; test $? = {code} || exit 1
                same 2; dead 3
                kiln build -f good . || exit 4
                same 5"
            ),
        );
        assert_eq!(said.contains("error: stopped"), code == 130, "{signal} to {target}: {said}");
        assert!(!said.contains("kiln was killed"), "{signal} to {target}: {said}");
    }
}

#[test]
fn orphans_are_reaped_at_once() {
    let Some(place) = Place::new("zombies") else { return };
    place.file(
        "context/Dockerfile",
        &format!(
            "{BASE}RUN (sleep 0.1 &) ; (exit 0 &); (setsid sh -c 'exit 3' &); (sh -c 'sleep 0.2; exit 4' &); sleep 1; \
             ps -o pid,ppid,stat,comm > /list; cat /list; ! grep -E ' Z|defunct' /list\n"
        ),
    );
    script(&place, &[], "kiln build --progress plain .");
}
