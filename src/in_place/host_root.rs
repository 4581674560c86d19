//! Switches the container's root directory to a stage's root filesystem, and back.
//!
//! In-place isolation cannot mount anything, so a RUN sees its root filesystem only if the files lie in `/` itself. Switching in
//! renames every entry of `/` to `WORK/own/`, and then the stage's entries to `/`. Switching out does the reverse.
//! `switch` has both directions, and [`layout`](super::layout) knows the entries that stay: mount points, which the kernel refuses
//! to rename, and kiln's own files.
//!
//! ```text
//! WORK/own/            the container's own entries, while a stage is switched in
//! WORK/saved/          the original content of mounted files
//! WORK/crash-journal   what is to be undone; removed when / is as it was
//! ```
//!
//! A lock on `/` keeps two processes from switching at the same time.

use super::confinement::SplitDirectory;
use super::crash_journal::{self, CrashJournal, Record};
use super::directory_metadata::DirectoryMetadata;
use super::hidden_files::{HiddenFiles, HiddenGuard};
use super::layout::{Fixed, Layout};
use super::switch::{self, Counts, Entered, Needed, Switch};
use super::volumes;
use crate::layer::EntryPath;
use crate::snapshot::Error;
use crate::snapshot::at;
use crate::snapshot::excluded::Excluded;
use crate::sys;
use crate::sys::file::{self, Lock};
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The container's root directory. At most one stage is switched in at a time.
#[derive(Debug)]
pub struct HostRoot {
    /// `/`; another directory in tests.
    root: PathBuf,
    /// Kiln's work directory, on the same file system.
    work: PathBuf,
    layout: Layout,
    closed: AtomicBool,
    /// Files that no process may see, where nothing else keeps them away.
    hidden_files: HiddenFiles,
    /// The journal of the switch that is under way.
    journal: Mutex<Option<CrashJournal>>,
    /// Directories that are there although the stage lacks them, until a process "makes" them.
    unclaimed: Mutex<BTreeSet<PathBuf>>,
    /// The first mount that a process of the stage took for a directory of its own.
    wanted_mount: Mutex<Option<PathBuf>>,
}

/// A stage that is switched in. Dropping it switches back, and discards what a process did.
#[derive(Debug)]
pub(super) struct SwitchedRoot {
    host: Arc<HostRoot>,
    /// Where the stage's files go afterwards.
    place: PathBuf,
    entered: Entered,
    /// The open `/`, with the lock.
    root: OwnedFd,
    /// Whether `/` has been restored already.
    finished: bool,
    /// Dropped last: the files are back when all processes have ended and `/` is as it was.
    hidden: Option<HiddenGuard>,
}

impl HostRoot {
    /// The root directory `root`, with `work` for what is set aside, which is made. Restores what a killed process left.
    ///
    /// # Errors
    /// If that cannot be done.
    pub fn new(root: &Path, work: &Path, layout: Layout) -> Result<Self, Error> {
        let host = Self {
            root: root.into(),
            work: work.into(),
            layout,
            closed: AtomicBool::new(false),
            hidden_files: HiddenFiles::default(),
            journal: Mutex::default(),
            unclaimed: Mutex::default(),
            wanted_mount: Mutex::default(),
        };
        std::fs::create_dir_all(switch::own(work)).map_err(|e| Error::host("mkdir", &switch::own(work), e))?;
        let root = at::open_root(root)?;
        // Whoever has the lock is alive, and leaves nothing to restore.
        if file::try_lock(&root, Lock::Exclusive).is_ok_and(|locked| locked) {
            Switch::new(&host.root, root.as_fd(), work).restore()?;
        }
        Ok(host)
    }

    /// Restores what a killed process left in `root`, if it left anything. Nothing else is made or changed.
    ///
    /// # Errors
    /// If something cannot be renamed or read.
    pub fn restore(root: &Path, work: &Path) -> Result<(), Error> {
        if !crash_journal::exists(work) {
            return Ok(());
        }
        Self::new(root, work, Layout::default()).map(drop)
    }

    /// The same root directory; while a stage is switched in, these files are hidden.
    #[must_use]
    pub fn hiding(self, hidden_files: HiddenFiles) -> Self {
        Self { hidden_files, ..self }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Kiln's work directory, on the file system of the root directory.
    pub fn work(&self) -> &Path {
        &self.work
    }

    /// Switches to a stage of a few files, does something there, and switches back: all that a RUN needs of `/`.
    ///
    /// # Errors
    /// Whatever a RUN would fail with, and what `act` says.
    pub fn probe<E: From<Error>>(self: &Arc<Self>, act: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.make_probe()?;
        let stage = self.switch_in(&self.work.join("probe"))?;
        act()?;
        let counted = stage.count()?;
        stage.finish(&|dir| counted.get(dir).copied().unwrap_or(0))?;
        Ok(self.remove_probe()?)
    }

    fn make_probe(&self) -> Result<(), Error> {
        self.remove_probe()?;
        let place = self.work.join("probe");
        for dir in ["bin", "etc"] {
            let dir = place.join(dir);
            std::fs::create_dir_all(&dir).map_err(|e| Error::host("mkdir", &dir, e))?;
        }
        let file = place.join("etc/kiln-probe");
        std::fs::write(&file, "").map_err(|e| Error::host("write", &file, e))
    }

    fn remove_probe(&self) -> Result<(), Error> {
        let removed = at::remove(at::open_root(&self.work)?.as_fd(), b"probe");
        removed.map_err(|e| Error::host("remove", &self.work.join("probe"), e))
    }

    /// Waits until no stage of this process is switched in, and lets none be from then on.
    ///
    /// # Errors
    /// If the root directory cannot be opened.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        self.lock().map(drop)
    }

    /// Writes a record to the journal of the switch that is under way, if there is one.
    ///
    /// # Errors
    /// If it cannot be written; then the operation must not be done.
    pub(super) fn record(&self, record: Record) -> Result<(), Error> {
        self.journal().as_mut().map_or(Ok(()), |journal| journal.add(record))
    }

    /// The directory for what bind emulation sets aside on the file system of `dir`, where that is a volume of the stage's.
    ///
    /// # Errors
    /// If it cannot be made.
    pub(super) fn binds_of_volume(&self, dir: &Path) -> sys::Result<Option<PathBuf>> {
        let journal = self.journal();
        let volumes = journal.as_ref().map(|journal| &journal.state().volumes).into_iter().flatten();
        let found = volumes.filter(|(path, _)| dir.starts_with(self.root.join(path.as_path())));
        let Some((path, volume)) = found.max_by_key(|(path, _)| path.as_bytes().len()) else { return Ok(None) };
        volumes::binds(&self.root, path, volume).map(Some)
    }

    /// Gives a mounted file of the container's, at an absolute path, this content until the stage leaves.
    ///
    /// # Errors
    /// If its original content cannot be saved, or it cannot be written.
    pub(super) fn replace_content(&self, path: &Path, content: &[u8]) -> sys::Result<()> {
        let mut journal = self.journal();
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        match (journal.as_mut(), EntryPath::parse(inside.as_os_str().as_encoded_bytes())) {
            (Some(journal), Ok(inside)) => volumes::replace_content(&self.root, &self.work, journal, &inside, content),
            _ => Err(sys::Error::new("write", path, Errno::INVAL)),
        }
    }

    /// The directories with entries that no process may reach, while a stage is switched in. `/` comes first.
    pub(super) fn split_directories(&self) -> Vec<SplitDirectory> {
        let journal = self.journal();
        let state = journal.as_ref().map(|journal| journal.state().clone()).unwrap_or_default();
        let hidden = |dir: &EntryPath| -> BTreeSet<Vec<u8>> {
            let names = self.layout.names_in(dir).filter(|(name, fixed)| match fixed {
                Fixed::System => false,
                Fixed::Own => true,
                Fixed::MountedFile => !dir.join(name).is_ok_and(|path| Layout::is_runtime_file(&path)),
                Fixed::Volume { .. } => !dir.join(name).is_ok_and(|path| state.volumes.contains_key(&path)),
            });
            names.map(|(name, _)| name.to_vec()).collect()
        };
        let mut split: BTreeMap<EntryPath, (BTreeSet<Vec<u8>>, PathBuf)> = BTreeMap::new();
        for dir in state.kept.keys() {
            split.insert(dir.clone(), (hidden(dir), self.pool(split.len() + 1)));
        }
        for (path, volume) in &state.volumes {
            let aside = self.root.join(path.as_path()).join(&volume.aside);
            let names = BTreeSet::from_iter(aside.exists().then(|| volume.aside.clone().into_bytes()));
            split.insert(path.clone(), (names, aside.join(volumes::POOL)));
        }
        // A rule for a directory is one for everything below it: those above a split one are split as well.
        let needed: Vec<EntryPath> =
            split.iter().filter(|(_, (names, _))| !names.is_empty()).map(|(path, _)| path.clone()).collect();
        split.retain(|dir, _| needed.iter().any(|path| path.starts_with(dir)));
        split.insert(EntryPath::root(), (hidden(&EntryPath::root()), self.pool(0)));
        let split = split.into_iter().map(|(dir, (hidden, pool))| SplitDirectory {
            path: self.root.join(dir.as_path()),
            hidden,
            pool,
        });
        split.collect()
    }

    /// A directory for a pool of inodes, on the file system of the root directory.
    fn pool(&self, number: usize) -> PathBuf {
        self.work.join("pools").join(number.to_string())
    }

    /// Switches to the root filesystem in `place`, which is on the same file system. Waits for other processes.
    ///
    /// # Errors
    /// If something cannot be renamed; `/` is as it was then.
    pub(super) fn switch_in(self: &Arc<Self>, place: &Path) -> Result<SwitchedRoot, Error> {
        let root = self.lock()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::host("flock", &self.root, Errno::CANCELED));
        }
        Switch::new(&self.root, root.as_fd(), &self.work).restore()?;
        let hidden = Some(self.hidden_files.take()?);
        let metadata = DirectoryMetadata::read(&root, &self.root).map_err(switch::failed)?;
        let fixed = self.layout.paths().cloned().collect();
        *self.journal() = Some(CrashJournal::begin(&self.work, metadata, fixed)?);
        let (host, entered) = (self.clone(), Entered::default());
        // From here on dropping it restores everything.
        let mut stage = SwitchedRoot { host, place: place.into(), entered, root, finished: false, hidden };
        let switch = Switch::new(&self.root, stage.root.as_fd(), &self.work);
        stage.entered = switch.enter(&self.layout, &mut |record| self.record(record), place)?;
        let absent = stage.entered.absent.union(&stage.entered.absent_volumes);
        *self.unclaimed() = absent.map(|path| self.root.join(path.as_path())).collect();
        Ok(stage)
    }

    fn lock(&self) -> Result<OwnedFd, Error> {
        let root = at::open_root(&self.root)?;
        file::lock(&root, Lock::Exclusive).map_err(switch::failed)?;
        Ok(root)
    }

    /// Makes a directory the stage's that it lacked so far. Returns whether that was so: to a process, the directory was not there.
    pub(super) fn claim(&self, path: &Path) -> bool {
        self.unclaimed().remove(path)
    }

    /// Takes note that a process wants to make something where the container has a hidden mount: the stage would lack it.
    pub(super) fn want_mount(&self, path: &Path) {
        let inside = path.strip_prefix(&self.root).unwrap_or(path);
        let fixed =
            EntryPath::parse(inside.as_os_str().as_encoded_bytes()).ok().and_then(|inside| self.layout.at(&inside));
        if matches!(fixed, Some(Fixed::Volume { .. } | Fixed::MountedFile)) {
            self.wanted_mount().get_or_insert_with(|| path.to_owned());
        }
    }

    /// The mount that a process wanted since the last time, if there is one.
    pub(super) fn take_wanted_mount(&self) -> Option<PathBuf> {
        self.wanted_mount().take()
    }

    fn wanted_mount(&self) -> MutexGuard<'_, Option<PathBuf>> {
        self.wanted_mount.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unclaimed(&self) -> MutexGuard<'_, BTreeSet<PathBuf>> {
        self.unclaimed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn journal(&self) -> MutexGuard<'_, Option<CrashJournal>> {
        self.journal.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SwitchedRoot {
    /// The directories whose own times, or whose entries' times, changed by the switch.
    pub(super) fn entered(&self) -> &Entered {
        &self.entered
    }

    /// What does not belong to the stage, although it lies in `/` now.
    ///
    /// # Errors
    /// If a directory cannot be read.
    pub(super) fn excluded(&self) -> Result<Excluded, Error> {
        let claimed = self.claimed()?;
        let journal = self.host.journal();
        let Some(state) = journal.as_ref().map(CrashJournal::state) else { return Ok(Excluded::none()) };
        self.switch().excluded(state, Needed { entered: &self.entered, claimed: &claimed })
    }

    fn switch(&self) -> Switch<'_> {
        Switch::new(&self.host.root, self.root.as_fd(), &self.host.work)
    }

    /// The directories that the stage lacked and that a process has made its own.
    fn claimed(&self) -> Result<BTreeSet<EntryPath>, Error> {
        let unclaimed = self.host.unclaimed();
        let is_claimed = |path: &&EntryPath| !unclaimed.contains(&self.host.root.join(path.as_path()));
        let absent = self.entered.absent.union(&self.entered.absent_volumes);
        let mut claimed: BTreeSet<EntryPath> = absent.filter(is_claimed).cloned().collect();
        claimed.extend(self.switch().changed_absent(&self.entered)?);
        Ok(claimed)
    }

    /// How many entries each directory has whose entries move one by one.
    ///
    /// # Errors
    /// If a directory cannot be read.
    fn count(&self) -> Result<Counts, Error> {
        let excluded = self.excluded()?;
        let count = |dir: &EntryPath| {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY;
            let fd = at::open(self.root.as_fd(), dir, flags).map_err(|e| Error::inside("open", dir, e))?;
            let names = at::names(fd.as_fd()).map_err(|e| Error::inside("getdents", dir, e))?;
            Ok((dir.clone(), names.iter().filter(|name| !excluded.contains(dir, name)).count()))
        };
        self.entered.directories.iter().map(count).collect()
    }

    /// Switches back. `counted` says how many entries of a directory the walk for changes saw: that many must move.
    ///
    /// # Errors
    /// If something cannot be renamed, or not as many entries were moved as the walk saw.
    pub(super) fn finish(mut self, counted: &dyn Fn(&EntryPath) -> usize) -> Result<(), Error> {
        let claimed = self.claimed()?;
        let moved = self.leave(Some(Needed { entered: &self.entered, claimed: &claimed }))?;
        self.finished = true;
        self.hidden.take().map_or(Ok(()), HiddenGuard::end)?;
        match moved.into_iter().find(|(dir, found)| counted(dir) != *found) {
            None => Ok(()),
            Some((dir, found)) => Err(Error::Lost { expected: counted(&dir), dir, found }),
        }
    }

    /// Switches back.
    fn leave(&self, needed: Option<Needed<'_>>) -> Result<Counts, Error> {
        let Some(journal) = self.host.journal().take() else { return Ok(Counts::new()) };
        self.host.unclaimed().clear();
        self.switch().leave(journal, &self.place, needed)
    }
}

impl Drop for SwitchedRoot {
    fn drop(&mut self) {
        if !self.finished {
            // What fails here is in the journal, and is restored by whoever comes next.
            let _ = self.leave(None);
        }
    }
}

#[cfg(test)]
#[path = "host_root_tests.rs"]
mod tests;
