//! What processes can reach: the stage's own files, `/proc`, `/sys` and `/dev`, and nothing else that lies in `/`.

use crate::sandbox::Error;
use crate::sys::landlock::{self, Ruleset};
use crate::sys::{Result, Said, file};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// How processes are kept from what isn't theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// By Landlock, in this version of its interface.
    Landlock(u32),
    /// What can be is removed while they run, and they have less than any other process of the container, into which they
    /// can't look therefore. The rest is within their reach.
    Removal {
        /// Why there is no Landlock.
        why: String,
    },
}

impl Protection {
    /// The best that this kernel, and the filter that this process is behind, have.
    pub fn find() -> Self {
        match landlock::abi() {
            Ok(abi) => Self::Landlock(abi),
            Err(why) => Self::Removal { why: why.to_string() },
        }
    }

    /// What processes get of the capabilities in `usual`, where kiln itself and the container's other processes have `permitted`: the
    /// kernel lets a process look into another that has none that it lacks.
    pub(super) fn capabilities(&self, usual: CapabilitySet, permitted: CapabilitySet) -> CapabilitySet {
        let given = usual & permitted;
        match self {
            Self::Removal { .. } if given == permitted => {
                let least = SPARED.into_iter().find(|one| given.contains(*one));
                given - least.unwrap_or(CapabilitySet::empty())
            }
            _ => given,
        }
    }
}

/// The capabilities that a build misses least, the least first.
const SPARED: [CapabilitySet; 6] = [
    CapabilitySet::AUDIT_WRITE,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::MKNOD,
    CapabilitySet::NET_BIND_SERVICE,
];

/// The name in `/` that an open file has, or is below; nothing for `/` itself.
pub(super) fn top(open: impl AsFd) -> std::result::Result<Option<Vec<u8>>, Errno> {
    let path = file::path_of(open).map_err(|e| e.errno)?;
    let mut names = path.as_os_str().as_bytes().split(|b| *b == b'/').filter(|name| !name.is_empty());
    Ok(names.next().map(<[u8]>::to_vec))
}

/// A directory with entries that no process may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitDirectory {
    /// Its path.
    pub path: std::path::PathBuf,
    /// The names in it that no process may reach.
    pub hidden: BTreeSet<Vec<u8>>,
    /// A directory of kiln's own on the same file system, below a hidden name, for inodes made in advance.
    pub pool: std::path::PathBuf,
}

/// What is closed to processes.
#[derive(Debug)]
pub(super) struct Confinement {
    closed: BTreeSet<Vec<u8>>,
    wall: Protection,
}

impl Confinement {
    pub(super) fn new(closed: BTreeSet<Vec<u8>>, wall: Protection) -> Self {
        Self { closed, wall }
    }

    /// Whether there are rules, and new names in `/` need one.
    pub(super) fn stand(&self) -> bool {
        matches!(self.wall, Protection::Landlock(_))
    }

    /// The names in `/` that are closed.
    pub(super) fn closed(&self) -> &BTreeSet<Vec<u8>> {
        &self.closed
    }

    /// The rules for what stands in `root` now and for what may come there; nothing where the kernel has none.
    pub(super) fn build<'f>(
        &self,
        root: &Path,
        more: impl Iterator<Item = BorrowedFd<'f>>,
    ) -> std::result::Result<Option<Ruleset>, Error> {
        let Protection::Landlock(abi) = self.wall else { return Ok(None) };
        let ruleset = Ruleset::new(abi)?;
        for name in std::fs::read_dir(root).said("read", root)? {
            let name = name.said("read", root)?.file_name();
            if self.closed.contains(name.as_bytes()) {
                continue;
            }
            let path = root.join(&name);
            let file = open(&path)?;
            // A link has no rights: what it leads to has.
            if !path.is_symlink() {
                ruleset.allow_all(&file)?;
            }
        }
        for file in more {
            ruleset.allow_all(file)?;
        }
        Ok(Some(ruleset))
    }
}

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).said("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_landlock_processes_have_less_than_all_others() {
        let usual = CapabilitySet::CHOWN | CapabilitySet::SETPCAP | CapabilitySet::AUDIT_WRITE;
        let removal = Protection::Removal { why: String::new() };
        for (wall, permitted, given) in [
            (&removal, usual, usual - CapabilitySet::AUDIT_WRITE),
            (&removal, usual | CapabilitySet::SYS_PTRACE, usual),
            (&removal, CapabilitySet::CHOWN | CapabilitySet::SETPCAP, CapabilitySet::CHOWN),
            (&removal, CapabilitySet::CHOWN, CapabilitySet::CHOWN),
            (&Protection::Landlock(1), usual, usual),
        ] {
            assert_eq!(wall.capabilities(usual, permitted), given, "{wall:?} {permitted:?}");
        }
    }
}
