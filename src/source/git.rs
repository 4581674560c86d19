//! Git repositories, by the git program.

use super::error::Result;
use crate::plan::{GitKey, ResolvedGit};

/// G.
#[derive(Debug, Clone)]
pub struct Git {}

impl Git {
    pub(super) async fn resolve(&self, _key: &GitKey) -> Result<ResolvedGit> {
        Err(super::Error::Cancelled)
    }
}
