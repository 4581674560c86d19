//! One folder that outlives builds: blobs, unpacked layers, cache records, image names. Plain files a person can read.
//!
//! ```text
//! ROOT/                                mode 0700; chosen by `place`
//!   kiln-store                         "kiln store 1": the format; locked (see below), never changed
//!   blobs/sha256/<hex>                 content by digest, mode 0444; also blobs/sha512/
//!   snapshots/<id>/fs/                 one unpacked layer (an overlay's upper folder), never changed once here
//!   snapshots/<id>/meta.json           its key, the boot it was written in, its driver and size
//!   snapshots/<id>/entries             how many files it has, once that is known; compared by who walks it (see `snapshot`)
//!   snapshots/<id>/settled             empty; there once a syncfs has covered the snapshot
//!   records/<kind>/<key>.json          what a cache key gave; also pinned git and HTTP sources
//!   users                              whose numbers those of users are, in a user namespace (see `owner`)
//!   size.json                          what the store took when it was last measured (see `Store::keep_within`)
//!   names/<registry>/<repository>/:<tag>   the manifest that a tag means
//!   stat/<hash of a folder's path>     what the files of a context hashed to (see `StatIndex`)
//!   builds/<number>.json               what a build did, for `kiln explain`; builds/parts/<key> is what several speak of
//!   caches/<id>/<n>/                   what cache mounts keep; `flock`ed while in use; its time is that of its last use
//!   locks/<key>                        one for each key somebody works on now
//!   tmp/<start>-<random>/              what one process is writing; goes when it ends
//! ```
//!
//! **Lifetimes.** Everything is written under `tmp/` and renamed into place, so a reader sees it whole or not at all.
//! A file's modification time is when it was last used (for a snapshot, that of `meta.json`), to a build's precision.
//! Blobs are verified by whoever reads them ([`Blob::verified`], [`Store::read_blob`]); records and indexes that don't
//! parse are misses. A snapshot can't be verified: it is trusted in the boot that wrote it, and beyond that only
//! with `settled`, which [`Store::settle`] adds after one `syncfs` for the whole build. Nothing is synced file by file.
//! Names are published after that ([`Store::publish`] asks for the proof).
//!
//! **Locks** are `flock`s: the kernel drops them with their process, and they hold across pid namespaces.
//! - `tmp/<session>` (the folder itself), exclusive, by the process that writes there. It says "a build is running
//!   since `<start>`". What can be locked belongs to a dead process, and [`Store::sweep`] removes it.
//! - `locks/<key>`, exclusive, by whoever makes what the key names, so that two processes make it once. All kinds of
//!   things share this directory, so a key that is a content digest belongs to snapshots alone: other uses hash their
//!   purpose into the key.
//! - `kiln-store`, the gate: shared for the moment in which a build looks something up and marks it as used; exclusive
//!   for the moment in which [`Store::prune`] takes something away. Whatever was used since the start of the oldest
//!   running session stays, so nothing vanishes under a build, and neither waits long for the other.

mod blobs;
mod builds;
mod caches;
mod contents;
mod error;
mod files;
mod form;
mod gc;
mod key;
mod limit;
mod locks;
mod names;
mod owner;
mod place;
mod records;
mod session;
mod settle;
mod snapshots;
mod stat;
mod tree;

#[cfg(test)]
mod tests;

pub use blobs::{Blob, Ingest, RawIngest, Verified};
pub use builds::BuildNumber;
pub use caches::{CacheMount, Use};
pub use contents::Content;
pub use error::{Error, Result};
pub use form::Form;
pub use gc::{Amount, Policy, Pruned, Sort, Usage};
pub use key::Key;
pub use limit::{Limit, Shrunk};
pub use locks::KeyLock;
pub use names::Name;
pub use place::place;
pub use settle::Settled;
pub use snapshots::{Snapshot, SnapshotInfo, TempSnapshot};
pub use stat::{ContentHash, Stamp, StatIndex};

use crate::sys::file::keep_own_group;
use error::At as _;
use session::{Gate, Session};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

/// The file that says what a folder is, and its text.
const MARK: &str = "kiln-store";
const FORMAT: &str = "kiln store 1\n";

/// The folders of a store, made together with it.
const FOLDERS: [&str; 7] = ["blobs", "snapshots", "records", "names", "stat", "locks", "tmp"];

/// An open store; clones are the same store. Its methods block, and any thread may call them.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    gate: Gate,
    session: OnceLock<Session>,
    /// Held while the session is made, so that it is made once.
    beginning: Mutex<()>,
    boot: OnceLock<String>,
    form: OnceLock<Form>,
    /// What the names of snapshots end with, of layers in that form.
    suffix: OnceLock<&'static str>,
    /// Snapshots that this process used and no sync has covered.
    unsettled: Mutex<Vec<PathBuf>>,
    /// Whether anything was written since the last sync.
    dirty: AtomicBool,
    /// Held while a sync is under way.
    settling: Mutex<()>,
    /// When this process last settled ahead, or began.
    ahead: Mutex<Instant>,
    /// Bytes of blobs that were written since somebody asked.
    written: AtomicU64,
}

impl Store {
    /// Opens the store in `root`, which is made where it isn't there.
    ///
    /// # Errors
    /// Where the folder can't be made or read, or holds a store of another format or another user.
    pub fn open(root: &Path) -> Result<Self> {
        let mark = root.join(MARK);
        let mut file = match File::open(&mark) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                create(root)?;
                File::open(&mark)
            }
            other => other,
        }
        .map_err(|e| owner::explained(root, e))?;
        let mut text = String::new();
        file.by_ref().take(64).read_to_string(&mut text).at("read", &mark)?;
        if text != FORMAT {
            return Err(Error::Format { root: root.into(), found: text.trim_end().into() });
        }
        owner::check(root, &file)?;
        // A volume may prescribe a group for all that is made in it (Kubernetes' fsGroup), which no layer is of, and which a user namespace
        // may not know.
        std::iter::once(root.to_owned())
            .chain(FOLDERS.map(|folder| root.join(folder)))
            .for_each(|f| keep_own_group(&f));
        Ok(Self {
            inner: Arc::new(Inner {
                root: root.into(),
                gate: Gate::new(file),
                session: OnceLock::new(),
                beginning: Mutex::new(()),
                boot: OnceLock::new(),
                form: OnceLock::new(),
                suffix: OnceLock::new(),
                unsettled: Mutex::default(),
                dirty: AtomicBool::new(false),
                settling: Mutex::new(()),
                ahead: Mutex::new(Instant::now()),
                written: AtomicU64::new(0),
            }),
        })
    }

    /// The folder that the store is in.
    pub fn root(&self) -> &Path {
        &self.inner.root
    }
}

/// Asks the file system to put what is in each folder below this one where there is room, not near the others'
/// (`chattr +T`); snapshots begin there. Only a hint, which few take: ext4 without a journal passes over the inodes that
/// were freed in the last minutes one by one, so that 20,000 files written where others were just removed take ten times
/// as long.
fn spread(folder: &Path) {
    let Ok(folder) = File::open(folder) else { return };
    if let Ok(flags) = rustix::fs::ioctl_getflags(&folder) {
        let _ = rustix::fs::ioctl_setflags(&folder, flags | rustix::fs::IFlags::TOPDIR);
    }
}

/// Makes the folders of a store, then the file that says that they are one. Two processes may do so at once.
fn create(root: &Path) -> Result<()> {
    let mut private = DirBuilder::new();
    private.recursive(true).mode(0o700).create(root).at("make the store's folder", root)?;
    for folder in FOLDERS {
        let path = root.join(folder);
        private.create(&path).at("make the folder", &path)?;
    }
    spread(&root.join("tmp"));
    limit::begin(root)?;
    let mark = root.join(MARK);
    let beside = root.join(format!("{MARK}.{}", session::random_name()));
    std::fs::write(&beside, FORMAT).at("write", &beside)?;
    // A second process's rename puts another file there; a gate opened on the first would lock nothing.
    let linked = std::fs::hard_link(&beside, &mark);
    std::fs::remove_file(&beside).at("remove", &beside)?;
    match linked {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => Err(e).at("make", &mark),
        _ => Ok(()),
    }
}
