//! The files of a chain: its layers' snapshots, unpacked when a step must read them and not before.

use super::chain::{BaseImage, Chain, Layer, Origin};
use super::env::Env;
use super::key::Key;
use super::problem::{self, Result};
use super::record::remember;
use crate::plan::op::{BaseLayer, ImageOp};
use crate::report::{Event, Kind, Problem};
use crate::snapshot::Layers;
use crate::source::Puller;
use std::time::Instant;

/// A chain's layers; those that aren't unpacked are, and downloaded before where needed.
pub async fn layers(env: &Env, chain: &Chain) -> Result<Layers> {
    let all = chain.layers();
    // The topmost that somebody has needed before says all of those below it.
    let there = all.iter().enumerate().rev().find_map(|(index, layer)| Some((index + 1, layer.files.get()?.clone())));
    let (number, mut done) = match (there, all.first().map(|l| &l.origin)) {
        (Some(there), _) => there,
        (None, Some(Origin::Base { image, .. })) => {
            (image.op.layers.len(), image.files.get_or_try_init(|| base(env, image, chain)).await?.clone())
        }
        (None, Some(Origin::Step | Origin::Cached { .. }) | None) => (0, Layers::default()),
    };
    for layer in all.iter().skip(number) {
        done = layer.files.get_or_try_init(|| with(env, layer, done)).await?.clone();
    }
    Ok(done)
}

/// A base image's layers; what that takes is told as the image's own step.
async fn base(env: &Env, image: &BaseImage, chain: &Chain) -> Result<Layers> {
    let started = Instant::now();
    env.reporter.send(Event::Started(image.step));
    let keys: Vec<Key> = chain.layers().iter().take(image.op.layers.len()).map(|l| l.own).collect();
    let unpacked = env.puller.unpacked(image.step, &image.op, &keys).await;
    env.reporter.send(match &unpacked {
        Ok(_) => Event::Finished { step: image.step, took: started.elapsed() },
        Err(e) => Event::Failed { step: image.step, error: e.to_string() },
    });
    unpacked.map_err(problem::from)
}

/// An image's layers, for somebody who builds nothing.
///
/// # Errors
/// What the registry or the store says, where layers have to be downloaded or unpacked.
pub async fn of_image(puller: &Puller, image: &ImageOp) -> Result<Layers> {
    let chain = Chain::of_image(image.clone(), 0);
    let keys: Vec<Key> = chain.layers().iter().map(|l| l.own).collect();
    puller.unpacked(0, image, &keys).await.map_err(problem::from)
}

/// A step's layer on those below it.
async fn with(env: &Env, layer: &Layer, below: Layers) -> Result<Layers> {
    if let Some(found) = env.store.snapshot(&layer.own).map_err(problem::from)? {
        return Ok(below.push(&found.folder));
    }
    let Some(stored) = layer.stored.get() else {
        return Err(Problem::new(Kind::Environment, "a layer of this build is gone from the store")
            .hint("something else removed it; run the build again"));
    };
    let blob = BaseLayer { descriptor: stored.descriptor.clone(), diff_id: stored.diff_id.clone() };
    let Origin::Cached { cache, step } = &layer.origin else {
        let unpacked = env.puller.unpack_stored(blob, layer.own, below.clone()).await.map_err(problem::from)?;
        return Ok(below.push(&unpacked.folder));
    };
    cache.fetch(*step, &blob.descriptor).await.map_err(cached)?;
    let unpacked = env.puller.unpack_stored(blob, layer.own, below.clone()).await;
    let snapshot = unpacked.inspect_err(|_| cache.give_way()).map_err(problem::from)?;
    // Only now is it certain that the layer is what the record says.
    remember(env, layer)?;
    Ok(below.push(&snapshot.folder))
}

/// A cache that hasn't the blob that its record named.
pub fn cached(error: super::cache::Error) -> Problem {
    Problem::new(Kind::Network, "a cached layer can't be had").because(&error)
}
