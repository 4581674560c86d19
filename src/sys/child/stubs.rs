//! What was made only to be mounted on, and its removal.
//!
//! A step must leave in its root filesystem what its command did and nothing else, so a folder or file that kiln made as a
//! place for `/proc`, `/etc/resolv.conf` or a mount is taken away again if it is still empty, and the folder that held it
//! gets the time back that it had, unless the command changed that folder too.

use crate::sys::{Result, Said};
use rustix::fs::{AtFlags, FileType, Stat, Timespec, Timestamps};
use rustix::io::Errno;
use std::ffi::{CStr, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// `NAME_MAX` and the final zero.
const NAME: usize = 256;

/// One folder or file that was made. It holds its parent open, in the root filesystem as the command sees it.
#[derive(Debug)]
pub struct Stub {
    parent: OwnedFd,
    name: [u8; NAME],
    folder: bool,
    /// The stub itself.
    device: u64,
    inode: u64,
    /// The parent's times before and after the stub was made.
    before: Times,
    after: Times,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    accessed: (i64, i64),
    modified: (i64, i64),
}

impl Times {
    #[allow(clippy::unnecessary_cast, reason = "the fields' types differ between architectures")]
    fn of(stat: &Stat) -> Self {
        Self {
            accessed: (stat.st_atime as i64, stat.st_atime_nsec as i64),
            modified: (stat.st_mtime as i64, stat.st_mtime_nsec as i64),
        }
    }

    fn set(self, fd: impl AsFd) -> rustix::io::Result<()> {
        let timespec = |(tv_sec, nanos): (i64, i64)| Timespec { tv_sec, tv_nsec: nanos };
        let times = Timestamps { last_access: timespec(self.accessed), last_modification: timespec(self.modified) };
        rustix::fs::futimens(fd, &times)
    }
}

impl Stub {
    /// Notes a stub just made. Called in the child: must not allocate.
    pub(super) fn new(parent: OwnedFd, name: &CStr, folder: bool, before: &Stat) -> rustix::io::Result<Self> {
        let mut copy = [0; NAME];
        let bytes = name.to_bytes();
        copy.get_mut(..bytes.len()).filter(|c| c.len() < NAME).ok_or(Errno::NAMETOOLONG)?.copy_from_slice(bytes);
        let after = Times::of(&rustix::fs::fstat(&parent)?);
        let stat = rustix::fs::statat(&parent, name, AtFlags::SYMLINK_NOFOLLOW)?;
        Ok(Self {
            parent,
            name: copy,
            folder,
            device: stat.st_dev,
            inode: stat.st_ino,
            before: Times::of(before),
            after,
        })
    }

    /// Whether this descriptor is the stub.
    pub(super) fn is(&self, fd: impl AsFd) -> bool {
        rustix::fs::fstat(fd).is_ok_and(|s| (s.st_dev, s.st_ino) == (self.device, self.inode))
    }

    fn name(&self) -> &CStr {
        CStr::from_bytes_until_nul(&self.name).unwrap_or(c"")
    }

    /// Removes the stub if it is still what was made, and empty.
    fn remove(&self) -> Result<()> {
        let now = Times::of(&rustix::fs::fstat(&self.parent).call("fstat")?);
        let flags = if self.folder { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        if self.is_untouched() {
            match rustix::fs::unlinkat(&self.parent, self.name(), flags) {
                Ok(()) => {}
                // Not empty, or gone: the command's business.
                Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR) => return Ok(()),
                Err(errno) => return Err(errno).said("unlinkat", Path::new(OsStr::from_bytes(self.name().to_bytes()))),
            }
            let times = if now.modified == self.after.modified { self.before } else { now };
            times.set(&self.parent).call("futimens")?;
        }
        Ok(())
    }

    fn is_untouched(&self) -> bool {
        let Ok(stat) = rustix::fs::statat(&self.parent, self.name(), AtFlags::SYMLINK_NOFOLLOW) else { return false };
        let folder = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        (stat.st_dev, stat.st_ino) == (self.device, self.inode)
            && folder == self.folder
            && (folder || stat.st_size == 0)
    }
}

/// Removes stubs, the last made first. Gives the first failure, after trying all.
pub fn remove(stubs: Vec<Stub>) -> Result<()> {
    let mut first = Ok(());
    for stub in stubs.iter().rev() {
        first = first.and(stub.remove());
    }
    first
}
