//! Folders that outlive builds: what RUN's cache mounts keep.

use super::error::{At as _, Error, Result};
use super::locks::is_at;
use super::session::abandoned;
use super::{Key, Store, tree};
use crate::sys::Cancel;
use rustix::fs::{CWD, FlockOperation, RenameFlags, flock, renameat_with};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest pause between two looks at a folder that somebody else has for himself.
const PATIENCE: Duration = Duration::from_millis(50);

/// Who else may use a folder at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Use {
    /// Anybody else who shares it.
    Shared,
    /// Nobody: the next one waits.
    Locked,
    /// Nobody: the next one gets a folder of his own.
    Private,
}

/// A folder in use; dropping it gives it back.
#[derive(Debug)]
pub struct CacheMount {
    folder: PathBuf,
    _lock: File,
}

impl CacheMount {
    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Store {
    /// The folder that is kept under `key`, for this use. One that isn't there is made, and filled by `fill` before
    /// anybody sees it.
    ///
    /// # Errors
    /// [`Error::Cancelled`] soon after `cancel` was set; whatever `fill` returns.
    pub fn cache_mount<E: From<Error>>(
        &self,
        key: &Key,
        usage: Use,
        cancel: &Cancel,
        fill: &dyn Fn(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<CacheMount, E> {
        let place = self.root().join("caches").join(key.short());
        let how = if usage == Use::Shared {
            FlockOperation::NonBlockingLockShared
        } else {
            FlockOperation::NonBlockingLockExclusive
        };
        let mut number = 0;
        let mut pause = Duration::from_millis(1);
        loop {
            let folder = place.join(number.to_string());
            let lock = self.open_cache(&folder, fill)?;
            match flock(&lock, how) {
                // A pruner may have taken it away between the two calls; then the lock is on nothing.
                Ok(()) if !is_at(&lock, &folder)? => continue,
                Ok(()) => {
                    self.inner.mark_new(&lock, &folder)?;
                    return Ok(CacheMount { folder, _lock: lock });
                }
                Err(Errno::WOULDBLOCK) if usage == Use::Private => number += 1,
                Err(Errno::WOULDBLOCK) if cancel.is_cancelled() => return Err(Error::Cancelled.into()),
                Err(Errno::WOULDBLOCK) => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(PATIENCE);
                }
                Err(other) => return Err(Error::Io { what: "lock", path: folder, source: other.into() }.into()),
            }
        }
    }

    /// Takes away the first folder of `key` where there is nothing in it and nobody uses it, so that the next use fills
    /// it again.
    pub fn forget_empty_cache(&self, key: &Key) -> Result<()> {
        let folder = self.root().join("caches").join(key.short()).join("0");
        if !folder.exists() {
            return Ok(());
        }
        let Some(_lock) = abandoned(&folder)? else { return Ok(()) };
        match std::fs::remove_dir(&folder) {
            Err(e) if !matches!(e.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::NotFound) => {
                Err(e).at("remove", &folder)
            }
            _ => Ok(()),
        }
    }

    /// Opens a folder, made and filled beside and renamed where it isn't there yet.
    fn open_cache<E: From<Error>>(
        &self,
        folder: &Path,
        fill: &dyn Fn(&Path) -> std::result::Result<(), E>,
    ) -> std::result::Result<File, E> {
        match File::open(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            other => return Ok(other.at("open", folder)?),
        }
        let beside = self.inner.temp_path()?;
        std::fs::create_dir(&beside).at("make the folder", &beside)?;
        let made = fill(&beside);
        let put = made.and_then(|()| match put_new(&beside, folder) {
            // Another process was quicker: its folder is used.
            Err(_) if folder.exists() => Ok(()),
            other => Ok(other?),
        });
        if put.is_err() || beside.exists() {
            tree::remove(&beside)?;
        }
        put?;
        Ok(File::open(folder).at("open", folder)?)
    }
}

/// Moves a folder to a place where nothing is yet: an empty folder there, which a plain rename would take away, may be
/// another's that has its lock.
fn put_new(from: &Path, to: &Path) -> Result<()> {
    if let Some(parent) = to.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(parent).at("make the folder", parent)?;
    }
    let renamed = renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE);
    renamed.map_err(std::io::Error::from).at("make", to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        (dir, store)
    }

    fn open(store: &Store, usage: Use, cancel: &Cancel) -> Result<CacheMount> {
        store.cache_mount(&Key::of(b"k"), usage, cancel, &|dir| std::fs::write(dir.join("first"), "1").at("write", dir))
    }

    #[test]
    fn an_empty_folder_in_use_is_not_taken_away_by_who_made_one_at_the_same_time() {
        let (_dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let quicker = std::cell::OnceCell::new();
        let nothing = |_: &Path| Ok::<(), Error>(());
        let slower = store.cache_mount::<Error>(&Key::of(b"k"), Use::Private, &cancel, &|_| {
            quicker
                .get_or_init(|| store.cache_mount::<Error>(&Key::of(b"k"), Use::Private, &cancel, &nothing).unwrap());
            Ok(())
        });
        assert_ne!(slower.unwrap().folder(), quicker.get().unwrap().folder());
    }

    #[test]
    fn a_folder_is_filled_once_and_kept() {
        let (_dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let one = open(&store, Use::Shared, &cancel).unwrap();
        std::fs::write(one.folder().join("second"), "2").unwrap();
        std::fs::remove_file(one.folder().join("first")).unwrap();
        let two = open(&store, Use::Shared, &cancel).unwrap();
        assert_eq!(one.folder(), two.folder());
        assert!(!two.folder().join("first").exists() && two.folder().join("second").exists());
    }

    #[test]
    fn private_ones_differ_while_both_are_in_use() {
        let (_dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let one = open(&store, Use::Private, &cancel).unwrap();
        let two = open(&store, Use::Private, &cancel).unwrap();
        assert_ne!(one.folder(), two.folder());
        let first = one.folder().to_owned();
        drop(one);
        assert_eq!(open(&store, Use::Private, &cancel).unwrap().folder(), first);
    }

    #[test]
    fn a_pruner_takes_those_that_nobody_uses() {
        use super::super::{Policy, Sort};
        let (dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let one = open(&store, Use::Shared, &cancel).unwrap();
        let folder = one.folder().to_owned();
        let pruner = Store::open(&dir.path().join("s")).unwrap();
        assert_eq!(pruner.usage().unwrap().cache_mounts.count, 1);
        let regular = Policy { only: Some(Sort::Regular), ..Policy::default() };
        let caches = Policy { only: Some(Sort::CacheMounts), ..Policy::default() };
        // Its user's lock alone keeps it, even where its time is older than all sessions.
        let old = std::time::SystemTime::now() - Duration::from_secs(3600);
        File::open(&folder).unwrap().set_modified(old).unwrap();
        assert_eq!(pruner.prune(&caches).unwrap().held.count, 1);
        drop(one);
        assert_eq!(pruner.prune(&regular).unwrap().removed.count, 0);
        let lazy = Policy { needed_by: &["steps"], ..Policy::default() };
        assert_eq!(pruner.prune(&lazy).unwrap().removed.count, 0);
        assert!(folder.exists());
        assert_eq!(pruner.prune(&caches).unwrap().removed.count, 1);
        assert!(!folder.exists());
        // It is made anew, and what this session has used isn't taken away under it.
        drop(open(&store, Use::Shared, &cancel).unwrap());
        assert_eq!(pruner.prune(&caches).unwrap().held.count, 1);
        assert!(folder.join("first").exists());
    }

    #[test]
    fn an_empty_one_that_nobody_uses_is_filled_again() {
        let (_dir, store) = store();
        let cancel = Cancel::new().unwrap();
        store.forget_empty_cache(&Key::of(b"k")).unwrap();
        let one = open(&store, Use::Shared, &cancel).unwrap();
        let first = one.folder().join("first");
        std::fs::remove_file(&first).unwrap();
        store.forget_empty_cache(&Key::of(b"k")).unwrap();
        assert!(!open(&store, Use::Shared, &cancel).unwrap().folder().join("first").exists(), "it is in use");
        drop(one);
        store.forget_empty_cache(&Key::of(b"k")).unwrap();
        assert!(open(&store, Use::Shared, &cancel).unwrap().folder().join("first").exists());
        std::fs::write(&first, "more").unwrap();
        store.forget_empty_cache(&Key::of(b"k")).unwrap();
        open(&store, Use::Shared, &cancel).unwrap();
        assert_eq!(std::fs::read(&first).unwrap(), b"more");
    }

    #[test]
    fn a_locked_one_is_waited_for_until_cancelled() {
        let (_dir, store) = store();
        let cancel = Cancel::new().unwrap();
        let one = open(&store, Use::Locked, &cancel).unwrap();
        let stop = cancel.clone();
        let waiting = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(20));
            stop.cancel();
        });
        assert!(matches!(open(&store, Use::Locked, &cancel), Err(Error::Cancelled)));
        waiting.join().unwrap();
        drop(one);
        assert!(open(&store, Use::Locked, &cancel).is_ok());
    }
}
