//! Entries of a layer to a folder in overlayfs's form, on top of lower layers.

mod root_filesystem;

use super::at::{self, Kind, Meta};
use super::content::{copy_exactly, copy_file};
use super::count;
use super::given::{both, owner, placeholder, set_meta, set_times};
use super::notes::{Notes, open_mode};
use super::overlay;
use super::tree::{MOST_LINKS, entry, missing, steps};
use super::{Error, StackTree, Tree};
use crate::layer::{self, Device, Entry, EntryKind, EntryPath, EntrySink, Timestamp};
use crate::store::Form;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Fills the upper directory of an overlay with a layer's entries, as containerd applies a layer:
///
/// - a path's parents may be symbolic links, of this layer or lower ones; they are followed inside the root;
/// - parents that aren't entries are made like the lower directory of that name, or 0755 and root's;
/// - an entry takes the place of whatever is there, but for a directory on a directory, which takes over its metadata;
/// - a hardlink to a lower layer's file brings that file up;
/// - the root itself stays as it is.
///
/// Nothing outside the folder is ever opened: each step is relative to an open directory and follows no link. The folder
/// must be this writer's alone. [`finish`](Self::finish) sets the times of the directories; without it they are wrong.
#[derive(Debug)]
pub struct FolderWriter {
    lower: StackTree,
    /// The folder, and what can't be given to the files in it.
    notes: Notes,
    folder: PathBuf,
    /// Whether there is nobody to read notes.
    is_plain: bool,
    /// The directories from the root to where the last entry went; the root is always there.
    way: Vec<Step>,
    /// When each directory of this layer says it changed.
    times: HashMap<EntryPath, Timestamp>,
    /// The time of directories that no entry speaks of.
    made: Timestamp,
    /// How many files and directories this writer has put into the folder, less those that it has removed.
    entries: i64,
}

/// An open directory of the folder.
#[derive(Debug)]
struct Step {
    path: EntryPath,
    fd: OwnedFd,
    /// Whether what lower layers have in it shows.
    lower: bool,
}

/// What was in an entry's place.
enum Was {
    Nothing,
    Dir,
    /// Something that hid what lower layers have.
    Hiding,
}

impl FolderWriter {
    /// Writes into `folder` what is to lie upon `lower`, in the form given; directories that no entry speaks of get the
    /// time `made`.
    pub(super) fn new(folder: &Path, lower: StackTree, made: Timestamp, form: Form) -> Result<Self, Error> {
        let root = Step { path: EntryPath::root(), fd: at::open_root(folder)?, lower: !lower.is_empty() };
        let (way, times, folder) = (vec![root], HashMap::new(), folder.to_owned());
        let notes = Notes::new(form);
        let mut writer = Self { lower, notes, folder, is_plain: false, way, times, made, entries: 0 };
        writer.note_root()?;
        Ok(writer)
    }

    /// Writes into a folder that isn't to lie upon anything: whatever is gone is removed from it. Directories that no
    /// entry speaks of get the time `made`.
    ///
    /// # Errors
    /// If the folder can't be opened.
    pub fn plain(folder: &Path, made: Timestamp) -> Result<Self, Error> {
        let mut writer = Self::new(folder, StackTree::open::<&Path>(&[]), made, overlay::form()?)?;
        writer.is_plain = true;
        Ok(writer)
    }

    /// The same for a root filesystem that processes will have, in the folder `fs` of its own folder: what is recorded of its links
    /// and pipes lies beside it. To be ended by [`finish_root`](Self::finish_root).
    pub(super) fn root(folder: &Path) -> Result<Self, Error> {
        let mut writer = Self::plain(folder, Timestamp::default())?;
        if writer.notes.form().is_recorded() {
            writer.notes.read_recorded(folder)?;
        }
        Ok(writer)
    }

    /// Ends what [`root`](Self::root) began.
    pub(super) fn finish_root(self) -> Result<(), Error> {
        if self.notes.form().is_recorded() {
            self.notes.write_recorded(&self.folder)?;
        }
        self.finish()
    }

    /// Gives the root directory what an entry says of it.
    pub(super) fn set_root(&mut self, entry: &Entry) -> Result<(), Error> {
        self.way.truncate(1);
        let root = self.here()?.fd.try_clone().map_err(|e| Error::inside("dup", &entry.path, e))?;
        self.set_meta(root.as_fd(), &entry.path, entry)
    }

    /// How many files and directories there are in the folder more than before: names, whiteouts among them, not the entries
    /// that were [added](EntrySink::add), as some of these take the place of others, and some bring directories along.
    pub fn entries(&self) -> i64 {
        self.entries
    }

    /// Counts what was removed.
    fn lost(&mut self, removed: u64) {
        self.entries = self.entries.saturating_sub_unsigned(removed);
    }

    /// Notes of the root that it is like the one below.
    fn note_root(&mut self) -> Result<(), Error> {
        let path = EntryPath::root();
        let root = match self.lower.stat(&path)? {
            Some(meta) => entry(&self.lower, &path, &meta)?,
            None => Entry { mode: 0o755, ..Entry::new(path.clone(), EntryKind::Dir) },
        };
        self.notes.note(path, &root);
        Ok(())
    }

    /// Owner, attributes, mode and time of an open file at `path`, or a note of them.
    fn set_meta(&mut self, file: BorrowedFd<'_>, path: &EntryPath, entry: &Entry) -> Result<(), Error> {
        self.notes.note(path.clone(), entry);
        self.notes.record(file, entry).map_err(|e| Error::inside("setxattr", path, e))?;
        set_meta(file, entry, self.notes.form().owners)
    }

    /// Sets the times of all directories, and notes what belongs to the layer.
    pub fn finish(self) -> Result<(), Error> {
        if !self.is_plain {
            if !self.notes.form().is_native() {
                self.notes.write(&self.folder)?;
            }
            count::note(&self.folder, u64::try_from(self.entries).unwrap_or(0))?;
        }
        self.way.first().map_or(Ok(()), |root| set_times(root.fd.as_fd(), &self.times))
    }

    /// Makes a regular file to be written to, with [`end_file`](Self::end_file) to follow.
    pub(super) fn start_file(&mut self, entry: &Entry) -> Result<File, Error> {
        let name = self.go_to(&entry.path)?;
        self.create_file(&name, &entry.path)
    }

    /// Gives a written file its metadata.
    pub(super) fn end_file(&mut self, entry: &Entry, file: &File) -> Result<(), Error> {
        let name = entry.path.file_name().ok_or_else(|| Error::NotDirectory(entry.path.clone()))?;
        let path = self.here()?.path.join(name)?;
        self.set_meta(file.as_fd(), &path, entry)
    }

    fn add_entry(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        match &entry.kind {
            _ if entry.path.is_root() && entry.kind != EntryKind::Opaque => Ok(()),
            EntryKind::Opaque => self.make_opaque(&entry.path),
            EntryKind::Whiteout => self.hide(&entry.path),
            EntryKind::Hardlink(target) => self.link(entry, target),
            EntryKind::Dir => {
                let name = self.go_to(&entry.path)?;
                self.make_dir(&name, entry)
            }
            EntryKind::File { size } => {
                let mut file = self.start_file(entry)?;
                copy_exactly(content, &mut file, *size, &entry.path)?;
                self.end_file(entry, &file)
            }
            _ => {
                let name = self.go_to(&entry.path)?;
                self.clear(&name, false)?;
                self.create(&name, entry)
            }
        }
    }

    fn add_open_file(&mut self, entry: &Entry, content: &File) -> Result<(), Error> {
        let file = self.start_file(entry)?;
        copy_file(content, &file, entry.size(), &entry.path)?;
        self.end_file(entry, &file)
    }

    /// Makes the way lead to the directory that `path` is in, and returns its name there.
    fn go_to(&mut self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        let name = path.file_name().ok_or_else(|| Error::NotDirectory(path.clone()))?.to_vec();
        self.descend(&path.parent().unwrap_or_default())?;
        Ok(name)
    }

    /// Makes the way lead to the directory at `path`, following links inside the root, making what is missing.
    fn descend(&mut self, path: &EntryPath) -> Result<(), Error> {
        let names: Vec<_> = path.components().collect();
        let shared = self.way.iter().skip(1).zip(&names).take_while(|(s, n)| s.path.file_name() == Some(**n)).count();
        self.way.truncate(shared + 1);
        let mut todo: Vec<Vec<u8>> = names.iter().skip(shared).rev().map(|n| n.to_vec()).collect();
        let mut hops = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                self.way.truncate(self.way.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(target) = self.step(&name)? else { continue };
            hops += 1;
            if hops > MOST_LINKS {
                return Err(Error::Loop(path.clone()));
            }
            if target.starts_with(b"/") {
                self.way.truncate(1);
            }
            todo.extend(steps(&target));
        }
        Ok(())
    }

    /// One step down the way; a symbolic link's target instead, where one stands there.
    fn step(&mut self, name: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let path = self.here()?.path.join(name)?;
        let fail = |call| {
            let path = path.clone();
            move |e: Errno| Error::inside(call, &path, e)
        };
        let here = self.here()?;
        match at::open_dir(here.fd.as_fd(), name) {
            Ok(fd) => {
                let lower = here.lower
                    && !self.notes.is_opaque(&path)
                    && !at::is_opaque(fd.as_fd()).map_err(fail("fgetxattr"))?
                    && self.lower.stat(&path)?.is_some_and(|m| m.is_dir());
                self.way.push(Step { path, fd, lower });
                return Ok(None);
            }
            Err(Errno::NOENT) => {}
            Err(Errno::NOTDIR | Errno::LOOP) => match self.here_at(name, &path)? {
                Some(meta) if meta.kind == Kind::Symlink => {
                    return at::read_link(self.here()?.fd.as_fd(), name).map(Some).map_err(fail("readlink"));
                }
                // The directory that this layer removed comes back with nothing in it.
                Some(meta) if meta.is_whiteout() => {
                    self.make_parent(name, &path)?;
                    return Ok(None);
                }
                _ => return Err(Error::NotDirectory(path)),
            },
            Err(e) => return Err(fail("open")(e)),
        }
        match self.lower_stat(&path)? {
            Some(meta) if meta.kind == Kind::Symlink => return self.lower.read_link(&path).map(Some),
            Some(meta) if !meta.is_dir() => return Err(Error::NotDirectory(path)),
            _ => self.make_parent(name, &path)?,
        }
        Ok(None)
    }

    /// Makes a directory that no entry spoke of, like the one that it covers, and steps into it.
    fn make_parent(&mut self, name: &[u8], path: &EntryPath) -> Result<(), Error> {
        let like = match self.lower_stat(path)? {
            Some(meta) if meta.is_dir() => entry(&self.lower, path, &meta)?,
            _ => Entry { mtime: self.made, ..Entry::new(path.clone(), EntryKind::Dir) },
        };
        self.make_dir(name, &like)?;
        self.step(name).map(drop)
    }

    fn here(&self) -> Result<&Step, Error> {
        self.way.last().ok_or_else(|| missing("open", &EntryPath::root()))
    }

    /// What this layer has by a name at the end of the way, which is `path`.
    fn here_at(&self, name: &[u8], path: &EntryPath) -> Result<Option<Meta>, Error> {
        let meta = at::stat_name(self.here()?.fd.as_fd(), name).map_err(|e| Error::inside("stat", path, e))?;
        Ok(meta.map(|meta| self.notes.meta(path, meta)))
    }

    /// What lower layers have at a path whose parent is the end of the way.
    fn lower_stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        if self.here()?.lower { self.lower.stat(path) } else { Ok(None) }
    }

    /// Removes what is in the place of `name`, unless it and what is to come are directories.
    fn clear(&mut self, name: &[u8], for_dir: bool) -> Result<Was, Error> {
        let here = self.here()?;
        match at::stat_name(here.fd.as_fd(), name).map_err(|e| Error::inside("stat", &here.path, e))? {
            None => Ok(Was::Nothing),
            Some(meta) if for_dir && meta.is_dir() => Ok(Was::Dir),
            Some(_) => {
                let removed = at::remove_counting(here.fd.as_fd(), name);
                let removed = removed.map_err(|e| Error::inside("unlink", &here.path, e))?;
                let path = here.path.join(name)?;
                self.notes.forget(&path);
                self.lost(removed);
                Ok(Was::Hiding)
            }
        }
    }

    fn make_dir(&mut self, name: &[u8], entry: &Entry) -> Result<(), Error> {
        let was = self.clear(name, true)?;
        let path = self.here()?.path.join(name)?;
        if !matches!(was, Was::Dir) {
            fs::mkdirat(&self.here()?.fd, name, Mode::RWXU).map_err(|e| Error::inside("mkdir", &path, e))?;
            self.entries += 1;
        }
        let here = self.here()?;
        let dir = at::open_dir(here.fd.as_fd(), name).map_err(|e| Error::inside("open", &path, e))?;
        if matches!(was, Was::Hiding) && self.lower_stat(&path)?.is_some_and(|m| m.is_dir()) {
            self.mark_opaque(dir.as_fd(), &path)?;
        }
        self.set_meta(dir.as_fd(), &path, entry)?;
        self.times.insert(path, entry.mtime);
        Ok(())
    }

    /// Hides what lower layers have at `path`. What this layer put there already hides it, or is itself to stay.
    fn hide(&mut self, path: &EntryPath) -> Result<(), Error> {
        let name = self.go_to(path)?;
        let here = self.here()?;
        let path = here.path.join(&name)?;
        let Some(below) = self.lower_stat(&path)? else { return Ok(()) };
        match at::stat_name(here.fd.as_fd(), &name).map_err(|e| Error::inside("stat", &path, e))? {
            None if self.notes.form().marks => {
                placeholder(here.fd.as_fd(), &name, &path)?;
                self.entries += 1;
                self.notes.note_gone(path);
                Ok(())
            }
            None => self.mknod(&name, &path, FileType::CharacterDevice, Device::default()),
            Some(meta) if meta.is_dir() && below.is_dir() => self.make_opaque(&path),
            Some(_) => Ok(()),
        }
    }

    /// Hides what lower layers have in the directory at `path`.
    fn make_opaque(&mut self, path: &EntryPath) -> Result<(), Error> {
        self.descend(path)?;
        let Some(here) = self.way.last_mut().filter(|h| h.lower) else { return Ok(()) };
        here.lower = false;
        let (dir, path) = (here.fd.try_clone().map_err(|e| Error::inside("dup", path, e))?, here.path.clone());
        self.mark_opaque(dir.as_fd(), &path)
    }

    /// Marks an open directory of this layer as hiding those below.
    fn mark_opaque(&mut self, dir: BorrowedFd<'_>, path: &EntryPath) -> Result<(), Error> {
        if self.notes.form().marks {
            self.notes.note_opaque(path.clone());
            return Ok(());
        }
        at::set_opaque(dir).map_err(|e| Error::inside("fsetxattr", path, e))
    }

    fn link(&mut self, entry: &Entry, target: &EntryPath) -> Result<(), Error> {
        let name = self.go_to(target)?;
        let source = self.here()?.path.join(&name)?;
        self.bring_up(&name, &source)?;
        let name = self.go_to(&entry.path)?;
        let path = self.here()?.path.join(&name)?;
        if path == source {
            return Ok(());
        }
        self.clear(&name, false)?;
        let root = self.way.first().ok_or_else(|| missing("open", &source))?;
        let here = self.here()?;
        // `source` has no link on its way: it was walked just now.
        fs::linkat(&root.fd, source.as_path(), &here.fd, name.as_slice(), AtFlags::empty())
            .map_err(|e| Error::inside("link", &path, e))?;
        self.entries += 1;
        self.notes.note_link(&source, path);
        Ok(())
    }

    /// Copies a lower layer's file into this one, if it isn't there yet.
    fn bring_up(&mut self, name: &[u8], path: &EntryPath) -> Result<(), Error> {
        match self.here_at(name, path)? {
            Some(meta) if meta.is_whiteout() => Err(missing("link", path)),
            Some(_) => Ok(()),
            None => {
                let meta = self.lower_stat(path)?.ok_or_else(|| missing("link", path))?;
                let entry = entry(&self.lower, path, &meta)?;
                match meta.kind {
                    Kind::File => {
                        let file = self.create_file(name, path)?;
                        copy_file(&self.lower.open(path)?, &file, meta.size, path)?;
                        self.set_meta(file.as_fd(), path, &entry)
                    }
                    Kind::Dir => Err(Error::inside("link", path, Errno::PERM)),
                    _ => self.create(name, &entry),
                }
            }
        }
    }

    /// Makes a link, a device or a pipe where nothing is.
    fn create(&mut self, name: &[u8], entry: &Entry) -> Result<(), Error> {
        let path = &entry.path;
        match &entry.kind {
            EntryKind::Symlink(target) => {
                let made = fs::symlinkat(target.as_slice(), &self.here()?.fd, name);
                made.map_err(|e| Error::inside("symlink", path, e))?;
                self.entries += 1;
            }
            EntryKind::CharDevice(device) => self.mknod(name, path, FileType::CharacterDevice, *device)?,
            EntryKind::BlockDevice(device) => self.mknod(name, path, FileType::BlockDevice, *device)?,
            EntryKind::Fifo => self.mknod(name, path, FileType::Fifo, Device { major: 0, minor: 0 })?,
            _ => return Ok(()),
        }
        self.set_meta_at(name, entry)
    }

    /// Makes a regular file, in place of what is there.
    fn create_file(&mut self, name: &[u8], path: &EntryPath) -> Result<File, Error> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let create = |here: &Step| fs::openat(&here.fd, name, flags, Mode::RUSR | Mode::WUSR);
        let created = match create(self.here()?) {
            Err(Errno::EXIST) => {
                self.clear(name, false)?;
                create(self.here()?)
            }
            created => created,
        };
        let created = created.map(File::from).map_err(|e| Error::inside("create", path, e))?;
        self.entries += 1;
        Ok(created)
    }

    fn mknod(&mut self, name: &[u8], path: &EntryPath, kind: FileType, device: Device) -> Result<(), Error> {
        let is_device = device != (Device { major: 0, minor: 0 });
        if is_device && self.notes.form().owners {
            placeholder(self.here()?.fd.as_fd(), name, path)?;
        } else {
            let number = fs::makedev(device.major, device.minor);
            fs::mknodat(&self.here()?.fd, name, kind, Mode::empty(), number).map_err(|e| match e {
                Errno::PERM if is_device => Error::Device(path.clone()),
                e => Error::inside("mknod", path, e),
            })?;
        }
        self.entries += 1;
        Ok(())
    }

    /// Owner, mode and time of what isn't opened: links, devices, pipes. None of them has extended attributes.
    fn set_meta_at(&mut self, name: &[u8], entry: &Entry) -> Result<(), Error> {
        let path = self.here()?.path.join(name)?;
        let noted = self.notes.form().owners;
        self.notes.note(path, entry);
        let dir = &self.here()?.fd;
        let fail = |call| move |e: Errno| Error::inside(call, &entry.path, e);
        let (uid, gid) = owner(entry);
        if !noted {
            fs::chownat(dir, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW).map_err(fail("chown"))?;
        }
        if !matches!(entry.kind, EntryKind::Symlink(_)) {
            let mode = if noted { open_mode(entry.mode, false) } else { entry.mode };
            fs::chmodat(dir, name, Mode::from_raw_mode(mode), AtFlags::empty()).map_err(fail("chmod"))?;
        }
        fs::utimensat(dir, name, &both(entry.mtime), AtFlags::SYMLINK_NOFOLLOW).map_err(fail("utimensat"))?;
        if self.notes.form().is_recorded() {
            let made = fs::openat(dir, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty());
            self.notes.record(made.map_err(fail("open"))?.as_fd(), entry).map_err(fail("setxattr"))?;
        }
        Ok(())
    }
}

impl EntrySink for FolderWriter {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        self.add_entry(entry, content).map_err(|error| unpacking(entry, error))
    }

    fn add_file(&mut self, entry: &Entry, content: &File) -> Result<(), layer::Error> {
        self.add_open_file(entry, content).map_err(|error| unpacking(entry, error))
    }
}

fn unpacking(entry: &Entry, error: Error) -> layer::Error {
    match error {
        Error::Layer(error) => error,
        error => layer::Error::file("unpack", &entry.path, error),
    }
}
