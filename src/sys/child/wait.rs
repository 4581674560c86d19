//! The running child, as its maker sees it.

use super::step::Slot;
use super::stubs::{self, Stub};
use crate::sys::{Result, Said};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// By itself, with this status (0 to 255).
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

/// A process that was made, pid 1 of its own pid namespace. Dropped while it runs, it and everything in its namespace is
/// killed; the stubs are removed in any case.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    pidfd: OwnedFd,
    slots: Vec<Option<OwnedFd>>,
    stubs: Vec<Stub>,
    ended: Option<Ended>,
}

impl Child {
    pub(super) fn new(pid: Pid, pidfd: OwnedFd, slots: Vec<Option<OwnedFd>>, stubs: Vec<Stub>) -> Self {
        Self { pid, pidfd, slots, stubs, ended: None }
    }

    /// Its number, in the maker's pid namespace.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// A descriptor that is readable once the process has ended.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }

    /// Takes what the child put into a slot.
    pub fn take(&mut self, slot: Slot) -> Option<OwnedFd> {
        self.slots.get_mut(slot.0)?.take()
    }

    /// Kills it, and with it everything in its pid namespace. One that has ended is no failure.
    pub fn kill(&self) -> Result<()> {
        self.signal(Signal::KILL.as_raw() as u8)
    }

    /// Sends it a signal; one that has ended is no failure. The kernel keeps signals from a pid 1 that doesn't handle them.
    pub fn signal(&self, number: u8) -> Result<()> {
        let Some(signal) = Signal::from_named_raw(number.into()) else { return Ok(()) };
        match rustix::process::pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => Err(errno).call("pidfd_send_signal"),
        }
    }

    /// Waits until it has ended; nothing of its pid namespace lives then.
    pub fn wait(&mut self) -> Result<Ended> {
        if let Some(ended) = self.ended {
            return Ok(ended);
        }
        loop {
            match rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED) {
                Err(Errno::INTR) | Ok(None) => {}
                Err(errno) => return Err(errno).call("waitid"),
                Ok(Some(status)) => {
                    let ended = match (status.exit_status(), status.terminating_signal()) {
                        (Some(code), _) => Ended::Exited(code),
                        (None, signal) => Ended::Killed(signal.unwrap_or(Signal::KILL.as_raw())),
                    };
                    self.ended = Some(ended);
                    return Ok(ended);
                }
            }
        }
    }

    /// Removes the stubs that the child had made; call it after [`Child::wait`].
    pub fn remove_stubs(&mut self) -> Result<()> {
        stubs::remove(std::mem::take(&mut self.stubs))
    }

    /// Waits, and gives the stubs to be removed.
    pub(super) fn wait_and_take(mut self) -> Result<(Ended, Vec<Stub>)> {
        let ended = self.wait()?;
        Ok((ended, std::mem::take(&mut self.stubs)))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.ended.is_none() {
            // Nobody is left to be told.
            let _ = self.kill();
            let _ = self.wait();
        }
        let _ = self.remove_stubs();
    }
}
