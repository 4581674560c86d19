//! A folder of this machine as a [`Tree`]: a build's context.

use super::at::{self, Meta, Xattrs};
use super::{Error, Tree};
use crate::layer::EntryPath;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What ignore rules say about one path, its parents' rules counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the tree.
    Keep,
    /// It isn't, nor is anything below it.
    Drop,
    /// It isn't, but an exception may bring back something below it, and with that itself.
    DropUnlessNeeded,
}

/// Ignore rules: what becomes of a path, and whether it is a directory.
pub type Ignore = dyn Fn(&EntryPath, bool) -> Verdict + Send + Sync;

/// A folder, without what ignore rules leave out.
///
/// Everything in it belongs to root, as BuildKit's transfer of a context makes it.
pub struct FolderTree {
    root: OwnedFd,
    ignore: Option<Box<Ignore>>,
    /// Dropped directories: whether an exception keeps something in them.
    needed: Mutex<HashMap<EntryPath, bool>>,
}

impl std::fmt::Debug for FolderTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderTree").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FolderTree {
    /// The folder at `path`, all of it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { root: at::open_root(path)?, ignore: None, needed: Mutex::default() })
    }

    /// Leaves out what the rules say.
    pub fn ignoring(mut self, ignore: Box<Ignore>) -> Self {
        self.ignore = Some(ignore);
        self
    }

    fn fd(&self, path: &EntryPath, flags: OFlags, call: &'static str) -> Result<OwnedFd, Error> {
        at::open(self.root.as_fd(), path, flags).map_err(|e| Error::inside(call, path, e))
    }

    fn is_visible(&self, path: &EntryPath, is_dir: bool) -> Result<bool, Error> {
        let Some(ignore) = self.ignore.as_ref().filter(|_| !path.is_root()) else { return Ok(true) };
        match ignore(path, is_dir) {
            Verdict::Keep => Ok(true),
            Verdict::DropUnlessNeeded if is_dir => self.is_needed(path, ignore),
            Verdict::Drop | Verdict::DropUnlessNeeded => Ok(false),
        }
    }

    /// Whether anything below a dropped directory is kept.
    fn is_needed(&self, path: &EntryPath, ignore: &Ignore) -> Result<bool, Error> {
        if let Some(known) = self.needed.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(*known);
        }
        let mut todo = vec![path.clone()];
        let mut needed = false;
        'search: while let Some(dir) = todo.pop() {
            for (name, meta) in self.list(&dir)? {
                let child = dir.join(&name)?;
                match ignore(&child, meta.is_dir()) {
                    Verdict::Keep => {
                        needed = true;
                        break 'search;
                    }
                    Verdict::DropUnlessNeeded if meta.is_dir() => todo.push(child),
                    Verdict::Drop | Verdict::DropUnlessNeeded => {}
                }
            }
        }
        self.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), needed);
        Ok(needed)
    }

    fn list(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let dir = self.fd(path, OFlags::RDONLY | OFlags::DIRECTORY, "open")?;
        let fail = |call| move |e| Error::inside(call, path, e);
        let mut entries = Vec::new();
        for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
            // A file that went away meanwhile isn't in the tree.
            if let Some(meta) = at::stat_name(dir.as_fd(), &name).map_err(fail("stat"))? {
                entries.push((name, roots(meta)));
            }
        }
        Ok(entries)
    }
}

/// The same file, owned by root.
fn roots(meta: Meta) -> Meta {
    Meta { uid: 0, gid: 0, ..meta }
}

impl Tree for FolderTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let meta = at::stat(self.root.as_fd(), path).map_err(|e| Error::inside("stat", path, e))?;
        match meta {
            Some(meta) if self.is_visible(path, meta.is_dir())? => Ok(Some(roots(meta))),
            _ => Ok(None),
        }
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let mut entries = self.list(path)?;
        if self.ignore.is_some() {
            let mut kept = Vec::with_capacity(entries.len());
            for (name, meta) in entries {
                if self.is_visible(&path.join(&name)?, meta.is_dir())? {
                    kept.push((name, meta));
                }
            }
            entries = kept;
        }
        Ok(entries)
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        let link = self.fd(path, OFlags::PATH, "open")?;
        at::read_link(link.as_fd(), b"").map_err(|e| Error::inside("readlink", path, e))
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        Ok(File::from(self.fd(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")?))
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        let file = self.fd(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")?;
        at::xattrs(file.as_fd()).map_err(|e| Error::inside("flistxattr", path, e))
    }

    fn is_ignored(&self, path: &EntryPath) -> bool {
        match at::stat(self.root.as_fd(), path) {
            Ok(Some(meta)) => self.is_visible(path, meta.is_dir()).is_ok_and(|visible| !visible),
            _ => false,
        }
    }
}
