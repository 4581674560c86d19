//! Root filesystems on overlayfs.

use super::at::{self, Meta};
use super::notes::Notes;
use super::{Active, Error, Layers, NewLayer, Scratch, Shown, Snapshotter};
use crate::layer::EntryPath;
use crate::store::{Form, Store, TempSnapshot};
use crate::sys::{MountPoint, RootMount, userns};
use rustix::fs::{AtFlags, OFlags, fstat, unlinkat};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

/// The driver for overlayfs, mounted by the sandbox alone: nothing here mounts anything.
#[derive(Debug, Default)]
pub struct Overlay {
    ground: Option<Ground>,
}

/// What lies below all layers: empty files and folders for what every process has mounted, so that a layer which has no such
/// place needs none made in it, nor taken away again, nor copied up the folder that it would be in. In the image they
/// aren't: what is below the layers of a snapshot is none of its changes.
#[derive(Debug)]
struct Ground {
    store: Store,
    points: &'static [MountPoint],
    /// Made for the first process. On the store's file system, as overlays of several show other device numbers.
    folder: Mutex<Option<TempSnapshot>>,
}

impl Ground {
    /// Its files.
    fn files(&self) -> Result<PathBuf, Error> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*folder {
            return Ok(made.fs().to_owned());
        }
        let temp = self.store.new_snapshot()?;
        let files = temp.fs().to_owned();
        for MountPoint { path, folder } in self.points {
            let way: Vec<&Path> = Path::new(path).ancestors().filter(|p| *p != Path::new("")).collect();
            for (number, at) in way.into_iter().enumerate().rev() {
                place(&files.join(at), *folder || number > 0).map_err(|e| Error::host("make", &files.join(at), e))?;
            }
        }
        *folder = Some(temp);
        Ok(files)
    }
}

/// Makes an empty folder, if it isn't there, or an empty file, with what a sandbox would give it.
fn place(path: &Path, folder: bool) -> io::Result<()> {
    let mode = if folder { 0o755 } else { 0o644 };
    match if folder { fs::create_dir(path) } else { fs::write(path, b"") } {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        // Whatever kiln's own mask is.
        made => made.and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode))),
    }
}

impl Overlay {
    /// Overlays in which a process finds the places there that it has something mounted on. They take a folder in the store.
    pub fn new(store: Store, points: &'static [MountPoint]) -> Self {
        Self { ground: Some(Ground { store, points, folder: Mutex::default() }) }
    }
}

impl Snapshotter for Overlay {
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error> {
        let layer = NewLayer::prepare(folder, parents, form()?)?;
        let ground = self.ground.as_ref().filter(|_| !parents.is_empty()).map(Ground::files).transpose()?;
        let mut root = layer.root_mount()?;
        if let RootMount::Overlay { lowers, .. } = &mut root {
            lowers.extend(ground);
        }
        Ok(Box::new(Mounted { layer, root }))
    }

    fn show(&self, layers: &Layers, scratch: Scratch<'_>, writable: bool) -> Result<Shown, Error> {
        // An overlay of no layers needs a folder, too.
        if writable || layers.is_empty() {
            return Ok(Shown::Root(NewLayer::prepare(&scratch()?, layers, form()?)?.root_mount()?));
        }
        Ok(Shown::Layers(layers.all_files()))
    }
}

/// An overlay, whose upper directory is the layer.
struct Mounted {
    layer: NewLayer,
    root: RootMount,
}

impl Active for Mounted {
    fn root_mount(&self) -> RootMount {
        self.root.clone()
    }

    fn finish(self: Box<Self>) -> Result<(), Error> {
        clear(&self.layer.work());
        if self.layer.form().is_recorded() { gather(&self.layer.files()) } else { Ok(()) }
    }
}

/// Removes what overlayfs has left in its own folder, if it is what it always is: whoever keeps the layer removes what there
/// is, but has to look for it.
fn clear(work: &Path) {
    let Ok(dir) = at::open_root(work) else { return };
    let _ = unlinkat(&dir, "work/incompat/volatile/dirty", AtFlags::empty());
    for folder in ["work/incompat/volatile", "work/incompat", "work"] {
        let _ = unlinkat(&dir, folder, AtFlags::REMOVEDIR);
    }
}

/// The form of layers that overlays are made of: with a single number for all users, owners are recorded.
pub(super) fn form() -> Result<Form, Error> {
    let path = Path::new("/proc/self/uid_map");
    let owners = userns::is_single().map_err(|e| Error::host("read", path, std::io::Error::from(e)))?;
    Ok(Form { owners, marks: false })
}

/// What processes had recorded with the files at some paths of a root filesystem that is one folder; nothing where files have their
/// real owners. `open` is that folder.
pub(super) fn gather_of<'a>(
    folder: &Path,
    open: BorrowedFd<'_>,
    paths: impl Iterator<Item = (&'a EntryPath, &'a Meta)>,
) -> Result<Notes, Error> {
    let mut notes = Notes::new(form()?);
    if !notes.form().is_recorded() {
        return Ok(notes);
    }
    notes.read_recorded(folder)?;
    for (path, meta) in paths {
        let file = at::open(open, path, OFlags::PATH).map_err(|e| Error::inside("open", path, e))?;
        notes.gather(path, file.as_fd(), meta).map_err(|e| Error::inside("getxattr", path, e))?;
    }
    Ok(notes)
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
