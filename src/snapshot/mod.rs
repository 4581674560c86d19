//! Root filesystems as chains of unpacked layers, and the trees that a build reads.
//!
//! A layer's *snapshot* is a folder that never changes once the store has it:
//!
//! ```text
//! SNAPSHOT/fs/     the layer as overlayfs has it: removed files are character devices 0:0, and a directory that hides
//!                  the one below has the attribute trusted.overlay.opaque=y
//! SNAPSHOT/work/   overlayfs's own, only while the layer is made
//! SNAPSHOT/notes.json   what can't be given to files here: owners, modes, capabilities, devices; whiteouts, what is opaque
//! ```
//!
//! A chain of layers is a list of such folders, topmost first: [`Layers`]. Where they lie, how long they live and who may
//! use them is the store's business.
//!
//! | file | what |
//! |---|---|
//! | [`NewLayer`] | a layer that is being made, [`view`] and [`diff`] of those that are there |
//! | [`Layers`] | a chain of layers, and what is known of it |
//! | [`Snapshotter`] | what a process gets of them: [`Overlay`], [`Copy`] |
//! | [`RootCopy`] | the files of all layers in one directory, where nothing can be mounted; a [`RootCopyPool`] has those of a build |
//! | `index` | what stands in a folder, to find what changed |
//! | [`Tree`] | a file tree to read, confined: [`FolderTree`], [`StackTree`], [`EmptyTree`] |
//! | [`FolderWriter`] | entries of a layer to a folder |
//! | [`users`] | names and numbers of users, by an image's own files |

pub(crate) mod at;
mod clock;
mod content;
mod copy;
mod diff;
mod error;
pub(crate) mod excluded;
mod flatten;
mod folder;
mod given;
mod index;
mod layer;
mod layers;
mod listing;
mod notes;
mod overlay;
pub(crate) mod root_copy;
mod stack;
mod tee;
#[cfg(test)]
pub(crate) mod testing;
mod tree;
pub mod users;
mod write;

use crate::sys::RootMount;
use std::path::{Path, PathBuf};

pub use at::{Kind, Meta, Xattrs};
pub use copy::Copy;
pub use error::{Error, hint_of};
pub use flatten::flatten;
pub use folder::{FolderTree, Ignore, Verdict, walked};
pub use layer::{NewLayer, diff, files, view};
pub use layers::Layers;
pub use overlay::Overlay;
pub use root_copy::{RootCopy, RootCopyPool};
pub use stack::StackTree;
pub use tee::Tee;
pub use tree::{
    EmptyTree, Fingerprint, Found, Tree, bare_entry, entry, fingerprint, fingerprint_again, follow, xattrs_of,
};
pub use write::FolderWriter;

/// How a process gets layers as its root filesystem.
pub trait Snapshotter: Send + Sync {
    /// Makes `folder` ready for a new layer on top of `parents`, and a root filesystem with their files. Waits where there
    /// can be but one at a time.
    ///
    /// # Errors
    /// If a folder can't be made or the layers can't be read.
    fn prepare(&self, folder: &Path, parents: &Layers) -> Result<Box<dyn Active>, Error>;

    /// Layers for a mount beside a root filesystem. What is written to a `writable` one is lost; `scratch` gives an empty
    /// folder that lives as long as the mount, where one is needed.
    ///
    /// # Errors
    /// If a folder can't be made or the layers can't be read.
    fn show(&self, layers: &Layers, scratch: Scratch<'_>, writable: bool) -> Result<Shown, Error>;

    /// Waits until no process has a root filesystem any more, before this process ends; none gets one from then on.
    ///
    /// # Errors
    /// If that can't be found out.
    fn end(&self) -> Result<(), Error> {
        Ok(())
    }
}

/// Makes an empty folder; called once at most.
pub type Scratch<'a> = &'a mut dyn FnMut() -> crate::store::Result<PathBuf>;

/// A root filesystem that a process runs in.
pub trait Active: Send {
    /// What the sandbox takes as its root.
    fn root_mount(&self) -> RootMount;

    /// Sees to it that the layer's folder holds what the process changed; it has ended. Dropped without it, the changes
    /// are lost.
    ///
    /// # Errors
    /// If the changes can't be read or written.
    fn finish(self: Box<Self>) -> Result<(), Error>;
}

/// Layers as a mount takes them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shown {
    /// Their files, topmost first, never written to.
    Layers(Vec<PathBuf>),
    /// A tree.
    Root(RootMount),
}
