//! The descriptors of a call's process.

use super::{Answer, Call, Listener};
use crate::sys::Result as Called;
use rustix::fs::readlink;
use rustix::io::Errno;
use std::os::fd::AsFd;

/// The flags of a descriptor that a replacement must have as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DescriptorFlags {
    /// Whether it is closed on `execve`.
    pub close_on_exec: bool,
    /// Whether calls on it fail instead of waiting (`O_NONBLOCK`).
    pub nonblocking: bool,
}

/// A call that waits for a later answer.
#[derive(Debug)]
pub struct Deferred<'a> {
    listener: &'a Listener,
    id: u64,
    thread: u32,
}

impl<'a> Call<'a> {
    /// Takes the call away from its loop, which gets [`Answer::Later`] for it.
    pub fn defer(&self) -> Deferred<'a> {
        Deferred { listener: self.listener, id: self.id, thread: self.thread() }
    }

    /// The number of the socket that a descriptor of the process is open for, among all sockets of the machine; `None` if it is
    /// open for something else, or not at all.
    ///
    /// # Errors
    /// `EACCES` if this thread may not look into the process; `ESRCH` if the call does not wait any more.
    pub fn socket(&self, fd: i32) -> Result<Option<u64>, Errno> {
        let link = readlink(self.proc(&format!("fd/{fd}")), Vec::new());
        self.alive()?;
        match link {
            Ok(text) => Ok(socket_number(text.to_str().unwrap_or_default())),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// The flags of a descriptor.
    ///
    /// # Errors
    /// As [`socket`](Self::socket); `EBADF` for one that is not open.
    pub fn descriptor_flags(&self, fd: i32) -> Result<DescriptorFlags, Errno> {
        let text = std::fs::read_to_string(self.proc(&format!("fdinfo/{fd}")));
        self.alive()?;
        let text = text.map_err(|e| match Errno::from_io_error(&e) {
            None | Some(Errno::NOENT) => Errno::BADF,
            Some(errno) => errno,
        })?;
        flags(&text).ok_or(Errno::BADF)
    }

    /// Puts a file into the process's table, in the place of one of its descriptors or of none, and gives its number. The call still
    /// waits.
    ///
    /// # Errors
    /// `EMFILE` for the process's own limit; `ENOENT` if the call does not wait any more.
    pub fn add_fd(&self, fd: impl AsFd, replaced: Option<i32>, close_on_exec: bool) -> Result<i32, Errno> {
        self.listener.add_fd(self.id, fd, replaced, (close_on_exec, 0))
    }
}

impl Deferred<'_> {
    /// Whether it still waits.
    pub fn is_alive(&self) -> bool {
        self.listener.is_valid(self.id)
    }

    /// Whether a signal waits for its thread. The kernel itself interrupts only for those that kill.
    pub fn has_signal(&self) -> bool {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.thread));
        status.is_ok_and(|status| is_signalled(&status))
    }

    /// [`Call::add_fd`].
    ///
    /// # Errors
    /// As [`Call::add_fd`].
    pub fn add_fd(&self, fd: impl AsFd, replaced: Option<i32>, close_on_exec: bool) -> Result<i32, Errno> {
        self.listener.add_fd(self.id, fd, replaced, (close_on_exec, 0))
    }

    /// Answers it.
    ///
    /// # Errors
    /// If the kernel refuses the answer.
    pub fn answer(self, answer: Answer) -> Called<()> {
        self.listener.send(self.id, answer)
    }
}

/// The number in `socket:[NUMBER]`.
fn socket_number(link: &str) -> Option<u64> {
    link.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

/// The flags in `/proc/PID/fdinfo/FD`, which are octal.
fn flags(text: &str) -> Option<DescriptorFlags> {
    let flags = text.lines().find_map(|line| line.strip_prefix("flags:"))?;
    let flags = i32::from_str_radix(flags.trim(), 8).ok()?;
    let has = |flag| flags & flag != 0;
    Some(DescriptorFlags { close_on_exec: has(libc::O_CLOEXEC), nonblocking: has(libc::O_NONBLOCK) })
}

/// Whether a signal is pending that is not blocked, by `/proc/PID/status`.
fn is_signalled(status: &str) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0)
    };
    (mask("SigPnd:") | mask("ShdPnd:")) & !mask("SigBlk:") != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pending_signals_are_read() {
        for (status, expected) in [
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000000000\n", true),
            ("SigPnd:\t0000000000000001\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", true),
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000002000\nSigBlk:\t0000000000002000\n", false),
            ("SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n", false),
        ] {
            assert_eq!(is_signalled(status), expected, "{status}");
        }
    }

    #[test]
    fn descriptors_are_read_from_proc() {
        assert_eq!(socket_number("socket:[12345]"), Some(12345));
        for other in ["pipe:[7]", "socket:[]", "socket:[7] (deleted)", "/socket:[7]", ""] {
            assert_eq!(socket_number(other), None, "{other}");
        }
        for (text, expected) in [
            ("pos:\t0\nflags:\t02004002\nmnt_id:\t9\n", Some((true, true))),
            ("pos:\t0\nflags:\t02\n", Some((false, false))),
            ("pos:\t0\n", None),
        ] {
            assert_eq!(flags(text).map(|f| (f.close_on_exec, f.nonblocking)), expected, "{text}");
        }
    }
}
