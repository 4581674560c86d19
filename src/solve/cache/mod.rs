//! Caches outside of the store: what one machine built, for another one whose disk is empty.
//!
//! [`bundle`] is what is kept under a key. Two kinds of places keep it, [`Registry`] and [`Folder`]. Nothing that a cache
//! says or fails to say makes a build fail: what it gives is checked ([`Bundle::parse`], the digests of blobs), and what
//! isn't right is told and passed over. A hit is believed before its blob was seen; where the blob then can't be had,
//! [`Caches::gave_way`] says so and the build has to be done again without.

pub mod bundle;
#[cfg(test)]
mod bundle_tests;
mod export;
mod folder;
mod registry;

pub use bundle::Bundle;
pub use export::{Exported, export};
pub use folder::Folder;
pub use registry::Registry;

use super::chain::Origin;
use super::record::Record;
use crate::oci::{Descriptor, Reference};
use crate::registry::Content;
use crate::report::{Event, Reporter, Step};
use crate::store::Key;
use std::collections::HashMap;
use std::fmt::Debug;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// How long a cache is waited for, however many keys it is asked for.
const PATIENCE: Duration = Duration::from_secs(15);
/// How many questions are on their way at once.
const AT_ONCE: usize = 32;
/// The largest manifest that is read, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;

/// What a cache couldn't do. It is told and passed over.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry's.
    #[error(transparent)]
    Registry(#[from] crate::registry::Error),
    /// The store's.
    #[error(transparent)]
    Store(#[from] crate::store::Error),
    /// A download's.
    #[error(transparent)]
    Source(#[from] crate::source::Error),
    /// The disk's.
    #[error("can't {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// Something that kiln doesn't take.
    #[error("{0}")]
    Refused(String),
}

/// An answer that may take its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A place that keeps manifests by key and blobs by digest.
pub trait CacheStore: Debug + Send + Sync {
    /// What people call it.
    fn name(&self) -> String;
    /// The manifest of a key, unverified.
    fn get(&self, key: Key) -> Answer<'_, Option<Vec<u8>>>;
    /// Brings a blob into the store, verified.
    fn fetch<'a>(&'a self, step: Step, blob: &'a Descriptor) -> Answer<'a, ()>;
    /// Keeps a blob.
    fn put_blob<'a>(&'a self, blob: &'a Descriptor, content: Content) -> Answer<'a, ()>;
    /// Keeps a manifest whose blobs are there.
    fn put<'a>(&'a self, key: Key, manifest: &'a [u8]) -> Answer<'a, ()>;
    /// The repository that its blobs are in, where it is one.
    fn repository(&self) -> Option<&Reference>;
}

/// A cache that a build asks.
#[derive(Debug)]
pub struct Source {
    store: Arc<dyn CacheStore>,
    /// It failed once and isn't asked again.
    silent: AtomicBool,
    /// It had no blob for one of its records.
    gave_way: AtomicBool,
}

impl Source {
    /// The repository that its blobs are in, where it is one.
    pub fn repository(&self) -> Option<&Reference> {
        self.store.repository()
    }

    /// Brings a blob of one of its records into the store.
    ///
    /// # Errors
    /// Whatever went wrong; then the build can't be finished with what this cache said.
    pub async fn fetch(&self, step: Step, blob: &Descriptor) -> Result<(), Error> {
        let fetched = self.store.fetch(step, blob).await;
        if fetched.is_err() {
            self.give_way();
        }
        fetched
    }

    /// One of its records was no good.
    pub fn give_way(&self) {
        self.gave_way.store(true, Ordering::Release);
    }

    async fn ask(self: Arc<Self>, key: Key) -> Result<Option<Bundle>, Error> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(None) };
        let origin = Origin::Cached { cache: self.clone(), step: 0 };
        Bundle::parse(&bytes, key, &origin).map(Some).map_err(Error::Refused)
    }
}

/// Which steps an export takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// Those whose layers the images list.
    #[default]
    Min,
    /// All.
    Max,
}

/// The caches of a build.
#[derive(Debug, Default)]
pub struct Caches {
    from: Vec<Arc<Source>>,
    /// Where results go.
    pub to: Vec<(Arc<dyn CacheStore>, Mode)>,
}

/// Records that caches gave, by their keys.
pub type Found = HashMap<Key, (Record, Origin)>;

impl Caches {
    /// Asks `from` and exports to `to`.
    pub fn new(from: Vec<Arc<dyn CacheStore>>, to: Vec<(Arc<dyn CacheStore>, Mode)>) -> Self {
        let source =
            |store| Arc::new(Source { store, silent: AtomicBool::new(false), gave_way: AtomicBool::new(false) });
        Self { from: from.into_iter().map(source).collect(), to }
    }

    /// Whether there is anybody to ask.
    pub fn can_be_asked(&self) -> bool {
        self.from.iter().any(|s| !s.silent.load(Ordering::Acquire))
    }

    /// Whether a build failed because a cache hadn't what its records said.
    pub fn gave_way(&self) -> bool {
        self.from.iter().any(|s| s.gave_way.load(Ordering::Acquire))
    }

    /// What to export, where anything is.
    pub fn exported(&self) -> Option<Mode> {
        let max = self.to.iter().any(|(_, mode)| *mode == Mode::Max);
        (!self.to.is_empty()).then_some(if max { Mode::Max } else { Mode::Min })
    }

    /// Asks all caches for all keys at once and adds what they know. Earlier keys and caches win.
    pub async fn ask(&self, keys: &[Key], found: &mut Found, reporter: &Reporter) {
        for source in self.from.iter().filter(|s| !s.silent.load(Ordering::Acquire)) {
            let mut bundles = Vec::new();
            let asked = tokio::time::timeout(PATIENCE, all(source, keys, &mut bundles, reporter)).await;
            let failed = match asked {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some(e.to_string()),
                Err(_) => Some(format!("no answer within {} seconds", PATIENCE.as_secs())),
            };
            if let Some(why) = failed {
                source.silent.store(true, Ordering::Release);
                let name = source.store.name();
                reporter.send(Event::Note(format!("warning: the cache {name} isn't asked any more: {why}")));
            }
            bundles.sort_by_key(|(number, _)| *number);
            bundles.into_iter().for_each(|(_, bundle)| add(found, bundle));
        }
    }
}

/// Asks one cache for all keys. What is no record of its key is told and left out.
async fn all(
    source: &Arc<Source>,
    keys: &[Key],
    bundles: &mut Vec<(usize, Bundle)>,
    reporter: &Reporter,
) -> Result<(), Error> {
    let mut asked = JoinSet::new();
    let permits = Arc::new(Semaphore::new(AT_ONCE));
    for (number, key) in keys.iter().enumerate() {
        let (source, permits, key) = (source.clone(), permits.clone(), *key);
        asked.spawn(async move {
            // The semaphore is never closed.
            let _permit = permits.acquire().await.ok();
            (number, source.ask(key).await)
        });
    }
    while let Some(done) = asked.join_next().await {
        match done.map_err(|e| Error::Refused(e.to_string()))? {
            (number, Ok(Some(bundle))) => bundles.push((number, bundle)),
            (_, Ok(None)) => {}
            (_, Err(Error::Refused(why))) => {
                let name = source.store.name();
                reporter.send(Event::Note(format!("warning: a record of the cache {name} is refused: {why}")));
            }
            (_, Err(e)) => return Err(e),
        }
    }
    Ok(())
}

fn add(found: &mut Found, bundle: Bundle) {
    for entry in bundle.entries {
        for key in &entry.step.keys {
            found.entry(*key).or_insert_with(|| (entry.record(*key), entry.origin.clone()));
        }
    }
}
