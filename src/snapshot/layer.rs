//! The form that every layer is kept in, whatever a process gets of it: overlayfs's upper directory, in a folder of its own.

use super::count;
use super::diff::diff as diff_of;
use super::notes::open_mode;
use super::{Error, FolderWriter, Layers, StackTree, Tree, at};
use crate::layer::{EntryPath, EntrySink, Timestamp};
use crate::store::Form;
use crate::sys::RootMount;
use crate::sys::recorded::{Recorded, Records};
use rustix::fs::{Gid, Mode, Uid};
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A layer's files inside its folder.
const FILES: &str = "fs";
/// Overlayfs's own folder beside them, while the layer is written to.
const WORK: &str = "work";

/// A layer that is being made, by [entries](Self::writer) or by an overlay that is mounted on [`files`](Self::files).
#[derive(Debug)]
pub struct NewLayer {
    folder: PathBuf,
    /// The layers below.
    parents: Layers,
    form: Form,
}

impl NewLayer {
    /// Makes `folder` ready for a new layer on top of `parents` (topmost first), of this form; one that overlays are made of must be
    /// native. Does nothing to a folder that is ready.
    ///
    /// # Errors
    /// If a folder can't be made or the layers can't be read.
    pub fn prepare(folder: &Path, parents: impl Into<Layers>, form: Form) -> Result<Self, Error> {
        let parents = parents.into();
        let files = folder.join(FILES);
        fs::create_dir_all(&files).map_err(|e| Error::host("mkdir", &files, e))?;
        // The upper directory is the root that a process sees: it must look like the one below.
        let (mode, uid, gid) = match parents.view().stat(&EntryPath::root())? {
            Some(meta) => (meta.mode, meta.uid, meta.gid),
            None => (0o755, 0, 0),
        };
        let root = at::open_root(&files)?;
        if !form.owners {
            rustix::fs::fchown(root.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| Error::host("fchown", &files, e))?;
        }
        let mode = if form.owners { open_mode(mode, true) } else { mode };
        if form.is_recorded() {
            let meant = Recorded { uid, gid, device: None };
            Records::default().put(&root, meant).map_err(|e| Error::host("setxattr", &files, e))?;
        }
        rustix::fs::fchmod(root.as_fd(), Mode::from_raw_mode(mode)).map_err(|e| Error::host("fchmod", &files, e))?;
        Ok(Self { folder: folder.into(), parents, form })
    }

    /// Takes the layer's entries; directories that no entry speaks of get the time `made`.
    ///
    /// # Errors
    /// If the layers below can't be read.
    pub fn writer(&self, made: Timestamp) -> Result<FolderWriter, Error> {
        FolderWriter::new(&self.files(), self.parents.view(), made, self.form)
    }

    /// What its files can't say themselves.
    pub fn form(&self) -> Form {
        self.form
    }

    /// The folder that it is in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The layer's files.
    pub fn files(&self) -> PathBuf {
        files(&self.folder)
    }

    /// A folder on the same file system, for overlayfs itself; it is only there for an [overlay](Self::root_mount).
    pub fn work(&self) -> PathBuf {
        self.folder.join(WORK)
    }

    /// An overlay that writes to it.
    ///
    /// # Errors
    /// If overlayfs's own folder can't be made.
    pub fn root_mount(&self) -> Result<RootMount, Error> {
        let work = self.work();
        fs::create_dir_all(&work).map_err(|e| Error::host("mkdir", &work, e))?;
        Ok(RootMount::Overlay { lowers: self.parents.laid(), upper: self.files(), work })
    }

    /// The layers below.
    pub fn parents(&self) -> &Layers {
        &self.parents
    }
}

/// The files of the layer in `folder`, as an overlay mount takes them.
pub fn files(folder: &Path) -> PathBuf {
    folder.join(FILES)
}

/// How many files and directories the layer in `folder` has, if somebody has noted it: names below [`files`], whiteouts among
/// them. A walk of all of them that finds another number has found a damaged layer.
///
/// # Errors
/// If the note can't be read.
pub fn entries(folder: &Path) -> Result<Option<u64>, Error> {
    count::noted(&files(folder))
}

/// Writes what the layer in `folder`, finished or not, changes in `parents` (topmost first) to `sink`, in sorted order.
///
/// # Errors
/// If a file can't be read, or the sink's own; [`Error::Damaged`] if there are not as many files as were noted.
pub fn diff(folder: &Path, parents: impl Into<Layers>, sink: &mut dyn EntrySink) -> Result<(), Error> {
    diff_of(&files(folder), &view(parents), sink)
}

/// Layers, topmost first, as one tree.
pub fn view(layers: impl Into<Layers>) -> StackTree {
    layers.into().view()
}
