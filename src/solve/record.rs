//! What the cache knows of a step.

use super::chain::StoredLayer;
use super::key::Key;
use serde::{Deserialize, Serialize};

/// The result of a step, kept under its keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The key it is kept under, so that a record moved elsewhere is refused.
    pub key: Key,
    /// What the root filesystem is with this step's layer on top. A process's result gets an identity of its own each
    /// time it runs: two runs of one command needn't give the same files, and what was built on one must never be put on
    /// the other. Copies follow from their inputs, and so does their identity.
    pub identity: Key,
    /// When the step ran, RFC 3339.
    pub created: String,
    /// The layer's blob, once it was stored.
    pub stored: Option<StoredLayer>,
    /// The step as it was shown, for people who look into the store.
    pub name: String,
}
