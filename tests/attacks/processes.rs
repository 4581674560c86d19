//! Changes of the limits, the scheduling and the settings of processes that are not the RUN's.

use super::attacker::call;
use rustix::io::Errno;
use std::fs;
use std::process::{Child, Command};

const PROCESS: usize = 0;
const GROUP: usize = 1;
const USER: usize = 2;

/// Every way to slow down or limit the process `pid` of the process group `group`, with its result.
fn starve(pid: usize, group: usize) -> Vec<(&'static str, Result<libc::c_long, Errno>)> {
    let limit = [100_u64, 100];
    let limit = limit.as_ptr() as usize;
    let resource = libc::RLIMIT_NOFILE as usize;
    let (mask, parameter) = ([1_u64], [0_i32]);
    let (mask, parameter) = (mask.as_ptr() as usize, parameter.as_ptr() as usize);
    // `struct sched_attr`: size, SCHED_BATCH, flags, nice.
    let attributes = [48_u32, libc::SCHED_BATCH as u32, 0, 0, 19, 0, 0, 0, 0, 0, 0, 0];
    let attributes = attributes.as_ptr() as usize;
    let idle = 3 << 13;
    vec![
        ("prlimit64", call(libc::SYS_prlimit64, [pid, resource, limit, 0, 0, 0])),
        ("sched_setaffinity", call(libc::SYS_sched_setaffinity, [pid, 8, mask, 0, 0, 0])),
        (
            "sched_setscheduler",
            call(libc::SYS_sched_setscheduler, [pid, libc::SCHED_BATCH as usize, parameter, 0, 0, 0]),
        ),
        ("sched_setparam", call(libc::SYS_sched_setparam, [pid, parameter, 0, 0, 0, 0])),
        ("sched_setattr", call(libc::SYS_sched_setattr, [pid, attributes, 0, 0, 0, 0])),
        ("setpriority", call(libc::SYS_setpriority, [PROCESS, pid, 19, 0, 0, 0])),
        ("setpriority of a group", call(libc::SYS_setpriority, [GROUP, group, 19, 0, 0, 0])),
        ("ioprio_set", call(libc::SYS_ioprio_set, [PROCESS + 1, pid, idle, 0, 0, 0])),
        ("ioprio_set of a group", call(libc::SYS_ioprio_set, [GROUP + 1, group, idle, 0, 0, 0])),
    ]
}

/// Whatever is outside: all processes that this one is not a child of, and their threads.
fn others() -> Vec<(usize, usize)> {
    let own = std::process::id().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let stat = fs::read_to_string(format!("/proc/{name}/stat")).unwrap_or_default();
        let Some((_, fields)) = stat.rsplit_once(')') else { continue };
        let status = fs::read_to_string(format!("/proc/{name}/status")).unwrap();
        // The shell of the RUN is confined as well.
        if name == own || name == "self" || status.contains("NoNewPrivs:\t1") {
            continue;
        }
        let group = fields.split_whitespace().nth(2).unwrap().parse().unwrap();
        for thread in fs::read_dir(format!("/proc/{name}/task")).unwrap() {
            found.push((thread.unwrap().file_name().to_str().unwrap().parse().unwrap(), group));
        }
    }
    assert!(found.len() >= 2, "kiln and the container's first process: {found:?}");
    found
}

/// What the calls above could change of a process.
fn state(pid: usize) -> String {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // Priority, nice value, policy.
    let scheduling = [fields[15], fields[16], fields[38]];
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let allowed = status.lines().find(|line| line.starts_with("Cpus_allowed:")).unwrap();
    format!("{scheduling:?} {allowed}")
}

pub(crate) fn assert_others_are_safe() {
    for (pid, group) in others() {
        let before = state(pid);
        for (way, done) in starve(pid, group) {
            assert!(matches!(done, Err(Errno::PERM | Errno::ACCESS)), "{way} of {pid}: {done:?}");
        }
        for file in
            ["oom_score_adj", "comm", "coredump_filter", "timerslack_ns", "clear_refs", "autogroup", "uid_map", "sched"]
        {
            let path = format!("/proc/{pid}/{file}");
            let opened = fs::File::options().write(true).open(&path);
            assert!(opened.is_err(), "{path} was opened for writing");
        }
        assert_eq!(state(pid), before, "{pid}");
    }
    for (way, number, class) in
        [("setpriority", libc::SYS_setpriority, USER), ("ioprio_set", libc::SYS_ioprio_set, USER + 1)]
    {
        let done = call(number, [class, 0, 5, 0, 0, 0]);
        assert_eq!(done, Err(Errno::PERM), "{way} of all of a user's processes");
    }
    for path in ["/proc/sysrq-trigger", "/proc/sys/kernel/core_pattern", "/proc/self/oom_score_adj"] {
        assert!(fs::File::options().write(true).open(path).is_err(), "{path} was opened for writing");
    }
    writes_nothing_below("/sys/fs/cgroup");
}

/// Opens every file there for writing.
fn writes_nothing_below(dir: &str) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let opened = entry.path().is_file() && fs::File::options().write(true).open(entry.path()).is_ok();
        assert!(!opened, "{:?} was opened for writing", entry.path());
    }
}

/// What `nice`, `renice`, `taskset -p`, `ionice -p` and `prlimit --pid` do.
pub(crate) fn assert_own_can_be_changed() {
    let own = std::process::id() as usize;
    let group = rustix::process::getpgrp().as_raw_pid() as usize;
    for pid in [0, own] {
        assert_eq!(failures(pid, 0), [], "itself as {pid}");
        assert_eq!(failures(pid, group), [], "itself as {pid}, with its group");
    }
    let mut child = sleep();
    assert_eq!(failures(child.id() as usize, group), [], "a child");
    child.kill().unwrap();
    child.wait().unwrap();
    let gone = child.id() as usize;
    assert_eq!(call(libc::SYS_setpriority, [PROCESS, gone, 5, 0, 0, 0]), Err(Errno::SRCH));
    let mut limit = [0_u64; 2];
    for (pid, _) in others() {
        let asked =
            call(libc::SYS_prlimit64, [pid, libc::RLIMIT_NOFILE as usize, 0, limit.as_mut_ptr() as usize, 0, 0]);
        assert!(asked.is_ok() || asked == Err(Errno::PERM), "limits may be read: {asked:?}");
    }
}

fn failures(pid: usize, group: usize) -> Vec<(&'static str, Result<libc::c_long, Errno>)> {
    starve(pid, group).into_iter().filter(|(_, done)| done.is_err()).collect()
}

fn sleep() -> Child {
    Command::new("/bin/sleep").arg("100").spawn().unwrap()
}
