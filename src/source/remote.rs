//! What ops name outside of this machine, as trees.

use super::error::Result;
use super::git::Git;
use super::http;
use crate::plan::op::{GitOp, HttpOp};
use crate::registry::Client;
use crate::snapshot::Tree;
use crate::store::Store;
use crate::sys::Cancel;
use std::sync::Arc;

/// Fetches git repositories and files of web servers. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Remotes {
    /// Where they are kept.
    pub store: Store,
    /// For files.
    pub client: Client,
    /// For repositories.
    pub git: Git,
    /// Stops what is running.
    pub cancel: Cancel,
}

impl Remotes {
    /// A repository's files at the op's commit, all of them root's.
    ///
    /// # Errors
    /// [`Error::Git`](super::Error::Git), [`Error::NoGit`](super::Error::NoGit).
    pub async fn git(&self, op: &GitOp) -> Result<Arc<dyn Tree>> {
        Ok(Arc::new(self.git.tree(op).await?))
    }

    /// The file of an address, alone under the op's name: root's, mode 0600, with the time that the server says.
    ///
    /// # Errors
    /// [`Error::Checksum`](super::Error::Checksum), or what the connection says.
    pub async fn http(&self, op: &HttpOp) -> Result<Arc<dyn Tree>> {
        tokio::select! {
            tree = http::tree(&self.store, &self.client, op) => Ok(Arc::new(tree?)),
            () = super::stopped(&self.cancel) => Err(super::Error::Cancelled),
        }
    }
}
