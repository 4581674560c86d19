//! Images of the local store, as people name them.

use crate::cli::request::ImageName;
use crate::oci::assemble::{self, Assembled, Layer};
use crate::oci::{Descriptor, Digest, ImageConfig, ImageManifest, Platform, Reference, read_json};
use crate::plan::ResolvedImage;
use crate::registry::{self, Document, Manifest};
use crate::report::{Kind, Problem};
use crate::source;
use crate::store::{Key, Name, Store};
use jiff::Timestamp;

/// The records that lead from an image's id to what a name of it would lead to.
const IDS: &str = "image";
/// The largest manifest and the largest configuration that are read, in bytes.
const MAX_MANIFEST: u64 = 4 << 20;
const MAX_CONFIG: u64 = 8 << 20;

/// An image or an index of images in the store.
#[derive(Debug, Clone)]
pub struct Found {
    /// Its manifest or index.
    pub top: Descriptor,
    /// Its names; none for one that was built without.
    pub names: Vec<Name>,
}

/// An image's documents.
#[derive(Debug, Clone)]
pub struct Image {
    /// Its manifest.
    pub descriptor: Descriptor,
    /// The same, read.
    pub manifest: ImageManifest,
    /// Its configuration.
    pub config: ImageConfig,
}

/// Finds an image by a name, its id, or the beginning of one.
///
/// # Errors
/// Where there is none, or the beginning is that of several.
pub fn find(store: &Store, image: &ImageName) -> Result<Found, Problem> {
    if let Some(reference) = &image.reference
        && let Some(found) = by_name(store, reference)?
    {
        return Ok(found);
    }
    if let Some(found) = by_id(store, &image.typed)? {
        return Ok(found);
    }
    let problem = Problem::new(Kind::Usage, format!("there is no image {} in the local store", image.typed));
    Err(match &image.reference {
        Some(reference) => problem.hint(format!("kiln pull {} gets it from its registry", reference.familiar())),
        None => problem.hint("kiln images lists what is there"),
    })
}

fn by_name(store: &Store, reference: &Reference) -> Result<Option<Found>, Problem> {
    let Some(digest) = &reference.digest else {
        let Some(name) = store.name(reference)? else { return Ok(None) };
        return Ok(Some(Found { top: name.descriptor.clone(), names: all_names(store, &name.descriptor)? }));
    };
    let mut names = store.names()?;
    names.retain(|n| n.descriptor.digest().to_string() == digest.as_str() && repository(n) == repository_of(reference));
    Ok(names.first().map(|n| n.descriptor.clone()).map(|top| Found { top, names }))
}

/// All names of the same image.
fn all_names(store: &Store, top: &Descriptor) -> Result<Vec<Name>, Problem> {
    let mut names = store.names()?;
    names.retain(|n| n.descriptor.digest() == top.digest());
    Ok(names)
}

fn repository_of(reference: &Reference) -> String {
    format!("{}/{}", reference.registry, reference.repository)
}

/// A name's registry and repository.
fn repository(name: &Name) -> String {
    name.reference.parse().map(|r| repository_of(&r)).unwrap_or_default()
}

fn by_id(store: &Store, typed: &str) -> Result<Option<Found>, Problem> {
    let digits = typed.strip_prefix("sha256:").unwrap_or(typed);
    if digits.is_empty() || !digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Ok(None);
    }
    let mut found: Vec<Descriptor> = Vec::new();
    for name in store.names()? {
        let ids = [id(store, &name.descriptor)?, digest(&name.descriptor)?];
        if ids.iter().any(|id| id.hex().starts_with(digits)) && !found.contains(&name.descriptor) {
            found.push(name.descriptor);
        }
    }
    match (found.pop(), found.is_empty()) {
        (Some(top), true) => Ok(Some(Found { names: all_names(store, &top)?, top })),
        (Some(_), false) => Err(Problem::new(Kind::Usage, format!("{typed} is the beginning of several images' ids"))),
        (None, _) => nameless(store, digits),
    }
}

/// An image that was built without a name, by its whole id.
fn nameless(store: &Store, digits: &str) -> Result<Option<Found>, Problem> {
    let Ok(id) = format!("sha256:{digits}").parse::<Digest>() else { return Ok(None) };
    let top = store.record::<Descriptor>(IDS, &Key::from(&id))?;
    Ok(top.map(|top| Found { top, names: Vec::new() }))
}

/// An image's id: the digest of its configuration, or of the index that it is behind.
///
/// # Errors
/// Where the store can't be read.
pub fn id(store: &Store, top: &Descriptor) -> Result<Digest, Problem> {
    let own = digest(top)?;
    match document(store, &own)? {
        Some(Document::Image(manifest)) => digest(manifest.config()),
        _ => Ok(own),
    }
}

/// A descriptor's digest.
///
/// # Errors
/// For an algorithm that kiln doesn't know.
pub fn digest(descriptor: &Descriptor) -> Result<Digest, Problem> {
    Digest::try_from(descriptor.digest()).map_err(|e| Problem::new(Kind::Environment, e.to_string()))
}

/// A manifest or index of the store; `None` where it isn't there.
pub fn document(store: &Store, digest: &Digest) -> Result<Option<Document>, Problem> {
    match store.read_blob(digest, MAX_MANIFEST)? {
        Some(bytes) => Ok(Some(Manifest::new("", bytes.into()).document(digest.as_str())?)),
        None => Ok(None),
    }
}

/// The images behind a manifest or index, those of other platforms than this machine's too, as far as they are in the
/// store.
///
/// # Errors
/// Where the store can't be read, or what it has isn't an image.
pub fn images(store: &Store, top: &Descriptor) -> Result<Vec<Image>, Problem> {
    match document(store, &digest(top)?)? {
        None => Ok(Vec::new()),
        Some(Document::Image(manifest)) => Ok(image(store, top, manifest)?.into_iter().collect()),
        Some(Document::Index(index)) => {
            let mut images = Vec::new();
            for inner in index.manifests() {
                // An index within an index is nothing that kiln writes, and its images can't be told apart here.
                if let Some(Document::Image(manifest)) = document(store, &digest(inner)?)? {
                    images.extend(image(store, inner, manifest)?);
                }
            }
            Ok(images)
        }
    }
}

fn image(store: &Store, descriptor: &Descriptor, manifest: ImageManifest) -> Result<Option<Image>, Problem> {
    let Some(bytes) = store.read_blob(&digest(manifest.config())?, MAX_CONFIG)? else { return Ok(None) };
    let config = read_json(&bytes).map_err(|e| {
        let what = manifest.config().digest().to_string();
        Problem::from(registry::Error::Content { what, why: format!("it is no image configuration: {e}") })
    })?;
    Ok(Some(Image { descriptor: descriptor.clone(), manifest, config }))
}

/// What was found with all of its documents as they are, to be pushed or saved.
///
/// # Errors
/// Where documents are missing or wrong.
pub fn assembled(store: &Store, found: &Found) -> Result<Assembled, Problem> {
    let read = |descriptor: &Descriptor| -> Result<assemble::Document, Problem> {
        let bytes = store.read_blob(&digest(descriptor)?, MAX_CONFIG)?.ok_or_else(|| incomplete(found))?;
        Ok(assemble::Document { descriptor: descriptor.clone(), bytes })
    };
    let index = match document(store, &digest(&found.top)?)? {
        None => return Err(incomplete(found)),
        Some(Document::Image(_)) => None,
        Some(Document::Index(index)) => Some(index),
    };
    let images = images(store, &found.top)?;
    if index.as_ref().is_some_and(|i| i.manifests().len() != images.len()) {
        return Err(incomplete(found));
    }
    let one = |image: &Image| -> Result<assemble::Image, Problem> {
        let layers = image.manifest.layers().iter().zip(&image.config.rootfs.diff_ids);
        Ok(assemble::Image {
            platform: image.config.platform(),
            config: read(image.manifest.config())?,
            manifest: read(&image.descriptor)?,
            layers: layers.map(|(d, id)| Layer { descriptor: d.clone(), diff_id: id.clone() }).collect(),
        })
    };
    Ok(Assembled {
        images: images.iter().map(one).collect::<Result<_, _>>()?,
        index: index.map(|_| read(&found.top)).transpose()?,
    })
}

/// Gives an image a name, once it can't be lost any more.
///
/// # Errors
/// Where the store can't be written, or the name has a digest.
pub fn publish(store: &Store, name: &Reference, top: &Descriptor) -> Result<(), Problem> {
    let settled = store.settle()?;
    Ok(store.publish(&settled, name, top, &Timestamp::now().to_string())?)
}

/// Lets an image's id lead to it although it may have no name.
///
/// # Errors
/// Where the store can't be read or written.
pub fn note_id(store: &Store, top: &Descriptor) -> Result<(), Problem> {
    Ok(store.put_record(IDS, &Key::from(&id(store, top)?), top)?)
}

/// The image that this machine would run of what was found, the first where none is made for it.
///
/// # Errors
/// Where documents are missing or wrong.
pub fn best(store: &Store, found: &Found) -> Result<Image, Problem> {
    let mut images = images(store, &found.top)?;
    let host = Platform::host();
    let best = images.iter().position(|i| i.config.platform() == host).unwrap_or(0);
    if images.is_empty() { Err(incomplete(found)) } else { Ok(images.swap_remove(best)) }
}

/// An image whose documents have gone.
pub fn incomplete(found: &Found) -> Problem {
    Problem::new(Kind::Environment, format!("the image {} is not complete in the local store", found.top.digest()))
        .hint("build or pull it again")
}

/// The image as a build resolves it, with its layers.
///
/// # Errors
/// Where documents are missing or wrong.
pub fn resolved(store: &Store, found: &Found) -> Result<ResolvedImage, Problem> {
    let image = best(store, found)?;
    let name: Reference = match found.names.first().and_then(|n| n.reference.parse().ok()) {
        Some(name) => name,
        None => {
            // No registry has it.
            let layers = image.manifest.layers().iter();
            for layer in layers {
                store.blob(&digest(layer)?, Some(layer.size()))?.ok_or_else(|| incomplete(found))?;
            }
            Reference { registry: "localhost".into(), repository: "unnamed".into(), tag: None, digest: None }
        }
    };
    let top = digest(&image.descriptor)?;
    source::stored_image(store, &name, &top, &image.config.platform())?.ok_or_else(|| incomplete(found))
}
