//! Caches outside of the store: what one machine built, for another one whose disk is empty.
//!
//! [`bundle`] is what is kept under a key. Three kinds of places keep it, [`Registry`], [`Folder`] and [`Actions`]; an image
//! may carry that of its own steps ([`inline`]). Nothing that a cache says or fails to say makes a build fail: what it gives
//! is checked ([`Bundle::parse`], the digests of blobs), and what isn't right is told and passed over. A hit is believed
//! before its blob was seen; where the blob then can't be had, or isn't what the record said, [`Caches::gave_way`] says so and
//! the build has to be done again without.
//!
//! **What a cache is trusted with.** Whoever may write a cache decides what files a step gave: a key says what was asked for,
//! and nothing can prove that these files are the answer, short of running the step. All the rest is checked: that a record
//! is of its key, that each blob has its digest, and, wherever a layer's bytes pass through kiln (unpacked, kept, or sent to a
//! registry that lacks it), that they are the tar whose diff id the record names ([`Source::fetch_layer`]). A layer of which
//! no byte is moved, since the registry has it or mounts it, isn't downloaded to be checked: a record that lies there gives
//! an image that no runtime unpacks, which is less than the same writer can do with a right diff id. Keys that a record
//! claims besides the one that was asked for are passed on with it, but no record is kept under them.

mod actions;
pub mod bundle;
#[cfg(test)]
mod bundle_tests;
mod export;
mod folder;
pub mod inline;
mod registry;

pub use actions::{Actions, ActionsAt};
pub use bundle::Bundle;
pub use export::{Exported, export};
pub use folder::Folder;
pub use registry::Registry;

use super::chain::{Origin, StoredLayer};
use super::record::{Record, is_fresh};
use crate::layer::LayerReader;
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{Client, Content};
use crate::report::{Event, Reporter, Step};
use crate::store::{Key, Store};
use bundle::Entry;
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

/// How long a silent server is waited for by whoever writes or fetches layers, and how often they try.
const SILENCE: Duration = Duration::from_secs(20);
const ATTEMPTS: u32 = 2;

/// A client for what can be done without: it soon gives up.
pub fn client(registry: &Client) -> Client {
    registry.hurried(ATTEMPTS, SILENCE)
}

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

impl Error {
    /// Whether nobody answered, or not as a server does: asking again will hardly help.
    fn is_absence(&self) -> bool {
        use crate::registry::Error as E;
        matches!(self, Self::Registry(E::Unreachable { .. } | E::Timeout { .. } | E::Tls { .. } | E::Broken { .. }))
    }
}

/// An answer that may take its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// A place that keeps manifests by key and blobs by digest.
pub trait CacheStore: Debug + Send + Sync {
    /// What people call it.
    fn name(&self) -> String;
    /// The manifest of a key, unverified.
    fn get(&self, key: Key) -> Answer<'_, Option<Vec<u8>>>;
    /// Records that come without being asked for by their keys: those that an image carries, whose layers are `origin`'s.
    fn carried<'a>(&'a self, _origin: &'a Origin) -> Answer<'a, Vec<Entry>> {
        Box::pin(async { Ok(Vec::new()) })
    }
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
    /// It failed because nobody answered.
    absent: AtomicBool,
    /// It had no blob for one of its records.
    gave_way: AtomicBool,
    /// It gave all that comes without asking for keys.
    carried: AtomicBool,
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
        let longest = longest(blob.size());
        let late = |_| Error::Refused(format!("{} isn't there after {} seconds", blob.digest(), longest.as_secs()));
        let fetched = tokio::time::timeout(longest, self.store.fetch(step, blob)).await.map_err(late).flatten();
        if fetched.is_err() {
            self.give_way();
        }
        fetched
    }

    /// As [`Source::fetch`], for a layer that nobody unpacks here: it is the one that the record says.
    ///
    /// # Errors
    /// As [`Source::fetch`].
    pub async fn fetch_layer(&self, step: Step, layer: &StoredLayer, store: &Store) -> Result<(), Error> {
        self.fetch(step, &layer.descriptor).await?;
        let (layer, store) = (layer.clone(), store.clone());
        let checked = tokio::task::spawn_blocking(move || check_layer(&layer, &store)).await;
        let checked = checked.unwrap_or_else(|e| Err(Error::Refused(e.to_string())));
        if checked.is_err() {
            self.give_way();
        }
        checked
    }

    /// One of its records was no good.
    pub fn give_way(&self) {
        self.gave_way.store(true, Ordering::Release);
    }

    async fn ask(self: Arc<Self>, key: Key) -> Result<Vec<Entry>, Error> {
        let Some(bytes) = self.store.get(key).await? else { return Ok(Vec::new()) };
        let origin = Origin::Cached { cache: self.clone(), step: 0 };
        Bundle::parse(&bytes, key, &origin).map(|bundle| bundle.entries).map_err(Error::Refused)
    }

    async fn ask_for_carried(self: Arc<Self>) -> Result<Vec<Entry>, Error> {
        if self.carried.swap(true, Ordering::AcqRel) {
            return Ok(Vec::new());
        }
        let origin = Origin::Cached { cache: self.clone(), step: 0 };
        self.store.carried(&origin).await
    }
}

/// How long a layer may take: a cache that sends less than 64 KiB in a second is slower than most builds.
fn longest(size: u64) -> Duration {
    Duration::from_secs(60 + (size >> 16))
}

/// Whether a layer in the store has the content that it is said to have: its blob was verified, but not that this is the
/// blob of the files that the image's configuration will name.
fn check_layer(layer: &StoredLayer, store: &Store) -> Result<(), Error> {
    let digest = Digest::try_from(layer.descriptor.digest()).map_err(|e| Error::Refused(e.to_string()))?;
    let blob = store.blob(&digest, Some(layer.descriptor.size()))?;
    let file = blob.ok_or_else(|| Error::Refused(format!("{digest} is gone from the store")))?.into_file();
    let read = LayerReader::new(file, &digest, layer.descriptor.size(), Some(&layer.diff_id))
        .and_then(|mut reader| std::io::copy(&mut reader, &mut std::io::sink()));
    match read {
        Ok(_) => Ok(()),
        Err(e) => Err(Error::Refused(format!("{digest} isn't the layer that its record says: {e}"))),
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
    to: Vec<Target>,
}

/// Where results go.
#[derive(Debug)]
pub struct Target {
    /// The cache.
    pub store: Arc<dyn CacheStore>,
    /// Which steps it gets.
    pub mode: Mode,
    /// Whether the build fails where it can't be written.
    pub required: bool,
}

/// Records that caches gave, by their keys.
pub type Found = HashMap<Key, (Record, Origin)>;

impl Caches {
    /// Asks `from` and exports to `to`.
    pub fn new(from: Vec<Arc<dyn CacheStore>>, to: Vec<Target>) -> Self {
        let no = || AtomicBool::new(false);
        let source = |store| Arc::new(Source { store, silent: no(), absent: no(), gave_way: no(), carried: no() });
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
        let max = self.to.iter().any(|t| t.mode == Mode::Max);
        (!self.to.is_empty()).then_some(if max { Mode::Max } else { Mode::Min })
    }

    /// Whether a cache of this name was asked and nobody answered.
    fn is_absent(&self, name: &str) -> bool {
        self.from.iter().any(|s| s.absent.load(Ordering::Acquire) && s.store.name() == name)
    }

    /// Asks all caches for all keys at once and adds what they know, but for what was made before `oldest`. Earlier keys and
    /// caches win.
    pub async fn ask(&self, keys: &[Key], found: &mut Found, oldest: Option<i64>, reporter: &Reporter) {
        for source in self.from.iter().filter(|s| !s.silent.load(Ordering::Acquire)) {
            let mut answers = Vec::new();
            let asked = tokio::time::timeout(PATIENCE, all(source, keys, &mut answers, reporter)).await;
            let failed = match asked {
                Ok(Ok(())) => None,
                Ok(Err(e)) => Some((e.is_absence(), e.to_string())),
                Err(_) => Some((true, format!("no answer within {} seconds", PATIENCE.as_secs()))),
            };
            if let Some((absent, why)) = failed {
                source.silent.store(true, Ordering::Release);
                source.absent.store(absent, Ordering::Release);
                let name = source.store.name();
                reporter.send(Event::Note(format!("warning: the cache {name} isn't asked any more: {why}")));
            }
            answers.sort_by_key(|(number, _)| *number);
            let entries = answers.into_iter().flat_map(|(_, entries)| entries);
            entries.filter(|e| is_fresh(e.step.made, oldest)).for_each(|entry| add(found, &entry));
        }
    }
}

/// Asks one cache for all keys. What is no record of its key is told and left out.
async fn all(
    source: &Arc<Source>,
    keys: &[Key],
    answers: &mut Vec<(usize, Vec<Entry>)>,
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
    let carried = source.clone().ask_for_carried();
    asked.spawn(async move { (usize::MAX, carried.await) });
    while let Some(done) = asked.join_next().await {
        match done.map_err(|e| Error::Refused(e.to_string()))? {
            (number, Ok(entries)) => answers.push((number, entries)),
            (_, Err(Error::Refused(why))) => {
                let name = source.store.name();
                reporter.send(Event::Note(format!("warning: a record of the cache {name} is refused: {why}")));
            }
            (_, Err(e)) => return Err(e),
        }
    }
    Ok(())
}

fn add(found: &mut Found, entry: &Entry) {
    for key in &entry.step.keys {
        found.entry(*key).or_insert_with(|| (entry.record(*key), entry.origin.clone()));
    }
}
