//! What an entry gives to a file besides its content.

use super::notes::{can_be_set, open_mode};
use super::{Error, at};
use crate::layer::{Entry, EntryKind, EntryPath, Timestamp};
use rustix::fs::{self, Mode, OFlags, Timestamps};
use rustix::io::Errno;
use rustix::process::{Gid, Uid};
use std::collections::HashMap;
use std::os::fd::BorrowedFd;

/// Owner, attributes, mode and time of an open file. The order counts: a change of owner takes set-id bits and
/// capabilities away.
pub(super) fn set_meta(file: BorrowedFd<'_>, entry: &Entry, noted: bool) -> Result<(), Error> {
    let fail = |call| move |e: Errno| Error::inside(call, &entry.path, e);
    let (uid, gid) = owner(entry);
    if !noted {
        fs::fchown(file, uid, gid).map_err(fail("fchown"))?;
    }
    let settable = |name: &[u8]| at::is_kept(name) && (!noted || can_be_set(name));
    let mode = if noted { open_mode(entry.mode, entry.kind == EntryKind::Dir) } else { entry.mode };
    for (name, value) in entry.xattrs.iter().filter(|(name, _)| settable(name)) {
        at::set_xattr(file, name, value).map_err(fail("fsetxattr"))?;
    }
    fs::fchmod(file, Mode::from_raw_mode(mode)).map_err(fail("fchmod"))?;
    fs::futimens(file, &both(entry.mtime)).map_err(fail("futimens"))
}

/// An empty file in place of a device, which the notes say it is.
pub(super) fn placeholder(dir: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<(), Error> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(drop).map_err(|e| Error::inside("create", path, e))
}

/// Sets the times of directories below `root`, which is done last: whatever is made in them changes these.
pub(super) fn set_times(root: BorrowedFd<'_>, times: &HashMap<EntryPath, Timestamp>) -> Result<(), Error> {
    for (path, time) in times {
        match at::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Ok(dir) => fs::futimens(&dir, &both(*time)).map_err(|e| Error::inside("futimens", path, e))?,
            // A later entry took its place.
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => {}
            Err(e) => return Err(Error::inside("open", path, e)),
        }
    }
    Ok(())
}

pub(super) fn owner(entry: &Entry) -> (Option<Uid>, Option<Gid>) {
    // The largest number means "leave it" to the kernel; no file can have it.
    let id = |n: u32| (n != u32::MAX).then_some(n);
    (id(entry.uid).map(Uid::from_raw), id(entry.gid).map(Gid::from_raw))
}

pub(super) fn both(time: Timestamp) -> Timestamps {
    let time = rustix::fs::Timespec { tv_sec: time.secs, tv_nsec: i64::from(time.nanos) };
    Timestamps { last_access: time, last_modification: time }
}
