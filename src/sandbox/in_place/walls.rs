//! What processes can reach: the stage's own files, `/proc`, `/sys` and `/dev`, and nothing else that lies in `/`.

use super::Error;
use crate::sys::landlock::{self, Ruleset};
use crate::sys::{Result, Said};
use rustix::fs::{CWD, Mode, OFlags};
use std::collections::BTreeSet;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What is closed to processes, and whether the kernel has what it takes.
#[derive(Debug)]
pub(super) struct Walls {
    closed: BTreeSet<Vec<u8>>,
    abi: Result<u32>,
}

impl Walls {
    pub(super) fn new(closed: BTreeSet<Vec<u8>>) -> Self {
        Self { closed, abi: landlock::abi() }
    }

    /// Why there are none.
    pub(super) fn why_open(&self) -> Option<String> {
        self.abi.as_ref().err().map(ToString::to_string)
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
        let Ok(abi) = self.abi else { return Ok(None) };
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
