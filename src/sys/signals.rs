//! Signals as data: read from a descriptor, and sent on to other processes.
//!
//! | type | what |
//! |---|---|
//! | [`Signals`] | a queue within this process |
//! | [`BlockedSignals`] | signals to this process, read instead of handled (`signalfd`) |
//! | [`SignalSender`], [`SignalReceiver`] | a queue between two processes, which also shows that the sender has ended |

use super::{Error, Result, Said};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::Arc;

/// Signals that somebody got and another process shall have. Cheap to clone: all clones are one queue.
#[derive(Debug, Clone)]
pub struct Signals {
    ends: Arc<(OwnedFd, OwnedFd)>,
}

impl Signals {
    /// An empty queue. Fails only where no descriptor is left.
    pub fn new() -> Result<Self> {
        Ok(Self { ends: Arc::new(pipe()?) })
    }

    /// Adds a signal by its number. Thousands that nobody takes are as good as one.
    pub fn send(&self, number: u8) {
        let _ = rustix::io::write(&self.ends.1, &[number]);
    }

    /// Takes the oldest one.
    pub fn take(&self) -> Option<u8> {
        let mut number = [0];
        matches!(rustix::io::read(&self.ends.0, &mut number), Ok(1)).then_some(number[0])
    }
}

impl AsFd for Signals {
    /// A descriptor that is readable while a signal waits; to be read by [`Signals::take`] alone.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ends.0.as_fd()
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).call("pipe2")
}

/// Makes a queue between two processes, each of which keeps one end.
///
/// # Errors
/// Where no descriptor is left.
pub fn signal_queue() -> Result<(SignalSender, SignalReceiver)> {
    let (read, write) = pipe()?;
    Ok((SignalSender(write), SignalReceiver(Arc::new(read))))
}

/// The end that signals are put into. Once every copy of it is closed, the receiver is told.
#[derive(Debug)]
pub struct SignalSender(OwnedFd);

impl SignalSender {
    /// Adds a signal by its number; not if thousands wait already, or nobody will read it.
    pub fn send(&self, number: i32) {
        if let Ok(number) = u8::try_from(number) {
            let _ = rustix::io::write(&self.0, &[number]);
        }
    }
}

/// The end that signals are taken from: of a pipe that does not block, each byte of which is the number of a signal. Cheap to clone.
#[derive(Debug, Clone)]
pub struct SignalReceiver(Arc<OwnedFd>);

impl AsFd for SignalReceiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Signals to this process that wait to be read, and do nothing else.
pub struct BlockedSignals {
    fd: OwnedFd,
    /// What was blocked before.
    before: libc::sigset_t,
}

impl std::fmt::Debug for BlockedSignals {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockedSignals").field("fd", &self.fd).finish_non_exhaustive()
    }
}

impl BlockedSignals {
    /// Blocks signals in this thread, before there are others.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn new(numbers: &[i32]) -> Result<Self> {
        // SAFETY: the sets are this function's own, and the new descriptor is nobody else's.
        unsafe {
            let (mut set, mut before): (libc::sigset_t, libc::sigset_t) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigemptyset(&raw mut set);
            for number in numbers {
                libc::sigaddset(&raw mut set, *number);
            }
            let fd = libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC);
            if fd < 0 {
                return Err(Error { call: "signalfd", path: None, errno: super::child::last_errno() });
            }
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before);
            Ok(Self { fd: OwnedFd::from_raw_fd(fd), before })
        }
    }

    /// Waits for a signal and takes it: its number.
    ///
    /// # Errors
    /// Those of `read(2)`.
    pub fn wait(&self) -> Result<i32> {
        let mut bytes = [0; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.fd, &mut bytes) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).call("read"),
                // The number comes first.
                Ok(_) => {
                    let [a, b, c, d, ..] = bytes;
                    return Ok(i32::from_ne_bytes([a, b, c, d]));
                }
            }
        }
    }

    /// Lets signals do what they did before. Those that wait are delivered.
    pub fn unblock(self) {
        // SAFETY: restores what was there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut()) };
    }
}

/// Gives a signal its default action.
pub fn set_default_action(number: i32) {
    // SAFETY: there is no handler that could run.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn come_out_in_order_and_block_nobody() {
        let signals = Signals::new().unwrap();
        assert_eq!(signals.take(), None);
        for number in [15, 2] {
            signals.clone().send(number);
        }
        assert_eq!([signals.take(), signals.take(), signals.take()], [Some(15), Some(2), None]);
        for _ in 0..100_000 {
            signals.send(1);
        }
        assert_eq!(signals.take(), Some(1));
    }

    #[test]
    fn the_end_of_the_sender_is_noticed() {
        let (sender, receiver) = signal_queue().unwrap();
        let mut numbers = [0; 4];
        assert_eq!(rustix::io::read(&receiver, &mut numbers), Err(Errno::AGAIN));
        sender.send(15);
        sender.send(2);
        drop(sender);
        assert_eq!(rustix::io::read(&receiver, &mut numbers), Ok(2));
        assert_eq!(numbers[..2], [15, 2]);
        assert_eq!(rustix::io::read(&receiver, &mut numbers), Ok(0));
    }

    #[test]
    fn a_blocked_signal_is_read() {
        let signals = BlockedSignals::new(&[libc::SIGUSR2]).unwrap();
        // SAFETY: sends a blocked signal to this thread.
        unsafe { libc::raise(libc::SIGUSR2) };
        assert_eq!(signals.wait().unwrap(), libc::SIGUSR2);
        signals.unblock();
    }
}
