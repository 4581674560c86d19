//! Images out of archives: OCI layouts and docker archives, as one tar, compressed or not.
//!
//! The archive is read once, as it comes; each of its files becomes a blob of the store before anybody knows what it is
//! for. What turns out to be part of no image is the next pruning's.

use super::error::{Error, Result};
use super::layout::check_index;
use crate::layer::{Decoder, EntryKind, EntryPath, Format, TarReader};
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, MediaType, Platform, Reference, describe, read_json,
};
use crate::registry::{Document, Manifest, best, check_parts};
use crate::store::{Ingest, Store};
use crate::sys::Cancel;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::{Read, Write as _};

/// The largest document that is read, in bytes.
const MAX_DOCUMENT: u64 = 8 << 20;
/// How many files an archive may have.
const MAX_FILES: usize = 100_000;
/// How many indexes may stand inside each other.
const MAX_DEPTH: usize = 4;
/// How many links may lead to each other.
const MAX_LINKS: usize = 8;
/// What is copied before it is looked whether to stop, bytes.
const PIECE: usize = 256 << 10;
/// Where archives say what an image is called.
const NAME: &str = "io.containerd.image.name";
const REF_NAME: &str = "org.opencontainers.image.ref.name";

/// An image that was in an archive and is in the store now.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// Its manifest or index.
    pub top: Descriptor,
    /// Its names in the archive.
    pub names: Vec<Reference>,
}

/// Puts the images of an archive into the store.
///
/// # Errors
/// [`Error::Archive`] for what is no such archive, or lacks something; [`Error::Cancelled`].
pub fn load(store: &Store, input: impl Read, cancel: &Cancel) -> Result<Vec<Loaded>> {
    let archive = Archive { files: read(store, input, cancel)?, store };
    if let Some(index) = archive.json::<ImageIndex>("index.json")? {
        return archive.layout(&index);
    }
    match archive.json::<Vec<DockerImage>>("manifest.json")? {
        Some(images) => images.iter().map(|image| archive.docker(image)).collect(),
        None => Err(bad("it has neither an index.json nor a manifest.json")),
    }
}

fn bad(why: impl Into<String>) -> Error {
    Error::Archive(why.into())
}

/// A file of the archive.
enum File {
    Blob { digest: Digest, size: u64 },
    Link(EntryPath),
}

fn read(store: &Store, input: impl Read, cancel: &Cancel) -> Result<HashMap<EntryPath, File>> {
    let mut tar = TarReader::archive(Decoder::new(input).map_err(|e| bad(format!("it can't be read: {e}")))?);
    let mut files = HashMap::new();
    while let Some(entry) = tar.next_entry().map_err(Error::ArchiveRead)? {
        let file = match &entry.kind {
            EntryKind::File { size } => File::Blob { digest: take(store, &entry.path, &mut tar, cancel)?, size: *size },
            EntryKind::Hardlink(target) => File::Link(target.clone()),
            EntryKind::Symlink(target) => match beside(&entry.path, target) {
                Some(target) => File::Link(target),
                None => continue,
            },
            _ => continue,
        };
        files.insert(entry.path, file);
        if files.len() > MAX_FILES {
            return Err(bad(format!("it has more than {MAX_FILES} files")));
        }
    }
    tar.drain().map_err(Error::ArchiveRead)?;
    Ok(files)
}

/// What a link leads to, if that is in the archive.
fn beside(path: &EntryPath, target: &[u8]) -> Option<EntryPath> {
    let mut at = path.parent()?;
    for name in target.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".") {
        at = if name == b".." { at.parent()? } else { at.join(name).ok()? };
    }
    Some(at)
}

/// Stores a file. One that stands where a layout has its blobs must have the digest that it is named by.
fn take(store: &Store, path: &EntryPath, content: &mut dyn Read, cancel: &Cancel) -> Result<Digest> {
    let named = named(path);
    let mut ingest = match &named {
        Some(digest) => store.ingest_expecting(digest)?,
        None => store.ingest()?,
    };
    let mut buffer = vec![0; PIECE];
    loop {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let read = content.read(&mut buffer).map_err(|e| bad(e.to_string()))?;
        if read == 0 {
            break;
        }
        write(&mut ingest, buffer.get(..read).unwrap_or_default())?;
    }
    Ok(ingest.commit(named.as_ref())?)
}

fn write(ingest: &mut Ingest, bytes: &[u8]) -> Result<()> {
    let written = ingest.write_all(bytes);
    written.map_err(|source| Error::Io { what: "write", path: ingest.path().into(), source })
}

fn named(path: &EntryPath) -> Option<Digest> {
    let text = std::str::from_utf8(path.as_bytes()).ok()?;
    text.strip_prefix("blobs/")?.replacen('/', ":", 1).parse().ok()
}

/// What was found of manifests and indexes, by digest and by the media type that was stated.
type Known = HashMap<(Digest, String), Option<Descriptor>>;

/// An archive that was read.
struct Archive<'s> {
    files: HashMap<EntryPath, File>,
    store: &'s Store,
}

/// An entry of a docker archive's `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerImage {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

impl Archive<'_> {
    /// The blob that a path leads to.
    fn find(&self, path: &str) -> Option<(Digest, u64)> {
        let mut path = EntryPath::parse(path.as_bytes()).ok()?;
        for _ in 0..MAX_LINKS {
            match self.files.get(&path)? {
                File::Blob { digest, size } => return Some((digest.clone(), *size)),
                File::Link(target) => path = target.clone(),
            }
        }
        None
    }

    fn need(&self, path: &str) -> Result<(Digest, u64)> {
        self.find(path).ok_or_else(|| bad(format!("it has no file {path}")))
    }

    fn document(&self, digest: &Digest) -> Result<Option<Vec<u8>>> {
        Ok(self.store.read_blob(digest, MAX_DOCUMENT)?)
    }

    fn json<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<Option<T>> {
        let Some((digest, _)) = self.find(path) else { return Ok(None) };
        let Some(text) = self.document(&digest)? else { return Ok(None) };
        read_json(&text).map(Some).map_err(|e| bad(format!("{path}: {e}")))
    }

    /// The images of a layout, each once.
    fn layout(&self, index: &ImageIndex) -> Result<Vec<Loaded>> {
        check_index(index).map_err(|why| bad(format!("index.json: {why}")))?;
        let mut all: Vec<Loaded> = Vec::new();
        for entry in index.manifests() {
            let top = self
                .complete(entry, &mut Known::new(), 0)?
                .ok_or_else(|| bad(format!("it lacks a part of {}", entry.digest())))?;
            let name = name_of(entry);
            match all.iter_mut().find(|loaded| loaded.top == top) {
                Some(known) => known.names.extend(name.filter(|n| !known.names.contains(n))),
                None => all.push(Loaded { top, names: name.into_iter().collect() }),
            }
        }
        Ok(all)
    }

    /// What can be named of an image: all of it, or of an index whose other platforms aren't there the best one that is.
    /// `known` has what was looked at already: an index may list another one any number of times.
    fn complete(&self, entry: &Descriptor, known: &mut Known, depth: usize) -> Result<Option<Descriptor>> {
        let key = (digest(entry)?, entry.media_type().to_string());
        if let Some(known) = known.get(&key) {
            return Ok(known.clone());
        }
        if depth > MAX_DEPTH {
            return Err(bad("it has indexes inside indexes without end"));
        }
        let found = self.looked_at(entry, &key.0, known, depth)?;
        known.insert(key, found.clone());
        Ok(found)
    }

    fn looked_at(
        &self,
        entry: &Descriptor,
        digest: &Digest,
        known: &mut Known,
        depth: usize,
    ) -> Result<Option<Descriptor>> {
        let Some(bytes) = self.document(digest)? else { return Ok(None) };
        let what = format!("{digest} in the archive");
        match Manifest::described(&what, entry, bytes.into())?.document(&what)? {
            Document::Image(manifest) => {
                check_parts(&what, &manifest)?;
                Ok(self.has_all(&manifest)?.then(|| bare(entry)))
            }
            Document::Index(index) => {
                let mut there = Vec::new();
                for inner in index.manifests() {
                    there.extend(self.complete(inner, known, depth + 1)?.map(|_| inner.clone()));
                }
                if there.len() == index.manifests().len() {
                    return Ok(Some(bare(entry)));
                }
                Ok(best(&Platform::host(), &there).first().map(|one| bare(one)))
            }
        }
    }

    fn has_all(&self, manifest: &ImageManifest) -> Result<bool> {
        for part in std::iter::once(manifest.config()).chain(manifest.layers()) {
            if self.store.blob(&digest(part)?, Some(part.size()))?.is_none() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// An image of a docker archive: its configuration and layers get a manifest.
    fn docker(&self, image: &DockerImage) -> Result<Loaded> {
        let (config, _) = self.need(&image.config)?;
        let bytes = self.document(&config)?.ok_or_else(|| bad(format!("it has no file {}", image.config)))?;
        let parsed: ImageConfig = read_json(&bytes).map_err(|e| bad(format!("{}: {e}", image.config)))?;
        let diff_ids = &parsed.rootfs.diff_ids;
        if diff_ids.len() != image.layers.len() {
            return Err(bad(format!("{} names another number of layers than manifest.json", image.config)));
        }
        let layers = image.layers.iter().zip(diff_ids).map(|(path, diff_id)| self.layer(path, diff_id));
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": describe(MediaType::ImageConfig, &bytes),
            "layers": layers.collect::<Result<Vec<Value>>>()?,
        });
        let manifest = manifest.to_string().into_bytes();
        self.store.write_blob(&manifest)?;
        let names = image.repo_tags.iter().flatten().filter_map(|name| name.parse().ok()).collect();
        Ok(Loaded { top: describe(MediaType::ImageManifest, &manifest), names })
    }

    fn layer(&self, path: &str, diff_id: &Digest) -> Result<Value> {
        let (digest, size) = self.need(path)?;
        let gone = || bad(format!("{path} is gone from the store"));
        let mut start = Vec::new();
        let blob = self.store.blob(&digest, Some(size))?.ok_or_else(gone)?;
        blob.into_file().take(512).read_to_end(&mut start).map_err(|e| bad(format!("{path}: {e}")))?;
        let media_type = match Format::sniff(&start) {
            Format::Plain if digest != *diff_id => {
                return Err(bad(format!("{path} isn't the layer {diff_id} that its image names")));
            }
            Format::Plain => MediaType::ImageLayer,
            Format::Gzip => MediaType::ImageLayerGzip,
            Format::Zstd => MediaType::ImageLayerZstd,
            other => return Err(bad(format!("{path}: {other:?} is no compression of layers"))),
        };
        Ok(json!({ "mediaType": media_type.to_string(), "digest": digest, "size": size }))
    }
}

fn digest(descriptor: &Descriptor) -> Result<Digest> {
    Digest::try_from(descriptor.digest()).map_err(|e| bad(e.to_string()))
}

/// A descriptor without what only the archive says.
fn bare(descriptor: &Descriptor) -> Descriptor {
    Descriptor::new(descriptor.media_type().clone(), descriptor.size(), descriptor.digest().clone())
}

/// The name that an entry of an index gives its image. A tag alone is none.
fn name_of(entry: &Descriptor) -> Option<Reference> {
    let annotations = entry.annotations().as_ref()?;
    let whole = annotations.get(NAME);
    let name = whole.or_else(|| annotations.get(REF_NAME).filter(|name| name.contains([':', '/'])))?;
    name.parse().ok().filter(|r: &Reference| r.digest.is_none())
}

#[cfg(test)]
#[path = "archive_tests.rs"]
mod tests;
