//! What can go wrong with the store, and how a person is told.

use crate::oci::Digest;
use crate::report::{Kind, Problem};
use std::io;
use std::path::{Path, PathBuf};

/// A result of the store.
pub type Result<T> = std::result::Result<T, Error>;

/// A failure of the store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused something.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: `write`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Bytes that came in aren't what was promised.
    #[error("the content has digest {got}, not {expected}")]
    Mismatch {
        /// The digest that was promised.
        expected: Digest,
        /// The digest of what came.
        got: Digest,
    },
    /// A blob in the store isn't what its name says; it has been taken away, so that it is fetched or made again.
    #[error("the stored blob {0} is damaged")]
    Damaged(Digest),
    /// A blob is larger than its user takes.
    #[error("the blob {digest} has {size} bytes, more than the {limit} allowed here")]
    TooLarge {
        /// The blob.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// What its user takes, in bytes.
        limit: u64,
    },
    /// The folder is a store that this version can't read, or no store.
    #[error("{} is not a store of this version of kiln: it says {found:?}", root.display())]
    Format {
        /// The folder.
        root: PathBuf,
        /// What stands in it.
        found: String,
    },
    /// The store is another user's.
    #[error("the store {} belongs to {}", root.display(), owner.map_or("another user".into(), |o| format!("user {o}")))]
    Foreign {
        /// The folder.
        root: PathBuf,
        /// Whose it is, if that user has a number here.
        owner: Option<u32>,
    },
    /// The store has layers of another user namespace.
    #[error("the store {} has files of users whose numbers have changed", root.display())]
    Numbers {
        /// The folder.
        root: PathBuf,
        /// What the numbers inside were outside.
        was: String,
        /// What they are now.
        now: String,
    },
    /// Two keys have the same short name.
    #[error("the snapshot {} belongs to another key", .0.display())]
    Taken(PathBuf),
    /// A name without a tag.
    #[error("{0} can't be a name in the store: it needs a tag and no digest")]
    NoTag(String),
    /// Neither a flag nor the environment says where the store is.
    #[error("no folder for the store: HOME is not set")]
    NoPlace,
    /// The build was stopped while it waited for another process.
    #[error("stopped while waiting for another build")]
    Cancelled,
}

/// Adds what was tried, and on what, to an error of the system.
pub(super) trait At<T> {
    /// `self`, or an [`Error::Io`].
    fn at(self, what: &'static str, path: &Path) -> Result<T>;
}

impl<T, E: Into<io::Error>> At<T> for std::result::Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T> {
        self.map_err(|e| Error::Io { what, path: path.into(), source: e.into() })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Cancelled => Kind::Cancelled,
            Error::NoTag(_) => Kind::Usage,
            Error::Mismatch { .. } => Kind::Network,
            _ => Kind::Environment,
        };
        let mut problem = Self::new(kind, error.to_string());
        problem.hints.extend(hint(&error).map(str::to_owned));
        if let Error::Numbers { was, now, .. } = &error {
            for (when, numbers) in [("then", was), ("now", now)] {
                problem = problem.cause(format!("{when}: {}", numbers.trim_end().replace('\n', ", ")));
            }
        }
        match std::error::Error::source(&error) {
            Some(cause) => problem.because(cause),
            None => problem,
        }
    }
}

/// What the reader can do.
fn hint(error: &Error) -> Option<&'static str> {
    match error {
        Error::Io { source, .. } => match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Some("`kiln prune` frees space; --root or $KILN_ROOT puts the store on another disk")
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                Some("--root or $KILN_ROOT puts the store into a folder that you may write to")
            }
            _ => None,
        },
        Error::Foreign { .. } => Some(
            "name a folder of your own with --root or $KILN_ROOT, or run kiln as that user: files in it would have owners that the \
             other can't read or remove",
        ),
        Error::Numbers { .. } => Some(
            "give the user the old numbers again (/etc/subuid, /etc/subgid), name another folder with --root or $KILN_ROOT, or \
             remove this one as root",
        ),
        Error::Format { .. } => Some("name another folder with --root, or remove this one"),
        Error::NoPlace => Some("name a folder with --root or $KILN_ROOT"),
        Error::Damaged(_) => Some("it has been removed; build or pull again"),
        _ => None,
    }
}
