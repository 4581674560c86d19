//! Processes that kiln could not look into any more, as it did so in time.
//!
//! The kernel protects a process that changed its user or group IDs from being looked into, until it executes a new program. apt does that
//! and is root again afterwards, so its calls must be answered. A descriptor of its memory, opened before the change, remains usable. So
//! kiln is told of the calls that change IDs, opens the memory and the root directory, and lets the calls go on.

use crate::sandbox::seccomp::{self, When};
use crate::sys::notify::{Call, KeptProcess};
use std::collections::HashMap;
use std::sync::Arc;

/// The calls. Programs of 32 bits have a second set.
const CALLS: [&str; 16] = [
    "setuid",
    "setgid",
    "setreuid",
    "setregid",
    "setresuid",
    "setresgid",
    "setfsuid",
    "setfsgid",
    "setuid32",
    "setgid32",
    "setreuid32",
    "setregid32",
    "setresuid32",
    "setresgid32",
    "setfsuid32",
    "setfsgid32",
];

/// The call that makes what was kept of a process wrong.
const CHANGES_ROOT: &str = "chroot";

/// The calls, for a filter. A process may also ask for the protection.
pub(super) fn calls() -> impl Iterator<Item = (&'static str, When)> {
    let asks = ("prctl", When::Is(0, libc::PR_SET_DUMPABLE.cast_unsigned()));
    CALLS.iter().map(|name| (*name, When::Always)).chain([asks, (CHANGES_ROOT, When::Always)])
}

/// What a call does to a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It cannot be looked into afterwards.
    Ids,
    Root,
}

/// The calls by architecture and number.
#[derive(Debug)]
pub(super) struct Table(HashMap<(u32, libc::c_long), Change>);

impl Table {
    /// The same for every RUN.
    pub(super) fn new() -> Self {
        let change = |name| if name == CHANGES_ROOT { Change::Root } else { Change::Ids };
        let all = calls().flat_map(|(name, _)| {
            seccomp::numbers(name).map(move |(architecture, number, _)| ((architecture, number), change(name)))
        });
        Self(all.collect())
    }

    /// What a call does, if it is one of these.
    pub(super) fn change(&self, call: &Call<'_>) -> Option<Change> {
        self.0.get(&(call.architecture(), call.number())).copied()
    }
}

/// How many are kept. Each has two descriptors.
const MOST: usize = 256;

/// A process by its number, and by the time of its start, as the number may be given again.
type Process = (u32, u64);

/// The processes of a RUN that are kept.
#[derive(Debug, Default)]
pub(super) struct KeptProcesses(HashMap<Process, Arc<KeptProcess>>);

impl KeptProcesses {
    /// Keeps the process of a call.
    pub(super) fn insert(&mut self, call: &Call<'_>, kept: KeptProcess) {
        if self.0.len() >= MOST {
            self.0.retain(|(process, start), _| started(*process) == Some(*start));
        }
        if let Some(process) = process_of(call)
            && self.0.len() < MOST
        {
            self.0.insert(process, Arc::new(kept));
        }
    }

    /// Forgets the process of a call.
    pub(super) fn remove(&mut self, call: &Call<'_>) {
        if let Some(process) = process_of(call) {
            self.0.remove(&process);
        }
    }

    /// The process of a call, if it is kept.
    pub(super) fn get(&self, call: &Call<'_>) -> Option<Arc<KeptProcess>> {
        if self.0.is_empty() { None } else { self.0.get(&process_of(call)?).cloned() }
    }
}

/// The process of the thread that makes a call.
fn process_of(call: &Call<'_>) -> Option<Process> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", call.thread())).ok()?;
    let process = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?.trim().parse().ok()?;
    let start = started(process)?;
    call.is_alive().then_some((process, start))
}

/// When a process started.
fn started(process: u32) -> Option<u64> {
    start_of(&std::fs::read_to_string(format!("/proc/{process}/stat")).ok()?)
}

/// The start of a process in `/proc/PID/stat`, field 22. The program's name before it may contain anything, in parentheses.
fn start_of(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_of_a_process_is_read() {
        let stat = "7 (a) S 1 ) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 12345 20 21";
        assert_eq!(start_of(stat), Some(12345));
        assert_eq!(start_of("7 (a) S 1"), None);
        assert!(started(std::process::id()).is_some() && started(0).is_none());
    }

    #[test]
    fn calls_of_both_architectures_are_known() {
        // Those of 32 bits are no calls of 64-bit programs.
        for name in CALLS.into_iter().filter(|name| !name.ends_with("32")) {
            assert_eq!(seccomp::numbers(name).count(), 2, "{name}");
        }
        assert_eq!(Table::new().0.len(), 8 + 16 + 4);
    }
}
