//! Both directions of a switch: the container's entries out and the stage's in, and back.
//!
//! An entry is renamed as a whole where the kernel allows that. A directory of a lower layer of the container's own image cannot
//! be renamed (`EXDEV`): it is *kept*, and its entries are renamed one by one, as deep as necessary. Docker puts `/etc` into such a
//! layer. A kept directory has the stage's metadata while the stage is switched in; one that the stage lacks belongs to the
//! stage only if a process puts something into it.
//!
//! Volumes and mounted files are in `volumes`.

use super::crash_journal::{CrashJournal, Record, State};
use super::directory_metadata::DirectoryMetadata;
use super::layout::{Fixed, Layout};
use super::volumes;
use crate::layer::EntryPath;
use crate::snapshot::Error;
use crate::snapshot::at;
use crate::snapshot::excluded::Excluded;
use crate::sys;
use rustix::fs::{AtFlags, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Writes a record to the crash journal.
pub(super) type Log<'a> = &'a mut dyn FnMut(Record) -> Result<(), Error>;

/// Numbers of entries by the directory that they are in.
pub(super) type Counts = BTreeMap<EntryPath, usize>;

/// What a stage brought into `/`.
#[derive(Debug, Clone, Default)]
pub(super) struct Entered {
    /// The directories of the stage whose entries were moved one by one, `/` among them.
    pub(super) directories: BTreeSet<EntryPath>,
    /// The directories that were kept, though the stage has none there.
    pub(super) absent: BTreeSet<EntryPath>,
    /// The volumes that the stage's files were copied to.
    pub(super) volumes: BTreeSet<EntryPath>,
    /// The volumes that a process may use, though the stage has nothing there.
    pub(super) absent_volumes: BTreeSet<EntryPath>,
    /// Mounted files that have the stage's content, and how they looked then.
    pub(super) files: BTreeMap<EntryPath, volumes::Stamp>,
}

/// A stage whose files are needed after it has left.
#[derive(Clone, Copy)]
pub(super) struct Needed<'n> {
    pub(super) entered: &'n Entered,
    /// The directories that the stage lacked, and that a process has made its own: it "made" one, or changed its metadata.
    pub(super) claimed: &'n BTreeSet<EntryPath>,
}

/// A switch between `/` and the work directory.
pub(super) struct Switch<'a> {
    pub(super) root: &'a Path,
    pub(super) root_fd: BorrowedFd<'a>,
    pub(super) work: &'a Path,
}

/// Where the container's own entries are while a stage is switched in.
pub(super) fn own(work: &Path) -> PathBuf {
    work.join("own")
}

/// Three directories of the same path.
struct Dirs<'d> {
    path: &'d EntryPath,
    host: BorrowedFd<'d>,
    other: BorrowedFd<'d>,
}

impl<'a> Switch<'a> {
    pub(super) fn new(root: &'a Path, root_fd: BorrowedFd<'a>, work: &'a Path) -> Self {
        Self { root, root_fd, work }
    }

    /// Sets the container's entries aside and lets those of `place` enter. Every operation is logged before it is done.
    ///
    /// # Errors
    /// If something cannot be moved; the caller restores `/`.
    pub(super) fn enter(&self, layout: &Layout, log: Log<'_>, place: &Path) -> Result<Entered, Error> {
        let (root, mut kept) = (EntryPath::root(), BTreeSet::new());
        let aside = at::open_root(&own(self.work))?;
        let dirs = Dirs { path: &root, host: self.root_fd, other: aside.as_fd() };
        self.set_aside(layout, log, &dirs, &mut kept)?;
        log(Record::StageEnters)?;
        let stage = at::open_root(place)?;
        let mut entered = Entered { absent: kept, ..Entered::default() };
        let mut entry = Entry { switch: self, layout, log: &mut *log, place, entered: &mut entered };
        entry.enter(&Dirs { path: &root, host: self.root_fd, other: stage.as_fd() })?;
        volumes::enter_files(self, layout, log, place, &mut entered)?;
        volumes::enter_absent(self, layout, log, &mut entered)?;
        for dir in &entered.absent {
            let fd = at::open(self.root_fd, dir, OFlags::RDONLY).map_err(|e| Error::inside("open", dir, e))?;
            DirectoryMetadata::made().apply(&fd, dir.as_path()).map_err(failed)?;
        }
        Ok(entered)
    }

    fn set_aside(
        &self,
        layout: &Layout,
        log: Log<'_>,
        dirs: &Dirs<'_>,
        kept: &mut BTreeSet<EntryPath>,
    ) -> Result<(), Error> {
        for name in at::names(dirs.host).map_err(|e| Error::inside("getdents", dirs.path, e))? {
            let path = dirs.path.join(&name)?;
            if layout.at(&path).is_some() {
                continue;
            }
            if !layout.holds_own(&path) {
                log(Record::SetAside { path: path.as_bytes().to_vec() })?;
                match rename(dirs.host, dirs.other, &name) {
                    Ok(()) => continue,
                    Err(Errno::XDEV) => {}
                    Err(errno) => return Err(self.cannot_move(&path, errno)),
                }
            }
            let inner = at::open_dir(dirs.host, &name).map_err(|_| self.cannot_move(&path, Errno::XDEV))?;
            let metadata = DirectoryMetadata::read(&inner, path.as_path()).map_err(failed)?;
            log(Record::Keep { path: path.as_bytes().to_vec(), metadata })?;
            let aside = make_dir(dirs.other, &name, &path)?;
            kept.insert(path.clone());
            self.set_aside(layout, log, &Dirs { path: &path, host: inner.as_fd(), other: aside.as_fd() }, kept)?;
        }
        Ok(())
    }

    /// Moves the stage's entries to `place` and the container's back, and removes the journal. Without `needed`, nobody needs the
    /// stage any more. Returns how many entries of each directory were moved to `place`.
    ///
    /// # Errors
    /// If something cannot be moved. The journal stays then.
    pub(super) fn leave(
        &self,
        mut journal: CrashJournal,
        place: &Path,
        needed: Option<Needed<'_>>,
    ) -> Result<Counts, Error> {
        let state = journal.state().clone();
        let mut of_stage = volumes::leave_files(self, &state, place, needed.map(|needed| needed.entered))?;
        for (path, volume) in &state.volumes {
            let claimed = needed.is_some_and(|needed| needed.claimed.contains(path));
            if volumes::leave(self, &mut journal, (path, volume), needed.map(|_| (place, claimed)))? {
                of_stage.insert(path.clone());
            }
        }
        let metadata = DirectoryMetadata::read(self.root_fd, self.root).map_err(failed)?;
        let (root, mut moved) = (EntryPath::root(), Counts::new());
        let (aside, to) = (at::open_root(&own(self.work))?, at::open_root(place)?);
        let leaving = Leaving { switch: self, state: &state, aside: aside.as_fd(), of_stage, needed };
        leaving.leave(&Dirs { path: &root, host: self.root_fd, other: to.as_fd() }, &mut moved)?;
        leaving.come_back(&Dirs { path: &root, host: self.root_fd, other: aside.as_fd() })?;
        metadata.apply(&to, place).map_err(failed)?;
        if let Some(metadata) = &state.root {
            metadata.apply(self.root_fd, self.root).map_err(failed)?;
        }
        journal.remove()?;
        Ok(moved)
    }

    /// Restores what a killed process left, if it left anything.
    ///
    /// # Errors
    /// If the journal cannot be read, or something cannot be moved.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let Some(journal) = CrashJournal::reopen(self.work)? else { return Ok(()) };
        volumes::undo_binds(self, journal.state());
        let left = self.work.join("left");
        std::fs::create_dir_all(&left).map_err(|e| Error::host("mkdir", &left, e))?;
        self.leave(journal, &left, None)?;
        at::remove(at::open_root(self.work)?.as_fd(), b"left").map_err(|e| Error::host("remove", &left, e))
    }

    /// The directories that the stage lacks and that a process has changed.
    ///
    /// # Errors
    /// If one cannot be read.
    pub(super) fn changed_absent(&self, entered: &Entered) -> Result<BTreeSet<EntryPath>, Error> {
        let mut changed = BTreeSet::new();
        for path in entered.absent.union(&entered.absent_volumes) {
            let Ok(dir) = at::open(self.root_fd, path, OFlags::RDONLY | OFlags::DIRECTORY) else { continue };
            let metadata = DirectoryMetadata::read(&dir, path.as_path()).map_err(failed)?;
            if !metadata.is_like(&DirectoryMetadata::made()) {
                changed.insert(path.clone());
            }
        }
        Ok(changed)
    }

    /// What lies in `/` and is not the stage's.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub(super) fn excluded(&self, state: &State, Needed { entered, claimed }: Needed<'_>) -> Result<Excluded, Error> {
        let mut excluded = Excluded::none();
        let mut add = |path: &EntryPath| {
            if let (Some(dir), Some(name)) = (path.parent(), path.file_name()) {
                excluded.add(dir, name.to_vec());
            }
        };
        // What is mounted in a directory that was set aside is not in `/` now.
        let is_visible =
            |path: &&EntryPath| path.parent().is_some_and(|dir| dir.is_root() || state.kept.contains_key(&dir));
        for path in state.fixed.iter().filter(|path| !state.volumes.contains_key(path)).filter(is_visible) {
            if !volumes::is_changed(self, entered, path) {
                add(path);
            }
        }
        for (path, volume) in &state.volumes {
            add(&path.join(volume.aside.as_bytes())?);
            let is_absent = entered.absent_volumes.contains(path) && !claimed.contains(path);
            if is_absent && !volumes::holds_stage_files(self, path, volume)? {
                add(path);
            }
        }
        for path in entered.absent.difference(claimed) {
            if let Ok(dir) = at::open(self.root_fd, path, OFlags::RDONLY | OFlags::DIRECTORY)
                && !holds_stage_files(state, path, dir.as_fd())?
            {
                add(path);
            }
        }
        Ok(excluded)
    }

    pub(super) fn cannot_move(&self, path: &EntryPath, errno: Errno) -> Error {
        let at = self.root.join(path.as_path());
        match errno {
            Errno::XDEV | Errno::BUSY => Error::Fixed(at),
            errno => Error::host("rename", &at, errno),
        }
    }
}

/// A stage that enters.
struct Entry<'e, 'a> {
    switch: &'e Switch<'a>,
    layout: &'e Layout,
    log: Log<'e>,
    place: &'e Path,
    entered: &'e mut Entered,
}

impl Entry<'_, '_> {
    fn enter(&mut self, dirs: &Dirs<'_>) -> Result<(), Error> {
        for name in at::names(dirs.other).map_err(|e| Error::inside("getdents", dirs.path, e))? {
            let path = dirs.path.join(&name)?;
            match self.layout.at(&path) {
                Some(Fixed::System) => {}
                Some(Fixed::Own) => return Err(Error::Held(self.switch.root.join(path.as_path()))),
                Some(Fixed::MountedFile) if Layout::is_runtime_file(&path) => {}
                Some(Fixed::MountedFile) => return Err(self.occupied(&path, volumes::FILE)),
                Some(Fixed::Volume { read_only }) => {
                    volumes::enter(self.switch, self.log, self.place, &path, read_only)?;
                    self.entered.volumes.insert(path);
                }
                None if self.entered.absent.contains(&path) => {
                    let inner = at::open_dir(dirs.other, &name).map_err(|_| self.occupied(&path, KEPT))?;
                    let host = at::open_dir(dirs.host, &name).map_err(|e| self.switch.cannot_move(&path, e))?;
                    self.enter(&Dirs { path: &path, host: host.as_fd(), other: inner.as_fd() })?;
                }
                None => {
                    rename(dirs.other, dirs.host, &name).map_err(|e| self.switch.cannot_move(&path, e))?;
                }
            }
        }
        let metadata = DirectoryMetadata::read(dirs.other, dirs.path.as_path()).map_err(failed)?;
        metadata.apply(dirs.host, dirs.path.as_path()).map_err(failed)?;
        self.entered.absent.remove(dirs.path);
        self.entered.directories.insert(dirs.path.clone());
        Ok(())
    }

    fn occupied(&self, path: &EntryPath, why: &'static str) -> Error {
        Error::Occupied { path: self.switch.root.join(path.as_path()), why }
    }
}

/// Why a stage cannot have anything but a directory there.
const KEPT: &str =
    "that path is a directory of this container's own image, which cannot be moved; use kiln's own image";

/// A stage that leaves.
struct Leaving<'l, 'a> {
    switch: &'l Switch<'a>,
    state: &'l State,
    aside: BorrowedFd<'l>,
    /// The volumes and mounted files whose content went to the stage.
    of_stage: BTreeSet<EntryPath>,
    needed: Option<Needed<'l>>,
}

impl Leaving<'_, '_> {
    /// Moves what is the stage's in one directory.
    fn leave(&self, dirs: &Dirs<'_>, moved: &mut Counts) -> Result<(), Error> {
        let mut count = 0;
        for name in at::names(dirs.host).map_err(|e| Error::inside("getdents", dirs.path, e))? {
            let path = dirs.path.join(&name)?;
            if self.state.fixed.contains(&path) {
                count += usize::from(self.of_stage.contains(&path));
            } else if self.state.kept.contains_key(&path) && is_dir(dirs.host, &name) {
                count += usize::from(self.leave_kept(dirs, &path, &name, moved)?);
            } else if self.is_stages(&path) {
                if self.state.kept.contains_key(&path) {
                    // A process has replaced the directory; the stage's own is still there, and empty.
                    let _ = rustix::fs::unlinkat(dirs.other, os(&name), AtFlags::REMOVEDIR);
                }
                rename(dirs.host, dirs.other, &name).map_err(|e| self.switch.cannot_move(&path, e))?;
                count += 1;
            }
        }
        moved.insert(dirs.path.clone(), count);
        Ok(())
    }

    /// Moves the entries of a directory that stays. Returns whether the stage has the directory.
    fn leave_kept(&self, dirs: &Dirs<'_>, path: &EntryPath, name: &[u8], moved: &mut Counts) -> Result<bool, Error> {
        let fail = |errno| Error::inside("open", path, errno);
        let host = at::open_dir(dirs.host, name).map_err(fail)?;
        let is_stages = is_dir(dirs.other, name);
        let is_claimed = self.needed.is_some_and(|needed| needed.claimed.contains(path));
        if !is_stages && !is_claimed && !holds_stage_files(self.state, path, host.as_fd())? {
            return Ok(false);
        }
        let metadata = DirectoryMetadata::read(&host, path.as_path()).map_err(failed)?;
        let to =
            if is_stages { at::open_dir(dirs.other, name).map_err(fail)? } else { make_dir(dirs.other, name, path)? };
        self.leave(&Dirs { path, host: host.as_fd(), other: to.as_fd() }, moved)?;
        metadata.apply(&to, path.as_path()).map_err(failed)?;
        Ok(true)
    }

    /// Whether an entry of `/` is the stage's, and not one of the container's that is not set aside yet, or back already.
    fn is_stages(&self, path: &EntryPath) -> bool {
        let is_back = self.state.set_aside.contains(path) && !exists(self.aside, path);
        self.state.stage_entered && !is_back
    }

    /// Moves the container's own entries of one directory back.
    fn come_back(&self, dirs: &Dirs<'_>) -> Result<(), Error> {
        for name in at::names(dirs.other).map_err(|e| Error::inside("getdents", dirs.path, e))? {
            let path = dirs.path.join(&name)?;
            let Some(metadata) = self.state.kept.get(&path) else {
                rename(dirs.other, dirs.host, &name).map_err(|e| self.switch.cannot_move(&path, e))?;
                continue;
            };
            let fail = |errno| Error::inside("open", &path, errno);
            let host = match at::open_dir(dirs.host, &name) {
                Err(Errno::NOENT) => make_dir(dirs.host, &name, &path)?,
                host => host.map_err(fail)?,
            };
            let aside = at::open_dir(dirs.other, &name).map_err(fail)?;
            self.come_back(&Dirs { path: &path, host: host.as_fd(), other: aside.as_fd() })?;
            rustix::fs::unlinkat(dirs.other, os(&name), AtFlags::REMOVEDIR)
                .map_err(|e| Error::inside("rmdir", &path, e))?;
            metadata.apply(&host, path.as_path()).map_err(failed)?;
        }
        Ok(())
    }
}

/// Whether something in a directory that stays is the stage's.
fn holds_stage_files(state: &State, dir: &EntryPath, fd: BorrowedFd<'_>) -> Result<bool, Error> {
    for name in at::names(fd).map_err(|e| Error::inside("getdents", dir, e))? {
        let path = dir.join(&name)?;
        if state.fixed.contains(&path) {
            continue;
        }
        let inner = if state.kept.contains_key(&path) { at::open_dir(fd, &name).ok() } else { None };
        match inner {
            Some(inner) if !holds_stage_files(state, &path, inner.as_fd())? => {}
            _ => return Ok(true),
        }
    }
    Ok(false)
}

pub(super) fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::renameat_with(from, os(name), to, os(name), RenameFlags::NOREPLACE)
}

fn make_dir(parent: BorrowedFd<'_>, name: &[u8], path: &EntryPath) -> Result<OwnedFd, Error> {
    rustix::fs::mkdirat(parent, os(name), Mode::RWXU).map_err(|e| Error::inside("mkdir", path, e))?;
    at::open_dir(parent, name).map_err(|e| Error::inside("open", path, e))
}

fn is_dir(parent: BorrowedFd<'_>, name: &[u8]) -> bool {
    matches!(at::stat_name(parent, name), Ok(Some(meta)) if meta.is_dir())
}

fn exists(root: BorrowedFd<'_>, path: &EntryPath) -> bool {
    matches!(at::stat(root, path), Ok(Some(_)))
}

pub(super) fn os(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

/// An error of a system call, with its path.
pub(super) fn failed(error: sys::Error) -> Error {
    let path = error.path.clone().unwrap_or_default();
    Error::host(error.call, &path, error.errno)
}
