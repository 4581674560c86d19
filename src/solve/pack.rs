//! A layer's snapshot to a blob in the store, while other steps run.

use super::chain::{Chain, Layer, Origin, StoredLayer};
use super::env::{Env, Listed};
use super::problem::{self, Result, blocking};
use super::record::remember;
use super::roots;
use super::worker::{Worker, is_linked};
use crate::layer::{Entry, EntrySink, Error, Packer, Timestamp};
use crate::plan::op::VertexId;
use crate::report::{Kind, Problem};
use crate::snapshot::{self, Layers};
use crate::store::RawIngest;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

impl Worker {
    /// What is to be done once a layer is there: it is packed while other steps run.
    pub fn after(self: Arc<Self>, id: VertexId, chain: &Chain, new: bool) {
        if self.forms[id].blob {
            let chain = chain.clone();
            // Whoever lists the layers waits for the same cell, and is told of what fails here.
            tokio::spawn(async move { drop(self.stored(id, &chain, new).await) });
        }
    }

    /// The blob of a chain's top layer, packed if it wasn't.
    pub async fn stored(&self, id: VertexId, chain: &Chain, new: bool) -> Result<StoredLayer> {
        let Some(top) = chain.layers().last() else {
            return Err(Problem::new(Kind::Build, "an empty root filesystem has no layer"));
        };
        let stored = top.stored.get_or_try_init(|| self.pack(id, chain, top)).await?;
        let is_cached = matches!(top.origin, Origin::Cached { .. });
        if new && !is_cached {
            remember(&self.env, top)?;
        }
        (self.env.on_layer)(&Listed { layer: stored, origin: &top.origin, new: new && !is_cached });
        Ok(stored.clone())
    }

    /// Sees to it that a chain's top layer has a blob, whether or not an image lists it.
    pub async fn packed(&self, id: VertexId, chain: &Chain) -> Result<()> {
        let Some(top) = chain.layers().last().filter(|top| top.stored.get().is_none()) else { return Ok(()) };
        top.stored.get_or_try_init(|| self.pack(id, chain, top)).await?;
        remember(&self.env, top)
    }

    /// Sees to it that a base image's layer is in the store, where all layers are wanted there.
    pub async fn at_hand(&self, layer: &Layer) -> Result<()> {
        match &layer.origin {
            Origin::Base { image, index } if self.env.options.complete => {
                self.env.puller.fetch(image.step, &image.op, *index).await.map_err(problem::from)
            }
            Origin::Cached { cache, step } if self.env.options.complete => match layer.stored.get() {
                Some(stored) => {
                    cache.fetch_layer(*step, stored, &self.env.store).await.map_err(roots::cached)?;
                    remember(&self.env, layer)
                }
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn pack(&self, id: VertexId, chain: &Chain, top: &Layer) -> Result<StoredLayer> {
        let layers = roots::layers(&self.env, chain).await?;
        let vertex = &self.plan.vertices[id];
        let linked = is_linked(&vertex.op);
        debug_assert!(matches!(top.origin, Origin::Step));
        let _permit = self.packing.acquire().await;
        let env = self.env.clone();
        blocking(move || {
            let Some((folder, parents)) = layers.pop() else {
                return Err(Problem::new(Kind::Build, "an empty root filesystem has no layer"));
            };
            pack(&env, folder, if linked { Layers::default() } else { parents })
        })
        .await
        // The step itself has ended by now: without this, nothing would say which one it was.
        .map_err(|problem| problem.at(vertex.span))
    }
}

/// Packs what the snapshot in `folder` changes in `parents`.
fn pack(env: &Env, folder: &Path, parents: Layers) -> Result<StoredLayer> {
    let mut packer = packer(env)?;
    snapshot::diff(folder, &parents, &mut packer).map_err(problem::snapshot)?;
    finish(packer)
}

/// A packer into a new blob.
pub fn packer(env: &Env) -> Result<Dated<Packer<RawIngest>>> {
    let blob = env.store.ingest_unhashed().map_err(problem::from)?;
    let packer = Packer::layer(blob, env.options.compression, env.options.threads);
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
