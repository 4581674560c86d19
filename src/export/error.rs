//! What can go wrong when an image goes out.

use crate::oci::Digest;
use crate::report::{Kind, Problem};
use crate::{layer, registry, store};
use std::io;
use std::path::{Path, PathBuf};

/// A failed export.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An `--output` or `--annotation` that makes no sense.
    #[error("output {text:?}: {why}")]
    Spec {
        /// What was given.
        text: String,
        /// What is wrong with it.
        why: String,
    },
    /// An annotation for an index, where there is only one image.
    #[error("annotations of an index need an image for more than one platform")]
    NoIndex,
    /// What was asked for doesn't go together.
    #[error("{0}")]
    Unsupported(String),
    /// The file system refused something.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// What was tried: `write`.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Standard output, or what stands behind it, takes no more.
    #[error("cannot write to standard output")]
    Stdout(#[source] io::Error),
    /// A blob of the image is nowhere.
    #[error("the blob {0} of the image is missing")]
    Missing(Digest),
    /// A blob can't be read, or isn't what its digest says.
    #[error("cannot read the blob {digest}")]
    Blob {
        /// Which.
        digest: String,
        /// Why not.
        source: io::Error,
    },
    /// A tar couldn't be written.
    #[error(transparent)]
    Layer(#[from] layer::Error),
    /// The registry, or the way to it.
    #[error(transparent)]
    Registry(#[from] registry::Error),
    /// The store.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl PartialEq for Error {
    /// By what is shown: causes from the system can't be compared.
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

/// Names the file of a failed call.
pub(crate) trait At<T> {
    /// `what` is a verb.
    fn at(self, what: &'static str, path: &Path) -> Result<T, Error>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, what: &'static str, path: &Path) -> Result<T, Error> {
        self.map_err(|e| Error::Io { what, path: path.into(), source: e.into() })
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let because = |kind| {
            let problem = Self::new(kind, error.to_string());
            std::error::Error::source(&error).map_or(problem.clone(), |source| problem.because(source))
        };
        match error {
            Error::Registry(inner) => inner.into(),
            Error::Store(inner) => inner.into(),
            Error::Spec { .. } | Error::NoIndex | Error::Unsupported(_) => because(Kind::Usage),
            Error::Missing(_) | Error::Blob { .. } => because(Kind::Build),
            Error::Io { .. } | Error::Stdout(_) | Error::Layer(_) => because(Kind::Environment),
        }
    }
}
