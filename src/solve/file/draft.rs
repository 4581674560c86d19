//! The layer that a step makes, before it is written: what is new on top of the base, by path.

use super::error::Error;
use crate::layer::{Entry, EntryKind, EntryPath, Timestamp};
use crate::snapshot::{self, Fingerprint, Kind, Meta, Tree, Xattrs, entry, follow};
use std::collections::{BTreeMap, HashMap};

/// Changes on top of a base tree that is never written to. Paths given to it lead through no link.
pub(super) struct Draft<'a> {
    pub(super) base: &'a dyn Tree,
    /// What is new at each path, as an index into `files`; two names of one file share it.
    pub(super) nodes: BTreeMap<EntryPath, usize>,
    pub(super) files: Vec<New>,
    /// New times of directories that are otherwise as they were.
    pub(super) touched: HashMap<EntryPath, Timestamp>,
    /// The time of what is made, not copied.
    pub(super) made: Timestamp,
}

/// A new file, directory or anything else.
pub(super) struct New {
    /// Everything but its path, which is that of its first name.
    pub(super) entry: Entry,
    pub(super) content: Content,
    /// A directory where the base has something else: nothing of the base shows in it.
    pub(super) hides: bool,
}

/// Where a new file's bytes come from.
#[derive(Debug, Clone)]
pub(super) enum Content {
    /// It has none.
    None,
    /// A file of the tree that this action copies from; its attributes are read there too.
    Source {
        action: usize,
        path: EntryPath,
        /// Of what is there.
        fingerprint: Option<Fingerprint>,
    },
    /// The heredoc of this action.
    Text { action: usize },
    /// An entry of an archive, by its number.
    Archive { archive: usize, entry: usize },
    /// A file of the base under a new name.
    Base { path: EntryPath },
}

impl<'a> Draft<'a> {
    pub(super) fn new(base: &'a dyn Tree, made: Timestamp) -> Self {
        Self { base, nodes: BTreeMap::new(), files: Vec::new(), touched: HashMap::new(), made }
    }

    /// What is at a path now, if anything is.
    pub(super) fn kind(&self, path: &EntryPath) -> Result<Option<Kind>, Error> {
        if let Some(new) = self.new_at(path) {
            return Ok(Some(new.kind()));
        }
        Ok(self.base_at(path)?.map(|meta| meta.kind))
    }

    pub(super) fn is_dir(&self, path: &EntryPath) -> Result<bool, Error> {
        Ok(path.is_root() || self.kind(path)? == Some(Kind::Dir))
    }

    pub(super) fn new_at(&self, path: &EntryPath) -> Option<&New> {
        self.nodes.get(path).and_then(|index| self.files.get(*index))
    }

    /// What the base shows at a path where nothing is new.
    pub(super) fn base_at(&self, path: &EntryPath) -> Result<Option<Meta>, snapshot::Error> {
        let mut above = path.parent();
        while let Some(dir) = above {
            match self.new_at(&dir) {
                Some(new) if new.hides || new.kind() != Kind::Dir => return Ok(None),
                _ => above = dir.parent(),
            }
        }
        self.base.stat(path)
    }

    /// Where a path leads when links, new and old, are followed inside the root.
    pub(super) fn resolve(&self, path: &EntryPath, follow_last: bool) -> Result<EntryPath, Error> {
        Ok(follow(path, follow_last, |next| self.link_target(next))?)
    }

    /// The target of the link at a path, if one is there.
    pub(super) fn link_target(&self, path: &EntryPath) -> Result<Option<Vec<u8>>, snapshot::Error> {
        match self.new_at(path) {
            Some(New { entry: Entry { kind: EntryKind::Symlink(target), .. }, .. }) => Ok(Some(target.clone())),
            Some(_) => Ok(None),
            None => match self.base_at(path)? {
                Some(meta) if meta.kind == Kind::Symlink => self.base.read_link(path).map(Some),
                _ => Ok(None),
            },
        }
    }

    /// Puts something new at a path, in place of what is there; everything below goes with it unless both are
    /// directories. Its directory must be there.
    pub(super) fn put(&mut self, path: &EntryPath, entry: Entry, content: Content) -> Result<usize, Error> {
        let is_dir = entry.kind == EntryKind::Dir;
        let hides = match self.new_at(path) {
            Some(new) if is_dir && new.kind() == Kind::Dir => new.hides,
            Some(_) => true,
            None => is_dir && self.base_at(path)?.is_some_and(|m| !m.is_dir()),
        };
        if !is_dir {
            self.forget_below(path);
        }
        let index = self.files.len();
        self.files.push(New { entry: Entry { path: path.clone(), ..entry }, content, hides });
        self.nodes.insert(path.clone(), index);
        Ok(index)
    }

    /// Gives a new file another name.
    pub(super) fn link(&mut self, path: &EntryPath, index: usize) {
        self.forget_below(path);
        self.nodes.insert(path.clone(), index);
    }

    fn forget_below(&mut self, path: &EntryPath) {
        let below = self.nodes.range(path..).map(|(p, _)| p).skip_while(|p| *p == path);
        let below: Vec<EntryPath> = below.take_while(|p| p.starts_with(path)).cloned().collect();
        for path in below {
            self.nodes.remove(&path);
        }
    }

    /// Makes a directory and those above it, as far as they are missing.
    pub(super) fn make_dirs(&mut self, path: &EntryPath, mode: u32, owner: (u32, u32)) -> Result<(), Error> {
        let mut dir = EntryPath::root();
        for name in path.components() {
            dir = dir.join(name)?;
            match self.kind(&dir)? {
                Some(Kind::Dir) => {}
                Some(_) => return Err(Error::Occupied(dir)),
                None => {
                    let entry = Entry { mode, uid: owner.0, gid: owner.1, mtime: self.made, ..new_dir() };
                    self.put(&dir, entry, Content::None)?;
                }
            }
        }
        Ok(())
    }

    /// Changes what is known of a directory that is there: a base's directory becomes part of the layer.
    pub(super) fn change_dir(&mut self, path: &EntryPath, change: impl FnOnce(&mut Entry)) -> Result<(), Error> {
        if path.is_root() {
            return Ok(());
        }
        if self.new_at(path).is_none() {
            let Some(meta) = self.base_at(path)? else { return Ok(()) };
            let entry = entry(self.base, path, &meta)?;
            self.put(path, entry, Content::None)?;
        }
        if let Some(new) = self.nodes.get(path).and_then(|index| self.files.get_mut(*index)) {
            change(&mut new.entry);
        }
        Ok(())
    }

    /// Says when a directory changed, which alone is no reason to write it.
    pub(super) fn touch(&mut self, path: &EntryPath, mtime: Timestamp) {
        match self.nodes.get(path).and_then(|index| self.files.get_mut(*index)) {
            Some(new) => new.entry.mtime = mtime,
            None => drop(self.touched.insert(path.clone(), mtime)),
        }
    }
}

impl New {
    pub(super) fn kind(&self) -> Kind {
        match &self.entry.kind {
            EntryKind::Dir => Kind::Dir,
            EntryKind::Symlink(_) => Kind::Symlink,
            EntryKind::CharDevice(device) => Kind::CharDevice(*device),
            EntryKind::BlockDevice(device) => Kind::BlockDevice(*device),
            EntryKind::Fifo => Kind::Fifo,
            EntryKind::File { .. } | EntryKind::Hardlink(_) | EntryKind::Whiteout | EntryKind::Opaque => Kind::File,
        }
    }
}

pub(super) fn new_dir() -> Entry {
    Entry::new(EntryPath::root(), EntryKind::Dir)
}

/// A directory's entry from what a source says about it.
pub(super) fn dir_entry(meta: &Meta, xattrs: Xattrs) -> Entry {
    Entry { mode: meta.mode, uid: meta.uid, gid: meta.gid, mtime: meta.mtime, xattrs, ..new_dir() }
}
