//! The steps that change who and where the process is. Raw calls, since the C library's wrappers act on all threads.

use super::step::Identity;
use super::{Done, Named, fail};
use rustix::fs::{CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketType};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// The reason of the last call of the C library that failed.
pub(in crate::sys) fn last_errno() -> Errno {
    // SAFETY: the location is this thread's own, which is the waiting maker's.
    let number = unsafe { *libc::__errno_location() };
    // 0 says that nothing failed, which an `Errno` can't.
    if number > 0 { Errno::from_raw_os_error(number) } else { Errno::IO }
}

/// Leaves a namespace, or the shared table of open files.
pub(super) fn unshare(flags: libc::c_int) -> Done {
    // SAFETY: takes no pointers. A child that leaves the table of open files uses only copies from then on.
    if unsafe { libc::unshare(flags) } == 0 { Ok(()) } else { fail("unshare", last_errno()) }
}

/// Raises the score by which the kernel chooses what it kills, to the highest, for this process and its children. That needs no
/// privilege.
pub(super) fn oom_victim() {
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty()) {
        let _ = rustix::io::write(&file, b"1000");
    }
}

/// An anonymous session keyring, so that no key of the host's session can be reached. Without keyrings in the kernel, or
/// where a filter forbids the call, the command can't reach any either.
pub(super) fn new_keyring() -> Done {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, std::ptr::null::<libc::c_char>()) };
    if result >= 0 {
        return Ok(());
    }
    match last_errno() {
        Errno::NOSYS | Errno::PERM => Ok(()),
        errno => fail("keyctl", errno),
    }
}

/// Sets `IFF_UP` on `lo`; the kernel gives it 127.0.0.1 and ::1 then.
pub(super) fn loopback_up() -> Done {
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::DGRAM, None).fault("socket")?;
    // SAFETY: zeroes are a valid value of this structure of numbers.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the structure is the one that this request takes, and lives across the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw mut request) };
    if result == 0 { Ok(()) } else { fail("ioctl(SIOCSIFFLAGS)", last_errno()) }
}

/// Loads a filter without `no_new_privs`, which would disable setuid programs; so it needs CAP_SYS_ADMIN still.
pub(super) fn seccomp(filter: &[libc::sock_filter]) -> Done {
    let Ok(len) = libc::c_ushort::try_from(filter.len()) else { return fail("seccomp", Errno::INVAL) };
    // The kernel only reads through the pointer.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    // SAFETY: the program and the filter live across the call.
    let result = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    if result == 0 { Ok(()) } else { fail("seccomp", last_errno()) }
}

/// Loads a filter that tells its listener of calls; the listener. It is open in the maker, too, as long as the child shares
/// its table of open files.
pub(super) fn notify(filter: &[libc::sock_filter]) -> Done<OwnedFd> {
    let Ok(len) = libc::c_ushort::try_from(filter.len()) else { return fail("seccomp", Errno::INVAL) };
    // The kernel only reads through the pointer.
    let program = libc::sock_fprog { len, filter: filter.as_ptr().cast_mut() };
    let needed = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW | libc::SECCOMP_FILTER_FLAG_NEW_LISTENER;
    // So that a call that is being answered isn't interrupted by a signal, and then made again (Linux 5.19).
    for flags in [needed | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV, needed] {
        // SAFETY: the program and the filter live across the call.
        let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
        match libc::c_int::try_from(fd) {
            // SAFETY: the kernel has just made it for this process, which knows nobody else that would own it.
            Ok(fd) if fd >= 0 => return Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
            _ if last_errno() != Errno::INVAL => break,
            _ => {}
        }
    }
    fail("seccomp(SECCOMP_FILTER_FLAG_NEW_LISTENER)", last_errno())
}

/// Bounding set, groups, group, user, then the capabilities that are left.
///
/// Until the command is executed, this process has its maker's memory. Others of its user could look into that as soon as it has no
/// capability that they lack; so what isn't kept stays permitted, though not effective, and `execve` takes it away, by the bounding set.
/// With `no_new_privs` it wouldn't: there a process keeps what it has.
pub(super) fn become_user(identity: &Identity) -> Done {
    let kept = identity.capabilities;
    limit_bounding_set(kept)?;
    if !identity.keeps_ids {
        set_ids(identity)?;
    }
    let inheritable = if identity.ambient { kept } else { CapabilitySet::empty() };
    let permitted = match rustix::thread::no_new_privs() {
        Ok(false) => kept | rustix::thread::capabilities(None).fault("capget")?.permitted,
        _ => kept,
    };
    let sets = CapabilitySets { effective: kept, permitted, inheritable };
    rustix::thread::set_capabilities(None, sets).fault("capset")?;
    rustix::thread::clear_ambient_capability_set().fault("prctl(PR_CAP_AMBIENT)")?;
    if identity.ambient {
        for one in kept.iter() {
            rustix::thread::configure_capability_in_ambient_set(one, true).fault("prctl(PR_CAP_AMBIENT)")?;
        }
    }
    Ok(())
}

fn set_ids(identity: &Identity) -> Done {
    rustix::thread::set_keep_capabilities(true).fault("prctl(PR_SET_KEEPCAPS)")?;
    rustix::thread::set_thread_groups(&identity.groups).fault("setgroups")?;
    let (uid, gid) = (Uid::from_raw(identity.uid), Gid::from_raw(identity.gid));
    rustix::thread::set_thread_res_gid(gid, gid, gid).fault("setresgid")?;
    rustix::thread::set_thread_res_uid(uid, uid, uid).fault("setresuid")?;
    rustix::thread::set_keep_capabilities(false).fault("prctl(PR_SET_KEEPCAPS)")
}

/// Takes out of the bounding set what isn't kept, up to the last capability that the kernel knows.
fn limit_bounding_set(kept: CapabilitySet) -> Done {
    for bit in 0..CapabilitySet::empty().bits().count_zeros() {
        let one = CapabilitySet::from_bits_retain(1 << bit);
        if kept.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            Err(Errno::INVAL) => return Ok(()),
            Err(errno) => return fail("prctl(PR_CAPBSET_DROP)", errno),
        }
    }
    Ok(())
}
