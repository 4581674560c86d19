//! Chains of layers: where each lies, and what is known of it by now.

use super::at::{self, Meta};
use super::layer::files;
use super::notes::Notes;
use super::{Error, StackTree};
use crate::layer::EntryPath;
use std::collections::HashMap;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// Layers, topmost first, none of which changes any more. Clones are the same chain.
///
/// What was once found in them stays known: a chain with a layer more asks only that one, so that what a step costs
/// doesn't grow with the number of steps before it. Nothing is open.
#[derive(Debug, Clone, Default)]
pub struct Layers(Option<Arc<Link>>);

/// One layer, on those below it.
#[derive(Debug)]
pub(super) struct Link {
    /// Its files.
    files: PathBuf,
    below: Layers,
    /// How many layers are below it.
    height: usize,
    notes: OnceLock<Notes>,
    /// Whether there is nothing in it.
    bare: OnceLock<bool>,
    /// What was found in the chain whose top it is.
    known: Mutex<HashMap<EntryPath, Option<Seen>>>,
}

/// What stands at a path of a chain.
#[derive(Debug, Clone)]
pub(super) enum Seen {
    /// A directory, merged from those of several layers.
    Dir(Arc<Part>),
    /// Anything else, of the layer of that height.
    Leaf(usize, Meta),
}

/// A layer's directory, and the one of a lower layer that shows through it.
#[derive(Debug)]
pub(super) struct Part {
    /// The layer, by its height.
    pub(super) layer: usize,
    /// What it is there.
    pub(super) meta: Meta,
    /// The next one.
    pub(super) below: Option<Arc<Part>>,
}

/// So many answers are kept for each chain; then they are found anew.
const KNOWN: usize = 1024;

impl Layers {
    /// This chain with the layer in `folder` on top.
    pub fn push(&self, folder: &Path) -> Self {
        self.with(files(folder))
    }

    /// The same, by the layer's files.
    pub(super) fn with(&self, files: PathBuf) -> Self {
        let height = self.len();
        let (notes, bare, known) = (OnceLock::new(), OnceLock::new(), Mutex::default());
        Self(Some(Arc::new(Link { files, below: self.clone(), height, notes, bare, known })))
    }

    /// Whether there is no layer at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |top| top.height + 1)
    }

    /// The layers' folders, topmost first.
    pub fn folders(&self) -> Vec<PathBuf> {
        self.links().map(|l| l.files.parent().unwrap_or(&l.files).to_owned()).collect()
    }

    /// The folders of the layers' files, as an overlay mount takes them, topmost first.
    pub(super) fn all_files(&self) -> Vec<PathBuf> {
        self.links().map(|l| l.files.clone()).collect()
    }

    /// The same for an overlay that has a layer of its own above them: without those that have nothing in them, which would
    /// only be looked through. Their root directories don't count there.
    pub(super) fn laid(&self) -> Vec<PathBuf> {
        // One that can't be read is the mount's business, which tells why.
        let is_laid = |link: &&Arc<Link>| !link.is_bare().unwrap_or(false);
        self.links().filter(is_laid).map(|l| l.files.clone()).collect()
    }

    /// The topmost layer's folder, and the chain below it.
    pub fn pop(&self) -> Option<(&Path, Self)> {
        let top = self.0.as_ref()?;
        Some((top.files.parent().unwrap_or(&top.files), top.below.clone()))
    }

    /// As one tree.
    pub fn view(&self) -> StackTree {
        StackTree::of(self)
    }

    pub(super) fn links(&self) -> impl Iterator<Item = &Arc<Link>> {
        std::iter::successors(self.0.as_ref(), |link| link.below.0.as_ref())
    }
}

/// Topmost first.
impl<P: AsRef<Path>> From<&[P]> for Layers {
    fn from(folders: &[P]) -> Self {
        folders.iter().rev().fold(Self::default(), |below, folder| below.push(folder.as_ref()))
    }
}

impl<P: AsRef<Path>> From<&Vec<P>> for Layers {
    fn from(folders: &Vec<P>) -> Self {
        folders.as_slice().into()
    }
}

impl From<&Layers> for Layers {
    fn from(layers: &Layers) -> Self {
        layers.clone()
    }
}

impl Link {
    pub(super) fn files(&self) -> &Path {
        &self.files
    }

    /// What is noted of the layer, read when first asked for.
    pub(super) fn notes(&self) -> Result<&Notes, Error> {
        match self.notes.get() {
            Some(notes) => Ok(notes),
            None => {
                let read = Notes::read(&self.files)?;
                Ok(self.notes.get_or_init(|| read))
            }
        }
    }

    /// Whether it changes nothing but the root directory itself.
    fn is_bare(&self) -> Result<bool, Error> {
        if let Some(bare) = self.bare.get() {
            return Ok(*bare);
        }
        let (path, dir) = (EntryPath::root(), at::open_root(&self.files)?);
        let fail = |call| move |e| Error::host(call, &self.files, std::io::Error::from(e));
        let bare = at::names(dir.as_fd()).map_err(fail("getdents"))?.is_empty()
            && !self.notes()?.is_opaque(&path)
            && !at::is_opaque(dir.as_fd()).map_err(fail("flistxattr"))?;
        Ok(*self.bare.get_or_init(|| bare))
    }

    /// Has these notes, whatever lies beside it.
    pub(super) fn set_notes(&self, notes: Notes) {
        let _ = self.notes.set(notes);
    }

    /// What the chain has at `path`, if that was found out.
    pub(super) fn known(&self, path: &EntryPath) -> Option<Option<Seen>> {
        self.locked().get(path).cloned()
    }

    pub(super) fn remember(&self, path: EntryPath, seen: Option<Seen>) {
        let mut known = self.locked();
        if known.len() >= KNOWN {
            known.clear();
        }
        known.insert(path, seen);
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<EntryPath, Option<Seen>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// This one and those that show through it.
    pub(super) fn all(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(Some(self), |part| part.below.as_ref())
    }
}

impl Seen {
    pub(super) fn meta(&self) -> &Meta {
        match self {
            Self::Dir(part) => &part.meta,
            Self::Leaf(_, meta) => meta,
        }
    }

    /// The layer that it is in, or the topmost of them.
    pub(super) fn layer(&self) -> usize {
        match self {
            Self::Dir(part) => part.layer,
            Self::Leaf(layer, _) => *layer,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Tree as _;
    use std::fs;

    /// A layer's folder with these files; a name that ends in a slash is a directory.
    fn layer(folder: &Path, name: &str, files: &[&str]) -> PathBuf {
        let layer = folder.join(name);
        fs::create_dir_all(layer.join("fs")).unwrap();
        for file in files {
            let path = layer.join("fs").join(file);
            let dir = if file.ends_with('/') { path.as_path() } else { path.parent().unwrap() };
            fs::create_dir_all(dir).unwrap();
            if !file.ends_with('/') {
                fs::write(path, name).unwrap();
            }
        }
        layer
    }

    fn size(layers: &Layers, path: &str) -> Option<u64> {
        layers.view().stat(&EntryPath::parse(path.as_bytes()).unwrap()).unwrap().map(|m| m.size)
    }

    #[test]
    fn a_layer_more_asks_only_that_one() {
        let temp = tempfile::tempdir().unwrap();
        let low = layer(temp.path(), "low", &["a/f", "b/g"]);
        let mid = layer(temp.path(), "middle", &["a/h"]);
        let chain = Layers::default().push(&low).push(&mid);
        assert_eq!((size(&chain, "a/f"), size(&chain, "b/none"), size(&chain, "a/h")), (Some(3), None, Some(6)));
        // What is known needs no file any more.
        fs::remove_dir_all(&low).unwrap();
        fs::remove_dir_all(&mid).unwrap();
        let more = chain.push(&layer(temp.path(), "top", &["a/h", "c"]));
        assert_eq!((size(&more, "a/f"), size(&more, "a/h"), size(&more, "c")), (Some(3), Some(3), Some(3)));
        assert_eq!((size(&more, "b/none"), size(&more, "c/below/a/file")), (None, None));
        // A file in the place of a directory hides what was in it, in that chain alone.
        let other = chain.push(&layer(temp.path(), "other", &["a"]));
        assert_eq!((size(&other, "a/f"), size(&other, "a"), size(&chain, "a/f")), (None, Some(5), Some(3)));
    }

    #[test]
    fn answers_are_forgotten_before_they_are_too_many() {
        let temp = tempfile::tempdir().unwrap();
        let chain = Layers::default().push(&layer(temp.path(), "one", &["d/f"]));
        for number in 0..2 * KNOWN {
            assert_eq!(size(&chain, &format!("d/none{number}")), None);
        }
        assert!(chain.0.as_ref().unwrap().locked().len() <= KNOWN);
        assert_eq!(size(&chain, "d/f"), Some(3));
    }

    #[test]
    fn layers_with_nothing_in_them_are_not_laid() {
        let temp = tempfile::tempdir().unwrap();
        let make = |name: &str, files: &[&str]| layer(temp.path(), name, files);
        let chain = Layers::default().push(&make("a", &["f"])).push(&make("b", &[])).push(&make("c", &["d/"]));
        assert_eq!(chain.laid(), [temp.path().join("c/fs"), temp.path().join("a/fs")]);
        assert_eq!((chain.all_files().len(), chain.len()), (3, 3));
        // Nor is one left out that hides what is below, or can't be read.
        let noted = make("d", &[]);
        fs::write(noted.join("notes.json"), r#"{"owners":false,"marks":true,"files":[],"gone":[],"opaque":[[]]}"#)
            .unwrap();
        let chain = chain.push(&noted).push(&temp.path().join("missing"));
        assert_eq!(chain.laid().len(), 4);
    }
}
