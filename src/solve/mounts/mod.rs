//! Cache mounts from machine to machine: what `RUN --mount=type=cache` left on one, for another one whose disk is empty.
//!
//! Each mount is an [`artifact`] of its own in a place that keeps caches ([`CacheStore`]): in a repository, under a tag that
//! is made of the mount's key. So two jobs with other mounts never meet, and of two with the same the last one wins.
//!
//! - Nothing is fetched before a RUN needs it: not for a step that is cached, not where the store has the folder already.
//! - After a build that went well, the folders that its steps used are written, but for those that are as they were.
//! - Nothing that a place says or fails to say makes a build fail. What it gives is verified and confined; what isn't right
//!   is told, and the cache begins empty, as it does on every new machine.

mod artifact;
mod contents;
#[cfg(test)]
mod tests;

use super::cache::{CacheStore, Error};
use super::env::Env;
use crate::layer::{Compression, LayerReader};
use crate::oci::Digest;
use crate::registry::Content;
use crate::report::{Event, Reporter, Step};
use crate::source::stopped;
use crate::store::{Blob, Key, RawIngest, Store, TempSnapshot, Use};
use crate::sys::Cancel;
use artifact::Artifact;
use std::collections::BTreeMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::task::spawn_blocking;

/// A place that keeps cache mounts, and which of them.
#[derive(Debug, Clone)]
pub struct Place {
    /// The place.
    pub store: Arc<dyn CacheStore>,
    /// Only mounts of these ids; all where there are none.
    pub ids: Vec<String>,
    /// The most bytes that a mount's files may have together; larger ones stay where they are.
    pub max_size: Option<u64>,
    /// How what is written is compressed.
    pub compression: Compression,
}

impl Place {
    fn has(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.iter().any(|i| i == id)
    }
}

/// A cache mount by its names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Named {
    /// The folder's key in the store, the same on all machines.
    pub key: Key,
    /// Its id in the Dockerfile.
    pub id: String,
}

/// A place that is asked, until it fails.
#[derive(Debug)]
struct Source {
    place: Place,
    silent: AtomicBool,
}

/// Where cache mounts come from and go to, and which ones a build has used.
#[derive(Debug, Default)]
pub struct CacheMounts {
    from: Vec<Source>,
    to: Vec<Place>,
    /// With the mount's id and how it was used.
    used: Mutex<BTreeMap<Key, (String, Use)>>,
}

impl CacheMounts {
    /// Fetches what is missing from the places `from`, earlier ones first, and writes to all of `to`.
    pub fn new(from: Vec<Place>, to: Vec<Place>) -> Self {
        let source = |place| Source { place, silent: AtomicBool::new(false) };
        Self { from: from.into_iter().map(source).collect(), to, used: Mutex::default() }
    }

    /// Whether a mount may be had from anywhere.
    pub fn can_have(&self, id: &str) -> bool {
        self.from.iter().any(|s| s.place.has(id) && !s.silent.load(Ordering::Acquire))
    }

    /// Notes that a step uses a mount.
    pub(super) fn note(&self, mount: &Named, usage: Use) {
        if self.to.iter().any(|place| place.has(&mount.id)) {
            let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
            used.insert(mount.key, (mount.id.clone(), usage));
        }
    }

    /// Fetches the content of a mount into a folder of its own: `fs` of the result. Nothing, where no place has it; what
    /// fails is told. Blocks; to be called within a runtime.
    pub(super) fn fetch(&self, env: &Env, step: Step, mount: &Named) -> Option<TempSnapshot> {
        for source in self.from.iter().filter(|s| s.place.has(&mount.id) && !s.silent.load(Ordering::Acquire)) {
            let tell = |text: String| env.reporter.send(Event::Note(text));
            let name = source.place.store.name();
            match source.fetch(env, step, mount) {
                Ok(Some((folder, bytes))) => {
                    tell(format!("the cache mount {:?} comes from {name} ({bytes} bytes)", mount.id));
                    return Some(folder);
                }
                Ok(None) => {}
                Err(_) if env.cancel.is_cancelled() => return None,
                Err(e) => {
                    let ended = if source.silent.load(Ordering::Acquire) { "; it isn't asked any more" } else { "" };
                    tell(format!("warning: the cache mount {:?} can't be had from {name}: {e}{ended}", mount.id));
                }
            }
        }
        None
    }

    /// Writes the mounts that the build has used to all places that want them. What fails is told; the build has its
    /// result already.
    pub async fn export(&self, store: &Store, reporter: &Reporter, cancel: &Cancel, threads: NonZeroUsize) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for place in &self.to {
            for (key, (id, usage)) in used.iter().filter(|(_, (id, _))| place.has(id)) {
                let job = Job { place, store, cancel, threads, key: *key, id, usage: *usage };
                let done = tokio::select! {
                    done = job.run() => done,
                    () = stopped(cancel) => return,
                };
                let name = place.store.name();
                // Whoever doesn't answer for one wouldn't for the next; a folder that can't be read is one of several.
                let gives_up = matches!(&done, Err(e) if !matches!(e, Error::Refused(_) | Error::Store(_)));
                reporter.send(Event::Note(match done {
                    Ok(Done::Same) => format!("the cache mount {id:?} in {name} is up to date"),
                    Ok(Done::Written(bytes)) => format!("wrote the cache mount {id:?} to {name} ({bytes} bytes)"),
                    Ok(Done::TooLarge(bytes)) => {
                        format!(
                            "the cache mount {id:?} isn't written to {name}: its {bytes} bytes are more than max-size"
                        )
                    }
                    Err(e) => format!("warning: the cache mount {id:?} isn't written to {name}: {e}"),
                }));
                if gives_up {
                    break;
                }
            }
        }
    }
}

impl Source {
    fn fetch(&self, env: &Env, step: Step, mount: &Named) -> Result<Option<(TempSnapshot, u64)>, Error> {
        let runtime = tokio::runtime::Handle::current();
        let (place, store) = (&self.place, &self.place.store);
        let asked = runtime.block_on(or_stopped(&env.cancel, store.get(mount.key)));
        // A place that has one broken mount may have others that are whole; one that can't be asked hasn't.
        let asked = asked.inspect_err(|_| self.silent.store(true, Ordering::Release));
        let Some(manifest) = asked? else { return Ok(None) };
        let artifact = Artifact::parse(&manifest, mount.key).map_err(Error::Refused)?;
        let most = place.max_size.unwrap_or(u64::MAX);
        if artifact.contents.bytes > most {
            return Err(Error::Refused(format!("its {} bytes are more than max-size", artifact.contents.bytes)));
        }
        let digest = Digest::try_from(artifact.blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
        // The blob goes again as soon as it is unpacked, but not under somebody who has fetched the same.
        let turn = super::key::named("cache mount's blob", digest.as_str());
        let _turn = env.store.lock(&turn, &env.cancel, &mut || ())?;
        let had = env.store.blob(&digest, None)?.is_some();
        runtime.block_on(or_stopped(&env.cancel, store.fetch(step, &artifact.blob)))?;
        let unpacked = unpack(&env.store, &artifact, &digest);
        if !had {
            env.store.discard_blob(&digest)?;
        }
        unpacked.map(|folder| Some((folder, artifact.contents.bytes)))
    }
}

/// The content of a fetched artifact in a folder of its own.
fn unpack(store: &Store, artifact: &Artifact, digest: &Digest) -> Result<TempSnapshot, Error> {
    let Some(blob) = store.blob(digest, Some(artifact.blob.size()))? else {
        return Err(Error::Refused(format!("{digest} is gone from the store")));
    };
    let folder = store.new_snapshot()?;
    let read = |blob: Blob| LayerReader::new(blob.into_file(), digest, artifact.blob.size(), Some(&artifact.diff_id));
    let unpacked = read(blob)
        .map_err(|e| broken(&e))
        .and_then(|tar| contents::unpack(tar, folder.fs(), artifact.contents.bytes).map_err(|e| broken(&e)));
    unpacked.map(|()| folder)
}

/// Everything that is wrong, since those who read it have only this line.
fn broken(error: &(dyn std::error::Error + 'static)) -> Error {
    let causes = std::iter::successors(Some(error), |e| e.source()).map(ToString::to_string);
    Error::Refused(causes.collect::<Vec<_>>().join(": "))
}

async fn or_stopped<T>(cancel: &Cancel, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    tokio::select! {
        done = work => done,
        () = stopped(cancel) => Err(crate::store::Error::Cancelled.into()),
    }
}

/// One mount on its way to a place.
struct Job<'a> {
    place: &'a Place,
    store: &'a Store,
    cancel: &'a Cancel,
    threads: NonZeroUsize,
    key: Key,
    id: &'a str,
    usage: Use,
}

/// What became of it; sizes are those of the files.
enum Done {
    Same,
    Written(u64),
    TooLarge(u64),
}

impl Job<'_> {
    async fn run(&self) -> Result<Done, Error> {
        let now = self.in_folder(|folder| contents::look(folder).map_err(|e| broken(&e))).await?;
        if self.place.max_size.is_some_and(|most| now.bytes > most) {
            return Ok(Done::TooLarge(now.bytes));
        }
        // What is there may be no content of a mount; then it is written over.
        let known = self.place.store.get(self.key).await?.and_then(|bytes| Artifact::parse(&bytes, self.key).ok());
        if known.is_some_and(|known| known.contents == now) {
            return Ok(Done::Same);
        }
        let (artifact, packed) = self.pack().await?;
        let file = File::open(packed.path()).map_err(|source| io("open", packed.path(), source))?;
        self.place.store.put_blob(&artifact.blob, Content::File(Arc::new(file))).await?;
        self.place.store.put(self.key, &artifact.to_bytes()).await?;
        Ok(Done::Written(artifact.contents.bytes))
    }

    /// Packs the folder into a temporary file, which goes with the second result.
    async fn pack(&self) -> Result<(Artifact, RawIngest), Error> {
        let (compression, threads, key, id) = (self.place.compression, self.threads, self.key, self.id.to_owned());
        let out = self.store.ingest_unhashed()?;
        self.in_folder(move |folder| {
            let (contents, packed, out) = contents::pack(folder, out, compression, threads).map_err(|e| broken(&e))?;
            let blob = packed.descriptor();
            Ok((Artifact { key, id, contents, blob, diff_id: packed.diff_id }, out))
        })
        .await
    }

    /// Does something with the folder while it is held as the mount's `sharing` says.
    async fn in_folder<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Path) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (store, cancel, key, usage) = (self.store.clone(), self.cancel.clone(), self.key, self.usage);
        let done = spawn_blocking(move || {
            let gone = |_: &Path| Err(Error::Refused("its folder is gone from the store".into()));
            let held = store.cache_mount(&key, usage, &cancel, &gone)?;
            work(held.folder())
        });
        done.await.map_err(|e| Error::Refused(e.to_string()))?
    }
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { what, path: path.display().to_string(), source }
}
