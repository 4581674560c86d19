//! What reaches a running process from outside: signals that are handed on, and the end.

use super::Error;
use crate::sys::child::{Child, Ended};
use crate::sys::{Cancel, Signals};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

/// Who may tell a process what.
#[derive(Clone, Copy)]
pub(crate) struct Control<'a> {
    pub(crate) cancel: &'a Cancel,
    pub(crate) signals: Option<&'a Signals>,
    /// Whether the process is one that runs another, which is the one that the signals are for.
    pub(crate) through: bool,
}

impl Control<'_> {
    /// What to poll: ready when there is something for [`Control::act`] to do.
    pub(super) fn polled(&self) -> impl Iterator<Item = PollFd<'_>> {
        let signals = self.signals.map(|s| PollFd::new(s, PollFlags::IN));
        std::iter::once(PollFd::new(self.cancel, PollFlags::IN)).chain(signals)
    }

    /// The process that signals are for, if it is there yet: a runtime has one child, which it hands them on to.
    fn meant(&self, pid: Pid) -> Option<Pid> {
        if !self.through {
            return Some(pid);
        }
        let tasks = std::fs::read_dir(format!("/proc/{}/task", pid.as_raw_pid())).ok()?;
        let children = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
        let numbers: Vec<i32> =
            children.flat_map(|c| c.split_whitespace().map(str::parse).collect::<Vec<_>>()).flatten().collect();
        match numbers.as_slice() {
            [one] => Pid::from_raw(*one),
            _ => None,
        }
    }

    /// Does what was asked for meanwhile, and says how the process ended if it did for that.
    ///
    /// The kernel keeps a signal that pid 1 of a namespace doesn't handle away from it, so that nothing would end a program
    /// which leaves SIGTERM to its default: what the default does is done here.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the flag was set; the process is dead then. One that had failed by itself before that could
    /// reach it is told of as it ended: of two steps that fail at once, both failures are.
    pub(super) fn act(&self, child: &mut Child) -> Result<Option<Ended>, Error> {
        if self.cancel.is_cancelled() {
            child.kill()?;
            return match child.wait()? {
                Ended::Exited(code) if code != 0 => Ok(Some(Ended::Exited(code))),
                Ended::Exited(_) | Ended::Killed(_) => Err(Error::Cancelled),
            };
        }
        while let Some(number) = self.signals.and_then(Signals::take) {
            if self.meant(child.pid()).is_some_and(|pid| leaves_to_default(pid, number)) {
                child.kill()?;
                child.wait()?;
                return Ok(Some(Ended::Killed(number.into())));
            }
            child.signal(number)?;
        }
        Ok(None)
    }
}

/// Whether a process neither handles nor ignores a signal. `false` where that can't be read.
fn leaves_to_default(pid: Pid, number: u8) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pid.as_raw_pid())).unwrap_or_default();
    let has = |field: &str| {
        let mask = status.lines().find_map(|l| l.strip_prefix(field)).map(|m| u64::from_str_radix(m.trim(), 16));
        mask.and_then(Result::ok).map(|mask| mask >> (number - 1) & 1 == 1)
    };
    has("SigIgn:") == Some(false) && has("SigCgt:") == Some(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_process_does_with_a_signal() {
        // Rust programs ignore SIGPIPE and leave SIGUSR2 alone.
        let own = rustix::process::getpid();
        assert!(!leaves_to_default(own, libc::SIGPIPE as u8));
        assert!(leaves_to_default(own, libc::SIGUSR2 as u8));
        assert!(!leaves_to_default(Pid::from_raw(i32::MAX).unwrap(), libc::SIGUSR2 as u8));
    }
}
