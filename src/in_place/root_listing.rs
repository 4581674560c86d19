//! The names in `/`, for processes behind [confinement](super::confinement).
//!
//! A right to list `/` would be one to list, and so to open, all folders below it, kiln's own and other stages' among them. So no
//! rule gives it: `/` is opened by kiln for who asks, as programs do that list a folder (`O_DIRECTORY`).

use super::caller::AssumedIdentity;
use crate::sys::notify::{Answer, Call};
use crate::sys::{Result as Called, Said};
use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Answers calls that open folders.
#[derive(Debug)]
pub(super) struct RootListing {
    root: OwnedFd,
    identity: (u64, u64),
}

impl RootListing {
    pub(super) fn new(root: &Path) -> Called<Self> {
        let root = crate::sys::file::open_dir(root)?;
        let identity = identity(&root).call("fstat")?;
        Ok(Self { root, identity })
    }

    /// What becomes of a call; nothing for one that isn't of these.
    pub(super) fn answer(&self, call: &Call<'_>, role: &mut AssumedIdentity) -> Option<Answer> {
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
        Some(self.open(call, role, (from, at), flags).unwrap_or(Answer::Continue))
    }

    /// Opens `/` in the role of who asks, if that is what is meant.
    fn open(
        &self,
        call: &Call<'_>,
        role: &mut AssumedIdentity,
        (from, at): (i32, usize),
        flags: OFlags,
    ) -> Option<Answer> {
        let path = role.read(call, call.argument(at)).ok()?;
        if flags.contains(OFlags::PATH) || !may_be_root(path.to_bytes()) {
            return None;
        }
        let found = call.find(from, &path, true).ok()?;
        if identity(&found) != Ok(self.identity) {
            return None;
        }
        let fd = openat(&self.root, ".", flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
        Some(fd.map_or_else(Answer::Errno, |fd| Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) }))
    }
}

fn identity(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Whether a path may mean `/` itself: one that ends in no name. Links don't count.
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
