//! What a step changed: an overlay's upper directory to the entries of a layer.

use super::at::{self, Attributes, Kind, Meta, Xattrs};
use super::count;
use super::notes::Notes;
use super::{Error, StackTree, Tree};
use crate::layer::{Entry, EntryKind, EntryPath, EntrySink};
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::vec::IntoIter;

/// Writes what `upper` changes in `base` to `sink`, in the order of a sorted walk, each file read once.
///
/// As BuildKit's overlay differ does it:
/// - a file or directory that was only copied up is no change: same kind, mode, owner, device and capabilities, and, but
///   for directories, same size and time (and, if both times are whole seconds, same content);
/// - a change's parent directories come along, changed or not;
/// - a whiteout of what isn't in `base` is nothing, and an opaque directory is a whiteout for each file of `base` that is
///   gone from it;
/// - the second name of a file is a hardlink to the first;
/// - sockets are left out; of extended attributes, only users' and capabilities count.
///
/// Beyond it: a root directory whose mode, owner or attributes changed is an entry, and times keep their nanoseconds.
///
/// What was found is compared with what is [noted](super::count) of the layer: one that lost files is an error.
pub(super) fn diff(upper: &Path, base: &StackTree, sink: &mut dyn EntrySink) -> Result<(), Error> {
    let notes = Notes::read(upper)?;
    let mut differ = Differ { base, sink, notes, names: HashMap::new(), parents: Vec::new(), listed: 0, found: 0 };
    let root = at::open_root(upper)?;
    let below = if base.is_empty() { Below::Nothing } else { Below::Merged };
    let below = if differ.root(root.as_fd(), below)? { Below::Hidden } else { below };
    let mut stack = vec![differ.open(root, EntryPath::root(), below)?];
    // A stack of its own: how deep a tree is, others decide.
    while let Some(top) = stack.last_mut() {
        let Some(name) = top.names.next() else {
            stack.pop();
            differ.parents.pop();
            continue;
        };
        let path = top.path.join(&name)?;
        if let Some((fd, below)) = differ.visit(top, &name, &path)? {
            stack.push(differ.open(fd, path, below)?);
        }
    }
    let Differ { listed, found, .. } = differ;
    count::check(upper, listed, found)
}

/// A directory of the upper layer on the way of the walk.
struct Frame {
    fd: OwnedFd,
    path: EntryPath,
    names: IntoIter<Vec<u8>>,
    below: Below,
}

/// What lower layers have in a directory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Below {
    /// No such directory.
    Nothing,
    /// Its files show through.
    Merged,
    /// Its files are all gone.
    Hidden,
}

struct Differ<'a> {
    base: &'a StackTree,
    sink: &'a mut dyn EntrySink,
    notes: Notes,
    /// The first name of each file that has several.
    names: HashMap<(u64, u64), EntryPath>,
    /// The directories on the way, as long as they aren't written.
    parents: Vec<Option<Entry>>,
    /// How many names the upper directory and those below it have, and how many of these were found to be there.
    listed: u64,
    found: u64,
}

impl Differ<'_> {
    /// The root's own change; whether it hides what is below. It is no entry's parent: `parents` has nothing for it.
    fn root(&mut self, fd: BorrowedFd<'_>, below: Below) -> Result<bool, Error> {
        let path = EntryPath::root();
        let attributes = attributes(fd, &path)?;
        let hides = self.is_opaque(&attributes, &path, below)?;
        let meta = at::stat(fd, &path).map_err(|e| Error::inside("stat", &path, e))?;
        let (Some(meta), Some(old)) = (meta.map(|m| self.notes.meta(&path, m)), self.base.stat(&path)?) else {
            return Ok(hides);
        };
        let entry = dir_entry(&attributes, &path, &meta)?;
        if !same_stat(&old, &meta) || self.base.xattrs(&path)? != entry.xattrs {
            self.sink.add(&entry, &mut io::empty())?;
        }
        Ok(hides)
    }

    /// Steps into a directory. `parents` has gained its entry by then, but for the root.
    fn open(&mut self, fd: OwnedFd, path: EntryPath, below: Below) -> Result<Frame, Error> {
        if path.is_root() {
            self.parents.push(None);
        }
        let mut names = at::names(fd.as_fd()).map_err(|e| Error::inside("getdents", &path, e))?;
        self.listed += names.len() as u64;
        if below == Below::Hidden {
            names.extend(self.base.read_dir(&path)?.into_iter().map(|(name, _)| name));
            names.sort_unstable();
            names.dedup();
        }
        Ok(Frame { fd, path, names: names.into_iter(), below })
    }

    /// Writes what changed at `path`; a directory to go on with, if it is one.
    fn visit(&mut self, dir: &Frame, name: &[u8], path: &EntryPath) -> Result<Option<(OwnedFd, Below)>, Error> {
        let old = if dir.below == Below::Nothing { None } else { self.base.stat(path)? };
        let new = at::stat_name(dir.fd.as_fd(), name).map_err(|e| Error::inside("stat", path, e))?;
        self.found += u64::from(new.is_some());
        match new.map(|m| self.notes.meta(path, m)).filter(|m| !m.is_whiteout()) {
            None => {
                if old.is_some() {
                    self.write(&Entry::new(path.clone(), EntryKind::Whiteout), &mut io::empty())?;
                }
                Ok(None)
            }
            Some(meta) if meta.is_dir() => self.directory(dir, name, path, &meta, old).map(Some),
            Some(meta) => self.file(dir, name, path, &meta, old).map(|()| None),
        }
    }

    fn directory(
        &mut self,
        dir: &Frame,
        name: &[u8],
        path: &EntryPath,
        meta: &Meta,
        old: Option<Meta>,
    ) -> Result<(OwnedFd, Below), Error> {
        let fd = at::open_dir(dir.fd.as_fd(), name).map_err(|e| Error::inside("open", path, e))?;
        let attributes = attributes(fd.as_fd(), path)?;
        let entry = dir_entry(&attributes, path, meta)?;
        let old_dir = old.filter(Meta::is_dir);
        let mut below = if old_dir.is_some() { dir.below } else { Below::Nothing };
        if below != Below::Nothing && self.is_opaque(&attributes, path, below)? {
            below = Below::Hidden;
        }
        let unchanged = match old_dir {
            Some(old) => same_stat(&old, meta) && self.base.xattrs(path)? == entry.xattrs,
            None => false,
        };
        if unchanged {
            self.parents.push(Some(entry));
        } else {
            self.write(&entry, &mut io::empty())?;
            self.parents.push(None);
        }
        Ok((fd, below))
    }

    fn file(
        &mut self,
        dir: &Frame,
        name: &[u8],
        path: &EntryPath,
        meta: &Meta,
        old: Option<Meta>,
    ) -> Result<(), Error> {
        let fail = |call| move |e| Error::inside(call, path, e);
        let (mut file, mut xattrs) = (None, Xattrs::new());
        let kind = match meta.kind {
            Kind::Socket | Kind::Dir => return Ok(()),
            Kind::File => {
                let opened = at::open_file(dir.fd.as_fd(), name).map_err(fail("open"))?;
                xattrs = self.notes.xattrs(path, at::xattrs(opened.as_fd()).map_err(fail("flistxattr"))?);
                file = Some(opened);
                EntryKind::File { size: meta.size }
            }
            Kind::Symlink => EntryKind::Symlink(at::read_link(dir.fd.as_fd(), name).map_err(fail("readlink"))?),
            Kind::CharDevice(device) => EntryKind::CharDevice(device),
            Kind::BlockDevice(device) => EntryKind::BlockDevice(device),
            Kind::Fifo => EntryKind::Fifo,
        };
        let mut entry = entry(path, meta, kind, xattrs);
        if let Some(old) = old
            && self.is_unchanged(&old, meta, &entry, dir, name)?
        {
            return Ok(());
        }
        if meta.links > 1 {
            match self.names.get(&meta.inode) {
                Some(first) => {
                    entry.kind = EntryKind::Hardlink(first.clone());
                    return self.write(&entry, &mut io::empty());
                }
                None => self.names.insert(meta.inode, path.clone()),
            };
        }
        match &mut file {
            Some(file) => self.write(&entry, file),
            None => self.write(&entry, &mut io::empty()),
        }
    }

    /// Whether a file was only copied up.
    fn is_unchanged(&self, old: &Meta, new: &Meta, entry: &Entry, dir: &Frame, name: &[u8]) -> Result<bool, Error> {
        let path = &entry.path;
        if !same_stat(old, new) || old.size != new.size || old.mtime != new.mtime {
            return Ok(false);
        }
        if old.kind == Kind::File && self.base.xattrs(path)? != entry.xattrs {
            return Ok(false);
        }
        if old.mtime.nanos != 0 {
            return Ok(true);
        }
        match &entry.kind {
            EntryKind::Symlink(target) => Ok(self.base.read_link(path)? == *target),
            EntryKind::File { size: 1.. } => {
                let new = at::open_file(dir.fd.as_fd(), name).map_err(|e| Error::inside("open", path, e))?;
                same_content(self.base.open(path)?, new).map_err(|e| Error::inside("read", path, e))
            }
            _ => Ok(true),
        }
    }

    fn is_opaque(&self, attributes: &Attributes<'_>, path: &EntryPath, below: Below) -> Result<bool, Error> {
        if attributes.has_redirect() {
            return Err(Error::Redirect(path.clone()));
        }
        let is_marked = || attributes.is_opaque().map_err(|e| Error::inside("fgetxattr", path, e));
        Ok(below == Below::Merged && (self.notes.is_opaque(path) || is_marked()?))
    }

    /// Writes an entry, after the directories that it is in.
    fn write(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        for parent in self.parents.iter_mut().filter_map(Option::take) {
            self.sink.add(&parent, &mut io::empty())?;
        }
        Ok(self.sink.add(entry, content)?)
    }
}

fn entry(path: &EntryPath, meta: &Meta, kind: EntryKind, xattrs: Xattrs) -> Entry {
    let Meta { mode, uid, gid, mtime, .. } = *meta;
    Entry { path: path.clone(), kind, mode, uid, gid, mtime, xattrs }
}

fn attributes<'a>(fd: BorrowedFd<'a>, path: &EntryPath) -> Result<Attributes<'a>, Error> {
    Attributes::of(fd).map_err(|e| Error::inside("flistxattr", path, e))
}

fn dir_entry(attributes: &Attributes<'_>, path: &EntryPath, meta: &Meta) -> Result<Entry, Error> {
    let xattrs = attributes.kept().map_err(|e| Error::inside("fgetxattr", path, e))?;
    Ok(entry(path, meta, EntryKind::Dir, xattrs))
}

/// Whether two files are equal but for size, times and attributes.
fn same_stat(a: &Meta, b: &Meta) -> bool {
    (a.kind, a.mode, a.uid, a.gid) == (b.kind, b.mode, b.uid, b.gid)
}

fn same_content(mut a: File, mut b: File) -> io::Result<bool> {
    let (mut left, mut right) = (vec![0; 64 << 10], vec![0; 64 << 10]);
    loop {
        let n = a.read(&mut left)?;
        let Some(right) = right.get_mut(..n) else { return Ok(false) };
        if n == 0 {
            return Ok(b.read(&mut [0])? == 0);
        }
        match b.read_exact(right) {
            Ok(()) if left.get(..n) == Some(right) => {}
            Err(e) if e.kind() != io::ErrorKind::UnexpectedEof => return Err(e),
            _ => return Ok(false),
        }
    }
}
