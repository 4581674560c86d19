//! Root filesystems on overlayfs.

use super::layer::files;
use super::{Active, Error, NewLayer, Shown, Snapshotter};
use crate::store::Form;
use crate::sys::RootMount;
use std::path::{Path, PathBuf};

/// The driver for overlayfs, mounted by the sandbox alone: nothing here mounts anything.
#[derive(Debug, Clone, Copy, Default)]
pub struct Overlay;

impl Snapshotter for Overlay {
    fn prepare(&self, folder: &Path, parents: &[PathBuf]) -> Result<Box<dyn Active>, Error> {
        Ok(Box::new(NewLayer::prepare(folder, parents, Form::default())?))
    }

    fn show(&self, layers: &[PathBuf], scratch: &Path, writable: bool) -> Result<Shown, Error> {
        // An overlay of no layers needs a folder, too.
        if writable || layers.is_empty() {
            return Ok(Shown::Root(NewLayer::prepare(scratch, layers, Form::default())?.root_mount()));
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
        Ok(())
    }
}
