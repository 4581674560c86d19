//! Finds and kills the processes of RUNs.
//!
//! There is no PID namespace here whose end would end them all, and a process can leave its parent, its process group and its
//! session. So each RUN's first process gets a mark that its descendants inherit and cannot remove: a hard resource limit below
//! kiln's own ([`MARK`]). Raising it again takes CAP_SYS_RESOURCE, which no RUN has.
//!
//! Several kilns can run in one PID namespace, and only the processes of this one's RUNs may be killed. They are below this process,
//! or, where their parent has ended, below the process that took them over. That is an ancestor of this process: the supervisor, or
//! after its death the next subreaper above it.

use crate::sandbox::Error;
use crate::sys::Said;
use rustix::fs::{CWD, Mode, OFlags, RawDir};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Resource, Signal};
use std::collections::{HashMap, HashSet};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// The limit that marks a RUN's processes. It concerns real-time scheduling alone, and that the mark is a microsecond less than
/// 584,000 years makes no difference there.
pub(super) const MARK: Resource = Resource::Rttime;

/// The line of `/proc/PID/limits` that shows it.
const MARK_LINE: &str = "Max realtime timeout";

/// How long a process may take to end once it has been killed.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long processes may make others while they are killed.
const MORE_PATIENCE: Duration = Duration::from_secs(60);

/// Milliseconds to wait between two looks.
pub(super) const PAUSE: u32 = 5;

/// A process as `/proc/PID` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Process {
    name: String,
    parent: i32,
    /// As `ps` shows it.
    state: char,
    /// Whether it has ended, and waits for its parent to reap it.
    ended: bool,
    /// Whether it belongs to a RUN.
    marked: bool,
}

type Processes = HashMap<i32, Process>;

/// All processes at a time, and descriptors of them as far as the limit of open files allows.
#[derive(Debug, Default)]
struct Snapshot {
    processes: Processes,
    pidfds: HashMap<i32, OwnedFd>,
}

/// Which processes to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Which {
    /// Those of RUNs: of the one that has just ended, and of earlier ones whose kiln was killed.
    Runs,
    /// Everything below this process.
    Descendants,
}

/// The value of [`MARK`] for a RUN.
///
/// # Errors
/// If kiln's own limit leaves no value below it.
pub(super) fn mark() -> Result<u64, Error> {
    let why = || "the hard limit of kiln itself is 0, but in-place isolation needs a lower one for a RUN".to_owned();
    own_limit().checked_sub(1).ok_or_else(|| Error::Limit { what: "rttime", why: why() })
}

fn own_limit() -> u64 {
    rustix::process::getrlimit(MARK).maximum.unwrap_or(u64::MAX)
}

/// Kills processes until there are none; whether there were any. `pause` waits for [`PAUSE`] or less, and says whether it is known
/// that none is left.
///
/// # Errors
/// Names those that are still there [`PATIENCE`] after they were killed.
pub(super) fn end(which: Which, mut pause: impl FnMut() -> bool) -> Result<bool, Error> {
    let (own, limit) = (rustix::process::getpid().as_raw_pid(), own_limit());
    let start = Instant::now();
    let mut seen: HashMap<i32, Instant> = HashMap::new();
    loop {
        let snapshot = Snapshot::take(limit, which)?;
        let found = find(&snapshot.processes, own, which);
        if found.is_empty() {
            return Ok(!seen.is_empty());
        }
        snapshot.kill(&found)?;
        if pause() {
            return Ok(true);
        }
        seen = found.into_iter().map(|pid| (pid, seen.get(&pid).copied().unwrap_or_else(Instant::now))).collect();
        if start.elapsed() > MORE_PATIENCE || seen.values().any(|since| since.elapsed() > PATIENCE) {
            return Err(survivors(&seen, &snapshot.processes));
        }
    }
}

/// Waits for [`PAUSE`], knowing nothing.
pub(super) fn sleep() -> bool {
    std::thread::sleep(Duration::from_millis(PAUSE.into()));
    false
}

/// Kills the processes of a RUN whose first one has ended. `is_over` waits for [`PAUSE`] or less, and says whether there are none left.
///
/// It is asked first, as that is quicker than to list processes. It is also asked last: a process that makes another one all the
/// time and ends may not be in any list.
///
/// # Errors
/// As [`end`].
pub(super) fn end_run(mut is_over: impl FnMut() -> bool) -> Result<(), Error> {
    if is_over() {
        return Ok(());
    }
    let start = Instant::now();
    loop {
        let _ = end(Which::Runs, &mut is_over)?;
        if is_over() {
            return await_reaping();
        }
        if start.elapsed() > PATIENCE {
            let processes = "processes that /proc does not show".to_owned();
            return Err(Error::Survivors { processes, seconds: PATIENCE.as_secs() });
        }
    }
}

/// Kills the processes of all RUNs.
///
/// # Errors
/// As [`end`].
pub(super) fn end_runs() -> Result<(), Error> {
    if end(Which::Runs, sleep)? { await_reaping() } else { Ok(()) }
}

/// Waits until the supervisor has reaped what was killed, but not for long: until then, each of these processes takes a PID, and the
/// next RUN may find that there is none.
fn await_reaping() -> Result<(), Error> {
    let start = Instant::now();
    let supervisor = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    let waits = |process: &Process| process.ended && process.parent == supervisor;
    while Snapshot::take(0, Which::Runs)?.processes.values().any(waits) && start.elapsed() < MOMENT {
        sleep();
    }
    Ok(())
}

/// The longest that reaping takes.
const MOMENT: Duration = Duration::from_secs(2);

/// What to say of processes that do not end: those that have been there longest.
fn survivors(seen: &HashMap<i32, Instant>, all: &Processes) -> Error {
    let mut oldest: Vec<_> = seen.iter().filter_map(|(pid, since)| Some((since, pid, all.get(pid)?))).collect();
    oldest.sort_by_key(|(since, pid, _)| (*since, *pid));
    let shown = oldest.iter().take(SHOWN).map(|(_, pid, p)| format!("{} (PID {pid}, state {})", p.name, p.state));
    Error::Survivors { processes: shown.collect::<Vec<_>>().join(", "), seconds: PATIENCE.as_secs() }
}

/// The most processes that an error names.
const SHOWN: usize = 5;

impl Snapshot {
    /// Lists the processes. The list is read in small pieces, in the order of the numbers: a process that is made meanwhile comes
    /// later.
    fn take(limit: u64, which: Which) -> Result<Self, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::openat(CWD, "/proc", flags, Mode::empty()).said("open", "/proc")?;
        let mut buffer = [MaybeUninit::uninit(); 512];
        let mut names = RawDir::new(proc, &mut buffer);
        let mut snapshot = Self::default();
        while let Some(entry) = names.next() {
            let entry = entry.said("read", "/proc")?;
            if let Some(pid) = entry.file_name().to_str().ok().and_then(|name| name.parse().ok()) {
                snapshot.add(pid, limit, which);
            }
        }
        Ok(snapshot)
    }

    /// Adds a process, unless it has ended meanwhile.
    fn add(&mut self, pid: i32, limit: u64, which: Which) {
        // What is read after the descriptor was opened is of the same process, or that one has ended and gets no signal.
        let pidfd = Pid::from_raw(pid).and_then(|pid| rustix::process::pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(process) = read(pid, limit) else { return };
        if process.marked || which == Which::Descendants {
            self.pidfds.extend(pidfd.map(|pidfd| (pid, pidfd)));
        }
        self.processes.insert(pid, process);
    }

    /// Kills processes; where one has no descriptor, the next snapshot will have one. Nothing else is done in between: each moment that
    /// one of them lives, it can make others.
    fn kill(&self, found: &[i32]) -> Result<(), Error> {
        let pidfds: Vec<&OwnedFd> = found.iter().filter_map(|pid| self.pidfds.get(pid)).collect();
        for pidfd in pidfds {
            match rustix::process::pidfd_send_signal(pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(errno).call("pidfd_send_signal").map_err(Error::Call),
            }
        }
        Ok(())
    }
}

/// A process; nothing for one that has ended meanwhile.
fn read(pid: i32, limit: u64) -> Option<Process> {
    // A process's name need not be UTF-8.
    let file = |name| {
        std::fs::read(format!("/proc/{pid}/{name}")).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
    };
    let (mut process, confined) = parse(&file("status")?)?;
    process.marked = confined && hard_limit(&file("limits")?).is_some_and(|value| value < limit);
    Some(process)
}

/// A process by its status, and whether it can gain no rights by executing a program, as all that kiln starts here.
fn parse(status: &str) -> Option<(Process, bool)> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim);
    let state = field("State")?.chars().next()?;
    // The state is that of the first thread, which may have ended long before others.
    let ended = matches!(state, 'Z' | 'X') && field("Threads").is_none_or(|threads| matches!(threads, "0" | "1"));
    let (name, parent) = (field("Name")?.to_owned(), field("PPid")?.parse().ok()?);
    let process = Process { name, parent, state, ended, marked: false };
    Some((process, field("NoNewPrivs") == Some("1")))
}

/// The hard limit that is the mark, of `/proc/PID/limits`: name, soft limit, hard limit, unit.
fn hard_limit(limits: &str) -> Option<u64> {
    let values = limits.lines().find_map(|line| line.strip_prefix(MARK_LINE))?;
    match values.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

/// The processes to kill, in order.
fn find(all: &Processes, own: i32, which: Which) -> Vec<i32> {
    let above = ancestors(all, own);
    let is_meant = |pid: i32| match which {
        Which::Runs => {
            let unmarked = chain(all, pid).find(|pid| !all.get(pid).is_some_and(|p| p.marked));
            unmarked.is_some_and(|pid| pid == own || above.contains(&pid))
        }
        Which::Descendants => chain(all, pid).any(|pid| pid == own),
    };
    let wanted = |p: &Process| !p.ended && (p.marked || which == Which::Descendants);
    let mut found: Vec<i32> = all.iter().filter(|(_, p)| wanted(p)).map(|(pid, _)| *pid).collect();
    found.retain(|pid| is_meant(*pid));
    found.sort_unstable();
    found
}

/// The ancestors of a process, the nearest first. At most as many as there are processes, as a number may have been given to
/// another process while the list was read.
fn chain(all: &Processes, pid: i32) -> impl Iterator<Item = i32> {
    let parent = |pid: &i32| all.get(pid).map(|p| p.parent).filter(|parent| *parent != 0);
    std::iter::successors(parent(&pid), parent).take(all.len())
}

fn ancestors(all: &Processes, pid: i32) -> HashSet<i32> {
    chain(all, pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_and_limits_are_read() {
        let status = "Name:\tsh\nState:\tD (disk sleep)\nPPid:\t7\nNoNewPrivs:\t1\nSeccomp:\t2\n";
        let expected = Process { name: "sh".into(), parent: 7, state: 'D', ended: false, marked: false };
        assert_eq!(parse(status), Some((expected, true)));
        for (threads, ended) in [("1", true), ("2", false)] {
            let status = format!("Name:\tx\nState:\tZ (zombie)\nPPid:\t7\nThreads:\t{threads}\nNoNewPrivs:\t1\n");
            assert_eq!(parse(&status).unwrap().0.ended, ended, "{threads} threads");
        }
        let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                      Max realtime priority     0                    0                    \n\
                      Max realtime timeout      unlimited            18446744073709551614 us        \n";
        assert_eq!(hard_limit(limits), Some(u64::MAX - 1));
        assert_eq!(hard_limit("Max realtime timeout      5    unlimited            us\n"), Some(u64::MAX));
        assert_eq!(hard_limit(""), None);
    }

    fn process(parent: i32, marked: bool) -> Process {
        Process { name: "x".into(), parent, state: 'S', ended: false, marked }
    }

    /// This kiln is 10 and 20, the supervisor and the worker, as is another one with 30 and 40.
    fn processes() -> Processes {
        HashMap::from([
            (1, process(0, false)),
            (5, process(1, false)),
            (10, process(5, false)),
            (20, process(10, false)),
            (21, process(20, false)), // git, say
            (22, process(20, true)),
            (23, process(22, true)),
            (24, process(10, true)), // its parent has ended
            (25, Process { ended: true, ..process(10, true) }),
            (26, process(10, false)),
            (30, process(5, false)),
            (40, process(30, false)),
            (41, process(40, true)),
            (42, process(30, true)),
            (50, process(1, true)), // left by a kiln that was killed
            (51, process(50, true)),
            (52, process(5, true)), // likewise, where 5 is a subreaper
        ])
    }

    #[test]
    fn the_processes_of_runs_are_found_and_those_of_other_kilns_are_spared() {
        let all = processes();
        assert_eq!(find(&all, 20, Which::Runs), [22, 23, 24, 50, 51, 52]);
        assert_eq!(find(&all, 10, Which::Runs), [24, 50, 51, 52], "22 and 23 are the worker's to end");
        assert_eq!(find(&all, 10, Which::Descendants), [20, 21, 22, 23, 24, 26]);
    }

    #[test]
    fn survivors_are_named() {
        let all = HashMap::from([(7, Process { state: 'D', ..process(1, true) }), (8, process(1, true))]);
        let seen = [7, 8, 9].map(|pid| (pid, Instant::now())).into();
        let error = survivors(&seen, &all).to_string();
        assert!(error.contains("x (PID 7, state D), x (PID 8, state S)"), "{error}");
    }
}
