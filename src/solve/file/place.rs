//! Where copied files go: the rules of BuildKit's copy, on a [`Draft`].

use super::draft::{Content, Draft, dir_entry};
use super::error::Error;
use super::select::{Item, Pick, Selection};
use super::{archive, chmod};
use crate::layer::{Entry, EntryKind, EntryPath};
use crate::plan::op::{CopyAction, Mode, Owner};
use crate::snapshot::{self, Fingerprint, Kind, Meta, Tree, bare_entry, users};
use std::collections::{HashMap, HashSet};

/// What applies to all files of one action.
pub(super) struct How<'a> {
    /// The action's number.
    pub(super) action: usize,
    /// `--chown`.
    pub(super) owner: Option<(u32, u32)>,
    /// `--chmod`.
    pub(super) mode: Option<&'a Mode>,
}

impl<'a> How<'a> {
    /// Looks names up in `names`, the tree that the files go on.
    pub(super) fn new(
        action: usize,
        owner: Option<&Owner>,
        mode: Option<&'a Mode>,
        names: &dyn Tree,
    ) -> Result<Self, Error> {
        let owner = owner.map(|o| users::owner(names, &o.user, o.group.as_deref())).transpose()?;
        Ok(Self { action, owner, mode })
    }

    /// Owner and mode of a copied file.
    fn apply(&self, mut entry: Entry) -> Entry {
        (entry.uid, entry.gid) = self.owner.unwrap_or((entry.uid, entry.gid));
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            entry.mode = chmod::apply(self.mode, entry.mode, entry.kind == EntryKind::Dir);
        }
        entry
    }
}

impl Draft<'_> {
    /// Places all that a copy selected.
    pub(super) fn copy(
        &mut self,
        copy: &CopyAction,
        how: &How<'_>,
        tree: &dyn Tree,
        selection: &Selection,
        archives: &mut archive::Archives,
    ) -> Result<(), Error> {
        for pick in &selection.picks {
            if pick.archive {
                archives.unpack(self, how, tree, pick, &destination(&copy.dest)?)?;
            } else {
                self.pick(&copy.dest, how, tree, pick)?;
            }
        }
        Ok(())
    }

    /// Writes a heredoc.
    pub(super) fn text(&mut self, path: &str, name: &str, size: u64, how: &How<'_>) -> Result<(), Error> {
        let target = self.target(path, how, Some(name.as_bytes()))?;
        self.make_room(&target)?;
        let entry = Entry { mtime: self.made, ..Entry::new(target.clone(), EntryKind::File { size }) };
        self.put(&target, how.apply(entry), Content::Text { action: how.action }).map(drop)
    }

    /// Makes a directory, as WORKDIR does; whom it can't find a name for, BuildKit takes for root.
    pub(super) fn mkdir(&mut self, path: &str, mode: u32, owner: Option<&Owner>) -> Result<(), Error> {
        let names: &dyn Tree = self.base;
        let owner = match owner.map(|o| users::owner(names, &o.user, o.group.as_deref())).transpose() {
            Err(snapshot::Error::NoUser(_) | snapshot::Error::NoGroup(_)) => None,
            found => found?,
        };
        let path = self.resolve(&destination(path)?, true)?;
        self.make_dirs(&path, mode & 0o777, owner.unwrap_or_default())
    }

    fn pick(&mut self, dest: &str, how: &How<'_>, tree: &dyn Tree, pick: &Pick) -> Result<(), Error> {
        if pick.meta.is_dir() {
            let target = self.target(dest, how, None)?;
            if !self.is_dir(&target)? {
                return Err(Error::NonDirectory(target));
            }
            self.touch(&target, pick.meta.mtime);
            return Copier { draft: self, how, tree, pick, target, links: HashMap::new(), ways: HashSet::new() }.run();
        }
        let target = self.target(dest, how, Some(&pick.name))?;
        self.make_room(&target)?;
        let entry = how.apply(bare_entry(tree, &pick.path, &pick.meta)?);
        let content = content(how.action, &pick.path, &pick.meta, pick.fingerprint);
        self.put(&target, entry, content).map(drop)
    }

    /// Where something goes, its directory made: `dest` itself, or in it if it is a directory and the thing isn't (then it
    /// has a name). For a directory, `dest` is made too.
    fn target(&mut self, dest: &str, how: &How<'_>, name: Option<&[u8]>) -> Result<EntryPath, Error> {
        let (mode, owner) = (chmod::of_parents(how.mode), how.owner.unwrap_or_default());
        let clean = destination(dest)?;
        let folder = if dest.ends_with('/') { clean.clone() } else { clean.parent().unwrap_or_default() };
        let folder = self.resolve(&folder, true)?;
        self.make_dirs(&folder, mode, owner)?;
        let mut target = self.resolve(&clean, true)?;
        match name {
            Some(name) if self.is_dir(&target)? => target = target.join(name)?,
            Some(_) => self.make_dirs(&target.parent().unwrap_or_default(), mode, owner)?,
            None if self.kind(&target)?.is_none() => self.make_dirs(&target, mode, owner)?,
            None => {}
        }
        Ok(target)
    }

    /// A file takes the place of anything but a directory.
    fn make_room(&self, path: &EntryPath) -> Result<(), Error> {
        if self.is_dir(path)? { Err(Error::ReplacesDirectory(path.clone())) } else { Ok(()) }
    }
}

/// A destination's path, clean.
pub(super) fn destination(dest: &str) -> Result<EntryPath, Error> {
    Ok(EntryPath::parse(format!("/{dest}").as_bytes())?)
}

/// Copies one directory's contents.
struct Copier<'c, 'd, 't> {
    draft: &'c mut Draft<'d>,
    how: &'c How<'c>,
    tree: &'t dyn Tree,
    pick: &'c Pick,
    target: EntryPath,
    /// Files with several names: the first one placed.
    links: HashMap<(u64, u64), usize>,
    /// Directories that were only on the way, placed because something in them was.
    ways: HashSet<EntryPath>,
}

impl Copier<'_, '_, '_> {
    fn run(mut self) -> Result<(), Error> {
        let unwanted: HashMap<&EntryPath, &Item> =
            self.pick.items.iter().filter(|i| !i.wanted).map(|i| (&i.path, i)).collect();
        for item in self.pick.items.iter().filter(|i| i.wanted) {
            self.ways(item, &unwanted)?;
            let (source, target) = (self.pick.path.append(&item.path), self.target.append(&item.path));
            match item.meta.kind {
                Kind::Dir => self.directory(item, &source, &target)?,
                _ => self.file(item, &source, &target)?,
            }
        }
        Ok(())
    }

    /// Makes the directories above an item that the patterns don't take themselves. One that is there already only gets the
    /// mode of the source's.
    fn ways(&mut self, item: &Item, unwanted: &HashMap<&EntryPath, &Item>) -> Result<(), Error> {
        let mut missing = Vec::new();
        let mut above = item.path.parent();
        while let Some(way) = above.as_ref().and_then(|path| unwanted.get(path)) {
            if !self.ways.insert(way.path.clone()) {
                break;
            }
            missing.push(*way);
            above = way.path.parent();
        }
        for way in missing.into_iter().rev() {
            let (source, target) = (self.pick.path.append(&way.path), self.target.append(&way.path));
            match self.draft.kind(&target)? {
                None => self.directory(way, &source, &target)?,
                Some(Kind::Dir) => self.draft.change_dir(&target, |entry| entry.mode = way.meta.mode)?,
                Some(_) => return Err(Error::NonDirectory(target)),
            }
        }
        Ok(())
    }

    /// A directory inside the one that is copied: one that is there already takes over everything, too.
    fn directory(&mut self, item: &Item, source: &EntryPath, target: &EntryPath) -> Result<(), Error> {
        let new = self.how.apply(dir_entry(&item.meta, self.tree.xattrs(source)?));
        match self.draft.kind(target)? {
            None => self.draft.put(target, new, Content::None).map(drop),
            Some(Kind::Dir) => self.draft.change_dir(target, |entry| {
                let mut xattrs = std::mem::take(&mut entry.xattrs);
                xattrs.extend(new.xattrs.clone());
                *entry = Entry { path: target.clone(), xattrs, ..new };
            }),
            Some(_) => Err(Error::NonDirectory(target.clone())),
        }
    }

    fn file(&mut self, item: &Item, source: &EntryPath, target: &EntryPath) -> Result<(), Error> {
        self.draft.make_room(target)?;
        let is_linked = item.meta.kind == Kind::File && item.meta.links > 1;
        if let Some(index) = self.links.get(&item.meta.inode).filter(|_| is_linked) {
            self.draft.link(target, *index);
            return Ok(());
        }
        let entry = self.how.apply(bare_entry(self.tree, source, &item.meta)?);
        let content = content(self.how.action, source, &item.meta, item.fingerprint);
        let index = self.draft.put(target, entry, content)?;
        if is_linked {
            self.links.insert(item.meta.inode, index);
        }
        Ok(())
    }
}

fn content(action: usize, path: &EntryPath, meta: &Meta, fingerprint: Option<Fingerprint>) -> Content {
    match meta.kind {
        Kind::File => Content::Source { action, path: path.clone(), fingerprint },
        _ => Content::None,
    }
}
