//! The layers of a root filesystem as one [`Tree`], without a mount.

use super::at::{self, Meta, Xattrs};
use super::layers::{Layers, Link, Part, Seen};
use super::notes::Notes;
use super::tree::missing;
use super::{Error, Tree};
use crate::layer::EntryPath;
use rustix::fs::OFlags;
use std::collections::{BTreeMap, btree_map};
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Directories in overlayfs's form of a layer, seen as overlayfs would show them: whiteouts (character device 0:0) and
/// opaque directories hide what is below.
///
/// The layers must not change while it is in use. Each is opened when it is first asked.
#[derive(Debug)]
pub struct StackTree {
    /// Lowest first.
    layers: Vec<Open>,
}

/// A layer, and its files once they were opened.
#[derive(Debug)]
struct Open {
    link: Arc<Link>,
    root: OnceLock<OwnedFd>,
}

impl StackTree {
    /// The view of the layers with these files, top first.
    pub fn open<P: AsRef<Path>>(layers: &[P]) -> Self {
        Self::of(&layers.iter().rev().fold(Layers::default(), |below, files| below.with(files.as_ref().to_owned())))
    }

    /// The view of a chain.
    pub(super) fn of(chain: &Layers) -> Self {
        let open = |link: &Arc<Link>| Open { link: link.clone(), root: OnceLock::new() };
        let mut layers: Vec<Open> = chain.links().map(open).collect();
        layers.reverse();
        Self { layers }
    }

    /// A folder that is no layer: what stands in it is all there is. `notes` are of its files.
    pub(super) fn plain(folder: &Path, notes: Notes) -> Self {
        let tree = Self::open(&[folder]);
        if let [layer] = tree.layers.as_slice() {
            layer.link.set_notes(notes);
        }
        tree
    }

    /// Whether there is no layer at all.
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }

    /// What stands at `path`.
    fn find(&self, path: &EntryPath) -> Result<Option<Seen>, Error> {
        let Some(top) = self.layers.last() else { return Ok(None) };
        let mut unknown = Vec::new();
        let mut at = Some(path.clone());
        let mut seen = None;
        while let Some(path) = at {
            if let Some(known) = top.link.known(&path) {
                seen = known;
                break;
            }
            at = path.parent();
            unknown.push(path);
        }
        for path in unknown.into_iter().rev() {
            seen = match (path.is_root(), seen) {
                (true, _) => self.look(&path, (0..self.layers.len()).rev().collect())?,
                (false, Some(Seen::Dir(parent))) => self.look(&path, parent.all().map(|part| part.layer).collect())?,
                // There is nothing in what is no directory.
                (false, _) => return Ok(None),
            };
            top.link.remember(path, seen.clone());
        }
        Ok(seen)
    }

    /// What stands at `path`, by the layers that have the directory above it, top first.
    fn look(&self, path: &EntryPath, above: Vec<usize>) -> Result<Option<Seen>, Error> {
        let mut parts = Vec::new();
        let mut rest = None;
        let lowest = above.last().copied().unwrap_or(0);
        let mut above = above.into_iter().peekable();
        for layer in (lowest..self.layers.len()).rev() {
            // As seen from a layer that hasn't the directory itself, it is no other.
            if let Some(known) = self.layer(layer, path)?.link.known(path) {
                rest = known;
                break;
            }
            if above.next_if_eq(&layer).is_none() {
                continue;
            }
            match self.stat_in(layer, path)? {
                None => {}
                Some(meta) if meta.is_dir() => {
                    parts.push((layer, meta));
                    if layer > 0 && self.hides(layer, path)? {
                        break;
                    }
                }
                Some(meta) => {
                    rest = (!meta.is_whiteout()).then_some(Seen::Leaf(layer, meta));
                    break;
                }
            }
        }
        Ok(parts.into_iter().rev().fold(rest, |rest, (layer, meta)| {
            let below = match rest {
                Some(Seen::Dir(part)) => Some(part),
                Some(Seen::Leaf(..)) | None => None,
            };
            Some(Seen::Dir(Arc::new(Part { layer, meta, below })))
        }))
    }

    fn layer(&self, number: usize, path: &EntryPath) -> Result<&Open, Error> {
        self.layers.get(number).ok_or_else(|| missing("open", path))
    }

    /// A layer's files.
    fn root(&self, number: usize, path: &EntryPath) -> Result<BorrowedFd<'_>, Error> {
        let layer = self.layer(number, path)?;
        let root = match layer.root.get() {
            Some(root) => root,
            None => {
                let opened = at::open_root(layer.link.files())?;
                layer.root.get_or_init(|| opened)
            }
        };
        Ok(root.as_fd())
    }

    fn stat_in(&self, layer: usize, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let meta = at::stat(self.root(layer, path)?, path).map_err(|e| Error::inside("stat", path, e))?;
        meta.map(|meta| self.noted(layer, path, meta)).transpose()
    }

    /// What a file of a layer, at `path`, is in the image.
    pub(super) fn noted(&self, layer: usize, path: &EntryPath, meta: Meta) -> Result<Meta, Error> {
        Ok(self.layer(layer, path)?.link.notes()?.meta(path, meta))
    }

    fn fd(&self, layer: usize, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Error> {
        at::open(self.root(layer, path)?, path, flags).map_err(|e| Error::inside("open", path, e))
    }

    fn open_top(&self, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Error> {
        let seen = self.find(path)?.ok_or_else(|| missing("open", path))?;
        self.fd(seen.layer(), path, flags)
    }
}

/// What a layer says of the layers below it; for a view of one layer.
impl StackTree {
    /// Like [`read_dir`](Tree::read_dir), with its whiteouts.
    pub(super) fn all_in(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let fail = |call| move |e| Error::inside(call, path, e);
        let mut entries = BTreeMap::new();
        let Some(Seen::Dir(top)) = self.find(path)? else { return Ok(Vec::new()) };
        for layer in top.all().map(|part| part.layer) {
            let dir = self.fd(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
            for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
                if let btree_map::Entry::Vacant(free) = entries.entry(name)
                    && let Some(meta) = at::stat_name(dir.as_fd(), free.key()).map_err(fail("stat"))?
                {
                    let at = path.join(free.key())?;
                    free.insert(self.noted(layer, &at, meta)?);
                }
            }
        }
        Ok(entries.into_iter().collect())
    }

    /// Whether the directory at `path` of a layer (the lowest is 0) hides what lower layers have in it.
    pub(super) fn hides(&self, layer: usize, path: &EntryPath) -> Result<bool, Error> {
        if self.layer(layer, path)?.link.notes()?.is_opaque(path) {
            return Ok(true);
        }
        let dir = self.fd(layer, path, OFlags::RDONLY | OFlags::DIRECTORY)?;
        at::is_opaque(dir.as_fd()).map_err(|e| Error::inside("fgetxattr", path, e))
    }
}

impl Tree for StackTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        Ok(self.find(path)?.map(|seen| *seen.meta()))
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
        let seen = self.find(path)?.ok_or_else(|| missing("open", path))?;
        let file = self.fd(seen.layer(), path, OFlags::RDONLY | OFlags::NONBLOCK)?;
        let xattrs = at::xattrs(file.as_fd()).map_err(|e| Error::inside("flistxattr", path, e))?;
        Ok(self.layer(seen.layer(), path)?.link.notes()?.xattrs(path, xattrs))
    }
}
