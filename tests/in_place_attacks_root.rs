//! Attacks of a RUN's program at the level `in-place`, that need more than a shell: this test's own program is put into the context,
//! and runs there as the command of a RUN. Each attack comes with a harmless variant that must succeed. In containers by Debian's podman
//! and runc; with root, to start them, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
#![allow(clippy::indexing_slicing, clippy::cast_possible_wrap, clippy::cast_sign_loss)]
#![allow(unsafe_code, reason = "attackers use system calls as they are")]

#[path = "attacks/attacker.rs"]
mod attacker;
#[path = "attacks/attributes.rs"]
mod attributes;
#[path = "support/container.rs"]
mod container;
#[path = "attacks/processes.rs"]
mod processes;
#[path = "attacks/sockets.rs"]
mod sockets;

use attacker::{become_user, in_a_copy, undumpable, without_capabilities};
use container::{AS_DOCKER, BASE, Place, run, text};
use rustix::fs::{AtFlags, CWD, Uid};
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Says to a program that it runs in a RUN, and as which user the attack is to be.
const ATTACK: &str = "KILN_TEST_ATTACK";

/// The user of the attack, if this is the program in a RUN.
fn inside() -> Option<u32> {
    std::env::var(ATTACK).ok().map(|user| user.parse().unwrap())
}

/// A place whose context has this program as `attacker`.
fn place(name: &str) -> Option<Place> {
    let place = Place::new(name)?;
    let program = place.path("context/attacker");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    if Path::new("/usr/bin/strip").exists() {
        run("strip", &[program.to_str().unwrap()]);
    }
    Some(place)
}

/// A step that executes a test of this program in a RUN, for a user.
fn attack(test: &str, user: u32) -> String {
    format!("RUN {ATTACK}={user} /attacker --exact {test} --nocapture --test-threads=1\n")
}

/// Builds these steps in a container, and then does more. All of it must succeed.
fn build(place: &Place, steps: &str, then: &str) {
    place.file("context/Dockerfile", &format!("{BASE}COPY --chmod=755 attacker /attacker\n{steps}"));
    let script = format!("kiln build --progress plain /workspace/context || exit 1\n{then}");
    let output = place.container(&[AS_DOCKER], &script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn root_without_capabilities_changes_no_hidden_file() {
    if inside().is_some() {
        attributes::assert_all_fail("root");
        attributes::assert_all_succeed("root", "/ok");
        attributes::in_another_root("/kiln", "/kiln");
        attributes::in_another_root("/workspace", "/of-another-user");
        without_capabilities();
        attributes::assert_all_fail("root without capabilities");
        attributes::assert_all_succeed("root without capabilities", "/etc/ok");
        assert!(rustix::fs::chownat(CWD, "/etc", Some(Uid::from_raw(7)), None, AtFlags::empty()).is_err());
        undumpable();
        attributes::assert_all_fail("root whose memory cannot be read");
        return;
    }
    changes_nothing_hidden("no-capabilities", "root_without_capabilities_changes_no_hidden_file");
}

#[test]
fn another_user_changes_no_hidden_file_of_its_own() {
    if inside().is_some() {
        become_user(1000);
        attributes::assert_all_fail("the owner of a hidden file");
        become_user(42);
        attributes::assert_all_fail("another user");
        // What was kept of the process says nothing of its copy.
        in_a_copy(|| {
            attributes::assert_all_fail("a copy");
            become_user(1000);
            attributes::assert_all_fail("a copy of the owner of a hidden file");
            become_user(0);
            attributes::assert_all_fail("a copy as root");
        });
        become_user(0);
        attributes::assert_all_fail("root that was another user");
        attributes::assert_absolute_paths_succeed("root that was another user", "/etc/ok");
        attributes::assert_absolute_paths_succeed("root that was another user", "/ok");
        return;
    }
    changes_nothing_hidden("other-user", "another_user_changes_no_hidden_file_of_its_own");
}

/// Builds with one attack, and compares the attributes of what is hidden before and after.
fn changes_nothing_hidden(name: &str, test: &str) {
    let Some(place) = place(name) else { return };
    place.file("of-another-user", "");
    std::os::unix::fs::chown(place.path("of-another-user"), Some(1000), Some(1000)).unwrap();
    let look = || {
        let stat = fs::symlink_metadata(place.path("of-another-user")).unwrap();
        (stat.mode(), stat.uid(), stat.mtime_nsec(), stat.ctime_nsec())
    };
    let before = look();
    build(
        &place,
        &attack(test, 0),
        "test \"$(b stat -c '%a %u' /kiln/kiln /kiln/home/.docker/config.json | b sort -u)\" = '644 0
755 0'",
    );
    assert_eq!(before, look());
}

#[test]
fn another_user_changes_its_own_files() {
    if let Some(user) = inside() {
        if rustix::process::geteuid().is_root() {
            become_user(user);
        }
        let file = format!("/tmp/of-{user}");
        attributes::assert_all_succeed("the user", &file);
        in_a_copy(|| attributes::assert_all_succeed("a copy", &file));
        return;
    }
    let Some(place) = place("own-files") else { return };
    let test = "another_user_changes_its_own_files";
    build(&place, &format!("{}USER 1000\n{}", attack(test, 42), attack(test, 1000)), "");
}

#[test]
fn no_process_outside_is_limited_or_slowed_down() {
    if let Some(user) = inside() {
        if user != 0 {
            become_user(user);
        }
        processes::assert_others_are_safe();
        return;
    }
    let Some(place) = place("starved") else { return };
    let test = "no_process_outside_is_limited_or_slowed_down";
    build(&place, &format!("{}{}", attack(test, 0), attack(test, 42)), "");
}

#[test]
fn processes_of_a_run_are_limited_and_slowed_down() {
    if inside().is_some() {
        processes::assert_own_can_be_changed();
        return;
    }
    let Some(place) = place("own-processes") else { return };
    let shell = "RUN echo out > /dev/stdout && echo err > /dev/stderr && echo out > /dev/fd/1 && echo out > /proc/self/fd/1 && \\
    echo in | cat /dev/stdin && echo in | cat /proc/self/fd/0 && renice -n 19 -p $$ && (sleep 1 & renice -n 19 -p $!) && taskset -p 1 $$ && \\
    ! echo name > /proc/self/comm && test $(cat /proc/sys/kernel/osrelease) && test -e /sys/kernel && \\
    echo file > /f && { echo more > /proc/self/fd/3; } 3>> /f && grep -q more /f && ls /proc/self /sys > /dev/null\n";
    build(&place, &format!("{}{shell}", attack("processes_of_a_run_are_limited_and_slowed_down", 0)), "");
}

#[test]
fn sockets_outside_receive_nothing() {
    if let Ok("serve") = std::env::var(ATTACK).as_deref() {
        return sockets::serve();
    }
    if let Some(user) = inside() {
        if user == 42 {
            become_user(user);
        }
        sockets::assert_out_of_reach(&format!("user {user}"), true);
        if user == 42 {
            in_a_copy(|| sockets::assert_out_of_reach("a copy", false));
        }
        #[cfg(target_arch = "x86_64")]
        sockets::assert_narrow_calls_are_answered(true);
        #[cfg(target_arch = "x86_64")]
        in_a_copy(|| sockets::assert_narrow_calls_are_answered(user != 42));
        sockets::race(true);
        undumpable();
        in_a_copy(|| sockets::race(false));
        return;
    }
    let Some(place) = place("sockets") else { return };
    let test = "sockets_outside_receive_nothing";
    let attacks = format!("{}{}USER 1000\n{}", attack(test, 0), attack(test, 42), attack(test, 1000));
    let steps = format!("{BASE}COPY --chmod=755 attacker /attacker\n{attacks}");
    place.file("context/Dockerfile", &steps);
    let script = format!(
        "{ATTACK}=serve /workspace/context/attacker --exact {test} > /kiln/server 2>&1 & server=$!
        until b grep -q listening /kiln/received; do b usleep 10000; done
        b chmod 777 /workspace /workspace/outside.* /kiln/outside.*
        kiln build --progress plain /workspace/context || exit 1
        b kill $server; test \"$(b cat /kiln/received)\" = listening || {{ b sort /kiln/received | b uniq -c; exit 2; }}"
    );
    let output = place.container(&[AS_DOCKER], &script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

#[test]
fn sockets_of_a_run_are_used() {
    if inside().is_some() {
        return sockets::assert_own_can_be_used();
    }
    let Some(place) = place("own-sockets") else { return };
    build(&place, &attack("sockets_of_a_run_are_used", 0), "");
}

/// Another program of that test.
#[test]
fn connects_as_a_user() {
    if let Ok(path) = std::env::var("KILN_TEST_CONNECT") {
        sockets::connect_to(&path);
    }
}
