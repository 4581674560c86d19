//! Root filesystems on overlayfs.

use super::at::{self, Meta};
use super::layer::files;
use super::notes::Notes;
use super::{Active, Error, NewLayer, Shown, Snapshotter};
use crate::layer::EntryPath;
use crate::store::Form;
use crate::sys::{RootMount, userns};
use rustix::fs::{OFlags, fstat};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

/// The driver for overlayfs, mounted by the sandbox alone: nothing here mounts anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overlay;

impl Snapshotter for Overlay {
    fn prepare(&self, folder: &Path, parents: &[PathBuf]) -> Result<Box<dyn Active>, Error> {
        Ok(Box::new(NewLayer::prepare(folder, parents, form()?)?))
    }

    fn show(&self, layers: &[PathBuf], scratch: &Path, writable: bool) -> Result<Shown, Error> {
        // An overlay of no layers needs a folder, too.
        if writable || layers.is_empty() {
            return Ok(Shown::Root(NewLayer::prepare(scratch, layers, form()?)?.root_mount()));
        }
        Ok(Shown::Layers(layers.iter().map(|l| files(l)).collect()))
    }
}

/// An overlay's upper directory is the layer.
impl Active for NewLayer {
    fn root_mount(&self) -> RootMount {
        let lowers = self.parents().iter().map(|p| files(p)).collect();
        RootMount::Overlay { lowers, upper: self.files(), work: self.work() }
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        if self.form().is_recorded() { gather(&self.files()) } else { Ok(()) }
    }
}

/// The form of layers that overlays are made of: with a single number for all users, owners are recorded.
pub(super) fn form() -> Result<Form, Error> {
    let path = Path::new("/proc/self/uid_map");
    let owners = userns::is_single().map_err(|e| Error::host("read", path, std::io::Error::from(e)))?;
    Ok(Form { owners, marks: false })
}

/// Notes what a process had recorded with the files of its layer.
fn gather(files: &Path) -> Result<(), Error> {
    let mut notes = Notes::new(form()?);
    notes.read_recorded(files)?;
    let root = at::open_root(files)?;
    let mut todo = vec![EntryPath::root()];
    while let Some(path) = todo.pop() {
        let path = &path;
        let fail = |call| move |e| Error::inside(call, path, e);
        let open = at::open(root.as_fd(), path, OFlags::PATH).map_err(fail("open"))?;
        let meta = Meta::from(fstat(&open).map_err(fail("stat"))?);
        if meta.is_whiteout() {
            continue;
        }
        notes.gather(path, open.as_fd(), &meta).map_err(fail("getxattr"))?;
        if meta.is_dir() {
            let dir = at::open(root.as_fd(), path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail("open"))?;
            for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
                todo.push(path.join(&name)?);
            }
        }
    }
    notes.write(files)
}
