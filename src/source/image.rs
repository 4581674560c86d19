//! A base image's name to its manifest and configuration, from the nearest place that has them.

use super::error::Result;
use super::layout::Layout;
use crate::oci::{Descriptor, Digest, ImageConfig, ImageManifest, JsonError, Platform, Reference, read_json};
use crate::plan::op::BaseLayer;
use crate::plan::{ImageKey, ImageName, ResolvedImage};
use crate::registry::{self, Client, Document, Manifest, best, check_parts};
use crate::store::{Key, Store};
use tokio::task::spawn_blocking;

/// The largest manifest and the largest configuration that are read, in bytes; as `registry` has them.
const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 8 << 20;
/// How many indexes may stand inside each other.
const MAX_DEPTH: usize = 4;
/// The records of what a tag meant last.
const TAGS: &str = "tag";

/// An image that is at hand: what `registry::Image` is for one that was fetched.
struct Known {
    manifest: Digest,
    parsed: ImageManifest,
    config: ImageConfig,
}

/// Resolves an image: a name of the store's own, unless `pull`; else what the registry says that the name means now,
/// which is fetched only where the store hasn't kept it from an earlier build.
pub(super) async fn resolve(store: &Store, registry: &Client, pull: bool, key: &ImageKey) -> Result<ResolvedImage> {
    match &key.name {
        ImageName::Layout(text) => {
            let (text, platform) = (text.clone(), key.platform.clone());
            spawn_blocking(move || from_layout(&text, &platform)).await?
        }
        ImageName::Registry(name) => {
            if !pull {
                let (store, name, platform) = (store.clone(), name.clone(), key.platform.clone());
                if let Some(own) = spawn_blocking(move || own(&store, &name, &platform)).await?? {
                    return Ok(own);
                }
            }
            from_registry(store, registry, name, &key.platform).await
        }
    }
}

/// An image that was built, loaded or pulled into the store, whole.
fn own(store: &Store, name: &Reference, platform: &Platform) -> Result<Option<ResolvedImage>> {
    if name.digest.is_some() {
        return Ok(None);
    }
    let Some(entry) = store.name(name)? else { return Ok(None) };
    let Ok(top) = Digest::try_from(entry.descriptor.digest()) else { return Ok(None) };
    let Some(known) = known(&stored(store), &entry.descriptor, platform)? else { return Ok(None) };
    if known.config.platform() != *platform {
        return Ok(None);
    }
    for layer in known.parsed.layers() {
        let digest = Digest::try_from(layer.digest()).ok();
        if !matches!(digest.map(|d| store.blob(&d, Some(layer.size()))), Some(Ok(Some(_)))) {
            return Ok(None);
        }
    }
    resolved(name.pinned(top), known).map(Some)
}

/// The image for a platform behind a manifest or index of the store, if all of it but the layers is there. `name` is
/// where its layers are looked for that aren't.
///
/// # Errors
/// What the store says, or what is wrong with the documents.
pub fn stored_image(
    store: &Store,
    name: &Reference,
    top: &Digest,
    platform: &Platform,
) -> Result<Option<ResolvedImage>> {
    known(&stored(store), &untold(top), platform)?.map(|known| resolved(name.pinned(top.clone()), known)).transpose()
}

async fn from_registry(
    store: &Store,
    registry: &Client,
    name: &Reference,
    platform: &Platform,
) -> Result<ResolvedImage> {
    if let Some(top) = meant(store, registry, name).await? {
        let (store, digest, platform) = (store.clone(), top.clone(), platform.clone());
        let known = spawn_blocking(move || known(&stored(&store), &untold(&digest), &platform)).await??;
        if let Some(known) = known {
            return resolved(name.pinned(top), known);
        }
    }
    let image = registry.image(name, platform).await?;
    let top = image.top.digest()?;
    let reference = name.pinned(top.clone());
    keep(store, name, &image).await?;
    resolved(reference, Known { manifest: image.manifest.digest()?, parsed: image.parsed, config: image.config })
}

/// What a name means, where that can be told without fetching it: its digest if it has one, or the registry's answer
/// for a tag of which the store may have kept the image.
async fn meant(store: &Store, registry: &Client, name: &Reference) -> Result<Option<Digest>> {
    if let Some(digest) = &name.digest {
        return Ok(Some(digest.clone()));
    }
    if store.record::<Digest>(TAGS, &tag_key(name))?.is_none() {
        return Ok(None);
    }
    let descriptor = registry.resolve(name).await?;
    Ok(Digest::try_from(descriptor.digest()).ok())
}

/// Keeps what was fetched, so that the next build needn't fetch it.
async fn keep(store: &Store, name: &Reference, image: &registry::Image) -> Result<()> {
    let (store, key, top) = (store.clone(), tag_key(name), image.top.digest()?);
    let blobs = [image.top.bytes.clone(), image.manifest.bytes.clone(), image.config_bytes.clone()];
    spawn_blocking(move || {
        for blob in blobs {
            store.write_blob(&blob)?;
        }
        Ok(store.put_record(TAGS, &key, &top)?)
    })
    .await?
}

fn tag_key(name: &Reference) -> Key {
    Key::of(name.to_string().as_bytes())
}

fn from_layout(text: &str, platform: &Platform) -> Result<ResolvedImage> {
    let layout = Layout::open(text)?;
    let top = layout.find()?;
    let digest = Digest::try_from(top.digest()).map_err(|e| layout.bad(e.to_string()))?;
    let read = |digest: &Digest, limit| layout.read(digest, limit).map(Some);
    let found = known(&read, &top, platform)?;
    let known = found.ok_or_else(|| layout.bad(format!("it has no image for {platform}")))?;
    resolved(layout.reference(&digest), known)
}

/// Reads a small blob of at most so many bytes, verified; `None` where there is none.
type ReadBlob<'a> = dyn Fn(&Digest, u64) -> Result<Option<Vec<u8>>> + 'a;

fn stored(store: &Store) -> impl Fn(&Digest, u64) -> Result<Option<Vec<u8>>> + '_ {
    |digest, limit| match store.read_blob(digest, limit) {
        // It has been taken away; as good as never there.
        Err(crate::store::Error::Damaged(_)) => Ok(None),
        other => Ok(other?),
    }
}

/// The image for a platform behind a manifest or index, if all of it but the layers can be read. `top` may state no media type.
fn known(read: &ReadBlob<'_>, top: &Descriptor, platform: &Platform) -> Result<Option<Known>> {
    let mut at = top.clone();
    for _ in 0..MAX_DEPTH {
        let Ok(digest) = Digest::try_from(at.digest()) else { return Ok(None) };
        let Some(bytes) = read(&digest, MAX_MANIFEST)? else { return Ok(None) };
        match Manifest::described(digest.as_str(), &at, bytes.into())?.document(digest.as_str())? {
            Document::Image(parsed) => {
                check_parts(digest.as_str(), &parsed)?;
                return complete(read, digest, parsed);
            }
            Document::Index(index) => {
                let Some(chosen) = best(platform, index.manifests()).first().copied() else { return Ok(None) };
                at = chosen.clone();
            }
        }
    }
    Ok(None)
}

/// A descriptor of what only a digest is known of.
fn untold(digest: &Digest) -> Descriptor {
    Descriptor::new("".into(), 0, digest.to_spec())
}

fn complete(read: &ReadBlob<'_>, manifest: Digest, parsed: ImageManifest) -> Result<Option<Known>> {
    let Ok(digest) = Digest::try_from(parsed.config().digest()) else { return Ok(None) };
    let Some(bytes) = read(&digest, MAX_CONFIG)? else { return Ok(None) };
    let bad = |e: JsonError| {
        let why = format!("no sound image configuration: {}", registry::printable(&e.to_string()));
        registry::Error::Content { what: digest.to_string(), why }
    };
    let config: ImageConfig = read_json(&bytes).map_err(bad)?;
    Ok(Some(Known { manifest, parsed, config }))
}

fn resolved(reference: Reference, known: Known) -> Result<ResolvedImage> {
    let Known { manifest, parsed, config } = known;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() != parsed.layers().len() {
        let why = "its configuration names another number of layers than its manifest".into();
        return Err(registry::Error::Content { what: reference.to_string(), why }.into());
    }
    let layer = |(d, id): (&Descriptor, &Digest)| BaseLayer { descriptor: d.clone(), diff_id: id.clone() };
    let layers = parsed.layers().iter().zip(diff_ids).map(layer).collect();
    Ok(ResolvedImage { reference, manifest, config, layers })
}
