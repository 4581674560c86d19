//! Cleans up after a build that is killed.
//!
//! While a RUN executes, its files are in `/`. If kiln died now, whoever uses the container next would run the RUN's programs,
//! and the RUN's processes would run on. So kiln forks before it has threads. The child, the worker, does the build. The parent,
//! the supervisor, keeps the PID that the caller knows, and does next to nothing: it passes signals on, reaps, and waits.
//!
//! | who is killed | who cleans up |
//! |---|---|
//! | the worker (say, because memory ran out) | the supervisor |
//! | the supervisor | the worker: its queue of signals ends, and that cancels the build |
//! | both at once | the next kiln in this container ([`recover`]) |
//!
//! To clean up is to kill the processes of the RUN, to remove what it left in shared mounts, and to restore `/` from the crash
//! journal. A RUN that has used up memory, PIDs or descriptors cannot prevent that: the supervisor needs no new process and no
//! thread, has its descriptors to itself, uses so little memory that the kernel kills others first, and holds some in reserve.
//!
//! The supervisor is the subreaper of everything below it. A process whose parent has ended becomes its child, and is reaped at
//! once. It has no other child than the worker, and nobody else waits for such processes, so no exit status is lost.

use super::crash_journal;
use super::reaper::{self, Which};
use super::shared_mounts::{self, SharedMounts};
use super::{HiddenCopy, HostRoot};
use crate::sys::child::Ended;
use crate::sys::{self, BlockedSignals, Forked, Said, SignalReceiver, SignalSender};
use crate::{sandbox, snapshot};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitOptions, WaitStatus};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// The signals that are passed on to the worker, and whether that is done even if they were ignored when kiln was started: a
/// shell ignores SIGINT for a command in the background.
const FORWARDED: [(i32, bool); 6] = [
    (libc::SIGINT, true),
    (libc::SIGTERM, true),
    (libc::SIGHUP, false),
    (libc::SIGQUIT, false),
    (libc::SIGUSR1, false),
    (libc::SIGUSR2, false),
];

/// Bytes of memory that the supervisor gives back before it cleans up. If a RUN has filled the container's memory with something that
/// outlives its processes (files in `/dev/shm`, shared memory), there is nothing left otherwise.
const RESERVE: usize = 1 << 20;

/// Which of the two processes this one is.
#[derive(Debug)]
pub enum Role {
    /// The one that cleans up.
    Supervisor(Supervisor),
    /// The one that does the build.
    Worker(SupervisorLink),
}

/// What the worker has of its supervisor.
#[derive(Debug, Clone)]
pub struct SupervisorLink {
    /// The signals to the supervisor. It ends with it.
    pub signals: SignalReceiver,
    /// The supervisor puts back the files in it if the worker is killed.
    pub hidden: HiddenCopy,
}

/// The process that waits for the worker.
#[derive(Debug)]
pub struct Supervisor {
    worker: Pid,
    signals: BlockedSignals,
    queue: SignalSender,
    root: PathBuf,
    work: PathBuf,
    /// What was in shared mounts before; nothing where that could not be read.
    shared: Option<SharedMounts>,
    hidden: HiddenCopy,
    reserve: Vec<u8>,
    /// The signals that were passed on.
    forwarded: BTreeSet<i32>,
}

/// What became of the worker.
#[derive(Debug)]
pub struct Outcome {
    /// How it ended.
    pub ended: Ended,
    /// Whether that was by a signal that somebody sent to kiln, and not by accident.
    pub was_asked: bool,
    /// Whether `/` had to be restored.
    pub restored: bool,
    /// What could not be cleaned up.
    pub failures: Vec<CleanupError>,
}

/// Why something could not be cleaned up.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// Processes could not be ended.
    #[error(transparent)]
    Processes(#[from] sandbox::Error),
    /// Shared mounts could not be restored.
    #[error(transparent)]
    SharedMounts(#[from] sys::Error),
    /// `/`, or a hidden file, could not be restored.
    #[error(transparent)]
    Root(#[from] snapshot::Error),
    /// Hidden files were not restored because of another failure.
    #[error("the credentials that were hidden from the RUN are not restored, because something of it is left")]
    Hidden,
}

/// Splits this process into supervisor and worker, before it has threads. `work` is kiln's work directory, on the file system of
/// `root`.
///
/// # Errors
/// If the kernel gives no second process, or no descriptors.
pub fn start(root: &Path, work: &Path) -> sys::Result<Role> {
    let parent = rustix::process::getpid();
    // A caller that ignores SIGCHLD lets its children ignore it too, and then no exit status can be had.
    sys::set_default_action(libc::SIGCHLD);
    let forwarded = FORWARDED.iter().filter(|(number, always)| *always || !sys::ignores(*number));
    let numbers: Vec<i32> = forwarded.map(|(number, _)| *number).chain([libc::SIGCHLD]).collect();
    let shared = SharedMounts::record(&shared_mounts::SHARED).ok();
    let hidden = HiddenCopy::new()?;
    let (queue, receiver) = sys::signal_queue()?;
    rustix::process::set_child_subreaper(Some(parent)).call("prctl(PR_SET_CHILD_SUBREAPER)")?;
    let signals = BlockedSignals::new(&numbers)?;
    match sys::fork()? {
        Forked::Parent(worker) => {
            protect();
            let (root, work) = (root.to_owned(), work.to_owned());
            // Written to, so that the kernel has to back it.
            let reserve = vec![1; RESERVE];
            let forwarded = BTreeSet::new();
            Ok(Role::Supervisor(Supervisor { worker, signals, queue, root, work, shared, hidden, reserve, forwarded }))
        }
        Forked::Child => {
            signals.unblock();
            // As long as nobody reads the queue, this signal's default action ends the worker.
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM)).call("prctl(PR_SET_PDEATHSIG)")?;
            if rustix::process::getppid() != Some(parent) {
                return Err(Errno::OWNERDEAD).call("getppid");
            }
            Ok(Role::Worker(SupervisorLink { signals: receiver, hidden }))
        }
    }
}

/// Keeps the supervisor from being looked into, and as far as possible from being killed when memory runs out. Neither has to work:
/// it is a precaution.
fn protect() {
    let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
    for score in ["-1000", "0"] {
        let is_lower = |own: i32| score.parse().is_ok_and(|score: i32| score < own);
        let own = std::fs::read_to_string(OOM_SCORE).ok().and_then(|own| own.trim().parse().ok());
        // Without CAP_SYS_RESOURCE it cannot be lower than what the container was given.
        if own.is_some_and(is_lower) && std::fs::write(OOM_SCORE, score).is_ok() {
            return;
        }
    }
}

const OOM_SCORE: &str = "/proc/self/oom_score_adj";

/// Cleans up after a kiln of this container that was killed together with its supervisor: ends its processes and restores `root`.
/// Nobody else may be at work in `root`.
///
/// # Errors
/// If that cannot be done.
pub fn recover(root: &Path, work: &Path) -> Result<(), CleanupError> {
    if crash_journal::exists(work) {
        end_orphans()?;
        HostRoot::restore(root, work)?;
    }
    Ok(())
}

/// Ends the processes of RUNs whose kiln was killed together with its supervisor.
///
/// # Errors
/// If they cannot be found, or do not end.
pub fn end_orphans() -> Result<(), CleanupError> {
    Ok(reaper::end_runs()?)
}

impl Supervisor {
    /// Waits for the end of the worker, and cleans up.
    pub fn run(mut self) -> Outcome {
        let ended = loop {
            match self.signals.wait() {
                Ok(libc::SIGCHLD) => {
                    if let Some(ended) = reap(self.worker, WaitOptions::NOHANG) {
                        break ended;
                    }
                }
                Ok(number) => self.forward(number),
                // Without signals, all that can be done is to wait.
                Err(_) => break reap(self.worker, WaitOptions::empty()).unwrap_or(Ended::Killed(libc::SIGKILL)),
            }
        };
        let was_asked = matches!(ended, Ended::Killed(number) if self.forwarded.contains(&number));
        let (restored, failures) = self.clean_up(ended);
        Outcome { ended, was_asked, restored, failures }
    }

    /// Passes a signal on. A worker that does not read the queue yet is ended by the signal itself, as kiln always was. One that
    /// does has a handler that does nothing: a terminal, or `kill` with a process group, sends a signal to both processes, and it
    /// is to count once.
    fn forward(&mut self, number: i32) {
        self.forwarded.insert(number);
        if let Some(signal) = Signal::from_named_raw(number) {
            let _ = rustix::process::kill_process(self.worker, signal);
        }
        self.queue.send(number);
    }

    /// Whether `/` had to be restored, and what failed. Each part is done whatever becomes of the others.
    fn clean_up(self, ended: Ended) -> (bool, Vec<CleanupError>) {
        let Self { root, work, shared, hidden, reserve, .. } = self;
        drop(reserve);
        let mut failures = Vec::new();
        let mut note = |done: Result<(), CleanupError>| failures.extend(done.err());
        // Daemons that git or a credential helper may have left outlive a build that came to its end.
        let which = if matches!(ended, Ended::Killed(_)) { Which::Descendants } else { Which::Runs };
        if !reap_all() {
            note(reaper::end(which, || reap_all() || reaper::sleep()).map(drop).map_err(CleanupError::from));
        }
        let interrupted = crash_journal::exists(&work);
        if interrupted {
            note(shared.map_or(Ok(()), SharedMounts::restore).map_err(CleanupError::from));
            note(HostRoot::restore(&root, &work).map_err(CleanupError::from));
        }
        if !hidden.is_empty() {
            // What is left of the RUN must not see them.
            let restored = if failures.is_empty() {
                hidden.restore().map_err(CleanupError::from)
            } else {
                Err(CleanupError::Hidden)
            };
            failures.extend(restored.err());
        }
        (interrupted, failures)
    }
}

/// Reaps all children that have ended: how the worker ended, if it is one of them.
fn reap(worker: Pid, options: WaitOptions) -> Option<Ended> {
    loop {
        match rustix::process::wait(options) {
            Ok(Some((pid, status))) if pid == worker => return Some(how_ended(status)),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) | Err(_) => return None,
        }
    }
}

fn how_ended(status: WaitStatus) -> Ended {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Ended::Exited(code),
        (None, signal) => Ended::Killed(signal.unwrap_or(libc::SIGKILL)),
    }
}

/// Reaps all children that have ended; whether there are no others, and so nothing below this process.
fn reap_all() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            done => return matches!(done, Err(Errno::CHILD)),
        }
    }
}
