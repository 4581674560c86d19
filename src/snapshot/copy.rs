//! Root filesystems that are copies, for places where there can be no overlay.

use super::root_copy::{self, RootCopy, RootCopyPool};
use super::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::store::{Form, TempSnapshot};
use crate::sys::RootMount;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The driver that copies: a process's root filesystem is a folder with all files of its layers, and what the process changed
/// is found by looking at each of them. A step that goes on where another one ended gets that one's folder.
pub struct Copy {
    roots: Arc<RootCopyPool>,
    form: Form,
    /// What the roots are in; removed after them.
    _folder: TempSnapshot,
}

impl Copy {
    /// Copies in a folder of the store's, which goes with the driver. Walks are done on `threads`.
    pub fn new(folder: TempSnapshot, threads: NonZeroUsize) -> Self {
        Self {
            roots: Arc::new(RootCopyPool::new(folder.folder().to_owned(), threads)),
            form: folder.form(),
            _folder: folder,
        }
    }
}

impl Snapshotter for Copy {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        let layer = NewLayer::prepare(folder, parents, self.form)?;
        let root_copy = self.roots.take(&parents.folders())?;
        self.roots.settle(&root_copy);
        Ok(Box::new(Copied { layer, root_copy, roots: self.roots.clone() }))
    }

    fn show(&self, layers: &Layers, scratch: Scratch<'_>, writable: bool) -> Result<Shown, Error> {
        // A single layer is a folder as it is.
        if layers.len() == 1 && !writable {
            return Ok(Shown::Layers(layers.all_files()));
        }
        let folder = scratch()?.join("shown");
        std::fs::create_dir(&folder).map_err(|e| Error::host("mkdir", &folder, e))?;
        root_copy::copy(layers, &folder)?;
        Ok(Shown::Root(RootMount::Dir(folder)))
    }
}

/// A process's own copy.
struct Copied {
    layer: NewLayer,
    root_copy: RootCopy,
    roots: Arc<RootCopyPool>,
}

impl Active for Copied {
    fn root_mount(&self) -> RootMount {
        RootMount::Dir(self.root_copy.place().to_owned())
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        let Self { layer, mut root_copy, roots } = *self;
        root_copy.changes(&layer)?;
        roots.give(root_copy);
        Ok(())
    }
}
