//! The files of a chain: its layers' snapshots, unpacked when a step must read them and not before.

use super::chain::{Chain, Layer, Origin};
use super::env::Env;
use super::key::Key;
use super::problem::{self, Result};
use crate::plan::op::{BaseLayer, ImageOp};
use crate::report::{Kind, Problem, Step};
use crate::source::Puller;
use std::path::PathBuf;
use std::sync::Arc;

/// The folders of a chain's layers, topmost first; layers that aren't unpacked are, and downloaded before where needed.
/// `step` is who needs them.
pub async fn folders(env: &Env, step: Step, chain: &Chain) -> Result<Vec<PathBuf>> {
    let layers = chain.layers();
    let (image, base) = base(layers);
    let mut folders = Vec::with_capacity(layers.len());
    if let Some(image) = image {
        let keys: Vec<Key> = layers[..base].iter().map(|l| l.own).collect();
        let unpacked = env.puller.unpacked(step, &image, &keys).await.map_err(problem::from)?;
        folders.extend(unpacked.into_iter().map(|s| s.folder));
    }
    for layer in &layers[base..] {
        let parents: Vec<PathBuf> = folders.iter().rev().cloned().collect();
        folders.push(folder(env, layer, parents).await?);
    }
    folders.reverse();
    Ok(folders)
}

/// The folders of an image's layers, topmost first, for somebody who builds nothing.
///
/// # Errors
/// What the registry or the store says, where layers have to be downloaded or unpacked.
pub async fn of_image(puller: &Puller, image: &Arc<ImageOp>) -> Result<Vec<PathBuf>> {
    let chain = Chain::of_image(image);
    let keys: Vec<Key> = chain.layers().iter().map(|l| l.own).collect();
    let unpacked = puller.unpacked(0, image, &keys).await.map_err(problem::from)?;
    Ok(unpacked.into_iter().rev().map(|s| s.folder).collect())
}

/// The image that a chain begins with, and how many of its layers are that image's.
fn base(layers: &[Arc<Layer>]) -> (Option<Arc<ImageOp>>, usize) {
    let count = layers.iter().take_while(|l| matches!(l.origin, Origin::Base { .. })).count();
    match layers.first().map(|l| &l.origin) {
        Some(Origin::Base { image, .. }) => (Some(image.clone()), count),
        _ => (None, 0),
    }
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
    Ok(env.puller.unpack_stored(blob, layer.own, parents).await.map_err(problem::from)?.folder)
}
