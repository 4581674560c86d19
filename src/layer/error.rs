//! What can go wrong between a tree and a layer.

use super::{EntryPath, PathError};
use std::error::Error as StdError;
use std::io;

/// A layer that couldn't be written or read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file couldn't be read or written.
    #[error("{action} {path}")]
    File {
        /// What was tried, as a verb: `read`, `create`.
        action: &'static str,
        /// On which entry.
        path: EntryPath,
        /// Why it failed.
        source: Box<dyn StdError + Send + Sync>,
    },
    /// A file gave fewer or more bytes than its size when the entry began.
    #[error("{path} changed while it was read: it had {expected} bytes, now it has {found}")]
    Changed {
        /// Which.
        path: EntryPath,
        /// The size in its entry.
        expected: u64,
        /// `fewer` or `more`.
        found: &'static str,
    },
    /// An entry that no tar can hold.
    #[error("write {path}: {reason}")]
    Unrepresentable {
        /// Which.
        path: EntryPath,
        /// Why not.
        reason: &'static str,
    },
    /// A file whose name means something else in a layer.
    #[error("a layer cannot hold {0}: names that begin with .wh. mark files as removed")]
    Reserved(EntryPath),
    /// The stream that the layer is written to failed.
    #[error("write layer")]
    Write(#[source] io::Error),
    /// The stream that the layer is read from failed, or its compression is broken.
    #[error("read layer at byte {offset}")]
    Read {
        /// How far the uncompressed stream was read.
        offset: u64,
        /// Why it failed.
        source: io::Error,
    },
    /// The stream isn't a tar that kiln accepts.
    #[error("broken tar: entry \"{entry}\" at byte {offset}: {reason}")]
    Malformed {
        /// The entry's name as far as it was known, made harmless.
        entry: String,
        /// Where the entry's header starts in the uncompressed stream.
        offset: u64,
        /// What is wrong.
        reason: String,
    },
    /// A path in a layer leads out of it.
    #[error(transparent)]
    Path(#[from] PathError),
}

impl Error {
    /// An error on one entry: `action` is a verb (`create`).
    pub fn file(action: &'static str, path: &EntryPath, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::File { action, path: path.clone(), source: source.into() }
    }
}
