//! What a build made, to the caches that want it.

use super::bundle::Entry;
use super::{Bundle, CacheStore, Caches, Error, Mode};
use crate::oci::Digest;
use crate::registry::{self, Content};
use crate::report::{Event, Kind, Problem, Reporter};
use crate::solve::chain::Origin;
use crate::store::Store;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use std::collections::HashSet;
use std::sync::Arc;
use tokio::runtime::Handle;

/// How many records are asked for and written at once, and how many layers.
const RECORDS_AT_ONCE: usize = 16;
const LAYERS_AT_ONCE: usize = 4;

/// A record to export, and whether an image lists its layer.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The records of a chain.
    pub bundle: Bundle,
    /// Whether the chain is an image's.
    pub listed: bool,
}

/// Brings the results of a build into all caches, over those that were made before `oldest`.
///
/// # Errors
/// Where a cache that must be written can't be. Of the others what fails is told: the build has its result already.
pub async fn export(
    caches: &Caches,
    made: &[Exported],
    oldest: Option<i64>,
    store: &Store,
    reporter: &Reporter,
) -> Result<(), Problem> {
    for target in &caches.to {
        let name = target.store.name();
        let wanted = made.iter().filter(|e| e.listed || target.mode == Mode::Max).map(|e| &e.bundle).collect();
        let written = if caches.is_absent(&name) {
            Err(Error::Refused("nobody answered before".into()))
        } else {
            to(&*target.store, wanted, oldest, store).await
        };
        let note = match written {
            Ok(0) => format!("the cache {name} is up to date"),
            Ok(n) => format!("exported {n} records to the cache {name}"),
            Err(e) if target.required => {
                let problem = Problem::new(Kind::Network, format!("the cache {name} can't be written")).because(&e);
                return Err(problem.hint("with ignore-error=true, the default, this is only a warning"));
            }
            Err(e) => format!("warning: the cache {name} isn't written: {e}"),
        };
        reporter.send(Event::Note(note));
    }
    Ok(())
}

/// Writes what isn't there, layers before the records that name them; says how many records that were.
async fn to(cache: &dyn CacheStore, bundles: Vec<&Bundle>, oldest: Option<i64>, store: &Store) -> Result<usize, Error> {
    let asked = bundles.into_iter().map(|bundle| async move {
        let known = is_known(cache, bundle, oldest).await?;
        Ok::<_, Error>((!known).then_some(bundle))
    });
    let asked: Vec<Option<&Bundle>> = iter(asked).buffered(RECORDS_AT_ONCE).try_collect().await?;
    let missing: Vec<&Bundle> = asked.into_iter().flatten().collect();
    let mut given = HashSet::new();
    let entries = missing.iter().flat_map(|bundle| &bundle.entries);
    let entries: Vec<&Entry> = entries.filter(|e| given.insert(e.stored.descriptor.digest().to_string())).collect();
    let layers =
        entries.into_iter().map(|e| async move { cache.put_blob(&e.stored.descriptor, content(e, store)?).await });
    iter(layers).buffer_unordered(LAYERS_AT_ONCE).try_collect::<()>().await?;
    let records = missing.iter().map(|bundle| async move { cache.put(bundle.key, &bundle.to_bytes()).await });
    iter(records).buffer_unordered(RECORDS_AT_ONCE).try_collect::<()>().await?;
    Ok(missing.len())
}

/// Whether a cache has a bundle already. What is there may be damaged, or too old; then it is written over. A repository that
/// isn't there yet may be one that nobody may read, until something is written.
async fn is_known(cache: &dyn CacheStore, bundle: &Bundle, oldest: Option<i64>) -> Result<bool, Error> {
    let bytes = match cache.get(bundle.key).await {
        Err(Error::Refused(_) | Error::Registry(registry::Error::Unauthorized { .. })) => return Ok(false),
        other => other?,
    };
    let known = bytes.and_then(|b| Bundle::parse(&b, bundle.key, &Origin::Step).ok());
    Ok(known.is_some_and(|known| known.is(bundle) && known.is_fresh(oldest)))
}

/// A layer's bytes, fetched only where they are needed.
fn content(entry: &Entry, store: &Store) -> Result<Content, Error> {
    let layer = entry.stored.clone();
    let blob = layer.descriptor.clone();
    let digest = Digest::try_from(blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
    let (store, origin, runtime) = (store.clone(), entry.origin.clone(), Handle::current());
    Ok(Content::Later(Arc::new(move || {
        if let Origin::Cached { cache, step } = &origin
            && matches!(store.blob(&digest, Some(blob.size())), Ok(None))
        {
            runtime.block_on(cache.fetch_layer(*step, &layer, &store)).map_err(|e| e.to_string())?;
        }
        match store.blob(&digest, Some(blob.size())) {
            Ok(Some(found)) => Ok(found.into_file()),
            Ok(None) => Err(format!("{digest} is gone from the store")),
            Err(e) => Err(e.to_string()),
        }
    })))
}
