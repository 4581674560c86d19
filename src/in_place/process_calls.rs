//! Refuses the system calls that change the limits and the scheduling of processes outside the RUN.
//!
//! kiln and the container's other processes have the same user as a RUN, so the kernel would let it lower their limits or stop them from
//! running. Landlock does not cover these calls. They name a process by its number, which the filter sees: a call on the caller itself
//! (number 0) goes on without asking kiln. kiln decides about other numbers by looking at the process. That needs no lock: kiln's own
//! processes live on, so their numbers are given to nobody else meanwhile.

use crate::sandbox::seccomp::{self, When};
use crate::sys::notify::{Answer, Call};
use rustix::io::Errno;
use std::collections::HashMap;

/// How a call names the processes that it changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// By the number of a thread, its first argument.
    Thread,
    /// The same. It changes nothing if its third argument is null.
    Limit,
    /// By a class and a number. This is the value of the class that means a single process; process groups and users follow.
    Class(i32),
}

const CALLS: [(&str, Kind); 7] = [
    ("prlimit64", Kind::Limit),
    ("sched_setaffinity", Kind::Thread),
    ("sched_setattr", Kind::Thread),
    ("sched_setparam", Kind::Thread),
    ("sched_setscheduler", Kind::Thread),
    ("setpriority", Kind::Class(0)),
    ("ioprio_set", Kind::Class(1)),
];

/// The calls, for a filter.
pub(super) fn calls() -> impl Iterator<Item = (&'static str, When)> {
    CALLS.iter().map(|(name, kind)| match kind {
        Kind::Thread | Kind::Limit => (*name, When::Nonzero(0)),
        Kind::Class(_) => (*name, When::Always),
    })
}

/// The processes that a call changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    /// None, or the caller itself and its process group, which is of its RUN.
    Own,
    Thread(u32),
    Group(u32),
    /// All processes of a user.
    User,
}

/// Answers those calls.
#[derive(Debug)]
pub(super) struct ProcessCalls {
    table: HashMap<(u32, libc::c_long), Kind>,
    /// The number of seccomp filters that kiln has. Every process of a RUN has more.
    filters: u64,
}

impl ProcessCalls {
    pub(super) fn new() -> Self {
        let numbers = |name| seccomp::numbers(name).map(|(architecture, number, _)| (architecture, number));
        let table = CALLS.iter().flat_map(|(name, kind)| numbers(name).map(move |number| (number, *kind))).collect();
        let own = std::fs::read_to_string("/proc/self/status").ok().and_then(|status| filters(&status));
        Self { table, filters: own.unwrap_or(u64::MAX) }
    }

    /// Answers a call; `None` for one that is not of these.
    pub(super) fn answer(&self, call: &Call<'_>) -> Option<Answer> {
        let kind = *self.table.get(&(call.architecture(), call.number()))?;
        let belongs = match target(kind, [call.argument(0), call.argument(1), call.argument(2)]) {
            Target::Own => Ok(true),
            Target::Thread(thread) => self.is_of_run(thread),
            Target::Group(group) => self.is_group_of_run(group),
            Target::User => Ok(false),
        };
        Some(match belongs {
            Ok(true) => Answer::Continue,
            Ok(false) => Answer::Errno(Errno::PERM),
            Err(errno) => Answer::Errno(errno),
        })
    }

    /// Whether a thread or process belongs to a RUN.
    ///
    /// # Errors
    /// `ESRCH` if there is none of this number.
    fn is_of_run(&self, thread: u32) -> Result<bool, Errno> {
        let status = std::fs::read_to_string(format!("/proc/{thread}/status")).map_err(|_| Errno::SRCH)?;
        Ok(is_confined(&status) && filters(&status).is_some_and(|filters| filters > self.filters))
    }

    /// Whether all processes of a process group belong to a RUN.
    ///
    /// # Errors
    /// `ESRCH` if it has none.
    fn is_group_of_run(&self, group: u32) -> Result<bool, Errno> {
        let mut found = false;
        for entry in std::fs::read_dir("/proc").map_err(|_| Errno::SRCH)? {
            let name = entry.map_err(|_| Errno::SRCH)?.file_name();
            let Some(process) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
            let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
            if group_of(&stat) == Some(group) {
                found = true;
                // One that has ended meanwhile is none.
                if self.is_of_run(process) == Ok(false) {
                    return Ok(false);
                }
            }
        }
        if found { Ok(true) } else { Err(Errno::SRCH) }
    }
}

/// The processes that a call with these arguments changes.
fn target(kind: Kind, [first, second, third]: [u64; 3]) -> Target {
    // Numbers of processes have 32 bits.
    match (kind, first as u32, second as u32) {
        (Kind::Limit, _, _) if third == 0 => Target::Own,
        (Kind::Thread | Kind::Limit, 0, _) => Target::Own,
        (Kind::Thread | Kind::Limit, thread, _) => Target::Thread(thread),
        (Kind::Class(process), class, number) => match (class as i32 - process, number) {
            (0 | 1, 0) => Target::Own,
            (0, thread) => Target::Thread(thread),
            (1, group) => Target::Group(group),
            (2, _) => Target::User,
            // The kernel knows no other class.
            _ => Target::Own,
        },
    }
}

/// A field of `/proc/PID/status`.
fn field<'s>(status: &'s str, name: &str) -> Option<&'s str> {
    status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// How many filters the system calls of a process pass. Linux 5.9; this level needs a later one.
fn filters(status: &str) -> Option<u64> {
    field(status, "Seccomp_filters")?.parse().ok()
}

/// Whether a process cannot gain privileges, like all processes of a RUN.
fn is_confined(status: &str) -> bool {
    field(status, "NoNewPrivs") == Some("1")
}

/// The process group in `/proc/PID/stat`. The program's name before it may contain anything, in parentheses.
fn group_of(stat: &str) -> Option<u32> {
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(2)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_of_calls() {
        const PROCESS: u64 = 0;
        const GROUP: u64 = 1;
        const USER: u64 = 2;
        let priority = Kind::Class(0);
        for (kind, arguments, expected) in [
            (Kind::Limit, [7, 0, 0], Target::Own),
            (Kind::Limit, [7, 0, 1], Target::Thread(7)),
            (Kind::Limit, [0, 0, 1], Target::Own),
            (Kind::Limit, [7 << 32, 0, 1], Target::Own),
            (Kind::Thread, [7, 0, 0], Target::Thread(7)),
            (Kind::Thread, [0, 0, 0], Target::Own),
            (priority, [PROCESS, 0, 5], Target::Own),
            (priority, [PROCESS, 7, 5], Target::Thread(7)),
            (priority, [GROUP, 0, 5], Target::Own),
            (priority, [GROUP, 7, 5], Target::Group(7)),
            (priority, [USER, 0, 5], Target::User),
            (priority, [USER, 1000, 5], Target::User),
            (priority, [9, 1, 5], Target::Own),
            (priority, [u64::from(u32::MAX), 1, 5], Target::Own),
            (Kind::Class(1), [1, 7, 0], Target::Thread(7)),
            (Kind::Class(1), [2, 7, 0], Target::Group(7)),
            (Kind::Class(1), [3, 0, 0], Target::User),
        ] {
            assert_eq!(target(kind, arguments), expected, "{kind:?} {arguments:?}");
        }
    }

    #[test]
    fn the_files_of_proc_are_read() {
        let status = "Name:\tsh\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!((filters(status), is_confined(status)), (Some(3), true));
        assert_eq!((filters("Seccomp:\t2\n"), is_confined("NoNewPrivs:\t0\n")), (None, false));
        assert_eq!(group_of("12 (a) S 1 ) S 7 13 14 0 -1"), Some(13));
        assert_eq!(group_of(""), None);
    }

    #[test]
    fn processes_of_no_run_are_recognized() {
        let calls = ProcessCalls::new();
        let own = std::process::id();
        assert_eq!(calls.is_of_run(own), Ok(false));
        assert_eq!(calls.is_group_of_run(rustix::process::getpgrp().as_raw_pid().cast_unsigned()), Ok(false));
        assert_eq!(calls.is_of_run(0), Err(Errno::SRCH));
        assert_eq!(calls.is_group_of_run(u32::MAX), Err(Errno::SRCH));
    }
}
