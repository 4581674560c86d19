//! Root filesystems as chains of unpacked layers, and the trees that a build reads.
//!
//! A layer's *snapshot* is a folder that never changes once it is [committed](Snapshotter::commit). In the [`Overlay`]
//! driver it holds one folder:
//!
//! ```text
//! SNAPSHOT/fs/     the layer as overlayfs has it: removed files are character devices 0:0, and a directory that hides
//!                  the one below has the attribute trusted.overlay.opaque=y
//! SNAPSHOT/work/   overlayfs's own, only while the layer is made
//! SNAPSHOT/notes.json   where its maker isn't root: owners, modes, capabilities, devices
//! ```
//!
//! A chain of layers is a list of such folders, topmost first. Where they lie, how long they live and who may use them
//! is the store's business.
//!
//! | file | what |
//! |---|---|
//! | [`Tree`] | a file tree to read, confined: [`FolderTree`], [`StackTree`], [`EmptyTree`] |
//! | [`FolderWriter`] | entries of a layer to a folder |
//! | [`diff`](Snapshotter::diff) | a folder to the entries of a layer |
//! | [`users`] | names and numbers of users, by an image's own files |

mod at;
mod diff;
mod error;
mod flatten;
mod folder;
mod notes;
mod overlay;
mod stack;
mod tee;
#[cfg(test)]
pub(crate) mod testing;
mod tree;
pub mod users;
mod write;

use crate::layer::EntrySink;
use std::path::{Path, PathBuf};

pub use at::{Kind, Meta, Xattrs};
pub use error::Error;
pub use flatten::flatten;
pub use folder::{FolderTree, Ignore, Verdict, walked};
pub use overlay::{Active, Overlay};
pub use stack::StackTree;
pub use tee::Tee;
pub use tree::{
    EmptyTree, Fingerprint, Found, Tree, bare_entry, entry, fingerprint, fingerprint_again, follow, xattrs_of,
};
pub use write::FolderWriter;

/// How root filesystems are kept. Layers are named by their folders; lists of them are topmost first.
pub trait Snapshotter: Send + Sync {
    /// Makes `folder` ready for a new layer on top of `parents`. Does nothing to a folder that is ready.
    fn prepare(&self, folder: &Path, parents: &[PathBuf]) -> Result<Active, Error>;

    /// Moves a finished layer to its place, on the same file system; nothing uses it then, or ever changes it again.
    ///
    /// Fails with `ENOTEMPTY` if there is one at that place; the layer is then still in its folder.
    fn commit(&self, active: Active, to: &Path) -> Result<(), Error>;

    /// Writes what the layer in `folder`, finished or not, changes in `parents` to `sink`, in sorted order.
    fn diff(&self, folder: &Path, parents: &[PathBuf], sink: &mut dyn EntrySink) -> Result<(), Error>;

    /// The folders that hold the files of `layers`, as an overlay mount takes them.
    fn files(&self, layers: &[PathBuf]) -> Vec<PathBuf>;

    /// Layers as one tree.
    fn view(&self, layers: &[PathBuf]) -> Result<StackTree, Error>;
}
