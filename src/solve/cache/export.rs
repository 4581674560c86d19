//! What a build made, to the caches that want it.

use super::bundle::Entry;
use super::{Bundle, CacheStore, Caches, Error, Mode};
use crate::oci::Digest;
use crate::registry::Content;
use crate::report::{Event, Reporter};
use crate::solve::chain::Origin;
use crate::store::Store;
use std::collections::HashSet;
use std::sync::Arc;
use tokio::runtime::Handle;

/// A record to export, and whether an image lists its layer.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The records of a chain.
    pub bundle: Bundle,
    /// Whether the chain is an image's.
    pub listed: bool,
}

/// Brings the results of a build into all caches. What fails is told; the build has its result already.
pub async fn export(caches: &Caches, made: &[Exported], store: &Store, reporter: &Reporter) {
    for (cache, mode) in &caches.to {
        let wanted = made.iter().filter(|e| e.listed || *mode == Mode::Max).map(|e| &e.bundle);
        let note = match to(&**cache, wanted, store).await {
            Ok(0) => format!("the cache {} is up to date", cache.name()),
            Ok(n) => format!("exported {n} records to the cache {}", cache.name()),
            Err(e) => format!("warning: the cache {} isn't written: {e}", cache.name()),
        };
        reporter.send(Event::Note(note));
    }
}

/// Writes what isn't there; says how many manifests that were.
async fn to(cache: &dyn CacheStore, bundles: impl Iterator<Item = &Bundle>, store: &Store) -> Result<usize, Error> {
    let mut there = HashSet::new();
    let mut written = 0;
    for bundle in bundles {
        let manifest = bundle.to_bytes();
        // What is there may be damaged; then it is written over.
        let known = cache.get(bundle.key).await?.and_then(|b| Bundle::parse(&b, bundle.key, &Origin::Step).ok());
        if known.is_some_and(|known| known.is(bundle)) {
            continue;
        }
        for entry in &bundle.entries {
            if there.insert(entry.stored.descriptor.digest().to_string()) {
                cache.put_blob(&entry.stored.descriptor, content(entry, store)?).await?;
            }
        }
        cache.put(bundle.key, &manifest).await?;
        written += 1;
    }
    Ok(written)
}

/// A layer's bytes, fetched only where they are needed.
fn content(entry: &Entry, store: &Store) -> Result<Content, Error> {
    let blob = entry.stored.descriptor.clone();
    let digest = Digest::try_from(blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
    let (store, origin, runtime) = (store.clone(), entry.origin.clone(), Handle::current());
    Ok(Content::Later(Arc::new(move || {
        if let Origin::Cached { cache, step } = &origin
            && matches!(store.blob(&digest, Some(blob.size())), Ok(None))
        {
            runtime.block_on(cache.fetch(*step, &blob)).map_err(|e| e.to_string())?;
        }
        match store.blob(&digest, Some(blob.size())) {
            Ok(Some(found)) => Ok(found.into_file()),
            Ok(None) => Err(format!("{digest} is gone from the store")),
            Err(e) => Err(e.to_string()),
        }
    })))
}
