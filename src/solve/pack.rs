//! A layer's snapshot to a blob in the store.

use super::chain::StoredLayer;
use super::env::Env;
use super::problem::{self, Result};
use crate::layer::{Entry, EntrySink, Error, Packer, Timestamp};
use crate::snapshot;
use crate::store::RawIngest;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Packs what the snapshot in `folder` changes in `parents` (topmost first).
pub fn pack(env: &Env, folder: &Path, parents: &[PathBuf]) -> Result<StoredLayer> {
    let mut packer = packer(env)?;
    snapshot::diff(folder, parents, &mut packer).map_err(problem::snapshot)?;
    finish(packer)
}

/// A packer into a new blob.
pub fn packer(env: &Env) -> Result<Dated<Packer<RawIngest>>> {
    let blob = env.store.ingest_unhashed().map_err(problem::from)?;
    let packer = Packer::new(blob, env.options.compression, env.options.threads);
    Ok(Dated { inner: packer, latest: env.options.epoch.map(Timestamp::from_secs) })
}

/// Ends a blob and puts it into its place.
pub fn finish(sink: Dated<Packer<RawIngest>>) -> Result<StoredLayer> {
    let (packed, blob) = sink.inner.finish().map_err(|e| problem::snapshot(e.into()))?;
    blob.commit(&packed.digest).map_err(problem::from)?;
    Ok(StoredLayer { descriptor: packed.descriptor(), diff_id: packed.diff_id })
}

/// Lets nothing through that is younger than `SOURCE_DATE_EPOCH`, so that the same build gives the same bytes.
pub struct Dated<S> {
    /// Where entries go.
    pub inner: S,
    /// The latest time allowed; `None` is any.
    pub latest: Option<Timestamp>,
}

impl<S: EntrySink> EntrySink for Dated<S> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> std::result::Result<(), Error> {
        match self.latest {
            Some(latest) if entry.mtime > latest => self.inner.add(&Entry { mtime: latest, ..entry.clone() }, content),
            _ => self.inner.add(entry, content),
        }
    }
}
