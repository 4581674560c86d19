//! What cache keys gave, as JSON; what it means is its user's business.

use super::{Key, Result, Store, files};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// A record's file: its key again, so that a file under another's name isn't taken for it.
#[derive(Serialize, Deserialize)]
struct Record<T> {
    key: Key,
    value: T,
}

impl Store {
    /// The record of a key, marked as used. What doesn't parse is as good as none. `kind` is a folder's name: records
    /// of one kind have one type.
    pub fn record<T: DeserializeOwned>(&self, kind: &'static str, key: &Key) -> Result<Option<T>> {
        let path = self.record_path(kind, key);
        let Some(file) = self.inner.hold(&path, || files::open(&path))? else { return Ok(None) };
        let record = files::read_json::<Record<T>>(&file, &path)?;
        Ok(record.filter(|r| r.key == *key).map(|r| r.value))
    }

    /// Writes a record, over an older one.
    pub fn put_record<T: Serialize>(&self, kind: &'static str, key: &Key, value: &T) -> Result<()> {
        use super::error::At as _;
        let path = self.record_path(kind, key);
        let text = serde_json::to_vec(&Record { key: *key, value }).map_err(std::io::Error::from).at("write", &path)?;
        self.inner.write(&path, &text)
    }

    /// Removes a record, where there is one.
    pub fn remove_record(&self, kind: &'static str, key: &Key) -> Result<()> {
        super::tree::remove(&self.record_path(kind, key))
    }

    fn record_path(&self, kind: &'static str, key: &Key) -> PathBuf {
        self.inner.root.join("records").join(kind).join(format!("{key}.json"))
    }
}
