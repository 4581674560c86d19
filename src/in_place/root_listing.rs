//! Opens [split directories](super::confinement::SplitDirectory), such as `/`, for processes that list them.
//!
//! A Landlock right to list a directory is also a right to list every directory below it, including kiln's own and those of other
//! stages. So no rule grants it for a split directory. kiln opens it in place of the process, which then holds a descriptor of the
//! directory itself and of nothing below. Calls that open a directory to list it have `O_DIRECTORY`.

use super::caller::AssumedIdentity;
use super::confinement::Confinement;
use crate::sys::notify::{Answer, Call};
use crate::sys::{Result as Called, Said};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};

/// Answers calls that open split directories.
#[derive(Debug)]
pub(super) struct RootListing {
    directories: Vec<(OwnedFd, (u64, u64))>,
}

impl RootListing {
    pub(super) fn new(confinement: &Confinement) -> Called<Self> {
        let mut directories = Vec::new();
        for split in confinement.directories() {
            if let Some(fd) = split.open()? {
                let inode = inode(&fd).call("fstat")?;
                directories.push((fd, inode));
            }
        }
        Ok(Self { directories })
    }

    /// Answers a call; `None` for one that opens nothing to list it.
    pub(super) fn answer(&self, call: &Call<'_>, identity: &mut AssumedIdentity) -> Option<Answer> {
        let (from, at, flags) = match call.number() {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => (libc::AT_FDCWD, 0, 1),
            libc::SYS_openat => (call.int(0), 1, 2),
            _ => return None,
        };
        let flags = OFlags::from_bits_retain(call.int(flags).cast_unsigned());
        if flags.contains(OFlags::CREATE) {
            return None;
        }
        Some(self.open(call, identity, (from, at), flags).unwrap_or(Answer::Continue))
    }

    /// Opens a split directory with the identity of the caller, if the path means one.
    fn open(
        &self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        (from, at): (i32, usize),
        flags: OFlags,
    ) -> Option<Answer> {
        let path = identity.read(call, call.argument(at)).ok()?;
        // With `/` alone, most paths show by their text that they mean something else.
        let is_other = self.directories.len() == 1 && !may_be_root(path.to_bytes());
        if flags.contains(OFlags::PATH) || is_other {
            return None;
        }
        let found = call.find(from, &path, !flags.contains(OFlags::NOFOLLOW)).ok()?;
        let found = inode(found).ok()?;
        let (directory, _) = self.directories.iter().find(|(_, inode)| *inode == found)?;
        let fd = openat(directory, ".", flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        Some(fd.map_or_else(Answer::Errno, |fd| Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) }))
    }
}

fn inode(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Whether a path may mean `/` itself: it does not end in a name. Symbolic links to `/` are not considered.
fn may_be_root(path: &[u8]) -> bool {
    let last = path.rsplit(|b| *b == b'/').find(|name| !name.is_empty());
    !path.is_empty() && last.is_none_or(|name| matches!(name, b"." | b".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_may_be_the_root() {
        for (path, may) in
            [("/", true), ("//", true), (".", true), ("/usr/..", true), ("../", true), ("", false), ("/usr", false)]
        {
            assert_eq!(may_be_root(path.as_bytes()), may, "{path}");
        }
    }
}
