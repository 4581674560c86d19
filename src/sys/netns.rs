//! A network namespace that a program of somebody else's connects to the world, and that program.

use super::child::{Namespaces, Program, Step};
use super::{Error, Result, Said};
use rustix::fs::{CWD, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
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

/// A new network namespace whose loopback device is up, for a process without CAP_NET_ADMIN where it is: the namespace belongs to a new
/// user namespace, whose maker has all rights there.
///
/// # Errors
/// Where there can be no such user namespace.
pub fn with_loopback() -> Result<OwnedFd> {
    let dumpable = rustix::process::dumpable_behavior().ok();
    let maker = std::thread::Builder::new().spawn(|| {
        be_nobody_else();
        let mut program = Program::default();
        let out = program.slot();
        program.push(Step::LoopbackUp);
        program.push(Step::OpenNetwork(out));
        let mut child = program.spawn(Namespaces::USERS_NETWORK).map_err(|failure| failure.error)?;
        child.take(out).ok_or(Error { call: "open", path: None, errno: Errno::BADF })
    });
    let made = match maker.call("clone")?.join() {
        Ok(made) => made,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    if let Some(DumpableBehavior::Dumpable) = dumpable {
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    made
}

/// Makes this thread the last user that there is, with the rights that it has: whoever has the number of a user namespace's maker has
/// all rights in it, and processes of images are root. A thread that can't become that user stays who it is.
fn be_nobody_else() {
    let last = || {
        let numbers = super::userns::numbers().ok()?;
        let mut fields = numbers.uids.lines().last()?.split_whitespace();
        let (first, count) = (fields.next()?.parse::<u32>().ok()?, fields.nth(1)?.parse::<u32>().ok()?);
        first.checked_add(count)?.checked_sub(1)
    };
    let (Some(last), Ok(mut rights)) = (last(), rustix::thread::capabilities(None)) else { return };
    let own = rustix::process::getuid();
    if rustix::thread::set_thread_res_uid(own, Uid::from_raw(last), own).is_ok() {
        rights.effective = rights.permitted;
        let _ = rustix::thread::set_capabilities(None, rights);
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
