//! The snapshotter of the level `in-place`: root filesystems in `/` itself, one at a time.

use super::host_root::{HostRoot, SwitchedRoot};
use crate::snapshot::root_copy::{RootCopy, RootCopyPool, copy};
use crate::snapshot::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::store::Form;
use crate::sys::RootMount;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Switches stages into `/`.
#[derive(Debug)]
pub struct InPlaceSnapshotter {
    host: Arc<HostRoot>,
    copies: Arc<RootCopyPool>,
    form: Form,
}

impl InPlaceSnapshotter {
    /// Switches stages into this root directory, and keeps their files in its work directory otherwise. Layers have this form.
    /// Walks use `threads`.
    ///
    /// # Errors
    /// If the work directory cannot be written to.
    pub fn new(host: Arc<HostRoot>, form: Form, threads: NonZeroUsize) -> Result<Self, Error> {
        let dir = copies(&host);
        crate::sys::tree::remove(rustix::fs::CWD, &dir).map_err(|e| Error::host("remove", &dir, e.errno))?;
        std::fs::create_dir(&dir).map_err(|e| Error::host("mkdir", &dir, e))?;
        Ok(Self { host, copies: Arc::new(RootCopyPool::new(dir, threads)), form })
    }
}

impl Snapshotter for InPlaceSnapshotter {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        let layer = NewLayer::prepare(folder, parents, self.form)?;
        let mut copy = self.copies.take(&parents.folders())?;
        let switched = self.host.switch_in(copy.place())?;
        let entered = switched.entered();
        copy.moved(self.host.root(), &switched.excluded()?, &entered.directories, &entered.volumes)?;
        self.copies.settle(&copy);
        let (host, copies) = (self.host.clone(), self.copies.clone());
        Ok(Box::new(Prepared { switched, copy, layer, host, copies }))
    }

    fn show(&self, layers: &Layers, scratch: Scratch<'_>, _writable: bool) -> Result<Shown, Error> {
        let tree = scratch()?.join("tree");
        std::fs::create_dir(&tree).map_err(|e| Error::host("mkdir", &tree, e))?;
        copy(layers, &tree)?;
        Ok(Shown::Root(RootMount::Dir(tree)))
    }

    fn end(&self) -> Result<(), Error> {
        self.host.close()
    }
}

impl Drop for InPlaceSnapshotter {
    fn drop(&mut self) {
        // What stays is removed by the next build.
        let _ = crate::sys::tree::remove(rustix::fs::CWD, &copies(&self.host));
    }
}

/// The directory of the root filesystem copies.
fn copies(host: &HostRoot) -> PathBuf {
    host.work().join("root-copies")
}

/// A stage in `/`. The order of the fields is the order in which they are dropped.
struct Prepared {
    switched: SwitchedRoot,
    copy: RootCopy,
    layer: NewLayer,
    host: Arc<HostRoot>,
    copies: Arc<RootCopyPool>,
}

impl Active for Prepared {
    fn root_mount(&self) -> RootMount {
        RootMount::Dir(self.host.root().to_owned())
    }

    fn finish(mut self: Box<Self>) -> Result<(), Error> {
        let excluded = self.switched.excluded()?;
        self.copy.changes_at(self.host.root(), &excluded, &self.layer)?;
        self.switched.finish(&|dir| self.copy.entries_in(dir))?;
        self.copies.give(self.copy);
        Ok(())
    }
}
