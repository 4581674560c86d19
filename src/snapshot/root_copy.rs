//! A root filesystem without any mount: all files of a chain of layers, in one folder.
//!
//! What a process changed in it is found by a walk against an [index](super::index) of what was there before, and written
//! to a folder in the form that all layers are kept in. So the layer is the same as if the process had run on an overlay;
//! but what was written to one name of a lower layer's file stands in its other names, too, as they are one file.

use super::at::{self, Kind, Meta};
use super::clock;
use super::excluded::Excluded;
use super::index::{Change, Index};
use super::layer::{files, view};
use super::overlay;
use super::tree::entry;
use super::{Error, FolderWriter, Layers, NewLayer, StackTree, Tree};
use crate::layer::{EntryKind, EntryPath, EntrySink, Timestamp};
use rustix::fs::{AtFlags, CWD, StatxFlags};
use std::collections::{HashMap, HashSet};
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A chain of layers in a folder.
#[derive(Debug)]
pub struct RootCopy {
    /// The folder that it was made in.
    place: PathBuf,
    /// What stands in it: the layers, topmost first.
    layers: Vec<LayerId>,
    index: Index,
    threads: NonZeroUsize,
}

/// A layer's folder, wherever it was moved since: device, inode, and when that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
struct LayerId(u64, u64, Timestamp);

impl LayerId {
    fn of(layer: &Path) -> Result<Self, Error> {
        let path = files(layer);
        let wanted = StatxFlags::INO | StatxFlags::BTIME | StatxFlags::CTIME;
        let stat = rustix::fs::statx(CWD, &path, AtFlags::SYMLINK_NOFOLLOW, wanted)
            .map_err(|e| Error::host("statx", &path, e))?;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let made = if has_birth { stat.stx_btime } else { stat.stx_ctime };
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        Ok(Self(device, stat.stx_ino, Timestamp { secs: made.tv_sec, nanos: made.tv_nsec }))
    }

    fn all(layers: &[PathBuf]) -> Result<Vec<Self>, Error> {
        layers.iter().map(|layer| Self::of(layer)).collect()
    }
}

impl RootCopy {
    /// Makes `place`, which mustn't be there yet, and puts the files of the layers (topmost first) into it. Walks are
    /// done on `threads`.
    ///
    /// # Errors
    /// If a file can't be read or written.
    pub fn fill(place: &Path, layers: &[PathBuf], threads: NonZeroUsize) -> Result<Self, Error> {
        std::fs::create_dir_all(place).map_err(|e| Error::host("mkdir", place, e))?;
        let mut root_copy =
            Self { place: place.into(), layers: LayerId::all(layers)?, index: Index::default(), threads };
        copy(layers, place)?;
        let root = at::open_root(place)?;
        root_copy.index = Index::of(root.as_fd(), &Excluded::none(), threads)?;
        Ok(root_copy)
    }

    /// The folder that it was made in.
    pub fn place(&self) -> &Path {
        &self.place
    }

    /// How many files there are.
    pub fn files(&self) -> usize {
        self.index.len()
    }

    /// How many layers of a chain (topmost first) would have to be [added](Self::advance); `None` where it holds others.
    fn missing(&self, chain: &[LayerId]) -> Option<usize> {
        let missing = chain.len().checked_sub(self.layers.len())?;
        (chain.get(missing..) == Some(&self.layers)).then_some(missing)
    }

    /// Adds what the chain `layers` (topmost first) has upon those that are there.
    fn advance(&mut self, layers: &[PathBuf], chain: Vec<LayerId>, missing: usize) -> Result<(), Error> {
        let mut touched = HashSet::new();
        for layer in layers.iter().take(missing).rev() {
            let layer = StackTree::open(&[files(layer)]);
            let mut writer = FolderWriter::root(&self.place)?;
            let copy = Copy { from: &layer, to: &mut writer, names: HashMap::new() };
            touched.extend(copy.layer()?);
            writer.finish_root()?;
        }
        let root = at::open_root(&self.place)?;
        self.index.look_again(root.as_fd(), &Excluded::none(), touched)?;
        self.layers = chain;
        Ok(())
    }

    /// Waits until the next change to any file can be seen by its time, where [changes](Self::changes) are dated by ticks.
    pub fn ready(&self) {
        self.index.wait_for_the_clock();
    }

    /// Looks again at directories of `at`, to which the files were moved, because that changed the times of entries in them; and at
    /// `trees`, which were copied there, as wholes.
    pub(crate) fn moved<'p>(
        &mut self,
        at: &Path,
        skip: &Excluded,
        dirs: impl IntoIterator<Item = &'p EntryPath>,
        trees: impl IntoIterator<Item = &'p EntryPath>,
    ) -> Result<(), Error> {
        let root = at::open_root(at)?;
        self.index.look_again(root.as_fd(), skip, dirs.into_iter().cloned())?;
        trees.into_iter().try_for_each(|tree| self.index.look_again_below(root.as_fd(), skip, tree.clone()))
    }

    /// How many entries a directory has, as the last look at it counted.
    pub(crate) fn entries_in(&self, dir: &EntryPath) -> usize {
        self.index.entries_in(dir)
    }

    /// Writes what was changed since the last time to `layer`, which lies upon the layers that are here. From then on it
    /// is one of them.
    ///
    /// # Errors
    /// If a file can't be read or written.
    pub fn changes(&mut self, layer: &NewLayer) -> Result<(), Error> {
        let place = self.place.clone();
        self.changes_at(&place, &Excluded::none(), layer)
    }

    /// The same, where the files were moved to `at`; entries in `skip` are not theirs.
    pub(crate) fn changes_at(&mut self, at: &Path, skip: &Excluded, layer: &NewLayer) -> Result<(), Error> {
        let root = at::open_root(at)?;
        let changes = self.index.changes(root.as_fd(), skip, self.threads)?;
        let top = (EntryPath::root(), Meta::from(rustix::fs::fstat(&root).map_err(|e| Error::host("stat", at, e))?));
        let there = changes.iter().filter_map(|change| Some((&change.path, change.now.as_ref()?)));
        let notes = overlay::gather_of(at, root.as_fd(), there.chain([(&top.0, &top.1)]))?;
        let tree = StackTree::plain(at, notes);
        let mut writer = layer.writer(Timestamp::default())?;
        write_root(&tree, &mut writer)?;
        let mut copy = Copy { from: &tree, to: &mut writer, names: HashMap::new() };
        for Change { path, was, now } in changes {
            if let (Some(was), Some(now)) = (was, now)
                && was.only_other_names_changed(&now)
                && has_the_same_attributes(&tree, &layer.parents().view(), &path)?
            {
                continue;
            }
            match now.map(|meta| tree.noted(0, &path, meta)).transpose()? {
                // An overlay copies each name of a lower layer's file by itself, so that they are several files then.
                Some(meta) if was.is_some_and(|was| was.is_one_name_of(&meta)) => {
                    copy.one(&path, &Meta { links: 1, ..meta })?;
                }
                Some(meta) => copy.one(&path, &meta)?,
                None => copy.to.add(&crate::layer::Entry::new(path, EntryKind::Whiteout), &mut io::empty())?,
            }
        }
        writer.finish()?;
        self.layers.insert(0, LayerId::of(layer.folder())?);
        Ok(())
    }
}

impl Drop for RootCopy {
    fn drop(&mut self) {
        // What can't be removed now is removed with the folder that it is in.
        let (Some(parent), Some(name)) = (self.place.parent(), self.place.file_name()) else { return };
        if let Ok(parent) = at::open_root(parent) {
            let _ = at::remove(parent.as_fd(), name.as_encoded_bytes());
        }
    }
}

/// Puts the files of layers (topmost first) into an empty folder.
pub(crate) fn copy(layers: impl Into<Layers>, folder: &Path) -> Result<(), Error> {
    let mut writer = FolderWriter::root(folder)?;
    Copy { from: &view(layers), to: &mut writer, names: HashMap::new() }.tree(None)?;
    writer.finish_root()
}

/// Whether the files at a path of two trees have the same extended attributes.
fn has_the_same_attributes(a: &StackTree, b: &StackTree, path: &EntryPath) -> Result<bool, Error> {
    let attributes = |tree: &StackTree| match tree.stat(path)? {
        Some(meta) => entry(tree, path, &meta).map(|entry| Some(entry.xattrs)),
        None => Ok(None),
    };
    Ok(attributes(a)? == attributes(b)?)
}

/// Copies the directory `from`, which may be in `/`, into the directory `to`, which is there, without one name in it. Returns how
/// many files were copied.
pub(crate) fn copy_directory(from: &Path, to: &Path, except: Option<&[u8]>) -> Result<usize, Error> {
    let notes = overlay::gather_of(from, at::open_root(from)?.as_fd(), std::iter::empty())?;
    let tree = StackTree::plain(from, notes);
    let mut writer = FolderWriter::plain(to, Timestamp::default())?;
    let mut copy = Copy { from: &tree, to: &mut writer, names: HashMap::new() };
    let copied = copy.tree(except)?;
    writer.finish()?;
    Ok(copied)
}

/// The root directory's own mode, owner and attributes.
fn write_root(tree: &StackTree, writer: &mut FolderWriter) -> Result<(), Error> {
    let path = EntryPath::root();
    match tree.stat(&path)? {
        Some(meta) => writer.set_root(&entry(tree, &path, &meta)?),
        None => Ok(()),
    }
}

/// Copies files of a tree into a folder, keeping what is one file one file.
struct Copy<'a> {
    from: &'a StackTree,
    to: &'a mut FolderWriter,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), EntryPath>,
}

impl Copy<'_> {
    /// Everything, but for one name in the root. Returns how many files that is.
    fn tree(&mut self, except: Option<&[u8]>) -> Result<usize, Error> {
        let root = EntryPath::root();
        let Some(meta) = self.from.stat(&root)? else { return Ok(0) };
        self.to.set_root(&entry(self.from, &root, &meta)?)?;
        let (mut todo, mut copied) = (vec![root], 0);
        while let Some(dir) = todo.pop() {
            for (name, meta) in self.from.read_dir(&dir)? {
                if dir.is_root() && except == Some(name.as_slice()) {
                    continue;
                }
                let path = dir.join(&name)?;
                self.one(&path, &meta)?;
                copied += 1;
                if meta.is_dir() {
                    todo.push(path);
                }
            }
        }
        Ok(copied)
    }

    /// A single layer, upon what is in the folder. The directories in which something is different now.
    fn layer(mut self) -> Result<HashSet<EntryPath>, Error> {
        let mut touched = HashSet::new();
        let root = EntryPath::root();
        if let Some(meta) = self.from.stat(&root)? {
            self.to.set_root(&entry(self.from, &root, &meta)?)?;
        }
        let mut todo = vec![root];
        while let Some(dir) = todo.pop() {
            if self.from.hides(0, &dir)? {
                self.to.empty(&dir)?;
            }
            for (name, meta) in self.from.all_in(&dir)? {
                let path = dir.join(&name)?;
                match meta.is_whiteout() {
                    true => self.to.delete(&path)?,
                    false => self.one(&path, &meta)?,
                }
                if meta.is_dir() {
                    todo.push(path);
                }
            }
            touched.extend(dir.parent());
            touched.insert(dir);
        }
        Ok(touched)
    }

    /// One file; what is in a directory is not part of it.
    fn one(&mut self, path: &EntryPath, meta: &Meta) -> Result<(), Error> {
        let mut entry = entry(self.from, path, meta)?;
        if meta.kind == Kind::Socket {
            return self.to.add_socket(&entry);
        }
        if meta.links > 1 && !meta.is_dir() {
            match self.names.get(&meta.inode) {
                Some(first) => entry.kind = EntryKind::Hardlink(first.clone()),
                None => drop(self.names.insert(meta.inode, path.clone())),
            }
        }
        match entry.kind {
            EntryKind::File { .. } => Ok(self.to.add_file(&entry, &self.from.open(path)?)?),
            _ => Ok(self.to.add(&entry, &mut io::empty())?),
        }
    }
}

/// The root_copy roots of one build: a step that goes on where another ended finds everything there.
#[derive(Debug)]
pub struct RootCopyPool {
    folder: PathBuf,
    threads: NonZeroUsize,
    /// Whether no two changes to a file have the same time.
    is_clock_fine: bool,
    state: std::sync::Mutex<PoolState>,
}

#[derive(Debug, Default)]
struct PoolState {
    idle: Vec<RootCopy>,
    made: usize,
}

impl RootCopyPool {
    /// RootCopyPool in `folder`, which is there, and nobody else's.
    pub fn new(folder: PathBuf, threads: NonZeroUsize) -> Self {
        let is_clock_fine = clock::is_fine(&folder);
        Self { folder, threads, is_clock_fine, state: std::sync::Mutex::default() }
    }

    /// A root with the files of the layers, topmost first: one that has most of them already, or a new one. It is the
    /// caller's until it is [given back](Self::give); dropped, its files are removed.
    ///
    /// # Errors
    /// If a file can't be read or written.
    pub fn take(&self, layers: &[PathBuf]) -> Result<RootCopy, Error> {
        let chain = LayerId::all(layers)?;
        if let Some((mut root_copy, missing)) = self.nearest(&chain) {
            if missing > 0 {
                root_copy.advance(layers, chain, missing)?;
            }
            return Ok(root_copy);
        }
        let place = {
            let mut state = self.lock();
            state.made += 1;
            self.folder.join(state.made.to_string()).join("fs")
        };
        RootCopy::fill(&place, layers, self.threads)
    }

    /// The root that lacks the fewest layers of a chain. The one without any layer is never worth it.
    fn nearest(&self, chain: &[LayerId]) -> Option<(RootCopy, usize)> {
        let mut state = self.lock();
        let found = state.idle.iter().enumerate().filter(|(_, root_copy)| !root_copy.layers.is_empty());
        let missing = found.filter_map(|(at, root_copy)| root_copy.missing(chain).map(|missing| (missing, at)));
        let (missing, at) = missing.min()?;
        Some((state.idle.swap_remove(at), missing))
    }

    /// Leaves the files of idle copies to whoever removes the directory later.
    pub(crate) fn abandon(&self) {
        // Their drop would remove them.
        self.lock().idle.drain(..).for_each(std::mem::forget);
    }

    /// Waits until the next change to any file of a root can be seen by its time.
    pub fn settle(&self, root_copy: &RootCopy) {
        if !self.is_clock_fine {
            root_copy.ready();
        }
    }

    /// Takes a root back, after a step that ended well.
    pub fn give(&self, root_copy: RootCopy) {
        self.lock().idle.push(root_copy);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, PoolState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
