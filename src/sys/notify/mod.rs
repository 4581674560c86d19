//! System calls of other processes, answered here: seccomp's user notification.
//!
//! A filter that says [`RET_USER_NOTIF`](libc::SECCOMP_RET_USER_NOTIF) for a call stops the process in it and tells whoever
//! holds the filter's listener. [`Step::Notify`](super::child::Step::Notify) loads such a filter in a child and leaves the
//! listener in a slot; [`Listener::serve`] answers the calls, one after the other, until no process is left that the
//! filter is for.
//!
//! **What may be decided here.** The processes are hostile. While a call waits, another thread of the same process may change
//! the strings it points to, and another process the files that they name. So
//! - memory is read once, and what was read is what is acted on ([`Call::string`], [`Call::bytes`]). It is read and written through
//!   `/proc/PID/mem`, which is opened before [`Call::is_alive`] is checked: it stays the memory of the process that made the call;
//! - files are named by descriptors, which are opened inside the process's root and never by way of the magic links of
//!   `/proc` ([`Call::find`], [`Call::parent`]); what is done is done to the descriptor;
//! - a number of a process may be given to another one once it has died: everything that was found by it is checked by
//!   [`Call::is_alive`] afterwards, before it is used;
//! - [`Answer::Continue`] lets the kernel make the call with whatever stands in memory *then*. It grants nothing that the
//!   process might not do without a filter, and must never be the result of a check of arguments that are more than
//!   plain numbers. Forbidding is the business of filters that answer by themselves.
//!
//! Whatever a process makes of this, it gets at nothing that the one who answers doesn't do for it: so that one does
//! nothing on files that the process could not have done itself.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the listener and its loop |
//! | `call` | one call, and its process's memory |
//! | `descriptors` | its process's descriptors: what they are, and new ones |
//! | `paths` | the files that its arguments name |
//! | `process` | what its process is, and its structures |

mod call;
mod descriptors;
mod paths;
mod process;

pub use call::{Call, KeptProcess};
pub use descriptors::{Deferred, DescriptorFlags};
pub use paths::{Origin, reopen};
pub use process::without_umask;

use super::{Result, Said};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// What becomes of a call.
#[derive(Debug)]
pub enum Answer {
    /// The kernel makes it after all, with the arguments as they are by then.
    Continue,
    /// It gives this value.
    Value(i64),
    /// It fails.
    Errno(Errno),
    /// It gives a new descriptor of the process's for this file.
    Fd {
        /// The file.
        fd: OwnedFd,
        /// Whether it is closed on `execve`.
        close_on_exec: bool,
    },
    /// It waits. Whoever has its [`Deferred`] answers it.
    Later,
}

/// Decides about calls.
pub trait Service<'l> {
    /// Answers a call.
    fn answer(&mut self, call: &Call<'l>) -> Answer;

    /// Whether calls were deferred.
    fn is_waiting(&self) -> bool {
        false
    }

    /// Goes on with them; called once in every [`INTERVAL`].
    fn go_on(&mut self) {}
}

/// A service that answers each call at once.
struct AtOnce<'f>(&'f mut dyn FnMut(&Call<'_>) -> Answer);

impl<'l> Service<'l> for AtOnce<'_> {
    fn answer(&mut self, call: &Call<'l>) -> Answer {
        (self.0)(call)
    }
}

/// How often deferred calls are looked at.
pub const INTERVAL: Duration = Duration::from_millis(5);

/// The end of a filter at which calls arrive. Closed, all calls that wait for an answer, and all further ones, fail with
/// `ENOSYS`.
#[derive(Debug)]
pub struct Listener {
    fd: OwnedFd,
}

impl Listener {
    /// Takes what [`Step::Notify`](super::child::Step::Notify) left in its slot.
    ///
    /// # Errors
    /// On a kernel whose notifications are larger than those known here.
    pub fn new(fd: OwnedFd) -> Result<Self> {
        // SAFETY: zeroes are a valid value; the kernel fills it in.
        let sizes = unsafe {
            let mut sizes: libc::seccomp_notif_sizes = zeroed();
            let result = libc::syscall(libc::SYS_seccomp, libc::SECCOMP_GET_NOTIF_SIZES, 0, &raw mut sizes);
            check(result, "seccomp(SECCOMP_GET_NOTIF_SIZES)")?;
            sizes
        };
        let fits = usize::from(sizes.seccomp_notif) <= size_of::<libc::seccomp_notif>()
            && usize::from(sizes.seccomp_notif_resp) <= size_of::<libc::seccomp_notif_resp>();
        if !fits {
            return Err(Errno::TOOBIG).call("seccomp(SECCOMP_GET_NOTIF_SIZES)");
        }
        // Whoever answers goes on where the call waits, without a detour by another processor. Linux 6.6; without it, it
        // only takes longer.
        const SYNC_WAKE_UP: u64 = 1;
        // SAFETY: takes a plain number.
        unsafe { libc::ioctl(fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS as _, SYNC_WAKE_UP) };
        Ok(Self { fd })
    }

    /// Answers calls, in the calling thread, until no process is left that the filter is for or `stop` is readable (a
    /// [`Cancel`](super::Cancel), say). To be run in a thread of its own, which must not be one that waits for the processes.
    ///
    /// # Errors
    /// If the kernel gives no calls any more. The processes must be killed then: once this listener is dropped, their
    /// calls fail with `ENOSYS`.
    pub fn serve(&self, stop: impl AsFd, answer: &mut dyn FnMut(&Call<'_>) -> Answer) -> Result<()> {
        self.serve_with(stop, &mut AtOnce(answer))
    }

    /// The same by a service that may defer calls.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn serve_with<'l>(&'l self, stop: impl AsFd, service: &mut impl Service<'l>) -> Result<()> {
        let mut last = Instant::now();
        loop {
            match self.wait(stop.as_fd(), service.is_waiting())? {
                Event::End => return Ok(()),
                Event::Interval => {}
                Event::Call => {
                    let Some(call) = self.receive()? else { continue };
                    let answer = service.answer(&call);
                    self.send(call.id, answer)?;
                }
            }
            if service.is_waiting() && last.elapsed() >= INTERVAL {
                service.go_on();
                last = Instant::now();
            }
        }
    }

    /// Waits for a call, or for the end of the interval where calls are deferred.
    fn wait(&self, stop: BorrowedFd<'_>, is_waiting: bool) -> Result<Event> {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN), PollFd::from_borrowed_fd(stop, PollFlags::IN)];
        let interval = rustix::event::Timespec { tv_sec: 0, tv_nsec: INTERVAL.subsec_nanos().into() };
        loop {
            match poll(&mut fds, is_waiting.then_some(&interval)) {
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).call("poll"),
                Ok(0) => return Ok(Event::Interval),
                Ok(_) => {
                    let [listener, stop] = fds.map(|fd| fd.revents());
                    let is_call = stop.is_empty() && listener.contains(PollFlags::IN);
                    return Ok(if is_call { Event::Call } else { Event::End });
                }
            }
        }
    }

    /// The next call; `None` if its process has died, or was interrupted, since it came.
    fn receive(&self) -> Result<Option<Call<'_>>> {
        // SAFETY: the kernel wants zeroes, and fills in at most what `new` has compared.
        let received = unsafe {
            let mut notification: libc::seccomp_notif = zeroed();
            let result = libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV as _, &raw mut notification);
            check(result.into(), "ioctl(SECCOMP_IOCTL_NOTIF_RECV)").map(|()| notification)
        };
        match received {
            Ok(notification) => Ok(Some(Call::new(self, &notification))),
            Err(error) if matches!(error.errno, Errno::NOENT | Errno::INTR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn send(&self, id: u64, answer: Answer) -> Result<()> {
        let (val, error, flags) = match answer {
            Answer::Continue => (0, 0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32),
            Answer::Value(value) => (value, 0, 0),
            Answer::Errno(errno) => (0, -errno.raw_os_error(), 0),
            Answer::Fd { fd, close_on_exec } => return self.send_fd(id, &fd, close_on_exec),
            Answer::Later => return Ok(()),
        };
        let response = libc::seccomp_notif_resp { id, val, error, flags };
        // SAFETY: the kernel only reads the response.
        let result =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND as _, &raw const response) };
        unless_gone(check(result.into(), "ioctl(SECCOMP_IOCTL_NOTIF_SEND)"))
    }

    /// Puts a file into the process's table and answers with its number, in one step (Linux 5.14).
    fn send_fd(&self, id: u64, fd: &OwnedFd, close_on_exec: bool) -> Result<()> {
        match self.add_fd(id, fd, None, (close_on_exec, libc::SECCOMP_ADDFD_FLAG_SEND as u32)) {
            // The process's own limit: its call fails as it would have done.
            Err(Errno::MFILE) => self.send(id, Answer::Errno(Errno::MFILE)),
            done => unless_gone(done.map(drop).call("ioctl(SECCOMP_IOCTL_NOTIF_ADDFD)")),
        }
    }

    /// Puts a file into the process's table, in the place of one of its descriptors or of none, and gives the number.
    fn add_fd(
        &self,
        id: u64,
        fd: impl AsFd,
        replaced: Option<i32>,
        (close_on_exec, flags): (bool, u32),
    ) -> std::result::Result<i32, Errno> {
        let set = if replaced.is_some() { libc::SECCOMP_ADDFD_FLAG_SETFD as u32 } else { 0 };
        let request = libc::seccomp_notif_addfd {
            id,
            flags: flags | set,
            srcfd: fd.as_fd().as_raw_fd().unsigned_abs(),
            newfd: replaced.unwrap_or(0).cast_unsigned(),
            newfd_flags: if close_on_exec { libc::O_CLOEXEC.unsigned_abs() } else { 0 },
        };
        // SAFETY: the kernel only reads the request.
        let number =
            unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ADDFD as _, &raw const request) };
        if number >= 0 { Ok(number) } else { Err(super::child::last_errno()) }
    }

    /// Whether a call still waits.
    fn is_valid(&self, id: u64) -> bool {
        // SAFETY: the kernel only reads the number.
        unsafe { libc::ioctl(self.fd.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID as _, &raw const id) == 0 }
    }
}

/// What a listener waited for.
enum Event {
    Call,
    /// Nothing happened, but calls are deferred.
    Interval,
    /// There will be no more calls, or none is wanted.
    End,
}

fn check(result: libc::c_long, call: &'static str) -> Result<()> {
    if result >= 0 { Ok(()) } else { Err(super::child::last_errno()).call(call) }
}

/// A process that was killed meanwhile needs no answer; one that was interrupted asks again.
fn unless_gone(done: Result<()>) -> Result<()> {
    match done {
        Err(error) if matches!(error.errno, Errno::NOENT | Errno::INPROGRESS) => Ok(()),
        done => done,
    }
}

#[cfg(test)]
#[cfg(target_arch = "x86_64")]
mod tests;
