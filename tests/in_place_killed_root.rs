//! What is left of a build at the level `in-place` that is killed, interrupted or starved: nothing. `/` is as it was, and no process
//! of a RUN lives. In containers by Debian's podman and runc; with root, to start them, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, text};
use std::fs;
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A RUN whose processes hide in sessions of their own, ignore signals, or are stopped, and all have a number from 1230 to 1249 as their last argument.
/// One of them waits for kiln's lock on `/`.
const HIDES: &str = "RUN mkdir /made; echo > /dev/shm/left; (setsid sh -c '(setsid sleep 1234 &); sleep 1235' &); \
    (setsid sh -c 'trap \"\" HUP INT TERM; setsid sleep 1231; sleep 1232' &); \
    (/hostile lock 1238 &); (/hostile hide 1239 &); (/hostile headless &); (sleep 1233 & kill -STOP $!); setsid sleep 1236 & \
    sleep 0.5; echo > /started; sleep 1237\n";

/// RUNs that use up something of the container, and leave processes.
const STARVING: [(&str, &str); 6] = [
    ("eat", "for n in $(seq 20); do (/hostile eat &); done; /hostile eat"),
    ("share", "(sleep 1240 &); /hostile share"),
    ("lowered", "(sleep 1241 &); echo 0 > /proc/self/oom_score_adj; while true; do /hostile share; done"),
    ("bomb", "echo > /started; exec /hostile bomb"),
    ("bombs", "(/hostile bomb 1242 &); sleep 1\nRUN ! ps | grep -v grep | grep /hostile"),
    ("hops", "for n in 1 2 3 4; do (/hostile hop 1243 &); done; sleep 1\nRUN ! ps | grep -v grep | grep /hostile"),
];

/// Functions for scripts: `look` prints what is in `/`; `same N` exits with N unless that is as it was at `before`; `alive` prints
/// the processes that have a number from 1230 to 1249 as their last argument, and `dead N` exits with N if there are any.
const FUNCTIONS: &str = "look() { b stat -c '%n %a %u %g' / /*; b ls -lA /etc /run /dev/shm; }
    before() { look > /kiln/before; }
    same() { look > /kiln/after; b diff /kiln/before /kiln/after || exit $1; }
    alive() { b ps -o pid,ppid,stat,args | b grep -e ' 12[34][0-9]$' -e '[[]headless' | b grep -v grep; }
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
    for (name, run) in STARVING {
        place.file(&format!("context/{name}"), &format!("{BASE}COPY hostile /hostile\nRUN mkdir /made\nRUN {run}\n"));
    }
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
        script(
            &place,
            &[],
            &format!(
                "/kiln/kiln build -f slow . & pid=$!
                started
                both=\"$(worker $pid) $pid\"; b kill -STOP $both; b kill -KILL $both
                wait $pid; test $? = 137 || exit 1
                alive > /dev/null || exit 2
                b timeout 100 /kiln/kiln build -f {next} . || exit 3
                b rm /dev/shm/left
                same 4; dead 5"
            ),
        );
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

#[test]
fn a_run_that_uses_up_memory_dies_and_kiln_lives() {
    let Some(place) = place("memory") else { return };
    for name in ["eat", "share"] {
        let said = script(
            &place,
            &["--memory=200m", "--shm-size=1g"],
            &format!(
                "kiln build -f {name} . ; test $? = 1 || exit 1
                same 2; dead 3; test $(b wc -l < /proc/sysvipc/shm) = 1 || exit 4
                kiln build -f good . || exit 5"
            ),
        );
        assert!(said.contains("ran out of memory"), "{said}");
    }
}

#[test]
fn a_worker_that_dies_for_want_of_memory_is_cleaned_up() {
    let Some(place) = place("lowered") else { return };
    // The RUN wants to be no likelier to die than kiln. If it is not allowed to, it dies first.
    script(
        &place,
        &["--memory=200m"],
        "kiln build -f lowered . ; code=$?; test $code = 137 || test $code = 1 || exit 1
        same 2; dead 3; test $(b wc -l < /proc/sysvipc/shm) = 1 || exit 4
        kiln build -f good . || exit 5",
    );
}

#[test]
fn processes_that_multiply_are_ended() {
    let Some(place) = place("multiply") else { return };
    for name in ["bombs", "hops"] {
        script(&place, &["--pids-limit=150"], &format!("kiln build -f {name} . || exit 1; same 2; dead 3"));
    }
}

#[test]
fn a_build_without_pids_is_ended_all_the_same() {
    let Some(place) = place("pids") else { return };
    for (signal, whom, code) in [("TERM", "$pid", 130), ("KILL", "$worker", 137), ("KILL", "$pid", 137)] {
        // The shell has no PID left for a program, and does everything by itself.
        script(
            &place,
            &["--pids-limit=100"],
            &format!(
                "b mkfifo /kiln/never
                /kiln/kiln build -f bomb . & pid=$!
                until test -e /started; do :; done
                read -t 1 nothing <> /kiln/never
                read worker rest < /proc/$pid/task/$pid/children
                kill -{signal} {whom}
                wait $pid; test $? = {code} || exit 1
                is_alive() {{ while read key state rest; do test $key = State: && test $state != Z && return 0; done < $1; return 1; }}
                while is_alive /proc/$worker/status 2> /dev/null; do read -t 0.1 nothing <> /kiln/never; done
                b rm /kiln/never
                same 2; dead 3
                kiln build -f good . || exit 4"
            ),
        );
    }
}

/// A control group whose processes do nothing, not even die; it is thawed and removed when dropped.
struct Frozen(PathBuf);

impl Frozen {
    fn new(process: &str) -> Self {
        let group = Path::new("/sys/fs/cgroup/freezer").join(format!("kiln-test-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        fs::write(group.join("cgroup.procs"), process).unwrap();
        fs::write(group.join("freezer.state"), "FROZEN").unwrap();
        Self(group)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("freezer.state"), "THAWED");
        while fs::remove_dir(&self.0).is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// The process with this command line, once there is one.
fn find(command: &[u8]) -> String {
    let deadline = Instant::now() + Duration::from_secs(100);
    while Instant::now() < deadline {
        let mut pids = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        if let Some(pid) = pids.find(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == command)) {
            return pid;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    panic!("no {}", String::from_utf8_lossy(command));
}

#[test]
fn a_process_that_cannot_be_killed_is_named_and_nothing_waits_for_it() {
    if !Path::new("/sys/fs/cgroup/freezer").exists() {
        println!("skipped: it needs the freezer of control groups of version 1");
        return;
    }
    let Some(place) = place("frozen") else { return };
    let number = format!("{}12345", std::process::id());
    place.file("context/frozen", &format!("{BASE}RUN mkdir /made; (setsid sleep {number} &); sleep 5\n"));
    let said = std::thread::scope(|scope| {
        let build = scope.spawn(|| {
            let check = "/kiln/kiln build -f frozen . ; test $? = 4 || exit 1; same 2; echo > /workspace/done";
            script(&place, &[], check)
        });
        let frozen = Frozen::new(&find(format!("sleep\0{number}\0").as_bytes()));
        while !place.path("done").exists() && !build.is_finished() {
            std::thread::sleep(Duration::from_millis(50));
        }
        drop(frozen);
        build.join().unwrap()
    });
    assert!(said.contains("cannot end processes of the RUN: sleep (PID ") && said.contains("state D"), "{said}");
}

/// What a program has written so far.
fn collect(mut from: impl Read + Send + 'static) -> Arc<Mutex<String>> {
    let text = Arc::new(Mutex::new(String::new()));
    let mine = Arc::clone(&text);
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            mine.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
        }
    });
    text
}

#[test]
fn a_terminal_stops_continues_and_interrupts_a_build() {
    let Some(place) = place("terminal") else { return };
    place.file("context/wait", &format!("{BASE}RUN mkdir /made; echo RUN''NING; sleep 1244\n"));
    let build = "set -m; /kiln/kiln build --progress plain -f wait . ; echo code $?; fg; echo code $?; same 2; dead 3";
    let flags = [AS_DOCKER, "--pids-limit=300", "--memory=1g", "--timeout=200", "-i", "-t"];
    let mut command = place.command(&flags, &format!("{FUNCTIONS}{build}"));
    let mut container = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let said = collect(container.stdout.take().unwrap());
    let mut keyboard = container.stdin.take().unwrap();
    let mut type_after = |text: &str, key: &[u8]| {
        while !said.lock().unwrap().contains(text) && container.try_wait().unwrap().is_none() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // The shell makes the job the one that the terminal's signals are for.
        std::thread::sleep(Duration::from_millis(500));
        keyboard.write_all(key).unwrap();
    };
    type_after("RUNNING", b"\x1a");
    type_after("code 148", b"\x03");
    assert!(container.wait().unwrap().success(), "{}", said.lock().unwrap());
    let said = said.lock().unwrap().clone();
    assert!(said.contains("error: stopped") && said.contains("code 130"), "{said}");
}
