//! What a vertex gave.

use super::chain::Chain;
use super::selecting::ReadTree;
use std::fmt;

/// The result of a vertex.
#[derive(Clone)]
pub enum Output {
    /// A root filesystem.
    Root(Chain),
    /// Files to read.
    Tree(ReadTree),
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
