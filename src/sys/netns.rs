//! A network namespace that a program of somebody else's connects to the world, and that program.

use super::{Error, Result, Said};
use rustix::fs::{CWD, Mode, OFlags};
use std::io;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// A new network namespace, which is there as long as the descriptor; its devices are all down.
///
/// # Errors
/// Without CAP_SYS_ADMIN in this process's user namespace.
pub fn new() -> Result<OwnedFd> {
    // A thread that makes one has it for itself, and takes nothing with it when it ends.
    let maker = std::thread::Builder::new().spawn(|| {
        // SAFETY: takes no pointer; only this thread is concerned.
        if unsafe { libc::unshare(libc::CLONE_NEWNET) } != 0 {
            return Err(Error { call: "unshare(CLONE_NEWNET)", path: None, errno: super::child::last_errno() });
        }
        let path = "/proc/thread-self/ns/net";
        rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).said("open", path)
    });
    match maker.call("clone")?.join() {
        Ok(made) => made,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Whether this process's network namespace belongs to its user namespace, so that its capabilities count there.
///
/// # Errors
/// Where `/proc` isn't mounted.
pub fn is_own() -> Result<bool> {
    let open = |path| rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).said("open", path);
    let (network, users) = (open("/proc/self/ns/net")?, open("/proc/self/ns/user")?);
    // SAFETY: takes no pointer.
    let owner = unsafe { libc::ioctl(network.as_raw_fd(), libc::NS_GET_USERNS as _) };
    if owner < 0 {
        // One outside of this process's isn't shown to it.
        return Ok(false);
    }
    // SAFETY: the kernel has just made it, and nobody else knows it.
    let owner = unsafe { OwnedFd::from_raw_fd(owner) };
    let inode = |fd: &OwnedFd| rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino)).call("fstat");
    Ok(inode(&owner)? == inode(&users)?)
}

/// Starts a program that is killed when the calling thread ends.
///
/// # Errors
/// Where it can't be executed.
pub fn spawn_bound(command: &mut Command) -> io::Result<Child> {
    // SAFETY: between fork and exec there is this one system call, which takes no pointer.
    unsafe {
        command.pre_exec(|| match libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        });
    }
    command.spawn()
}
