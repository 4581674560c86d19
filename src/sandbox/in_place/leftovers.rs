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
}

/// More rounds than any process needs to be found between two of its forks.
const ROUNDS: usize = 10_000;

/// Kills every descendant of this process that has more filters than it has itself, until there is none. Orphans are this
/// process's own children, as it is the one that they are left to.
pub(super) fn kill() -> Result<()> {
    // Whoever is left is a child, or below one.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    if matches!(rustix::process::waitid(WaitId::All, look), Err(Errno::CHILD)) {
        return Ok(());
    }
    let own = rustix::process::getpid().as_raw_pid();
    for _ in 0..ROUNDS {
        let all = processes()?;
        let Some(myself) = all.get(&own) else { return Ok(()) };
        let ours = descendants(&all, own, myself.filters);
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
    Err(Errno::BUSY).call("kill")
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

/// A process by its status; `None` for one that has ended and only waits to be waited for.
fn parse(status: &str) -> Option<Process> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    if field("State")?.starts_with(['Z', 'X']) {
        return None;
    }
    // Before Linux 5.9 nobody counts, but tells whether there is one.
    let filters = field("Seccomp_filters").or_else(|| field("Seccomp"))?;
    Some(Process { parent: field("PPid")?.parse().ok()?, filters: filters.parse().ok()? })
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
    let mut found: Vec<i32> =
        all.iter().filter(|(pid, p)| p.filters > filters && is_below(**pid)).map(|(pid, _)| *pid).collect();
    found.sort_unstable();
    found.into_iter().filter_map(Pid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\tsh\nState:\tS (sleeping)\nPPid:\t7\nSeccomp:\t2\nSeccomp_filters:\t3\n";
        assert_eq!(parse(status), Some(Process { parent: 7, filters: 3 }));
        assert_eq!(parse("State:\tS\nPPid:\t7\nSeccomp:\t2\n"), Some(Process { parent: 7, filters: 2 }));
        assert_eq!(parse("State:\tZ (zombie)\nPPid:\t7\nSeccomp:\t2\n"), None);
    }

    #[test]
    fn only_descendants_with_more_filters_are_found() {
        let process = |parent, filters| Process { parent, filters };
        let all = HashMap::from([
            (1, process(0, 1)),
            (10, process(1, 1)),
            (11, process(10, 1)), // git, say
            (12, process(10, 2)),
            (13, process(12, 2)),
            (14, process(1, 2)),
            (15, process(15, 2)),
        ]);
        let pids: Vec<i32> = descendants(&all, 10, 1).iter().map(|p| p.as_raw_pid()).collect();
        assert_eq!(pids, [12, 13]);
    }
}
