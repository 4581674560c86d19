//! The processes that a command leaves behind: found by the filter that they can't get rid of, and killed.

use crate::sys::{Result, Said};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::collections::HashMap;

/// A process as `/proc/PID/status` tells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Process {
    parent: i32,
    /// How many filters its calls go through.
    filters: u64,
    /// Whether it has ended, and only waits to be waited for.
    ended: bool,
    /// Whether it can gain no rights, as all that are started here.
    confined: bool,
}

/// More rounds than any process needs to be found between two of its forks.
pub(super) const ROUNDS: usize = 1000;

/// Milliseconds from a kill to the end.
pub(super) const BREATH: u32 = 5;

/// The error for processes that aren't to be found in all the rounds.
pub(super) fn too_quick() -> Result<()> {
    Err(Errno::BUSY).call("kill")
}

/// Kills every descendant of this process that has more filters than it has itself, until there is none. Orphans are this
/// process's own children, as it is the one that they are left to.
pub(super) fn kill() -> Result<()> {
    // Whoever is left is a child, or below one.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if matches!(rustix::process::waitid(WaitId::All, look), Err(Errno::CHILD)) {
        return Ok(());
    }
    kill_all(descendants)
}

/// Kills the processes that a killed kiln's process has left, until there is none: those with more filters than this one, and
/// without a way to more rights, that were left to the first process of all. Nobody else here may have any meanwhile.
pub(super) fn kill_orphans() -> Result<()> {
    kill_all(orphans)
}

/// Kills those that `find` gives, of all processes, this one and its number of filters, until it gives none.
fn kill_all(find: fn(&HashMap<i32, Process>, i32, u64) -> Vec<Pid>) -> Result<()> {
    let own = rustix::process::getpid().as_raw_pid();
    for _ in 0..ROUNDS {
        let all = processes()?;
        let Some(myself) = all.get(&own) else { return Ok(()) };
        let ours = find(&all, own, myself.filters);
        if ours.is_empty() {
            return Ok(());
        }
        for pid in &ours {
            match rustix::process::kill_process(*pid, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).call("kill"),
            }
        }
        for pid in ours {
            if all.get(&pid.as_raw_pid()).is_some_and(|p| p.parent == own) {
                // Whoever isn't there any more was waited for by somebody else.
                let _ = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
            }
        }
    }
    too_quick()
}

fn processes() -> Result<HashMap<i32, Process>> {
    let mut all = HashMap::new();
    for entry in std::fs::read_dir("/proc").said("read", "/proc")? {
        let name = entry.said("read", "/proc")?.file_name();
        let Some(pid) = name.to_str().and_then(|n| n.parse().ok()) else { continue };
        // It may have ended meanwhile.
        if let Some(process) = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|s| parse(&s)) {
            all.insert(pid, process);
        }
    }
    Ok(all)
}

/// A process by its status.
fn parse(status: &str) -> Option<Process> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let ended = field("State")?.starts_with(['Z', 'X']);
    let confined = field("NoNewPrivs") == Some("1");
    // Before Linux 5.9 nobody counts, but tells whether there is one.
    let filters = field("Seccomp_filters").or_else(|| field("Seccomp"))?;
    Some(Process { parent: field("PPid")?.parse().ok()?, filters: filters.parse().ok()?, ended, confined })
}

/// The processes below one that have more filters.
fn descendants(all: &HashMap<i32, Process>, top: i32, filters: u64) -> Vec<Pid> {
    let is_below = |mut pid: i32| {
        // As many steps as there are processes are enough.
        for _ in 0..=all.len() {
            match all.get(&pid) {
                Some(process) if process.parent == top => return true,
                Some(process) => pid = process.parent,
                None => return false,
            }
        }
        false
    };
    // One that has ended is waited for by its parent; its own orphans are this process's.
    let counts = |p: &Process| p.filters > filters && (!p.ended || p.parent == top);
    sorted(all.iter().filter(|(pid, p)| counts(p) && is_below(**pid)))
}

/// The confined processes with more filters, above which there are no others up to the first process of all.
fn orphans(all: &HashMap<i32, Process>, own: i32, filters: u64) -> Vec<Pid> {
    let is_left = |p: &Process| p.filters > filters && p.confined;
    let is_orphan = |mut pid: i32| {
        for _ in 0..=all.len() {
            match all.get(&pid) {
                _ if pid == own => return false,
                Some(process) if is_left(process) && process.parent == 1 => return true,
                Some(process) if is_left(process) => pid = process.parent,
                _ => return false,
            }
        }
        false
    };
    sorted(all.iter().filter(|(pid, p)| !p.ended && is_orphan(**pid)))
}

fn sorted<'a>(found: impl Iterator<Item = (&'a i32, &'a Process)>) -> Vec<Pid> {
    let mut found: Vec<i32> = found.map(|(pid, _)| *pid).collect();
    found.sort_unstable();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\tsh\nState:\tS (sleeping)\nPPid:\t7\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        let expected = Process { parent: 7, filters: 3, ended: false, confined: true };
        assert_eq!(parse(status), Some(expected));
        let older = Process { filters: 2, confined: false, ..expected };
        assert_eq!(parse("State:\tS\nPPid:\t7\nSeccomp:\t2\n"), Some(older));
        assert_eq!(parse("State:\tZ (zombie)\nPPid:\t7\nSeccomp:\t2\n"), Some(Process { ended: true, ..older }));
    }

    fn process(parent: i32, filters: u64) -> Process {
        Process { parent, filters, ended: false, confined: filters > 1 }
    }

    fn numbers(found: &[Pid]) -> Vec<i32> {
        found.iter().map(|pid| pid.as_raw_pid()).collect()
    }

    #[test]
    fn only_descendants_with_more_filters_are_found() {
        let all = HashMap::from([
            (1, process(0, 1)),
            (10, process(1, 1)),
            (11, process(10, 1)), // git, say
            (12, process(10, 2)),
            (13, process(12, 2)),
            (14, process(1, 2)),
            (15, process(15, 2)),
            (16, Process { ended: true, ..process(10, 2) }),
            (17, Process { ended: true, ..process(12, 2) }),
        ]);
        assert_eq!(numbers(&descendants(&all, 10, 1)), [12, 13, 16]);
    }

    #[test]
    fn orphans_are_what_a_killed_kiln_left() {
        let all = HashMap::from([
            (1, process(0, 1)),
            (9, process(1, 1)), // another kiln, which waits
            (10, process(1, 1)),
            (12, process(10, 2)),
            (13, process(9, 2)),
            (14, process(1, 2)),
            (15, process(14, 3)),
            (16, Process { confined: false, ..process(1, 2) }),
            (17, Process { ended: true, ..process(1, 2) }),
        ]);
        assert_eq!(numbers(&orphans(&all, 10, 1)), [14, 15]);
        assert_eq!(numbers(&orphans(&all, 14, 1)), [0; 0]);
    }
}
