//! One maker at a time for each key, among all processes that share the store.

use super::error::{At as _, Error, Result};
use super::{Key, Store};
use crate::sys::Cancel;
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest pause between two looks at a lock that another process holds.
const PATIENCE: Duration = Duration::from_millis(50);

/// A key's lock, held. Dropping it gives it back and removes its file.
#[derive(Debug)]
pub struct KeyLock {
    path: PathBuf,
    _file: File,
}

impl Drop for KeyLock {
    fn drop(&mut self) {
        // Removed while it is held: whoever waits on this file finds that it is no longer at its path.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Store {
    /// Takes the lock of a key, waiting while another thread or process has it. Look again whether the thing is
    /// there once it is taken: its last holder has probably made it. `waiting` is called once before the first pause.
    ///
    /// # Errors
    /// [`Error::Cancelled`] soon after `cancel` was set.
    pub fn lock(&self, key: &Key, cancel: &Cancel, waiting: &mut dyn FnMut()) -> Result<KeyLock> {
        let mut pause = Duration::from_millis(1);
        loop {
            if let Some(lock) = self.try_lock(key)? {
                return Ok(lock);
            }
            if cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if pause == Duration::from_millis(1) {
                waiting();
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(PATIENCE);
        }
    }

    /// Takes the lock of a key, unless another thread or process has it.
    pub fn try_lock(&self, key: &Key) -> Result<Option<KeyLock>> {
        let path = self.inner.root.join("locks").join(key.to_string());
        loop {
            let file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)
                .at("create the lock", &path)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Err(Errno::WOULDBLOCK) => return Ok(None),
                other => other.at("lock", &path)?,
            }
            // Its last holder may have removed it between the two calls; then the lock is on nothing.
            if is_at(&file, &path)? {
                return Ok(Some(KeyLock { path, _file: file }));
            }
        }
    }
}

/// Whether an open file is still the one at its path.
pub(super) fn is_at(file: &File, path: &Path) -> Result<bool> {
    let open = file.metadata().at("look at", path)?;
    match std::fs::symlink_metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        found => found.at("look at", path).map(|f| (f.dev(), f.ino()) == (open.dev(), open.ino())),
    }
}
