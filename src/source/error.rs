//! What can go wrong on the way from a name to files.

use crate::oci::Digest;
use crate::report::{Kind, Problem};
use crate::{layer, registry, snapshot, store, sys};
use std::io;
use std::path::{Path, PathBuf};

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// A source that couldn't be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A registry failed.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// A system call failed.
    #[error(transparent)]
    Sys(#[from] sys::Error),
    /// A tree couldn't be read or written.
    #[error(transparent)]
    Snapshot(#[from] snapshot::Error),
    /// A layer can't be unpacked.
    #[error("cannot unpack layer {digest}")]
    Unpack {
        /// The layer's blob.
        digest: Digest,
        /// Why not.
        #[source]
        source: layer::Error,
    },
    /// A layer's files aren't those that the image's configuration names.
    #[error("layer {digest} unpacks to {got}, but the image's configuration says {expected}")]
    DiffId {
        /// The layer's blob.
        digest: Digest,
        /// The `diff_id` of the configuration.
        expected: Digest,
        /// The digest of what was unpacked.
        got: Digest,
    },
    /// A layer in a form that kiln doesn't know.
    #[error("layer {digest} has media type {media_type:?}: kiln unpacks tar, tar+gzip and tar+zstd")]
    MediaType {
        /// The layer's blob.
        digest: String,
        /// What its descriptor says.
        media_type: String,
    },
    /// A file or folder of the user's couldn't be read.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: `read`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no Dockerfile where it was looked for.
    #[error("failed to read dockerfile: open {}: no such file or directory", .0.display())]
    NoDockerfile(PathBuf),
    /// The Dockerfile can't be used as it is.
    #[error("the Dockerfile {} {why}", path.display())]
    Dockerfile {
        /// Where it is; `-` is standard input.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The context isn't there, or no folder.
    #[error("unable to prepare context: path {} {why}", path.display())]
    Context {
        /// What was given.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A context's tar.
    #[error("cannot unpack the context {name}")]
    Tar {
        /// Where it came from, without user and password.
        name: String,
        /// Why not.
        #[source]
        source: layer::Error,
    },
    /// A name of a file, or a link in a context, that leads out of the context, or to nothing in it.
    #[error("{} leads out of the context, or to nothing in it", path.display())]
    Outside {
        /// As it was named.
        path: PathBuf,
    },
    /// An ignore file that can't be read as one.
    #[error("{}: {why}", path.display())]
    Ignore {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// An OCI layout on this machine.
    #[error("OCI layout {}: {why}", path.display())]
    Layout {
        /// Its folder.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A file that was to hold images.
    #[error("the archive can't be loaded: {0}")]
    Archive(String),
    /// The same, where it can't even be read.
    #[error("the archive can't be read")]
    ArchiveRead(#[source] crate::layer::Error),
    /// A file from a web server.
    #[error("cannot fetch {url}: {why}")]
    Http {
        /// The address, without user and password.
        url: String,
        /// Why not.
        why: String,
    },
    /// A file from a web server isn't the one that `--checksum` names.
    #[error("{url} has digest {got}, but {expected} was asked for")]
    Checksum {
        /// The address.
        url: String,
        /// What the Dockerfile says.
        expected: Digest,
        /// What came.
        got: Digest,
    },
    /// An object of S3, Google's or Azure's store.
    #[error("cannot fetch {address}: {why}")]
    Object {
        /// Its address.
        address: String,
        /// Why not, without anything of a credential.
        why: String,
        /// What to set or to check.
        hint: Option<String>,
    },
    /// A git repository.
    #[error("cannot fetch {remote}: {why}")]
    Git {
        /// The address, without user and password.
        remote: String,
        /// Why not.
        why: String,
    },
    /// There is no git program.
    #[error("cannot fetch {0}: git is not installed")]
    NoGit(String),
    /// A worker of kiln's own ended without a result.
    #[error("a worker failed: {0}")]
    Worker(String),
    /// The build was stopped.
    #[error("stopped")]
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

impl From<tokio::task::JoinError> for Error {
    fn from(error: tokio::task::JoinError) -> Self {
        if error.is_cancelled() { Self::Cancelled } else { Self::Worker(error.to_string()) }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match error {
            Error::Store(e) => return e.into(),
            Error::Registry(e) => return e.into(),
            Error::Cancelled => Kind::Cancelled,
            Error::Sys(_) | Error::Snapshot(_) | Error::Worker(_) | Error::NoGit(_) => Kind::Environment,
            Error::Unpack { ref source, .. } if snapshot::hint_of(source).is_some() => Kind::Environment,
            Error::Unpack { .. } | Error::DiffId { .. } | Error::MediaType { .. } | Error::Checksum { .. } => {
                Kind::Build
            }
            Error::Http { .. } | Error::Object { .. } | Error::Git { .. } => Kind::Network,
            Error::Io { .. }
            | Error::NoDockerfile(_)
            | Error::Dockerfile { .. }
            | Error::Context { .. }
            | Error::Tar { .. }
            | Error::Outside { .. }
            | Error::Layout { .. }
            | Error::Archive(_)
            | Error::ArchiveRead(_)
            | Error::Ignore { .. } => Kind::Usage,
        };
        let problem = Self::new(kind, error.to_string());
        let problem = match std::error::Error::source(&error) {
            Some(cause) => problem.because(cause),
            None => problem,
        };
        match hint(&error) {
            Some(hint) => problem.hint(hint),
            None => problem,
        }
    }
}

/// What the reader can do.
fn hint(error: &Error) -> Option<String> {
    match error {
        Error::NoDockerfile(path) => Some(format!(
            "name the file with -f, or the folder that has it: `kiln build -f FILE .` ({} is looked for)",
            path.display()
        )),
        Error::Outside { .. } => {
            Some("as with docker build, links are followed inside the context only; -f names a file elsewhere".into())
        }
        Error::Object { hint, .. } => hint.clone(),
        // In git's own words, since it has no code for it.
        Error::Git { why, .. }
            if ["Authentication failed", "could not read Username"].iter().any(|w| why.contains(w)) =>
        {
            let hint = "its server wants to know who asks: set GIT_AUTH_TOKEN; repositories of the command line get it";
            Some(hint.into())
        }
        Error::Unpack { source, .. } => snapshot::hint_of(source).map(str::to_owned),
        Error::Snapshot(error) => error.hint().map(str::to_owned),
        Error::NoGit(_) => {
            Some("install git in an absolute directory of $PATH, or clone the repository and name the directory".into())
        }
        Error::DiffId { .. } => Some("the image is broken: its registry or whoever pushed it can push it anew".into()),
        _ => None,
    }
}
