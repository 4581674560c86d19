//! The last steps: the terminal, the standard streams, the command.

use super::interpret::State;
use super::step::{Exec, Slot, Stdio, Stream};
use super::{Done, Fault, Named, fail, identity};
use rustix::cstr;
use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pty::OpenptFlags;
use std::os::fd::{AsRawFd, RawFd};

/// Opens a terminal of the sandbox's own devpts; its user side belongs to the command's user.
pub(super) fn open_terminal(state: &mut State, pts: Slot, main: Slot, user: Slot, uid: u32) -> Done {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(state.get(pts)?, cstr!("ptmx"), flags, Mode::empty()).fault("openat")?;
    rustix::pty::unlockpt(&opened).fault("ioctl(TIOCSPTLCK)")?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&opened, flags).fault("ioctl(TIOCGPTPEER)")?;
    rustix::fs::fchown(&peer, Some(Uid::from_raw(uid)), None::<Gid>).fault("fchown")?;
    state.put(main, opened)?;
    state.put(user, peer)
}

/// Takes the table of open files for itself, closing none. Not by `unshare`, which Docker's seccomp profile keeps from those
/// without CAP_SYS_ADMIN, whatever it is to share no more.
fn own_table() -> Done {
    // SAFETY: plain numbers.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, libc::c_uint::MAX, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
    };
    if result == 0 { Ok(()) } else { fail("close_range", identity::last_errno()) }
}

/// Takes the table of open files for itself, and puts the streams at 0, 1 and 2.
pub(super) fn stdio(stdio: &Stdio, state: &State) -> Done {
    own_table()?;
    let mut moved = [-1; 3];
    for (stream, place) in stdio.streams.iter().zip(&mut moved) {
        // Above 2, so that no stream overwrites another one.
        *place = above(source(stream, state)?)?;
    }
    for (number, from) in moved.iter().enumerate() {
        // SAFETY: plain numbers; the child's table is its own by now.
        if unsafe { libc::dup3(*from, number as RawFd, 0) } < 0 {
            return fail("dup3", identity::last_errno());
        }
    }
    if stdio.terminal {
        // SAFETY: takes no pointer; the session is new and has no terminal.
        if unsafe { libc::ioctl(0, libc::TIOCSCTTY as _, 0) } < 0 {
            return fail("ioctl(TIOCSCTTY)", identity::last_errno());
        }
    }
    // [`exec`] closes everything above; until then the maker can still be watched.
    Ok(())
}

/// Closes all descriptors but the standard streams. Not by `FD_CLOEXEC`: `execve` looks its path up before it closes
/// anything, so the command, or the interpreter that a script names, could be `/proc/self/fd/7/../bin/sh` of the host (CVE-2024-21626).
fn close_the_rest() -> Done {
    // SAFETY: closes descriptors of the child's own table; nothing of the maker's.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) };
    if closed == 0 { Ok(()) } else { fail("close_range", identity::last_errno()) }
}

fn source(stream: &Stream, state: &State) -> Done<RawFd> {
    match stream {
        Stream::Fd(fd) => Ok(fd.as_raw_fd()),
        Stream::Inherit(number) => Ok(*number),
        Stream::Slot(slot) => state.get(*slot).map(|fd| fd.as_raw_fd()),
    }
}

fn above(fd: RawFd) -> Done<RawFd> {
    // SAFETY: plain numbers.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy >= 0 { Ok(copy) } else { fail("fcntl(F_DUPFD)", identity::last_errno()) }
}

/// Gives every signal its default action (the maker may ignore some, as Rust programs do SIGPIPE) and unblocks all. Raw
/// calls, as the C library leaves two signals out that it has uses of its own for.
fn default_signals() {
    const SIZE: usize = 8;
    // Room for the kernel's `struct sigaction` of any architecture; zeroes are SIG_DFL with an empty mask.
    let zeroes = [0u64; 8];
    // SAFETY: the kernel only reads the zeroes; the table of actions is the child's own. What can't be set (SIGKILL) is as
    // it should be.
    unsafe {
        for number in 1..=64 {
            libc::syscall(libc::SYS_rt_sigaction, number, zeroes.as_ptr(), std::ptr::null::<u64>(), SIZE);
        }
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, zeroes.as_ptr(), std::ptr::null::<u64>(), SIZE);
    }
}

/// Executes the first candidate that can be; what is wrong with the best one otherwise.
pub(super) fn exec(exec: &Exec, state: &mut State) -> Done {
    close_the_rest()?;
    default_signals();
    let mut fault = Fault { call: "execve", errno: Errno::NOENT };
    for (number, path) in exec.candidates.iter().enumerate() {
        // SAFETY: path, arguments and environment are strings and arrays that end as they must, and live on.
        unsafe { libc::execve(path.as_ptr(), exec.args.as_ptr(), exec.env.as_ptr()) };
        let errno = identity::last_errno();
        match errno {
            Errno::NOENT | Errno::NOTDIR
                if rustix::fs::accessat(CWD, path.as_c_str(), Access::EXISTS, AtFlags::empty()).is_err() =>
            {
                continue;
            }
            // As execvp does: a later one may do.
            Errno::ACCESS => {}
            // There, but its interpreter isn't, or it is no program.
            _ => {
                state.candidate = number;
                return fail("execve", errno);
            }
        }
        if fault.errno != Errno::ACCESS {
            fault.errno = errno;
            state.candidate = number;
        }
    }
    if fault.errno == Errno::NOENT {
        state.candidate = exec.candidates.len();
    }
    Err(fault)
}
