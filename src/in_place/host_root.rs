//! Lets the files of a stage stand in `/` itself for a while, by renaming top-level entries, and brings back what was there.
//!
//! What is mounted on a top-level entry can't be renamed, and kiln's own folder mustn't be: both stay, and a stage's files of
//! those names are walked around. Folders that have mounts somewhere below them move with these.
//!
//! ```text
//! FOLDER/own/            what stands in / otherwise, while a stage stands there
//! FOLDER/in-place.json   what is where; removed when / is as it was
//! ```
//!
//! The file is written before anything is moved, so that whoever comes next can put right what a killed process left. A lock
//! on `/` makes processes wait for each other.

use super::hidden_files::{HiddenFiles, HiddenGuard};
use crate::snapshot::Error;
use crate::snapshot::at::{self, Meta};
use rustix::fs::{FlockOperation, Gid, Mode, RenameFlags, Uid, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// What is where, in kiln's own folder.
const JOURNAL: &str = "in-place.json";

/// The root directory of this container, which stages take turns to stand in.
#[derive(Debug)]
pub struct HostRoot {
    /// `/`; another folder in tests.
    root: PathBuf,
    /// Kiln's own folder on the same file system.
    folder: PathBuf,
    /// The names in `/` that stay where they are.
    stay: BTreeSet<Vec<u8>>,
    /// Those of them that no stage may have.
    held: BTreeSet<Vec<u8>>,
    closed: AtomicBool,
    /// What no process is to see.
    withheld: HiddenFiles,
}

/// What is where: `in-place.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    /// The names in `/` that are set aside.
    own: Vec<Vec<u8>>,
    /// The names that stay.
    stay: Vec<Vec<u8>>,
    /// The root directory's own mode and owner.
    mode: u32,
    uid: u32,
    gid: u32,
}

/// A stage that stands in `/`; dropped, it is taken away again.
#[derive(Debug)]
pub(super) struct SwitchedRoot {
    ground: Arc<HostRoot>,
    /// Where its files go afterwards.
    place: PathBuf,
    journal: Journal,
    /// Holds the lock.
    root: OwnedFd,
    over: bool,
    /// The last to come back.
    away: Option<HiddenGuard>,
}

impl HostRoot {
    /// The ground at `root`, with `folder` for what is set aside, which is made; names in `stay` aren't touched, and no
    /// stage may have those in `held`. Puts right what a killed process left.
    ///
    /// # Errors
    /// If that can't be done, or files can't be renamed from the one to the other.
    pub fn new(root: &Path, folder: &Path, stay: BTreeSet<Vec<u8>>, held: BTreeSet<Vec<u8>>) -> Result<Self, Error> {
        let ground = Self {
            root: root.into(),
            folder: folder.into(),
            stay,
            held,
            closed: AtomicBool::new(false),
            withheld: HiddenFiles::default(),
        };
        std::fs::create_dir_all(ground.own()).map_err(|e| Error::host("mkdir", &ground.own(), e))?;
        let root = at::open_root(root)?;
        // Whoever has the lock is alive, and leaves nothing to put right.
        if flock(&root, FlockOperation::NonBlockingLockExclusive).is_ok() {
            ground.repair(root.as_fd())?;
        }
        Ok(ground)
    }

    /// Puts right what a killed process left, if it left anything. Nothing else is made or changed.
    ///
    /// # Errors
    /// If something can't be renamed or read.
    pub fn put_right(root: &Path, folder: &Path) -> Result<(), Error> {
        if !folder.join(JOURNAL).exists() {
            return Ok(());
        }
        Self::new(root, folder, BTreeSet::new(), BTreeSet::new()).map(drop)
    }

    /// The same, with files that are away while a stage stands there.
    #[must_use]
    pub fn without(self, withheld: HiddenFiles) -> Self {
        Self { withheld, ..self }
    }

    /// The root directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The names that stay.
    pub fn stay(&self) -> &BTreeSet<Vec<u8>> {
        &self.stay
    }

    /// Waits until no stage of this process stands there, and lets none do so any more.
    ///
    /// # Errors
    /// If the root directory can't be opened.
    pub(super) fn close(&self) -> Result<(), Error> {
        self.closed.store(true, Ordering::Release);
        self.lock().map(drop)
    }

    fn own(&self) -> PathBuf {
        self.folder.join("own")
    }

    fn journal(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    fn lock(&self) -> Result<OwnedFd, Error> {
        let root = at::open_root(&self.root)?;
        loop {
            match flock(&root, FlockOperation::LockExclusive) {
                Err(Errno::INTR) => {}
                locked => return locked.map(|()| root).map_err(|e| Error::host("flock", &self.root, e)),
            }
        }
    }

    /// Brings back what a killed process set aside; what it had put there is thrown away.
    fn repair(&self, root: BorrowedFd<'_>) -> Result<(), Error> {
        let path = self.journal();
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            text => text.map_err(|e| Error::host("read", &path, e))?,
        };
        let journal: Journal =
            serde_json::from_slice(&text).map_err(|e| Error::host("read", &path, std::io::Error::from(e)))?;
        let left = self.folder.join("left");
        std::fs::create_dir_all(&left).map_err(|e| Error::host("mkdir", &left, e))?;
        self.back(&journal, root, &left)?;
        at::remove(at::open_root(&self.folder)?.as_fd(), b"left").map_err(|e| Error::host("remove", &left, e))
    }

    /// Lets what is in `place` stand in `/`. Waits for other processes.
    ///
    /// # Errors
    /// If something can't be renamed; `/` is as it was then.
    pub(super) fn stand(self: &Arc<Self>, place: &Path) -> Result<SwitchedRoot, Error> {
        let root = self.lock()?;
        if self.closed.load(Ordering::Acquire) {
            return Err(Error::host("flock", &self.root, Errno::CANCELED));
        }
        self.repair(root.as_fd())?;
        let from = at::open_root(place)?;
        let names = at::names(from.as_fd()).map_err(|e| Error::host("getdents", place, e))?;
        if let Some(name) = names.iter().find(|name| self.held.contains(*name)) {
            return Err(Error::Held(self.root.join(String::from_utf8_lossy(name).as_ref())));
        }
        let Meta { mode, uid, gid, .. } = stat(root.as_fd(), &self.root)?;
        let away = Some(self.withheld.take()?);
        let own = self.moving(root.as_fd(), &self.root)?;
        let stay = self.stay.iter().cloned().collect();
        let journal = Journal { own, stay, mode, uid, gid };
        let text =
            serde_json::to_vec(&journal).map_err(|e| Error::host("write", &self.journal(), std::io::Error::from(e)))?;
        std::fs::write(self.journal(), text).map_err(|e| Error::host("write", &self.journal(), e))?;
        // From here on the drop of it brings everything back.
        let stand = SwitchedRoot { ground: self.clone(), place: place.into(), journal, root, over: false, away };
        let aside = at::open_root(&self.own())?;
        for name in &stand.journal.own {
            rename(stand.root.as_fd(), aside.as_fd(), name).map_err(|e| self.cannot_move(name, e))?;
        }
        for name in self.moving(from.as_fd(), place)? {
            rename(from.as_fd(), stand.root.as_fd(), &name).map_err(|e| self.cannot_move(&name, e))?;
        }
        let Meta { mode, uid, gid, .. } = stat(from.as_fd(), place)?;
        own_and_mode(stand.root.as_fd(), &self.root, (mode, uid, gid))?;
        Ok(stand)
    }

    fn cannot_move(&self, name: &[u8], errno: Errno) -> Error {
        match errno {
            Errno::XDEV => Error::Fixed(self.root.join(String::from_utf8_lossy(name).as_ref())),
            errno => Error::host("rename", &self.root.join(String::from_utf8_lossy(name).as_ref()), errno),
        }
    }

    /// The names in a folder that don't stay.
    fn moving(&self, dir: BorrowedFd<'_>, path: &Path) -> Result<Vec<Vec<u8>>, Error> {
        let mut names = at::names(dir).map_err(|e| Error::host("getdents", path, e))?;
        names.retain(|name| !self.stay.contains(name));
        Ok(names)
    }

    /// Moves what stands in `/` to `place` and what was set aside to `/`.
    fn back(&self, journal: &Journal, root: BorrowedFd<'_>, place: &Path) -> Result<(), Error> {
        let (aside, to) = (at::open_root(&self.own())?, at::open_root(place)?);
        let fail = |name: &[u8], e| self.cannot_move(name, e);
        let set_aside: BTreeSet<Vec<u8>> =
            at::names(aside.as_fd()).map_err(|e| Error::host("getdents", &self.own(), e))?.into_iter().collect();
        for name in at::names(root).map_err(|e| Error::host("getdents", &self.root, e))? {
            let still_there = journal.own.contains(&name) && !set_aside.contains(&name);
            if !journal.stay.contains(&name) && !still_there {
                rename(root, to.as_fd(), &name).map_err(|e| fail(&name, e))?;
            }
        }
        for name in &set_aside {
            rename(aside.as_fd(), root, name).map_err(|e| fail(name, e))?;
        }
        own_and_mode(root, &self.root, (journal.mode, journal.uid, journal.gid))?;
        std::fs::remove_file(self.journal()).map_err(|e| Error::host("unlink", &self.journal(), e))
    }
}

impl SwitchedRoot {
    /// Takes the stage away.
    pub(super) fn end(mut self) -> Result<(), Error> {
        self.over = true;
        // A process may have changed the stage's root directory; that belongs to the stage.
        let Meta { mode, uid, gid, .. } = stat(self.root.as_fd(), &self.ground.root)?;
        self.ground.back(&self.journal, self.root.as_fd(), &self.place)?;
        self.away.take().map_or(Ok(()), HiddenGuard::end)?;
        own_and_mode(at::open_root(&self.place)?.as_fd(), &self.place, (mode, uid, gid))
    }
}

impl Drop for SwitchedRoot {
    fn drop(&mut self) {
        if !self.over {
            // What fails here stands in the journal, and is put right by whoever comes next.
            let _ = self.ground.back(&self.journal, self.root.as_fd(), &self.place);
        }
    }
}

fn rename(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    rustix::fs::renameat_with(from, name, to, name, RenameFlags::NOREPLACE)
}

fn stat(dir: BorrowedFd<'_>, path: &Path) -> Result<Meta, Error> {
    rustix::fs::fstat(dir).map(Meta::from).map_err(|e| Error::host("fstat", path, e))
}

fn own_and_mode(dir: BorrowedFd<'_>, path: &Path, (mode, uid, gid): (u32, u32, u32)) -> Result<(), Error> {
    let now = stat(dir, path)?;
    if (now.uid, now.gid) != (uid, gid) {
        rustix::fs::fchown(dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
            .map_err(|e| Error::host("fchown", path, e))?;
    }
    if now.mode != mode {
        rustix::fs::fchmod(dir, Mode::from_raw_mode(mode)).map_err(|e| Error::host("fchmod", path, e))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    struct Place(tempfile::TempDir);

    impl Place {
        fn new(dirs: &[&str], files: &[&str]) -> Self {
            let dir = tempfile::tempdir().unwrap();
            for path in dirs {
                fs::create_dir_all(dir.path().join(path)).unwrap();
            }
            for path in files {
                fs::write(dir.path().join(path), *path).unwrap();
            }
            Self(dir)
        }

        fn path(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn list(&self, path: &str) -> Vec<String> {
            let entries = fs::read_dir(self.path(path)).unwrap();
            let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
            names.sort();
            names
        }

        fn ground(&self) -> Arc<HostRoot> {
            let (stay, held) = ([b"kiln".to_vec(), b"proc".to_vec()].into(), [b"kiln".to_vec()].into());
            Arc::new(HostRoot::new(&self.path("root"), &self.path("root/kiln/in-place"), stay, held).unwrap())
        }
    }

    fn place() -> Place {
        Place::new(
            &["root/etc", "root/kiln", "root/proc", "stage/bin", "stage/etc", "stage/proc"],
            &["root/etc/own", "stage/etc/theirs"],
        )
    }

    #[test]
    fn a_stage_stands_and_goes() {
        let place = place();
        let ground = place.ground();
        let stand = ground.stand(&place.path("stage")).unwrap();
        assert_eq!(place.list("root"), ["bin", "etc", "kiln", "proc"]);
        assert_eq!(place.list("root/etc"), ["theirs"]);
        assert_eq!(place.list("stage"), ["proc"]);
        fs::write(place.path("root/new"), "").unwrap();
        stand.end().unwrap();
        assert_eq!(place.list("root"), ["etc", "kiln", "proc"]);
        assert_eq!(place.list("root/etc"), ["own"]);
        assert_eq!(place.list("stage"), ["bin", "etc", "new", "proc"]);
        assert_eq!(place.list("root/kiln/in-place"), ["own"]);
    }

    #[test]
    fn a_stage_with_kilns_own_name_is_refused() {
        let place = place();
        fs::create_dir(place.path("stage/kiln")).unwrap();
        let refused = place.ground().stand(&place.path("stage")).unwrap_err();
        assert!(matches!(refused, Error::Held(_)), "{refused}");
        assert_eq!(place.list("root"), ["etc", "kiln", "proc"]);
    }

    #[test]
    fn what_a_killed_process_left_is_put_right() {
        let place = place();
        let ground = place.ground();
        let stand = ground.stand(&place.path("stage")).unwrap();
        // As if killed: the lock goes with the descriptor, the journal stays.
        let SwitchedRoot { root, .. } = &stand;
        flock(root, FlockOperation::Unlock).unwrap();
        std::mem::forget(stand);
        // Half of it was undone.
        fs::rename(place.path("root/etc"), place.path("stage/etc")).unwrap();
        fs::rename(place.path("root/kiln/in-place/own/etc"), place.path("root/etc")).unwrap();
        drop(place.ground());
        assert_eq!(place.list("root"), ["etc", "kiln", "proc"]);
        assert_eq!(place.list("root/etc"), ["own"]);
        assert_eq!(place.list("root/kiln/in-place"), ["own"]);
    }
}
