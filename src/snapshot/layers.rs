//! Chains of layers: where each lies, and what is known of it by now.

use super::at::Meta;
use super::layer::files;
use super::notes::Notes;
use super::{Error, StackTree};
use crate::layer::EntryPath;
use std::collections::HashMap;
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
        let (below, notes, known) = (self.clone(), OnceLock::new(), Mutex::default());
        Self(Some(Arc::new(Link { files, below, height, notes, known })))
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

    /// Has no notes, whatever lies beside it.
    pub(super) fn without_notes(&self) {
        let _ = self.notes.set(Notes::default());
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
