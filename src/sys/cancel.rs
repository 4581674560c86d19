//! A flag that stops work, in a form that can be polled together with other descriptors.

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells work to stop. Cheap to clone: all clones are one flag, and once set it stays set.
#[derive(Debug, Clone)]
pub struct Cancel {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    set: AtomicBool,
    event: OwnedFd,
}

impl Cancel {
    /// A flag that isn't set. Fails only where no descriptor is left.
    pub fn new() -> super::Result<Self> {
        let event = super::Said::call(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK), "eventfd")?;
        Ok(Self { shared: Arc::new(Shared { set: AtomicBool::new(false), event }) })
    }

    /// Sets the flag. May be called from a signal handler's thread, any number of times.
    pub fn cancel(&self) {
        if !self.shared.set.swap(true, Ordering::SeqCst) {
            // The counter is at 0, so adding 1 can't fail.
            let _ = rustix::io::write(&self.shared.event, &1u64.to_ne_bytes());
        }
    }

    /// Whether the flag is set.
    pub fn is_cancelled(&self) -> bool {
        self.shared.set.load(Ordering::SeqCst)
    }

    /// Waits until the flag is set, but no longer than this many milliseconds; whether it is.
    pub fn is_set_within(&self, millis: u32) -> bool {
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(millis.min(999)) * 1_000_000 };
        // A signal only makes it shorter.
        let _ = poll(&mut [PollFd::new(self, PollFlags::IN)], Some(&wait));
        self.is_cancelled()
    }
}

impl AsFd for Cancel {
    /// A descriptor that is readable once the flag is set; never to be read.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.event.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn readable(cancel: &Cancel) -> bool {
        let mut fds = [PollFd::new(cancel, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() == 1
    }

    #[test]
    fn all_clones_are_one_flag_and_it_stays_set() {
        let a = Cancel::new().unwrap();
        let b = a.clone();
        assert!(!b.is_cancelled() && !readable(&b));
        assert!(!a.is_set_within(1));
        a.cancel();
        a.cancel();
        assert!(b.is_set_within(0) && b.is_cancelled() && readable(&b) && readable(&b));
    }
}
