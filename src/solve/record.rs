//! What the cache knows of a step.

use super::chain::{Layer, StoredLayer};
use super::env::Env;
use super::key::Key;
use super::problem::{self, Result};
use serde::{Deserialize, Serialize};

/// The kind of the store's records that are [`Record`]s.
const RECORDS: &str = "steps";

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
    /// When it ran by the clock, whatever `created` was told to say: seconds since 1970. Unknown of old records.
    #[serde(default)]
    pub made: Option<i64>,
    /// All keys that lead to it, for those whom it is given on to.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// Whether something made at this time may be used where nothing made before `oldest` may. What doesn't say when it was
/// made is too old.
pub fn is_fresh(made: Option<i64>, oldest: Option<i64>) -> bool {
    oldest.is_none_or(|oldest| made.is_some_and(|made| made >= oldest))
}

/// A record that can be used: it isn't too old, and its layer is in the store in one form or the other.
pub fn usable(env: &Env, key: Key) -> Option<Record> {
    // A store that can't be read is a cache that knows nothing; the work that follows will tell.
    let record: Record = env.store.record(RECORDS, &key).ok().flatten().filter(|r: &Record| r.key == key)?;
    if !is_fresh(record.made, env.options.oldest) {
        return None;
    }
    let blob = record.stored.as_ref().is_some_and(|s| has_blob(env, s));
    let snapshot = || env.store.snapshot(&record.identity).ok().flatten().is_some();
    if blob {
        Some(record)
    } else if snapshot() {
        Some(Record { stored: None, ..record })
    } else {
        None
    }
}

fn has_blob(env: &Env, stored: &StoredLayer) -> bool {
    let digest = stored.descriptor.digest().to_string().parse();
    digest.is_ok_and(|d| matches!(env.store.blob(&d, Some(stored.descriptor.size())), Ok(Some(_))))
}

/// Puts what is known of a step's layer into the store, under all of its keys.
pub fn remember(env: &Env, layer: &Layer) -> Result<()> {
    for key in &layer.keys {
        let record = Record {
            key: *key,
            identity: layer.own,
            created: layer.created.clone().unwrap_or_default(),
            stored: layer.stored.get().cloned(),
            name: layer.name.clone(),
            made: layer.made,
            keys: layer.claimed.clone(),
        };
        env.store.put_record(RECORDS, key, &record).map_err(problem::from)?;
    }
    Ok(())
}
