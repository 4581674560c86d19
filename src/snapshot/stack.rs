//! The layers of a root filesystem as one [`Tree`], without a mount.

use super::at::{self, Meta, Xattrs};
use super::notes::Notes;
use super::tree::missing;
use super::{Error, Tree};
use crate::layer::EntryPath;
use rustix::fs::OFlags;
use std::collections::{BTreeMap, HashMap, btree_map};
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Directories in overlayfs's form of a layer, seen as overlayfs would show them: whiteouts (character device 0:0) and
/// opaque directories hide what is below.
///
/// The layers must not change while it is in use.
#[derive(Debug)]
pub struct StackTree {
    /// Top first.
    layers: Vec<OwnedFd>,
    /// Of each layer.
    notes: Vec<Notes>,
    /// Which layers a directory is merged from; none if it is no directory.
    merged: Mutex<HashMap<EntryPath, Arc<[usize]>>>,
}

impl StackTree {
    /// The view of layers, top first.
    pub fn open<P: AsRef<Path>>(layers: &[P]) -> Result<Self, Error> {
        let notes = layers.iter().map(|path| Notes::read(path.as_ref())).collect::<Result<_, _>>()?;
        let layers = layers.iter().map(|path| at::open_root(path.as_ref())).collect::<Result<_, _>>()?;
        Ok(Self { layers, notes, merged: Mutex::default() })
    }

    /// A folder that is no layer: what stands in it is all there is.
    pub(super) fn plain(folder: &Path) -> Result<Self, Error> {
        Ok(Self { layers: vec![at::open_root(folder)?], notes: vec![Notes::default()], merged: Mutex::default() })
    }

    /// Whether there is no layer at all.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// The layers that the directory at `path` is merged from, top first; none if it is no directory.
    fn merged(&self, path: &EntryPath) -> Result<Arc<[usize]>, Error> {
        let mut unknown = Vec::new();
        let mut at = Some(path.clone());
        let mut layers: Arc<[usize]> = (0..self.layers.len()).collect();
        while let Some(dir) = at {
            if let Some(known) = self.known().get(&dir) {
                layers = known.clone();
                break;
            }
            at = dir.parent();
            unknown.push(dir);
        }
        for dir in unknown.into_iter().rev() {
            layers = self.merge(&dir, &layers)?;
            self.known().insert(dir, layers.clone());
        }
        Ok(layers)
    }

    /// Which of the layers that the directory above is merged from make up this one.
    fn merge(&self, path: &EntryPath, above: &[usize]) -> Result<Arc<[usize]>, Error> {
        let mut merged = Vec::new();
        for index in above.iter().copied() {
            match self.stat_in(index, path)? {
                None => {}
                Some(meta) if meta.is_dir() => {
                    merged.push(index);
                    if self.hides(index, path)? {
                        break;
                    }
                }
                Some(_) => break,
            }
        }
        Ok(merged.into())
    }

    fn known(&self) -> MutexGuard<'_, HashMap<EntryPath, Arc<[usize]>>> {
        self.merged.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The topmost layer that has something at `path`, and what.
    fn find(&self, path: &EntryPath) -> Result<Option<(usize, Meta)>, Error> {
        let Some(parent) = path.parent() else {
            return Ok(match self.layers.is_empty() {
                true => None,
                false => self.stat_in(0, path)?.map(|meta| (0, meta)),
            });
        };
        for index in self.merged(&parent)?.iter().copied() {
            if let Some(meta) = self.stat_in(index, path)? {
                return Ok((!meta.is_whiteout()).then_some((index, meta)));
            }
        }
        Ok(None)
    }

    fn stat_in(&self, index: usize, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let Some(layer) = self.layers.get(index) else { return Ok(None) };
        let meta = at::stat(layer.as_fd(), path).map_err(|e| Error::inside("stat", path, e))?;
        Ok(meta.map(|meta| self.noted(index, path, meta)))
    }

    fn noted(&self, index: usize, path: &EntryPath, meta: Meta) -> Meta {
        self.notes.get(index).map_or(meta, |notes| notes.meta(path, meta))
    }

    fn fd(&self, index: usize, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Error> {
        let layer = self.layers.get(index).ok_or_else(|| missing("open", path))?;
        at::open(layer.as_fd(), path, flags).map_err(|e| Error::inside("open", path, e))
    }

    fn open_top(&self, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Error> {
        let (index, _) = self.find(path)?.ok_or_else(|| missing("open", path))?;
        self.fd(index, path, flags)
    }
}

/// What a layer says of the layers below it; for a view of one layer.
impl StackTree {
    /// Like [`read_dir`](Tree::read_dir), with its whiteouts.
    pub(super) fn all_in(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let fail = |call| move |e| Error::inside(call, path, e);
        let mut entries = BTreeMap::new();
        for index in self.merged(path)?.iter().copied() {
            let dir = self.fd(index, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
                if let btree_map::Entry::Vacant(free) = entries.entry(name)
                    && let Some(meta) = at::stat_name(dir.as_fd(), free.key()).map_err(fail("stat"))?
                {
                    let at = path.join(free.key())?;
                    free.insert(self.noted(index, &at, meta));
                }
            }
        }
        Ok(entries.into_iter().collect())
    }

    /// Whether the directory at `path` of a layer hides what lower layers have in it.
    pub(super) fn hides(&self, index: usize, path: &EntryPath) -> Result<bool, Error> {
        if self.notes.get(index).is_some_and(|notes| notes.is_opaque(path)) {
            return Ok(true);
        }
        let dir = self.fd(index, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        at::is_opaque(dir.as_fd()).map_err(|e| Error::inside("fgetxattr", path, e))
    }
}

impl Tree for StackTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        Ok(self.find(path)?.map(|(_, meta)| meta))
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let mut entries = self.all_in(path)?;
        entries.retain(|(_, meta)| !meta.is_whiteout());
        Ok(entries)
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        let link = self.open_top(path, OFlags::PATH)?;
        at::read_link(link.as_fd(), b"").map_err(|e| Error::inside("readlink", path, e))
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        Ok(File::from(self.open_top(path, OFlags::RDONLY | OFlags::NONBLOCK)?))
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        let (index, _) = self.find(path)?.ok_or_else(|| missing("open", path))?;
        let file = self.fd(index, path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let xattrs = at::xattrs(file.as_fd()).map_err(|e| Error::inside("flistxattr", path, e))?;
        Ok(match self.notes.get(index) {
            Some(notes) => notes.xattrs(path, xattrs),
            None => xattrs,
        })
    }
}
