//! What a process's root filesystem is made of.

use std::path::PathBuf;

/// Something that a process finds mounted in its root filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MountPoint {
    /// Where, without the first slash.
    pub path: &'static str,
    /// Whether it is a folder; else it is a file.
    pub folder: bool,
}

/// How a root filesystem comes to be. It is only mounted inside a sandbox's own mount namespace, so nothing is left
/// behind by a process that was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RootMount {
    /// An overlay; writes go to `upper`.
    Overlay {
        /// The layers below, the topmost first; with none, an empty folder takes their place.
        lowers: Vec<PathBuf>,
        /// The folder that gets the changes; never the upper one of an overlay before.
        upper: PathBuf,
        /// An empty folder on the file system of `upper`, for overlayfs itself. It serves once: what is in it afterwards
        /// (`work/incompat/volatile`) says that nothing was synced, and forbids a second use.
        work: PathBuf,
    },
    /// A folder as it is; writes go to it.
    Dir(PathBuf),
}

impl RootMount {
    /// The folder that holds what a process changes (or everything, for a folder as it is).
    pub fn written(&self) -> &PathBuf {
        match self {
            Self::Overlay { upper, .. } => upper,
            Self::Dir(dir) => dir,
        }
    }
}
