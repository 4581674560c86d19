//! Pushing while the build runs.

use super::{Error, digest_of};
use crate::oci::assemble::{Assembled, Document};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{Client, Content, Manifest, Upload};
use crate::report::{Event, Reporter, Step};
use bytes::Bytes;
use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Blobs up to this size take a round trip's time rather than bandwidth, so many of them go at once.
const SMALL: u64 = 256 << 10;
const SMALL_AT_ONCE: usize = 32;
/// More would share the same bandwidth, and each costs memory.
const LARGE_AT_ONCE: usize = 4;

/// A blob that a pushed image needs.
#[derive(Debug, Clone)]
pub struct PushBlob {
    /// Its digest and size.
    pub descriptor: Descriptor,
    /// Its bytes; read only if no registry has them.
    pub content: Content,
    /// The repository that it was pulled from, or is known to be in.
    pub source: Option<Reference>,
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The name, with the digest that it now leads to.
    pub reference: Reference,
    /// That digest.
    pub digest: Digest,
}

/// Uploads blobs as soon as they are there, and manifests and tags once all are. If it is dropped, or anything fails,
/// no tag appears.
pub struct Pusher {
    shared: Arc<Shared>,
    names: Vec<Reference>,
    runtime: Handle,
    tasks: Mutex<JoinSet<Result<(), Error>>>,
    given: Mutex<HashSet<Digest>>,
    /// What isn't new, as long as the whole image may be there already; `None` once something is known to be new.
    known: Mutex<Option<Vec<PushBlob>>>,
}

struct Shared {
    client: Client,
    /// One name for each repository.
    repositories: Vec<Reference>,
    small: Semaphore,
    large: Semaphore,
    reporter: Reporter,
    step: Option<Step>,
}

impl Pusher {
    /// Will push to `names`, working on `runtime`. Progress is told as that of `step`.
    pub fn new(client: Client, names: Vec<Reference>, runtime: Handle, reporter: Reporter, step: Option<Step>) -> Self {
        let mut repositories: Vec<Reference> = Vec::new();
        for name in &names {
            if !repositories.iter().any(|r| r.registry == name.registry && r.repository == name.repository) {
                repositories.push(name.clone());
            }
        }
        let (small, large) = (Semaphore::new(SMALL_AT_ONCE), Semaphore::new(LARGE_AT_ONCE));
        let shared = Arc::new(Shared { client, repositories, small, large, reporter, step });
        Self {
            shared,
            names,
            runtime,
            tasks: Mutex::default(),
            given: Mutex::default(),
            known: Mutex::new(Some(Vec::new())),
        }
    }

    /// Starts the upload of a new blob; callable from any thread, returns at once. A blob that was given before is
    /// nothing new. What fails is said by [`Pusher::finish`].
    ///
    /// # Errors
    /// If the descriptor's digest is of an algorithm that kiln doesn't know.
    pub fn layer_ready(&self, blob: PushBlob) -> Result<(), Error> {
        if lock(&self.given).insert(digest_of(&blob.descriptor)?) {
            self.send_known();
            self.send(blob, false);
        }
        Ok(())
    }

    /// Takes a blob that isn't new: a base image's, or one of a former build. It is looked at once it is clear that the
    /// registry can't have the whole image.
    ///
    /// # Errors
    /// As [`Pusher::layer_ready`].
    pub fn layer_known(&self, blob: PushBlob) -> Result<(), Error> {
        if !lock(&self.given).insert(digest_of(&blob.descriptor)?) {
            return Ok(());
        }
        match &mut *lock(&self.known) {
            Some(known) => known.push(blob),
            None => self.send(blob, true),
        }
        Ok(())
    }

    fn send(&self, blob: PushBlob, likely_there: bool) {
        let shared = Arc::clone(&self.shared);
        lock(&self.tasks).spawn_on(async move { shared.push(&blob, likely_there).await }, &self.runtime);
    }

    fn send_known(&self) {
        for blob in lock(&self.known).take().into_iter().flatten() {
            self.send(blob, true);
        }
    }

    /// Waits for the blobs, then writes the manifests and at last the names, one after another; with `by_digest`, no
    /// names.
    ///
    /// # Errors
    /// The first upload that failed; [`Error::Missing`] where a layer of `image` was never given.
    pub async fn finish(self, image: &Assembled, by_digest: bool) -> Result<Vec<Pushed>, Error> {
        let top = image.top().ok_or_else(|| Error::Unsupported("there is no image to push".into()))?;
        self.all_given(image)?;
        if lock(&self.known).is_none() || !self.is_there(top).await? {
            self.send_known();
            self.send_configs(image);
        }
        let mut tasks = self.tasks.into_inner().unwrap_or_else(PoisonError::into_inner);
        while let Some(done) = tasks.join_next().await {
            // A task ends without a result only if it panicked, since nobody aborts it.
            done.map_err(|e| Error::Unsupported(format!("an upload broke off: {e}")))??;
        }
        if image.index.is_some() {
            for one in &image.images {
                for repository in &self.shared.repositories {
                    self.shared.push_document(repository, &one.manifest, true).await?;
                }
            }
        }
        let names = if by_digest { &self.shared.repositories } else { &self.names };
        let mut pushed = Vec::new();
        for name in names {
            pushed.push(self.shared.push_document(name, top, by_digest).await?);
        }
        for one in &pushed {
            self.shared.reporter.send(Event::Note(format!("pushed {}", one.reference)));
        }
        Ok(pushed)
    }

    /// Whether every repository has the image.
    async fn is_there(&self, top: &Document) -> Result<bool, Error> {
        let digest = digest_of(&top.descriptor)?;
        for repository in &self.shared.repositories {
            if !self.shared.client.has_manifest(&repository.pinned(digest.clone())).await? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn send_configs(&self, image: &Assembled) {
        for one in &image.images {
            let content = Content::Bytes(Bytes::from(one.config.bytes.clone()));
            self.send(PushBlob { descriptor: one.config.descriptor.clone(), content, source: None }, false);
        }
    }

    fn all_given(&self, image: &Assembled) -> Result<(), Error> {
        let given = lock(&self.given);
        for layer in image.images.iter().flat_map(|i| &i.layers) {
            let digest = digest_of(&layer.descriptor)?;
            if !given.contains(&digest) {
                return Err(Error::Missing(digest));
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Brings a blob into all repositories, to the second one of a registry by mounting it from the first.
    async fn push(&self, blob: &PushBlob, likely_there: bool) -> Result<(), Error> {
        let permits = if blob.descriptor.size() <= SMALL { &self.small } else { &self.large };
        // The semaphores are never closed.
        let _permit = permits.acquire().await.ok();
        for repository in &self.repositories {
            let mut near = blob.source.iter().chain(&self.repositories);
            let upload = Upload {
                descriptor: blob.descriptor.clone(),
                content: blob.content.clone(),
                // The first repository of a registry finds itself, which the client knows to be no source.
                mount_from: near.find_map(|source| self.client.mount_source(source, repository)),
                likely_there,
                progress: self.progress(&blob.descriptor),
            };
            self.client.push_blob(repository, &upload).await?;
        }
        Ok(())
    }

    fn progress(&self, blob: &Descriptor) -> Option<crate::registry::Progress> {
        let (step, reporter, total) = (self.step?, self.reporter.clone(), Some(blob.size()));
        let what = format!("pushing {}", blob.digest());
        Some(Arc::new(move |done| {
            reporter.send(Event::Progress { step, what: what.clone(), done, total });
        }))
    }

    async fn push_document(&self, name: &Reference, document: &Document, by_digest: bool) -> Result<Pushed, Error> {
        let digest = digest_of(&document.descriptor)?;
        let manifest = Manifest { descriptor: document.descriptor.clone(), bytes: document.bytes.clone().into() };
        let pinned = name.pinned(digest.clone());
        self.client.push_manifest(if by_digest { &pinned } else { name }, &manifest).await?;
        Ok(Pushed { reference: pinned, digest })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
