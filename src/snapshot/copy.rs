//! Root filesystems that are copies, for places where there can be no overlay.

use super::standing::{self, Roots, Standing};
use super::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::store::{Form, TempSnapshot};
use crate::sys::RootMount;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The driver that copies: a process's root filesystem is a folder with all files of its layers, and what the process changed
/// is found by looking at each of them. A step that goes on where another one ended gets that one's folder.
pub struct Copy {
    roots: Arc<Roots>,
    form: Form,
    /// What the roots are in; removed after them.
    _folder: TempSnapshot,
}

impl Copy {
    /// Copies in a folder of the store's, which goes with the driver. Walks are done on `threads`.
    pub fn new(folder: TempSnapshot, threads: NonZeroUsize) -> Self {
        Self { roots: Arc::new(Roots::new(folder.folder().to_owned(), threads)), form: folder.form(), _folder: folder }
    }
}

impl Snapshotter for Copy {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        let layer = NewLayer::prepare(folder, parents, self.form)?;
        let standing = self.roots.take(&parents.folders())?;
        self.roots.settle(&standing);
        Ok(Box::new(Copied { layer, standing, roots: self.roots.clone() }))
    }

    fn show(&self, layers: &Layers, scratch: Scratch<'_>, writable: bool) -> Result<Shown, Error> {
        // A single layer is a folder as it is.
        if layers.len() == 1 && !writable {
            return Ok(Shown::Layers(layers.all_files()));
        }
        let folder = scratch()?.join("shown");
        std::fs::create_dir(&folder).map_err(|e| Error::host("mkdir", &folder, e))?;
        standing::copy(layers, &folder)?;
        Ok(Shown::Root(RootMount::Dir(folder)))
    }
}

/// A process's own copy.
struct Copied {
    layer: NewLayer,
    standing: Standing,
    roots: Arc<Roots>,
}

impl Active for Copied {
    fn root_mount(&self) -> RootMount {
        RootMount::Dir(self.standing.place().to_owned())
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        let Self { layer, mut standing, roots } = *self;
        standing.changes(&layer)?;
        roots.give(standing);
        Ok(())
    }
}
