//! What a vertex gave.

use super::chain::Chain;
use crate::snapshot::Tree;
use std::fmt;
use std::sync::Arc;

/// The result of a vertex.
#[derive(Clone)]
pub enum Output {
    /// A root filesystem.
    Root(Chain),
    /// Files to read.
    Tree(Arc<dyn Tree>),
}

impl Output {
    /// The chain, where it is a root filesystem.
    pub fn chain(&self) -> Option<&Chain> {
        match self {
            Self::Root(chain) => Some(chain),
            Self::Tree(_) => None,
        }
    }
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root(chain) => f.debug_tuple("Root").field(chain).finish(),
            Self::Tree(_) => f.write_str("Tree"),
        }
    }
}
