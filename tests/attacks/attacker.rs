//! Helpers for attackers.

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::OwnedFd;

pub(crate) fn open_path(path: &str) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The error of a raw call, or its value.
pub(crate) fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<libc::c_long, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the arguments are numbers and pointers to what lives across the call.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value >= 0 { Ok(value) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()) }
}

/// Changes this process's own identity, which it can change again. kiln cannot read its memory from then on.
pub(crate) fn become_user(user: u32) {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    if rustix::process::geteuid() != uid {
        if !rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>).unwrap();
        }
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT).unwrap();
    }
}

pub(crate) fn without_capabilities() {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .unwrap();
}

/// Hides this process's memory from kiln.
pub(crate) fn undumpable() {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
}

/// Does something in a copy of this process. It must not fail.
pub(crate) fn in_a_copy(act: impl FnOnce()) {
    // SAFETY: the other threads of a test's process wait; the copy needs none of them.
    match unsafe { libc::fork() } {
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(act));
            // SAFETY: ends this process.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for a child of this process.
            assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
            assert_eq!(status, 0);
        }
    }
}
