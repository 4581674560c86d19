//! What can go wrong with a root filesystem.

use crate::layer::{EntryPath, PathError};
use std::io;
use std::path::Path;

/// A root filesystem that couldn't be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed.
    #[error("{call} {path}")]
    Call {
        /// Which, by its name.
        call: &'static str,
        /// On which file: a path of this machine, or one inside the root filesystem.
        path: String,
        /// Why it failed.
        source: io::Error,
    },
    /// More symbolic links on the way than a kernel or BuildKit follows.
    #[error("{0}: too many levels of symbolic links")]
    Loop(EntryPath),
    /// A directory was needed there.
    #[error("{0}: not a directory")]
    NotDirectory(EntryPath),
    /// A directory was moved by overlayfs itself, which a layer can't say.
    #[error("{0} was renamed by overlayfs (redirect_dir is on), which can't become a layer")]
    Redirect(EntryPath),
    /// A layer in the store that has lost files, or gained some.
    #[error("the unpacked layer {} is damaged: it has {found} files and directories, {expected} were written", folder.display())]
    Damaged {
        /// Its snapshot.
        folder: std::path::PathBuf,
        /// How many there should be.
        expected: u64,
        /// How many there are.
        found: u64,
    },
    /// A device, which only the machine's root may make.
    #[error("{0} is a device, which can't be made in a user namespace; isolation level root can")]
    Device(EntryPath),
    /// Something in `/` that cannot be set aside for a stage.
    #[error(
        "{} cannot be moved: something is mounted on it, or it is part of this container's own image; isolation level in-place \
         needs kiln's own image",
        .0.display()
    )]
    Fixed(std::path::PathBuf),
    /// A stage has something where kiln itself is.
    #[error(
        "the image has {}, where kiln, its store or the build context is in this container; isolation level in-place needs these in \
         a directory that no image has (kiln's own image has /kiln/store and /kiln/workspace)",
        .0.display()
    )]
    Held(std::path::PathBuf),
    /// A stage has something where the container has something that cannot be moved.
    #[error("the image has {}, but {why}", path.display())]
    Occupied {
        /// The path, in the container and in the image.
        path: std::path::PathBuf,
        /// What is there, and what helps.
        why: &'static str,
    },
    /// Files of a stage were found, and were not there any more afterwards.
    #[error("{found} of {expected} entries of /{dir} were moved to the stage: something else changed / during the RUN")]
    Lost {
        /// The directory.
        dir: EntryPath,
        /// How many entries there were.
        expected: usize,
        /// How many were moved.
        found: usize,
    },
    /// A file of credentials that a process could read.
    #[error("{} can't be kept from a process in place: {why}", path.display())]
    Exposed {
        /// The file, as it was named.
        path: std::path::PathBuf,
        /// Why it stays where it is.
        why: String,
    },
    /// A path that no root filesystem can have.
    #[error(transparent)]
    Path(#[from] PathError),
    /// The layer on the other side failed.
    #[error(transparent)]
    Layer(#[from] crate::layer::Error),
    /// The store can't give room.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// No such user in the image.
    #[error("unable to find user {0}: no matching entries in passwd file")]
    NoUser(String),
    /// No such group in the image.
    #[error("unable to find group {0}: no matching entries in group file")]
    NoGroup(String),
    /// A user's or group's number that no kernel takes.
    #[error("{0:?} is not a user or group number between 0 and 4294967294")]
    IdRange(String),
}

impl Error {
    /// What helps.
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Call { call: "chown" | "fchown", source, .. } = self else { return None };
        (source.raw_os_error() == Some(rustix::io::Errno::INVAL.raw_os_error())).then_some(FEW_NUMBERS)
    }

    /// Whether this machine or container is in the way, and not the image.
    pub fn is_of_environment(&self) -> bool {
        matches!(
            self,
            Self::Damaged { .. }
                | Self::Exposed { .. }
                | Self::Occupied { .. }
                | Self::Fixed(_)
                | Self::Held(_)
                | Self::Lost { .. }
        )
    }

    /// A failed call on a file of this machine.
    pub fn host(call: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        Self::Call { call, path: path.display().to_string(), source: source.into() }
    }

    /// A failed call on a file inside a root filesystem.
    pub fn inside(call: &'static str, path: &EntryPath, source: impl Into<io::Error>) -> Self {
        Self::Call { call, path: path.to_string(), source: source.into() }
    }
}

/// The same, of a layer that couldn't be unpacked for an error of these.
pub fn hint_of(error: &crate::layer::Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<Error>() {
            return error.hint();
        }
        cause = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

/// What helps where a file can't be given to a user or group that has no number in this user namespace.
const FEW_NUMBERS: &str = "the file's owner has no number in this user namespace: 65536 are usual; as root: usermod \
     --add-subuids 100000-165535 --add-subgids 100000-165535 USER, or start the container with more";
