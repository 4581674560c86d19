//! Root filesystems on overlayfs: a folder for each layer, its upper directory in `fs`.

use super::diff::diff;
use super::notes::{Notes, open_mode};
use super::{Error, FolderWriter, Snapshotter, StackTree, Tree, at};
use crate::layer::{EntryPath, EntrySink, Timestamp};
use crate::sys::RootMount;
use rustix::fs::{Gid, Mode, Uid};
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// A layer's files inside its folder.
const FILES: &str = "fs";
/// Overlayfs's own folder beside them, while the layer is written to.
const WORK: &str = "work";

/// The driver for overlayfs, mounted by the sandbox alone: nothing here mounts anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overlay;

/// A layer that is being made.
#[derive(Debug)]
pub struct Active {
    folder: PathBuf,
    /// The layers below, top first.
    parents: Vec<PathBuf>,
}

impl Active {
    /// What the sandbox mounts as its root.
    pub fn root_mount(&self) -> RootMount {
        let lowers = self.parents.iter().map(|p| p.join(FILES)).collect();
        RootMount::Overlay { lowers, upper: self.folder.join(FILES), work: self.folder.join(WORK) }
    }

    /// Takes the layer's entries instead of a process; directories that no entry speaks of get the time `made`.
    pub fn writer(&self, made: Timestamp) -> Result<FolderWriter, Error> {
        FolderWriter::new(&self.folder.join(FILES), Overlay.view(&self.parents)?, made)
    }

    /// The folder that the layer is made in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

impl Snapshotter for Overlay {
    fn prepare(&self, folder: &Path, parents: &[PathBuf]) -> Result<Active, Error> {
        let (files, work) = (folder.join(FILES), folder.join(WORK));
        for dir in [&files, &work] {
            fs::create_dir_all(dir).map_err(|e| Error::host("mkdir", dir, e))?;
        }
        // The upper directory is the root that a process sees: it must look like the one below.
        let (mode, uid, gid) = match self.view(parents)?.stat(&EntryPath::root())? {
            Some(meta) => (meta.mode, meta.uid, meta.gid),
            None => (0o755, 0, 0),
        };
        let root = at::open_root(&files)?;
        if rustix::process::geteuid().is_root() {
            rustix::fs::fchown(root.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
                .map_err(|e| Error::host("fchown", &files, e))?;
        }
        let mode = if Notes::are_needed() { open_mode(mode, true) } else { mode };
        rustix::fs::fchmod(root.as_fd(), Mode::from_raw_mode(mode)).map_err(|e| Error::host("fchmod", &files, e))?;
        Ok(Active { folder: folder.into(), parents: parents.into() })
    }

    fn commit(&self, active: Active, to: &Path) -> Result<(), Error> {
        let work = active.folder.join(WORK);
        match fs::remove_dir_all(&work) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::host("rmdir", &work, e)),
            _ => {}
        }
        fs::rename(&active.folder, to).map_err(|e| Error::host("rename", to, e))
    }

    fn diff(&self, folder: &Path, parents: &[PathBuf], sink: &mut dyn EntrySink) -> Result<(), Error> {
        diff(&folder.join(FILES), &self.view(parents)?, sink)
    }

    fn files(&self, layers: &[PathBuf]) -> Vec<PathBuf> {
        layers.iter().map(|l| l.join(FILES)).collect()
    }

    fn view(&self, layers: &[PathBuf]) -> Result<StackTree, Error> {
        StackTree::open(&layers.iter().map(|l| l.join(FILES)).collect::<Vec<_>>())
    }
}
