//! Directory entries that do not belong to a root filesystem although they lie in it.

use crate::layer::EntryPath;
use std::collections::{BTreeSet, HashMap};

/// Names by the directory that they are in. A walk leaves them out, with everything below them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Excluded(HashMap<EntryPath, BTreeSet<Vec<u8>>>);

impl Excluded {
    /// Nothing is excluded.
    pub(crate) fn none() -> Self {
        Self::default()
    }

    /// Excludes a name of a directory.
    pub(crate) fn add(&mut self, dir: EntryPath, name: Vec<u8>) {
        self.0.entry(dir).or_default().insert(name);
    }

    /// Whether a name of a directory is excluded.
    pub(crate) fn contains(&self, dir: &EntryPath, name: &[u8]) -> bool {
        self.0.get(dir).is_some_and(|names| names.contains(name))
    }
}
