//! Root filesystems as chains of unpacked layers.

mod at;
mod error;
mod folder;
mod stack;
mod tree;
mod write;

pub use at::{Kind, Meta, Xattrs};
pub use error::Error;
pub use folder::{FolderTree, Ignore, Verdict};
pub use stack::StackTree;
pub use tree::{EmptyTree, Fingerprint, Found, Tree, entry, fingerprint};
pub use write::{FolderWriter, Tee};
