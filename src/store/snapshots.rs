//! Unpacked layers, by key.

use super::error::{At as _, Error, Result};
use super::session::locked;
use super::{Form, Inner, Key, Store, files, tree};
use serde::{Deserialize, Serialize};
use std::fs::{DirBuilder, File};
use std::io::ErrorKind;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// What a snapshot's maker says about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotInfo {
    /// The driver that wrote it, and so the form of whiteouts and opaque folders: `overlay`.
    pub driver: String,
    /// The bytes of its files, where its maker counted them.
    pub size: Option<u64>,
    /// What a person may want to know: `RUN make`, a layer's digest.
    pub note: String,
}

/// `meta.json`.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Meta {
    pub(super) key: Key,
    boot: String,
    #[serde(flatten)]
    pub(super) info: SnapshotInfo,
}

/// The driver of layers, as it stands in [`SnapshotInfo`]; others are of trees that are read.
pub(super) const LAYERS: &str = "overlay";

/// An unpacked layer; kept from pruning while the store that found it is open.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The key's short name.
    pub id: String,
    /// Its place in the store, which holds the layer's folder `fs`.
    pub folder: PathBuf,
    /// The layer's folder.
    pub fs: PathBuf,
    /// What its maker said.
    pub info: SnapshotInfo,
}

impl Snapshot {
    fn new(key: &Key, folder: PathBuf, info: SnapshotInfo) -> Self {
        Self { id: key.short(), fs: folder.join("fs"), folder, info }
    }
}

/// A snapshot being written, with room for an overlay's work folder beside it. Dropped, it is removed.
#[derive(Debug)]
pub struct TempSnapshot {
    folder: PathBuf,
    fs: PathBuf,
    form: Form,
    /// Keeps the session, and with it the folder.
    _store: Store,
}

impl TempSnapshot {
    /// What will be the snapshot's place in the store: nothing may be in it but `fs`, `work`, and what the maker notes of
    /// the files beside them.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The layer's folder: there, empty, mode 0755.
    pub fn fs(&self) -> &Path {
        &self.fs
    }

    /// What the files of a layer in it can't say themselves.
    pub fn form(&self) -> Form {
        self.form
    }

    /// A folder on the same file system for whatever else the maker needs (an overlay's `workdir`); not there yet.
    pub fn work(&self) -> PathBuf {
        self.folder.join("work")
    }
}

impl Drop for TempSnapshot {
    fn drop(&mut self) {
        let _ = tree::remove(&self.folder);
    }
}

impl Store {
    /// A folder to unpack or run in.
    pub fn new_snapshot(&self) -> Result<TempSnapshot> {
        let folder = self.inner.temp_path()?;
        DirBuilder::new().mode(0o700).create(&folder).at("make the folder", &folder)?;
        let temp = TempSnapshot { fs: folder.join("fs"), folder, form: self.inner.form()?, _store: self.clone() };
        std::fs::create_dir(&temp.fs).at("make the folder", &temp.fs)?;
        // An overlay shows the upper folder's mode as the root's; the process's umask has no say in it.
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&temp.fs, mode).at("set the mode of", &temp.fs)?;
        Ok(temp)
    }

    /// Puts a finished snapshot into its place; its `fs` must not be written to any more. Where another process was
    /// quicker, that one's snapshot stays and this one is removed.
    pub fn commit_snapshot(&self, temp: TempSnapshot, key: &Key, info: SnapshotInfo) -> Result<Snapshot> {
        let inner = &self.inner;
        let place = self.snapshot_path(key)?;
        tree::remove(&temp.work())?;
        let meta = Meta { key: *key, boot: inner.boot().to_owned(), info };
        let meta_path = temp.folder.join("meta.json");
        let text = serde_json::to_vec(&meta).map_err(std::io::Error::from).at("write", &meta_path)?;
        std::fs::write(&meta_path, text).at("write", &meta_path)?;
        inner.mark_new(&File::open(&meta_path).at("open", &meta_path)?, &meta_path)?;
        match inner.put(&temp.folder, &place) {
            Ok(()) => {
                locked(&inner.unsettled).push(place.clone());
                Ok(Snapshot::new(key, place, meta.info))
            }
            Err(Error::Io { source, .. })
                if matches!(source.kind(), ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists) =>
            {
                match self.snapshot(key)? {
                    Some(theirs) => Ok(theirs),
                    // What lay there was of another boot, and is gone now.
                    None => self.commit_snapshot(temp, key, meta.info),
                }
            }
            Err(other) => Err(other),
        }
    }

    /// The snapshot of a key, where there is one that can be trusted. One that a power cut may have torn is removed.
    ///
    /// # Errors
    /// [`Error::Taken`] where its short name is another key's.
    pub fn snapshot(&self, key: &Key) -> Result<Option<Snapshot>> {
        let place = self.snapshot_path(key)?;
        let path = place.join("meta.json");
        let Some(file) = self.inner.hold(&path, || files::open(&path))? else {
            return self.clear(&place);
        };
        let Some(meta) = files::read_json::<Meta>(&file, &path)? else {
            return self.clear(&place);
        };
        if !place.join("fs").is_dir() {
            return self.clear(&place);
        }
        if !place.join("settled").exists() {
            if meta.boot != self.inner.boot() {
                return self.clear(&place);
            }
            // So that this build's sync speaks for it too.
            self.inner.unsettle(&place);
        }
        if meta.key != *key {
            return Err(Error::Taken(place));
        }
        Ok(Some(Snapshot::new(key, place, meta.info)))
    }

    /// Removes the snapshot of a key. Nobody may be using it.
    pub fn remove_snapshot(&self, key: &Key) -> Result<()> {
        self.clear(&self.snapshot_path(key)?).map(|_| ())
    }

    /// Removes the snapshot in this folder, which is no longer what was put there; what is elsewhere stays.
    pub fn discard_snapshot(&self, folder: &Path) -> Result<()> {
        let is_ours = folder.parent() == Some(&self.inner.root.join("snapshots"));
        if is_ours { self.clear(folder).map(drop) } else { Ok(()) }
    }

    fn snapshot_path(&self, key: &Key) -> Result<PathBuf> {
        let folders = self.inner.root.join("snapshots");
        Ok(folders.join(format!("{}{}", key.short(), self.inner.suffix()?)))
    }

    /// Takes a snapshot out of its place at once, and removes it then.
    fn clear(&self, place: &Path) -> Result<Option<Snapshot>> {
        if place.symlink_metadata().is_ok() {
            let aside = self.inner.temp_path()?;
            match std::fs::rename(place, &aside) {
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => other.at("remove", place).and_then(|()| tree::remove(&aside))?,
            }
        }
        Ok(None)
    }
}

impl Inner {
    /// The name of this boot of the machine. Where the kernel doesn't tell, one that no later process shares.
    pub(super) fn boot(&self) -> &str {
        self.boot.get_or_init(|| crate::sys::boot_id().unwrap_or_else(|_| super::session::random_name()))
    }

    fn unsettle(&self, place: &Path) {
        let mut waiting = locked(&self.unsettled);
        if !waiting.iter().any(|w| w == place) {
            waiting.push(place.to_owned());
        }
    }
}
