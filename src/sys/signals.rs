//! Signals on their way to a process, in a form that can be polled together with other descriptors.

use rustix::pipe::PipeFlags;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Signals that somebody got and another process shall have. Cheap to clone: all clones are one queue.
#[derive(Debug, Clone)]
pub struct Signals {
    ends: Arc<(OwnedFd, OwnedFd)>,
}

impl Signals {
    /// An empty queue. Fails only where no descriptor is left.
    pub fn new() -> super::Result<Self> {
        let ends = rustix::pipe::pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK);
        Ok(Self { ends: Arc::new(super::Said::call(ends, "pipe2")?) })
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
}
