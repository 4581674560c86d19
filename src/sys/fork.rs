//! Making a copy of this process.

use super::{Error, Result};
use rustix::process::Pid;

/// Which of the two processes this one is after [`fork`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Forked {
    /// The one that called it; the new one has this number.
    Parent(Pid),
    /// The new one.
    Child,
}

/// Makes a copy of this process. Only before there are other threads: the copy has none of them, and a lock that one of them held
/// would stay locked.
///
/// # Errors
/// `EAGAIN` where the limit of processes is reached.
pub fn fork() -> Result<Forked> {
    // SAFETY: there is one thread, so the child may do whatever this process may.
    match unsafe { libc::fork() } {
        0 => Ok(Forked::Child),
        pid => match Pid::from_raw(pid).filter(|_| pid > 0) {
            Some(child) => Ok(Forked::Parent(child)),
            None => Err(Error { call: "fork", path: None, errno: super::child::last_errno() }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::WaitOptions;

    #[test]
    fn the_child_is_a_child() {
        match fork().unwrap() {
            // SAFETY: ends this process without running anything of its maker's.
            Forked::Child => unsafe { libc::_exit(7) },
            Forked::Parent(child) => {
                let (_, status) = rustix::process::waitpid(Some(child), WaitOptions::empty()).unwrap().unwrap();
                assert_eq!(status.exit_status(), Some(7));
            }
        }
    }
}
