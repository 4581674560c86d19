//! The layers of base images: downloaded and unpacked only when a step must read them.

use super::error::{Error, Result};
use super::growing::{Follower, Grower, growing};
use super::stopped;
use super::unpack::{check_media_type, unpack};
use crate::oci::{Descriptor, Digest, Reference};
use crate::plan::op::{BaseLayer, ImageOp};
use crate::registry::Client;
use crate::report::{Event, Reporter, Step};
use crate::snapshot::Layers;
use crate::store::{Key, Snapshot, SnapshotInfo, Store};
use crate::sys::Cancel;
use std::fs::File;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, spawn_blocking};

/// How many blobs are downloaded at once, as Docker does.
const AT_ONCE: usize = 3;
/// How often a download tells how far it is.
const TELL: Duration = Duration::from_millis(100);

/// Fetches layers. Clones share the limit on downloads.
#[derive(Debug, Clone)]
pub struct Puller {
    store: Store,
    registry: Client,
    reporter: Reporter,
    cancel: Cancel,
    downloads: Arc<Semaphore>,
}

impl Puller {
    /// Fetches from `registry` into `store`.
    pub fn new(store: Store, registry: Client, reporter: Reporter, cancel: Cancel) -> Self {
        Self { store, registry, reporter, cancel, downloads: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Sees to it that a layer's blob is in the store, verified. `step` is who needs it.
    ///
    /// # Errors
    /// What the registry or the store says.
    pub async fn fetch(&self, step: Step, image: &ImageOp, index: usize) -> Result<()> {
        let layer = layer_of(image, index)?;
        let (grower, _) = growing();
        self.download(step, &Place::of(image), &layer.descriptor, grower).await
    }

    /// As [`Puller::fetch`], for a blob that a repository is known to have.
    ///
    /// # Errors
    /// What the registry or the store says.
    pub async fn fetch_from(&self, step: Step, repository: &Reference, blob: &Descriptor) -> Result<()> {
        let (grower, _) = growing();
        self.download(step, &Place::Registry(repository.clone()), blob, grower).await
    }

    /// Sees to it that all layers of an image are unpacked, and returns them. `keys` are those
    /// of the snapshots, one for each layer. Missing blobs are downloaded at once, and each layer is unpacked while it
    /// comes, as soon as the one below is there. Two builds in one store do each layer once.
    ///
    /// # Errors
    /// [`Error::DiffId`], [`Error::Unpack`], [`Error::MediaType`] for layers that aren't what they should be.
    pub async fn unpacked(&self, step: Step, image: &ImageOp, keys: &[Key]) -> Result<Layers> {
        let (store, all) = (self.store.clone(), keys.to_vec());
        let found: Vec<_> = spawn_blocking(move || all.iter().map(|k| at_hand(&store, k)).collect()).await?;
        let mut coming = Vec::new();
        for (index, found) in found.into_iter().enumerate() {
            coming.push(match found? {
                Some(snapshot) => Coming::There(snapshot),
                None => self.start(step, image, index)?,
            });
        }
        let mut done = Layers::default();
        for (index, (coming, key)) in coming.into_iter().zip(keys).enumerate() {
            let snapshot = match coming {
                Coming::There(snapshot) => snapshot,
                Coming::Started { follower, download } => {
                    let job = Job { layer: layer_of(image, index)?.clone(), key: *key, parents: done.clone() };
                    self.finish(job, follower, download).await?
                }
            };
            done = done.push(&snapshot.folder);
        }
        Ok(done)
    }

    /// Unpacks one layer, whose blob the store has, upon `parents`.
    ///
    /// # Errors
    /// As [`Puller::unpacked`]; [`Error::Worker`] where the blob is gone.
    pub async fn unpack_stored(&self, layer: BaseLayer, key: Key, parents: Layers) -> Result<Snapshot> {
        let digest = digest_of(&layer.descriptor)?;
        let Some(found) = self.store.blob(&digest, Some(layer.descriptor.size()))? else {
            return Err(Error::Worker(format!("the stored layer {digest} is gone")));
        };
        let (grower, follower) = growing();
        let size = found.size;
        grower.complete(found.into_file(), size);
        let (store, cancel) = (self.store.clone(), self.cancel.clone());
        spawn_blocking(move || Job { layer, key, parents }.run(&store, follower, &cancel)).await?
    }

    /// Starts the download of a layer, if it isn't there.
    fn start(&self, step: Step, image: &ImageOp, index: usize) -> Result<Coming> {
        let layer = layer_of(image, index)?;
        check_media_type(&layer.descriptor)?;
        let (grower, follower) = growing();
        let (puller, place, descriptor) = (self.clone(), Place::of(image), layer.descriptor.clone());
        let task = async move { puller.download(step, &place, &descriptor, grower).await };
        Ok(Coming::Started { follower, download: Download(tokio::spawn(task)) })
    }

    /// Unpacks a layer that is there or on its way.
    async fn finish(&self, job: Job, follower: Follower, mut download: Download) -> Result<Snapshot> {
        let (store, cancel, watch) = (self.store.clone(), self.cancel.clone(), follower.watch());
        let unpacked = spawn_blocking(move || job.run(&store, follower, &cancel)).await?;
        if unpacked.is_err() && watch.is_broken() {
            // The unpacker only saw that no more came; the download knows why.
            (&mut download.0).await??;
        }
        unpacked
    }

    /// Downloads a blob unless the store has it or another build is about to; `grower` gives it on meanwhile.
    async fn download(&self, step: Step, from: &Place, blob: &Descriptor, grower: Grower) -> Result<()> {
        let digest = digest_of(blob)?;
        if let Some(found) = self.store.blob(&digest, Some(blob.size()))? {
            let size = found.size;
            grower.complete(found.into_file(), size);
            return Ok(());
        }
        let _permit = self.downloads.acquire().await;
        let (store, cancel, key) = (self.store.clone(), self.cancel.clone(), download_key(&digest));
        let _lock = spawn_blocking(move || store.lock(&key, &cancel, &mut || ())).await??;
        if let Some(found) = self.store.blob(&digest, Some(blob.size()))? {
            let size = found.size;
            grower.complete(found.into_file(), size);
            return Ok(());
        }
        match from {
            Place::Layout(layout) => {
                let (store, layout) = (self.store.clone(), layout.clone());
                let found = spawn_blocking(move || copy_from_layout(&store, &layout, &digest)).await??;
                grower.complete(found, blob.size());
            }
            Place::Registry(reference) => {
                tokio::select! {
                    done = self.receive(step, reference, blob, &digest, &grower) => done?,
                    () = stopped(&self.cancel) => return Err(Error::Cancelled),
                }
                grower.finish();
                let (store, reference) = (self.store.clone(), reference.clone());
                spawn_blocking(move || super::note_repository(&store, &digest, &reference)).await??;
            }
        }
        Ok(())
    }

    /// Writes a blob as it comes, and puts it into the store once it is verified.
    async fn receive(
        &self,
        step: Step,
        from: &Reference,
        blob: &Descriptor,
        digest: &Digest,
        grower: &Grower,
    ) -> Result<()> {
        let mut ingest = self.store.ingest_unhashed()?;
        let open = File::open(ingest.path());
        grower.start(open.map_err(|e| write_failed(&ingest, e))?);
        let mut incoming = self.registry.blob(from, blob)?;
        let mut told = Instant::now();
        while let Some(chunk) = incoming.chunk().await? {
            // Into the page cache: not worth another thread.
            ingest.write_all(&chunk).map_err(|e| write_failed(&ingest, e))?;
            grower.grown(ingest.size());
            if told.elapsed() >= TELL {
                self.tell(step, digest, ingest.size(), blob.size());
                told = Instant::now();
            }
        }
        self.tell(step, digest, blob.size(), blob.size());
        Ok(ingest.commit(digest)?)
    }

    fn tell(&self, step: Step, digest: &Digest, done: u64, total: u64) {
        self.reporter.send(Event::Progress { step, what: digest.to_string(), done, total: Some(total) });
    }
}

/// The lock of a blob's download. It must not be the digest itself: the chain ID of an uncompressed first layer is that
/// digest too, and whoever unpacks the layer holds the chain ID's lock while it waits for the download.
fn download_key(digest: &Digest) -> Key {
    Key::of(format!("download\0{digest}").as_bytes())
}

/// The records of which other snapshot has the files of an image's layer.
const SAME: &str = "same";

/// Notes that a layer of an image, by its chain id, needn't be unpacked: the snapshot of the step that made it is the same.
///
/// # Errors
/// What the store says.
pub fn note_same(store: &Store, chain: &Key, snapshot: &Key) -> Result<()> {
    if store.record::<Key>(SAME, chain)?.as_ref() != Some(snapshot) {
        store.put_record(SAME, chain, snapshot)?;
    }
    Ok(())
}

/// The snapshot of an image's layer, unpacked or of the step that made it.
fn at_hand(store: &Store, chain: &Key) -> Result<Option<Snapshot>> {
    if let Some(own) = store.snapshot(chain)? {
        return Ok(Some(own));
    }
    match store.record::<Key>(SAME, chain)? {
        Some(other) => Ok(store.snapshot(&other)?),
        None => Ok(None),
    }
}

/// Where an image's blobs are.
#[derive(Debug, Clone)]
enum Place {
    Registry(Reference),
    /// An OCI layout, by its name.
    Layout(String),
}

impl Place {
    fn of(image: &ImageOp) -> Self {
        match &image.layout {
            Some(layout) => Self::Layout(layout.clone()),
            None => Self::Registry(image.reference.clone()),
        }
    }
}

/// Copies a blob of a layout into the store, verified, so that the image can be exported without the layout.
fn copy_from_layout(store: &Store, layout: &str, digest: &Digest) -> Result<File> {
    let mut from = super::layout::Layout::open(layout)?.blob(digest)?;
    let mut ingest = store.ingest_expecting(digest)?;
    let written = std::io::copy(&mut from, &mut ingest);
    written.map_err(|source| crate::store::Error::Io { what: "write", path: ingest.path().into(), source })?;
    ingest.commit(Some(digest))?;
    let path = store.blob_path(digest);
    File::open(&path).map_err(|source| Error::Io { what: "open", path, source })
}

/// A layer that is there, or on its way.
enum Coming {
    There(Snapshot),
    Started { follower: Follower, download: Download },
}

/// A running download, stopped when nobody waits for it any more.
struct Download(JoinHandle<Result<()>>);

impl Drop for Download {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A layer to unpack.
struct Job {
    layer: BaseLayer,
    key: Key,
    /// The layers below.
    parents: Layers,
}

impl Job {
    fn run(self, store: &Store, blob: Follower, cancel: &Cancel) -> Result<Snapshot> {
        let _lock = store.lock(&self.key, cancel, &mut || ())?;
        if let Some(theirs) = store.snapshot(&self.key)? {
            return Ok(theirs);
        }
        let digest = digest_of(&self.layer.descriptor)?;
        let temp = store.new_snapshot()?;
        unpack(Stoppable { blob, cancel }, &digest, &self.layer.diff_id, &self.parents, &temp)
            .map_err(|error| if cancel.is_cancelled() { Error::Cancelled } else { blame(store, &digest, error) })?;
        let info = SnapshotInfo { driver: "overlay".into(), size: None, note: digest.to_string() };
        Ok(store.commit_snapshot(temp, &self.key, info)?)
    }
}

/// What was wrong with a layer that couldn't be unpacked: perhaps only the stored copy, which is taken away then.
fn blame(store: &Store, digest: &Digest, error: Error) -> Error {
    if !matches!(error, Error::Unpack { .. } | Error::DiffId { .. }) {
        return error;
    }
    let checked =
        store.blob(digest, None).ok().flatten().map(|b| std::io::copy(&mut b.verified(), &mut std::io::sink()));
    match checked {
        Some(Err(e)) if e.kind() == std::io::ErrorKind::InvalidData => {
            crate::store::Error::Damaged(digest.clone()).into()
        }
        _ => error,
    }
}

/// A blob that is read no further once the build is stopped.
struct Stoppable<'a> {
    blob: Follower,
    cancel: &'a Cancel,
}

impl std::io::Read for Stoppable<'_> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(std::io::Error::other("stopped"));
        }
        self.blob.read(buf)
    }
}

fn write_failed(ingest: &crate::store::RawIngest, source: std::io::Error) -> Error {
    crate::store::Error::Io { what: "write", path: ingest.path().into(), source }.into()
}

fn layer_of(image: &ImageOp, index: usize) -> Result<&BaseLayer> {
    image.layers.get(index).ok_or_else(|| Error::Worker(format!("{} has no layer {index}", image.reference)))
}

fn digest_of(blob: &Descriptor) -> Result<Digest> {
    // Checked when the manifest was read; kept total all the same.
    Digest::try_from(blob.digest()).map_err(|e| Error::Worker(e.to_string()))
}
