//! Emulates the system calls that change modes, owners, timestamps and extended attributes, which Landlock does not restrict.
//!
//! Root owns kiln's program and store, and a snapshot contains files of any user. So kiln answers every such call that names a file by
//! a path, whoever makes it. It resolves the path with the caller's credentials, refuses what is hidden, and changes the file that it
//! found, by its descriptor: another process may have renamed what the path means by the time the kernel looks.
//!
//! Calls on a descriptor (`fchmod`, `fchown`, `fsetxattr`, `futimens`, `ioctl`) are not intercepted: they need an open file, and Landlock
//! lets no hidden file be opened. An `O_PATH` descriptor is not enough for them. So `cp` and `tar` wait for few of their calls.

use super::caller::{AssumedIdentity, Caller, own_descriptor};
use super::confinement::Confinement;
use super::hidden_owners::HiddenOwners;
use crate::sandbox::seccomp::{self, When};
use crate::sys::file::by_number;
use crate::sys::notify::{Answer, Call, Origin};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// How a call names a file.
#[derive(Debug, Clone, Copy)]
enum FileArgument {
    /// By a path, its first argument; whether a link at its end is followed.
    Path(bool),
    /// By a descriptor to start from, a path, and flags in this argument, if it has any.
    At(Option<usize>),
}

/// The kind of a call.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Mode(FileArgument),
    /// Whether the IDs have 16 bits for programs of 32 bits.
    Owner(FileArgument, bool),
    Times(FileArgument, TimeFormat),
    SetAttribute(FileArgument),
    RemoveAttribute(FileArgument),
    /// A call of a recent kernel, without which programs can do.
    Refused,
}

/// The format of timestamps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TimeFormat {
    Seconds,
    Micros,
    Nanos,
    /// 64 bits also for programs of 32 bits.
    LongNanos,
}

/// The calls.
const CALLS: [(&str, Kind); 19] = {
    use FileArgument::{At, Path};
    use Kind::{Mode, Owner, Refused, RemoveAttribute, SetAttribute, Times};
    [
        ("chmod", Mode(Path(true))),
        ("fchmodat", Mode(At(None))),
        ("fchmodat2", Mode(At(Some(3)))),
        ("chown", Owner(Path(true), true)),
        ("lchown", Owner(Path(false), true)),
        ("chown32", Owner(Path(true), false)),
        ("lchown32", Owner(Path(false), false)),
        ("fchownat", Owner(At(Some(4)), false)),
        ("utime", Times(Path(true), TimeFormat::Seconds)),
        ("utimes", Times(Path(true), TimeFormat::Micros)),
        ("futimesat", Times(At(None), TimeFormat::Micros)),
        ("utimensat", Times(At(Some(3)), TimeFormat::Nanos)),
        ("utimensat_time64", Times(At(Some(3)), TimeFormat::LongNanos)),
        ("setxattr", SetAttribute(Path(true))),
        ("lsetxattr", SetAttribute(Path(false))),
        ("removexattr", RemoveAttribute(Path(true))),
        ("lremovexattr", RemoveAttribute(Path(false))),
        ("setxattrat", Refused),
        ("removexattrat", Refused),
    ]
};

/// The calls, for a filter. Without a path, `utimensat` is `futimens`.
pub(super) fn calls() -> impl Iterator<Item = (&'static str, When)> {
    CALLS.iter().map(|(name, kind)| match kind {
        Kind::Times(FileArgument::At(_), _) => (*name, When::Points(1)),
        _ => (*name, When::Always),
    })
}

/// The calls by architecture and number: the kind, and whether the program has 32 bits.
#[derive(Debug)]
pub(super) struct Table(HashMap<(u32, libc::c_long), (Kind, bool)>);

impl Table {
    /// The same for every RUN.
    pub(super) fn new() -> Self {
        let all = CALLS.iter().flat_map(|(name, kind)| {
            seccomp::numbers(name).map(move |(architecture, number, narrow)| ((architecture, number), (*kind, narrow)))
        });
        Self(all.collect())
    }
}

/// Answers those calls.
#[derive(Debug)]
pub(super) struct AttributeCalls<'a> {
    table: &'a Table,
    confinement: &'a Confinement,
    owners: HiddenOwners<'a>,
}

/// What a call asks for, read once from the memory of its process.
struct Request<'a> {
    file: NamedFile<'a>,
    change: Change,
}

/// The file of a request.
enum NamedFile<'a> {
    Open(OwnedFd),
    Path { origin: Origin<'a>, path: CString, follow: bool },
}

/// The change of a request.
enum Change {
    Mode(Mode),
    Owner(Option<Uid>, Option<Gid>),
    Times(Timestamps),
    SetAttribute { name: CString, value: Vec<u8>, flags: XattrFlags },
    RemoveAttribute(CString),
}

impl<'a> AttributeCalls<'a> {
    pub(super) fn new(table: &'a Table, confinement: &'a Confinement) -> Self {
        Self { table, confinement, owners: HiddenOwners::new(confinement) }
    }

    /// Answers a call; `None` for one that is not of these.
    pub(super) fn answer(&mut self, call: &Call<'_>, identity: &mut AssumedIdentity) -> Option<Answer> {
        let (kind, narrow) = *self.table.0.get(&(call.architecture(), call.number()))?;
        let done = match Request::read(call, identity, kind, narrow) {
            Ok(request) => self.carry_out(call, identity, request),
            Err(Errno::ACCESS) => return Some(self.answer_unreadable(call, identity)),
            Err(errno) => Err(errno),
        };
        Some(match done {
            Ok(()) => Answer::Value(0),
            Err(errno) => Answer::Errno(errno),
        })
    }

    /// Answers a call of a process that kiln may not look into: one that gave up root's identity itself, for example a download
    /// method of apt. It may go on if it has rights over its own files alone, and none of these is hidden.
    fn answer_unreadable(&mut self, call: &Call<'_>, identity: &mut AssumedIdentity) -> Answer {
        let goes_on = Caller::of(call)
            .filter(Caller::is_unprivileged)
            .is_some_and(|caller| identity.assume(&caller).is_ok() && !self.owners.include(caller.credentials.uid));
        if goes_on { Answer::Continue } else { Answer::Errno(Errno::PERM) }
    }

    fn carry_out(
        &self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        Request { file, change }: Request<'_>,
    ) -> Result<(), Errno> {
        identity.assume(&Caller::of(call).ok_or(Errno::SRCH)?)?;
        let file = file.find()?;
        self.refuse_hidden(&file)?;
        let path = by_number(&file);
        match change {
            Change::Mode(mode) => rustix::fs::chmodat(CWD, path, mode, AtFlags::empty()),
            Change::Owner(uid, gid) => rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH),
            Change::Times(times) => rustix::fs::utimensat(&file, "", &times, AtFlags::EMPTY_PATH),
            Change::SetAttribute { name, value, flags } => rustix::fs::setxattr(path, name, &value, flags),
            Change::RemoveAttribute(name) => rustix::fs::removexattr(path, name),
        }
    }

    /// Fails for hidden files, and for those of `/proc`: the files of this process look like those of the caller there.
    fn refuse_hidden(&self, file: &OwnedFd) -> Result<(), Errno> {
        const PROC: u64 = 0x9fa0;
        self.confinement.refuse_hidden(file)?;
        match rustix::fs::fstatfs(file)?.f_type as u64 {
            PROC => Err(Errno::PERM),
            _ => Ok(()),
        }
    }
}

impl<'a> Request<'a> {
    /// Reads what a call asks for.
    ///
    /// # Errors
    /// `EACCES` if kiln may not look into the process; otherwise as the kernel has them.
    fn read(call: &'a Call<'a>, identity: &mut AssumedIdentity, kind: Kind, narrow: bool) -> Result<Self, Errno> {
        let (Kind::Mode(file)
        | Kind::Owner(file, _)
        | Kind::Times(file, _)
        | Kind::SetAttribute(file)
        | Kind::RemoveAttribute(file)) = kind
        else {
            return Err(Errno::NOSYS);
        };
        // The first argument behind those that name the file.
        let next = if matches!(file, FileArgument::Path(_)) { 1 } else { 2 };
        let change = match kind {
            Kind::Mode(_) => Change::Mode(Mode::from_raw_mode(call.int(next).cast_unsigned() & 0o7777)),
            Kind::Owner(_, short) => {
                let id = |index| id(call.int(index).cast_unsigned(), short && narrow);
                Change::Owner(id(next).map(Uid::from_raw), id(next + 1).map(Gid::from_raw))
            }
            Kind::Times(_, format) => Change::Times(read_times(call, identity, call.argument(next), format, narrow)?),
            Kind::SetAttribute(_) => Change::SetAttribute {
                name: identity.read(call, call.argument(1))?,
                value: read_value(call, identity)?,
                flags: XattrFlags::from_bits_retain(call.int(4).cast_unsigned()),
            },
            Kind::RemoveAttribute(_) => Change::RemoveAttribute(identity.read(call, call.argument(1))?),
            Kind::Refused => return Err(Errno::NOSYS),
        };
        Ok(Self { file: NamedFile::read(call, identity, file)?, change })
    }
}

/// The value of an extended attribute.
fn read_value(call: &Call<'_>, identity: &mut AssumedIdentity) -> Result<Vec<u8>, Errno> {
    /// The kernel's `XATTR_SIZE_MAX`.
    const LONGEST: usize = 64 << 10;
    let size = usize::try_from(call.argument(3)).ok().filter(|size| *size <= LONGEST).ok_or(Errno::TOOBIG)?;
    if size == 0 { Ok(Vec::new()) } else { identity.bytes(call, call.argument(2), size) }
}

impl<'a> NamedFile<'a> {
    fn read(call: &'a Call<'a>, identity: &mut AssumedIdentity, file: FileArgument) -> Result<Self, Errno> {
        let (from, at, flags) = match file {
            FileArgument::Path(true) => (libc::AT_FDCWD, 0, 0),
            FileArgument::Path(false) => (libc::AT_FDCWD, 0, libc::AT_SYMLINK_NOFOLLOW),
            FileArgument::At(flags) => (call.int(0), 1, flags.map_or(0, |index| call.int(index))),
        };
        if flags & !(libc::AT_SYMLINK_NOFOLLOW | libc::AT_EMPTY_PATH) != 0 {
            return Err(Errno::INVAL);
        }
        let path = identity.read(call, call.argument(at))?;
        if path.is_empty() && flags & libc::AT_EMPTY_PATH != 0 {
            return identity.look(call, || call.descriptor(from)).map(Self::Open);
        }
        let follow = flags & libc::AT_SYMLINK_NOFOLLOW == 0;
        let (from, path) = match own_descriptor(&path) {
            Some((number, None)) if follow => return identity.look(call, || call.descriptor(number)).map(Self::Open),
            Some((number, Some(rest))) => (number, rest),
            _ => (from, path),
        };
        let origin = identity.look(call, || call.origin(from, &path))?;
        Ok(Self::Path { origin, path, follow })
    }

    /// Finds the file, with the credentials that this thread has.
    fn find(self) -> Result<OwnedFd, Errno> {
        match self {
            Self::Open(fd) => Ok(fd),
            Self::Path { origin, path, follow } => origin.find(&path, follow),
        }
    }
}

/// A user or group ID; `None` for one that stays.
fn id(id: u32, short: bool) -> Option<u32> {
    let (id, none) = if short { (id & 0xffff, 0xffff) } else { (id, u32::MAX) };
    (id != none).then_some(id)
}

/// The timestamps at an address; the current time where there is none.
fn read_times(
    call: &Call<'_>,
    identity: &mut AssumedIdentity,
    address: u64,
    format: TimeFormat,
    narrow: bool,
) -> Result<Timestamps, Errno> {
    if address == 0 {
        let now = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        return Ok(Timestamps { last_access: now, last_modification: now });
    }
    let width = if narrow && format != TimeFormat::LongNanos { 4 } else { 8 };
    let count = if format == TimeFormat::Seconds { 2 } else { 4 };
    let bytes = identity.bytes(call, address, count * width)?;
    let numbers: Vec<i64> = bytes.chunks_exact(width).filter_map(signed).collect();
    timestamps(&numbers, format).ok_or(Errno::INVAL)
}

/// A number of 32 or 64 bits.
fn signed(bytes: &[u8]) -> Option<i64> {
    match bytes.len() {
        4 => Some(i32::from_ne_bytes(bytes.try_into().ok()?).into()),
        _ => Some(i64::from_ne_bytes(bytes.try_into().ok()?)),
    }
}

/// Both timestamps from their numbers.
fn timestamps(numbers: &[i64], format: TimeFormat) -> Option<Timestamps> {
    let spec = |tv_sec, tv_nsec| Timespec { tv_sec, tv_nsec };
    let micros = |micros: i64| (0..1_000_000).contains(&micros).then_some(micros * 1000);
    let (last_access, last_modification) = match (format, numbers) {
        (TimeFormat::Seconds, [a, b]) => (spec(*a, 0), spec(*b, 0)),
        (TimeFormat::Micros, [a, am, b, bm]) => (spec(*a, micros(*am)?), spec(*b, micros(*bm)?)),
        (TimeFormat::Nanos | TimeFormat::LongNanos, [a, an, b, bn]) => (spec(*a, *an), spec(*b, *bn)),
        _ => return None,
    };
    Some(Timestamps { last_access, last_modification })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_stay() {
        assert_eq!([id(0xffff, true), id(0x1_ffff, true), id(u32::MAX, false)], [None; 3]);
        assert_eq!((id(0x1_0007, true), id(0xffff, false)), (Some(7), Some(0xffff)));
    }

    #[test]
    fn times_of_all_formats() {
        let of = |numbers: &[i64], format| {
            timestamps(numbers, format)
                .map(|t| (t.last_access.tv_nsec, t.last_modification.tv_sec, t.last_modification.tv_nsec))
        };
        assert_eq!(of(&[1, 2], TimeFormat::Seconds), Some((0, 2, 0)));
        assert_eq!(of(&[1, 2, 3, 4], TimeFormat::Micros), Some((2000, 3, 4000)));
        assert_eq!(of(&[1, 2, 3, 1_000_000], TimeFormat::Micros), None);
        assert_eq!(of(&[1, libc::UTIME_OMIT, -3, 4], TimeFormat::Nanos), Some((libc::UTIME_OMIT, -3, 4)));
        assert_eq!(of(&[1, 2, 3], TimeFormat::LongNanos), None);
    }

    #[test]
    fn calls_of_both_architectures_are_known() {
        let table = Table::new();
        assert!(CALLS.iter().all(|(name, _)| seccomp::numbers(name).next().is_some()));
        assert!(table.0.values().any(|(_, narrow)| *narrow));
    }
}
