//! The snapshotter of the level `in-place`: root filesystems in `/` itself, one at a time.

use super::host_root::{HostRoot, SwitchedRoot};
use crate::snapshot::root_copy::{RootCopy, RootCopyPool, copy};
use crate::snapshot::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::store::Form;
use crate::sys::RootMount;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

/// Switches stages into `/`.
#[derive(Debug)]
pub struct InPlaceSnapshotter {
    host: Arc<HostRoot>,
    copies: Arc<RootCopyPool>,
    form: Form,
    /// Done when the first RUN executes: a process that only tries what works has no threads.
    removal: Once,
}

impl InPlaceSnapshotter {
    /// Switches stages into this root directory, and keeps their files in its work directory otherwise. Layers have this form.
    /// Walks use `threads`.
    ///
    /// # Errors
    /// If the work directory cannot be written to.
    pub fn new(host: Arc<HostRoot>, form: Form, threads: NonZeroUsize) -> Result<Self, Error> {
        let dir = copies(host.work());
        set_old_copies_aside(host.work())?;
        Ok(Self { host, copies: Arc::new(RootCopyPool::new(dir, threads)), form, removal: Once::new() })
    }
}

impl Snapshotter for InPlaceSnapshotter {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        self.removal.call_once(|| remove_old_copies(self.host.work()));
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
        self.copies.abandon();
        self.host.close()
    }
}

/// Removes the root filesystem copies of earlier builds. A build leaves its copies: removing many files takes as long as a step does,
/// and most containers are thrown away after a build.
///
/// # Errors
/// If something cannot be removed.
pub fn remove_copies(work: &Path) -> Result<(), Error> {
    for dir in [copies(work), old_copies(work)] {
        crate::sys::tree::remove(rustix::fs::CWD, &dir).map_err(|e| Error::host("remove", &dir, e.errno))?;
    }
    Ok(())
}

/// Removes the copies of earlier builds while this one goes on. What is left when it ends is left to the next one.
fn remove_old_copies(work: &Path) {
    let old = old_copies(work);
    let remover = std::thread::Builder::new().name("remover".into());
    // Without a thread, the next build does it.
    let _ = remover.spawn(move || crate::sys::tree::remove(rustix::fs::CWD, &old));
}

/// Makes room for new copies.
fn set_old_copies_aside(work: &Path) -> Result<(), Error> {
    let (dir, old) = (copies(work), old_copies(work));
    std::fs::create_dir_all(&old).map_err(|e| Error::host("mkdir", &old, e))?;
    let name = super::volumes::fresh_name()?;
    match std::fs::rename(&dir, old.join(name)) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::host("rename", &dir, e)),
        _ => {}
    }
    std::fs::create_dir(&dir).map_err(|e| Error::host("mkdir", &dir, e))
}

/// The directory of the root filesystem copies.
fn copies(work: &Path) -> PathBuf {
    work.join("root-copies")
}

/// The directory of those of earlier builds.
fn old_copies(work: &Path) -> PathBuf {
    work.join("old-root-copies")
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
