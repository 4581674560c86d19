//! The level `rootless` for a user without ranges of numbers: what an image's processes are told, and what is left. That the
//! images are root's is `levels_root`'s to test. With root, to make such a user and to compare, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs;
use std::process::Output;
use user::{BASE, Place, text};

/// What a build or a process that went well printed.
#[track_caller]
fn stdout(output: &Output) -> String {
    assert!(output.status.success(), "{}", text(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn an_image_runs_as_its_user_and_nothing_is_left() {
    let Some(place) = Place::with_one_number() else { return };
    place.dockerfile(&format!("{BASE}RUN mkdir /d && touch /d/f && chown -R 77:77 /d && chmod 700 /d\nUSER me\n"));
    stdout(&place.as_user(["build", "-t", "x", "context"]));
    assert_eq!(stdout(&place.as_user(["run", "x", "id", "-u"])), "1000\n");
    assert_eq!(stdout(&place.as_user(["run", "x", "stat", "-c", "%u", "/d"])), "77\n");
    assert_eq!(place.as_user(["run", "x", "sh", "-c", "exit 7"]).status.code(), Some(7));
    stdout(&place.as_user(["rmi", "x"]));
    stdout(&place.as_user(["prune", "--all"]));
    for folder in ["snapshots", "tmp"] {
        let left = fs::read_dir(place.path("home/store").join(folder)).unwrap().count();
        assert_eq!(left, 0, "in {folder}");
    }
}

#[test]
fn a_process_that_asks_for_nonsense_is_told_what_the_kernel_would_tell() {
    let Some(place) = Place::with_one_number() else { return };
    let script = "! chown 1:1 /nowhere 2> /dev/null && ! mkdir /bin 2> /dev/null && \\
        ! mknod /bin b 1 1 2> /dev/null && echo a > /dev/stdout && \\
        chown 5 /dev/shm && test $(stat -c %u /dev/shm) = 5";
    place.dockerfile(&format!("{BASE}FROM base\nRUN {script}\nUSER me\nRUN ! chown 5 /bin && ! mknod /tmp/x c 1 1\n"));
    let args = ["build", "-q", "--build-arg=SOURCE_DATE_EPOCH=1700000000", "context"];
    assert_eq!(stdout(&place.as_root(args)), stdout(&place.as_user(args)));
}

#[test]
fn info_says_how_it_works_and_why() {
    let Some(place) = Place::with_one_number() else { return };
    let info = stdout(&place.as_user(["info"]));
    assert!(info.contains("rootless:") && info.contains("with a single number"), "{info}");
    assert!(info.contains("/etc/subuid gives 54321 no range"), "{info}");
}
