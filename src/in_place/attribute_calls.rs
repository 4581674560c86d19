//! Modes, owners, times and attributes of files, for processes behind [confinement](super::confinement).
//!
//! Landlock says nothing of changes of these: a process that may read nothing of kiln's could still give away a file of the
//! store, or make one of the container's programs set-id. So who has root's rights over files has these calls answered: kiln
//! finds the file, refuses what is closed, and does the rest itself, in the role of who asks, since what is named may be
//! another file by the time that the kernel looks. Whoever has no such rights changes nothing but his own files, which kiln has none
//! of: those calls go on.

use super::caller::AssumedIdentity;
use super::confinement::Confinement;
use crate::sandbox::seccomp::{self, When};
use crate::sys::file::by_number;
use crate::sys::notify::{Answer, Call};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::CapabilitySet;
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// How a call names a file.
#[derive(Debug, Clone, Copy)]
enum Named {
    /// By a path, its first argument; whether a link at its end is followed.
    Path(bool),
    /// By a descriptor to start from, a path, and flags in this argument, if it has any.
    From(Option<usize>),
}

/// What a call asks for.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Mode(Named),
    /// Whether the numbers have 16 bits for programs of 32 bits.
    Owner(Named, bool),
    Times(Named, Clock),
    Set(Named),
    Remove(Named),
    /// A newer form, which programs do without.
    Newer,
}

/// How times are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Clock {
    Seconds,
    Micros,
    Nanos,
    /// 64 bits whatever the program.
    LongNanos,
}

/// The calls.
const CALLS: [(&str, Asked); 19] = {
    use Asked::{Mode, Newer, Owner, Remove, Set, Times};
    use Named::{From, Path};
    [
        ("chmod", Mode(Path(true))),
        ("fchmodat", Mode(From(None))),
        ("fchmodat2", Mode(From(Some(3)))),
        ("chown", Owner(Path(true), true)),
        ("lchown", Owner(Path(false), true)),
        ("chown32", Owner(Path(true), false)),
        ("lchown32", Owner(Path(false), false)),
        ("fchownat", Owner(From(Some(4)), false)),
        ("utime", Times(Path(true), Clock::Seconds)),
        ("utimes", Times(Path(true), Clock::Micros)),
        ("futimesat", Times(From(None), Clock::Micros)),
        ("utimensat", Times(From(Some(3)), Clock::Nanos)),
        ("utimensat_time64", Times(From(Some(3)), Clock::LongNanos)),
        ("setxattr", Set(Path(true))),
        ("lsetxattr", Set(Path(false))),
        ("removexattr", Remove(Path(true))),
        ("lremovexattr", Remove(Path(false))),
        ("setxattrat", Newer),
        ("removexattrat", Newer),
    ]
};

/// The calls, for a filter. What needs a descriptor of a file that was opened (`fchmod`, and `futimens`, which has no path) isn't
/// among them: Landlock lets nothing be opened that is closed. So `cp` and `tar` wait for an answer of few of their calls.
pub(super) fn calls() -> impl Iterator<Item = (&'static str, When)> {
    CALLS.iter().map(|(name, asked)| match asked {
        Asked::Times(Named::From(_), _) => (*name, When::Points(1)),
        _ => (*name, When::Always),
    })
}

/// With any of these, a process changes files that aren't its own.
const RIGHTS: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// The calls by architecture and number: what is asked, and whether the program has 32 bits.
#[derive(Debug)]
pub(super) struct Table(HashMap<(u32, libc::c_long), (Asked, bool)>);

impl Table {
    /// The same for every process.
    pub(super) fn new() -> Self {
        let all = CALLS.iter().flat_map(|(name, asked)| {
            seccomp::numbers(name).map(move |(architecture, number, narrow)| ((architecture, number), (*asked, narrow)))
        });
        Self(all.collect())
    }
}

/// Answers those calls.
#[derive(Debug)]
pub(super) struct AttributeCalls<'a> {
    pub(super) table: &'a Table,
    pub(super) confinement: &'a Confinement,
}

impl AttributeCalls<'_> {
    /// What becomes of a call; nothing for one that isn't of these.
    pub(super) fn answer(&self, call: &Call<'_>, role: &mut AssumedIdentity) -> Option<Answer> {
        let (asked, narrow) = *self.table.0.get(&(call.architecture(), call.number()))?;
        if matches!(asked, Asked::Newer) {
            return Some(Answer::Errno(Errno::NOSYS));
        }
        // Of a thread that waits: it can't change its own rights meanwhile.
        let who = Pid::from_raw(call.thread().cast_signed());
        let rights = rustix::thread::capabilities(who).map_or(RIGHTS, |sets| sets.effective);
        if !call.is_alive() || !rights.intersects(RIGHTS) {
            return Some(Answer::Continue);
        }
        Some(match self.change(call, role, asked, narrow) {
            Ok(()) => Answer::Value(0),
            Err(errno) => Answer::Errno(errno),
        })
    }

    fn change(&self, call: &Call<'_>, role: &mut AssumedIdentity, asked: Asked, narrow: bool) -> Result<(), Errno> {
        let (Asked::Mode(named)
        | Asked::Owner(named, _)
        | Asked::Times(named, _)
        | Asked::Set(named)
        | Asked::Remove(named)) = asked
        else {
            return Err(Errno::NOSYS);
        };
        let file = find(call, role, named)?;
        role.apart(|| self.refuse_closed(&file))?;
        let path = by_number(&file);
        // What comes behind the path.
        let next = if matches!(named, Named::Path(_)) { 1 } else { 2 };
        match asked {
            Asked::Mode(_) => {
                let mode = Mode::from_raw_mode(call.int(next).cast_unsigned() & 0o7777);
                rustix::fs::chmodat(CWD, path, mode, AtFlags::empty())
            }
            Asked::Owner(_, short) => {
                let id = |index| number(call.int(index).cast_unsigned(), short && narrow);
                let (uid, gid) = (id(next).map(Uid::from_raw), id(next + 1).map(Gid::from_raw));
                rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)
            }
            Asked::Times(_, clock) => {
                let times = times(call, role, (call.argument(next), clock), narrow)?;
                rustix::fs::utimensat(&file, "", &times, AtFlags::EMPTY_PATH)
            }
            Asked::Set(_) => {
                let size =
                    usize::try_from(call.argument(3)).ok().filter(|size| *size <= LONGEST).ok_or(Errno::TOOBIG)?;
                let value = if size == 0 { Vec::new() } else { role.bytes(call, call.argument(2), size)? };
                let flags = XattrFlags::from_bits_retain(call.int(4).cast_unsigned());
                rustix::fs::setxattr(path, role.read(call, call.argument(1))?, &value, flags)
            }
            Asked::Remove(_) => rustix::fs::removexattr(path, role.read(call, call.argument(1))?),
            Asked::Newer => Err(Errno::NOSYS),
        }
    }

    /// Fails for what processes can't reach, and for the files of processes, of which this one's look like theirs.
    fn refuse_closed(&self, file: &OwnedFd) -> Result<(), Errno> {
        const PROC: u64 = 0x9fa0;
        self.confinement.refuse_hidden(file)?;
        match rustix::fs::fstatfs(file)?.f_type as u64 {
            PROC => Err(Errno::PERM),
            _ => Ok(()),
        }
    }
}

/// The kernel's `XATTR_SIZE_MAX`.
const LONGEST: usize = 64 << 10;

/// The file that a call is about.
fn find(call: &Call<'_>, role: &mut AssumedIdentity, named: Named) -> Result<OwnedFd, Errno> {
    let (from, at, flags) = match named {
        Named::Path(true) => (libc::AT_FDCWD, 0, 0),
        Named::Path(false) => (libc::AT_FDCWD, 0, libc::AT_SYMLINK_NOFOLLOW),
        Named::From(flags) => (call.int(0), 1, flags.map_or(0, |index| call.int(index))),
    };
    if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
        return Err(Errno::INVAL);
    }
    let itself = flags & libc::AT_EMPTY_PATH != 0;
    let path = role.read(call, call.argument(at))?;
    if path.is_empty() && itself {
        return call.descriptor(from);
    }
    let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
    match descriptor(path.to_bytes()).filter(|_| follow) {
        Some(number) => call.descriptor(number),
        None => call.find(from, &path, follow),
    }
}

/// The descriptor that a path is another word for.
fn descriptor(path: &[u8]) -> Option<i32> {
    match path {
        b"/dev/stdin" => Some(0),
        b"/dev/stdout" => Some(1),
        b"/dev/stderr" => Some(2),
        _ => {
            let folders = [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"];
            let number = folders.iter().find_map(|folder| path.strip_prefix(*folder))?;
            let digits = std::str::from_utf8(number).ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
            digits.parse().ok()
        }
    }
}

/// A user's or group's number, or nothing for one that is to stay.
fn number(id: u32, short: bool) -> Option<u32> {
    let (id, none) = if short { (id & 0xffff, 0xffff) } else { (id, u32::MAX) };
    (id != none).then_some(id)
}

/// The times at an address; now where there is none.
fn times(
    call: &Call<'_>,
    role: &mut AssumedIdentity,
    (address, clock): (u64, Clock),
    narrow: bool,
) -> Result<Timestamps, Errno> {
    if address == 0 {
        let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        return Ok(Timestamps { last_access: now, last_modification: now });
    }
    let width = if narrow && clock != Clock::LongNanos { 4 } else { 8 };
    let count = if clock == Clock::Seconds { 2 } else { 4 };
    let bytes = role.bytes(call, address, count * width)?;
    let numbers: Vec<i64> = bytes.chunks_exact(width).filter_map(signed).collect();
    told(&numbers, clock).ok_or(Errno::INVAL)
}

/// A number of 32 or 64 bits.
fn signed(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => Some(i32::from_ne_bytes(bytes.try_into().ok()?).into()),
        _ => Some(i64::from_ne_bytes(bytes.try_into().ok()?)),
    }
}

/// Both times by their numbers.
fn told(numbers: &[i64], clock: Clock) -> Option<Timestamps> {
    let spec = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let micros = |micros: i64| (0..1_000_000).contains(&micros).then_some(micros * 1000);
    let (last_access, last_modification) = match (clock, numbers) {
        (Clock::Seconds, [a, b]) => (spec(*a, 0), spec(*b, 0)),
        (Clock::Micros, [a, am, b, bm]) => (spec(*a, micros(*am)?), spec(*b, micros(*bm)?)),
        (Clock::Nanos | Clock::LongNanos, [a, an, b, bn]) => (spec(*a, *an), spec(*b, *bn)),
        _ => return None,
    };
    Some(Timestamps { last_access, last_modification })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_for_descriptors() {
        for (path, expected) in [
            ("/dev/stdout", Some(1)),
            ("/proc/self/fd/12", Some(12)),
            ("/dev/fd/0", Some(0)),
            ("/proc/self/fd/12/x", None),
            ("/proc/self/fd/", None),
            ("/proc/self/fd/+1", None),
            ("/proc/1/fd/1", None),
            ("dev/fd/0", None),
        ] {
            assert_eq!(descriptor(path.as_bytes()), expected, "{path}");
        }
    }

    #[test]
    fn numbers_that_stay() {
        assert_eq!([number(0xffff, true), number(0x1_ffff, true), number(u32::MAX, false)], [None; 3]);
        assert_eq!((number(0x1_0007, true), number(0xffff, false)), (Some(7), Some(0xffff)));
    }

    #[test]
    fn times_of_all_clocks() {
        let of = |numbers: &[i64], clock| {
            told(numbers, clock)
                .map(|t| (t.last_access.tv_nsec, t.last_modification.tv_sec, t.last_modification.tv_nsec))
        };
        assert_eq!(of(&[1, 2], Clock::Seconds), Some((0, 2, 0)));
        assert_eq!(of(&[1, 2, 3, 4], Clock::Micros), Some((2000, 3, 4000)));
        assert_eq!(of(&[1, 2, 3, 1_000_000], Clock::Micros), None);
        assert_eq!(of(&[1, libc::UTIME_OMIT, -3, 4], Clock::Nanos), Some((libc::UTIME_OMIT, -3, 4)));
        assert_eq!(of(&[1, 2, 3], Clock::LongNanos), None);
    }

    #[test]
    fn calls_of_both_architectures_are_known() {
        let table = Table::new();
        assert!(CALLS.iter().all(|(name, _)| seccomp::numbers(name).next().is_some()));
        assert!(table.0.values().any(|(_, narrow)| *narrow));
    }
}
