//! The files of a chain: its layers' snapshots, unpacked when a step must read them and not before.

use super::chain::{BaseImage, Chain, Layer, Origin};
use super::env::Env;
use super::key::Key;
use super::problem::{self, Result};
use super::record::remember;
use crate::plan::op::{BaseLayer, ImageOp};
use crate::report::{Event, Kind, Problem};
use crate::source::Puller;
use std::path::PathBuf;
use std::time::Instant;

/// The folders of a chain's layers, topmost first; layers that aren't unpacked are, and downloaded before where needed.
pub async fn folders(env: &Env, chain: &Chain) -> Result<Vec<PathBuf>> {
    let layers = chain.layers();
    let mut folders = match layers.first().map(|l| &l.origin) {
        Some(Origin::Base { image, .. }) => image.folders.get_or_try_init(|| base(env, image, chain)).await?.clone(),
        Some(Origin::Step | Origin::Cached { .. }) | None => Vec::with_capacity(layers.len()),
    };
    for layer in layers.iter().skip(folders.len()) {
        let parents: Vec<PathBuf> = folders.iter().rev().cloned().collect();
        folders.push(layer.folder.get_or_try_init(|| folder(env, layer, parents)).await?.clone());
    }
    folders.reverse();
    Ok(folders)
}

/// The folders of a base image's layers, lowest first; what that takes is told as the image's own step.
async fn base(env: &Env, image: &BaseImage, chain: &Chain) -> Result<Vec<PathBuf>> {
    let started = Instant::now();
    env.reporter.send(Event::Started(image.step));
    let keys: Vec<Key> = chain.layers().iter().take(image.op.layers.len()).map(|l| l.own).collect();
    let unpacked = env.puller.unpacked(image.step, &image.op, &keys).await;
    env.reporter.send(match &unpacked {
        Ok(_) => Event::Finished { step: image.step, took: started.elapsed() },
        Err(e) => Event::Failed { step: image.step, error: e.to_string() },
    });
    Ok(unpacked.map_err(problem::from)?.into_iter().map(|s| s.folder).collect())
}

/// The folders of an image's layers, topmost first, for somebody who builds nothing.
///
/// # Errors
/// What the registry or the store says, where layers have to be downloaded or unpacked.
pub async fn of_image(puller: &Puller, image: &ImageOp) -> Result<Vec<PathBuf>> {
    let chain = Chain::of_image(image.clone(), 0);
    let keys: Vec<Key> = chain.layers().iter().map(|l| l.own).collect();
    let unpacked = puller.unpacked(0, image, &keys).await.map_err(problem::from)?;
    Ok(unpacked.into_iter().rev().map(|s| s.folder).collect())
}

/// The folder of a step's layer.
async fn folder(env: &Env, layer: &Layer, parents: Vec<PathBuf>) -> Result<PathBuf> {
    if let Some(found) = env.store.snapshot(&layer.own).map_err(problem::from)? {
        return Ok(found.folder);
    }
    let Some(stored) = layer.stored.get() else {
        return Err(Problem::new(Kind::Environment, "a layer of this build is gone from the store")
            .hint("something else removed it; run the build again"));
    };
    let blob = BaseLayer { descriptor: stored.descriptor.clone(), diff_id: stored.diff_id.clone() };
    let Origin::Cached { cache, step } = &layer.origin else {
        return Ok(env.puller.unpack_stored(blob, layer.own, parents).await.map_err(problem::from)?.folder);
    };
    cache.fetch(*step, &blob.descriptor).await.map_err(cached)?;
    let unpacked = env.puller.unpack_stored(blob, layer.own, parents).await;
    let snapshot = unpacked.inspect_err(|_| cache.give_way()).map_err(problem::from)?;
    // Only now is it certain that the layer is what the record says.
    remember(env, layer)?;
    Ok(snapshot.folder)
}

/// A cache that hasn't the blob that its record named.
pub fn cached(error: super::cache::Error) -> Problem {
    Problem::new(Kind::Network, "a cached layer can't be had").because(&error)
}
