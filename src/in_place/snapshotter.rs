//! Root filesystems in `/` itself, one at a time: where nothing can be mounted.

use super::host_root::{HostRoot, SwitchedRoot};
use crate::layer::EntryPath;
use crate::snapshot::root_copy::{RootCopy, RootCopyPool, copy};
use crate::snapshot::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::store::{Form, TempSnapshot};
use crate::sys::RootMount;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;

/// The driver for a place where nothing can be mounted.
#[derive(Debug)]
pub struct InPlaceSnapshotter {
    ground: Arc<HostRoot>,
    roots: Arc<RootCopyPool>,
    form: Form,
    /// Where the roots are.
    _folder: TempSnapshot,
}

impl InPlaceSnapshotter {
    /// Lets stages stand on the ground, from a folder on the same file system; walks are done on `threads`.
    ///
    /// # Errors
    /// If the folder can't be written to.
    pub fn new(ground: HostRoot, folder: TempSnapshot, threads: NonZeroUsize) -> Result<Self, Error> {
        let place = folder.folder().join("roots");
        std::fs::create_dir(&place).map_err(|e| Error::host("mkdir", &place, e))?;
        let (ground, roots) = (Arc::new(ground), Arc::new(RootCopyPool::new(place, threads)));
        Ok(Self { ground, roots, form: folder.form(), _folder: folder })
    }
}

impl Snapshotter for InPlaceSnapshotter {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        let layer = NewLayer::prepare(folder, parents, self.form)?;
        let mut standing = self.roots.take(&parents.folders())?;
        let stand = self.ground.stand(standing.place())?;
        standing.moved(self.ground.root(), self.ground.stay(), vec![EntryPath::root()])?;
        self.roots.settle(&standing);
        let (ground, roots) = (self.ground.clone(), self.roots.clone());
        Ok(Box::new(Stage { stand, standing, layer, ground, roots }))
    }

    fn show(&self, layers: &Layers, scratch: Scratch<'_>, _writable: bool) -> Result<Shown, Error> {
        let tree = scratch()?.join("tree");
        std::fs::create_dir(&tree).map_err(|e| Error::host("mkdir", &tree, e))?;
        copy(layers, &tree)?;
        Ok(Shown::Root(RootMount::Dir(tree)))
    }

    fn end(&self) -> Result<(), Error> {
        self.ground.close()
    }
}

/// A stage that stands in `/`. The order of its fields is that in which it is taken away.
struct Stage {
    stand: SwitchedRoot,
    standing: RootCopy,
    layer: NewLayer,
    ground: Arc<HostRoot>,
    roots: Arc<RootCopyPool>,
}

impl Active for Stage {
    fn root_mount(&self) -> RootMount {
        RootMount::Dir(self.ground.root().to_owned())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        self.standing.changes_at(self.ground.root(), self.ground.stay(), &self.layer)?;
        self.stand.end()?;
        self.roots.give(self.standing);
        Ok(())
    }
}
