//! OCI image layouts and docker archives: the same files, in a folder or as one tar.
//!
//! ```text
//! oci-layout               {"imageLayoutVersion":"1.0.0"}
//! index.json               one entry for each name, as containerd annotates them
//! blobs/sha256/<hex>       layers, configurations, manifests, the index over several platforms
//! manifest.json            docker archives only: what `docker load` reads
//! ```

use super::error::At as _;
use super::output::{Output, beside};
use super::spec::{Destination, Place};
use super::{BlobSource, Error};
use crate::layer::{Entry, EntryKind, EntryPath, EntrySink as _, TarWriter};
use crate::oci::assemble::{Assembled, Document, value};
use crate::oci::{Descriptor, Reference};
use crate::sys::input;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

const LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;

/// How much of an `index.json` that is there already is read.
const MAX_INDEX: u64 = 4 << 20;

/// What makes a layout.
pub struct Layout<'a> {
    /// What is in it.
    pub images: &'a [Named<'a>],
    /// Whether `docker load` must take it.
    pub docker: bool,
}

/// An image, or one for several platforms, in a layout.
pub struct Named<'a> {
    /// The image or images.
    pub image: &'a Assembled,
    /// Their names; without one, `index.json` has an entry that no name leads to.
    pub names: &'a [Reference],
    /// When this was made, RFC 3339.
    pub created: &'a str,
}

/// Takes the files of a layout.
trait Files {
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), Error>;

    /// Takes the index last; a folder keeps the names that are in it.
    fn index(&mut self, entries: Vec<Value>) -> Result<(), Error>;
}

impl Layout<'_> {
    /// Writes it. Blobs come from `blobs`; each is there once.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a docker archive of several images; whatever `blobs` or the place say.
    pub fn write(&self, place: &Place, blobs: &dyn BlobSource, stdout: Box<dyn Write + Send>) -> Result<(), Error> {
        if self.docker && self.images.iter().any(|i| i.image.index.is_some()) {
            let why = "a docker archive holds images for one platform only: use type=oci";
            return Err(Error::Unsupported(why.into()));
        }
        match place {
            Place::Archive(destination) => self.archive(destination, blobs, stdout),
            Place::Folder(folder) => self.files(blobs, &mut Folder::create(folder)?),
        }
    }

    fn archive(
        &self,
        destination: &Destination,
        blobs: &dyn BlobSource,
        stdout: Box<dyn Write + Send>,
    ) -> Result<(), Error> {
        let mut archive = Archive(TarWriter::new(Output::open(destination, stdout)?));
        archive.folder("blobs")?;
        archive.folder("blobs/sha256")?;
        self.files(blobs, &mut archive)?;
        archive.0.finish()?.finish()
    }

    fn files(&self, blobs: &dyn BlobSource, files: &mut dyn Files) -> Result<(), Error> {
        for (path, blob) in self.blobs() {
            match blob {
                Blob::Layer(descriptor) => {
                    files.file(&path, descriptor.size(), &mut blobs.open(descriptor)?)?;
                }
                Blob::Document(document) => write_bytes(files, &path, &document.bytes)?,
            }
        }
        write_bytes(files, "oci-layout", LAYOUT.as_bytes())?;
        if self.docker {
            write_bytes(files, "manifest.json", &self.docker_manifest())?;
        }
        files.index(self.index_entries())
    }

    /// All blobs by path: sorted, each once.
    fn blobs(&self) -> BTreeMap<String, Blob<'_>> {
        self.images
            .iter()
            .flat_map(|named| blobs(named.image))
            .map(|blob| (blob_path(blob.descriptor()), blob))
            .collect()
    }

    fn index_entries(&self) -> Vec<Value> {
        self.images.iter().flat_map(Named::index_entries).collect()
    }

    fn docker_manifest(&self) -> Vec<u8> {
        let one = |named: &Named<'_>, image: &crate::oci::assemble::Image| {
            json!({
                "Config": blob_path(&image.config.descriptor),
                "RepoTags": named.names.iter().map(Reference::familiar).collect::<Vec<_>>(),
                "Layers": image.layers.iter().map(|l| blob_path(&l.descriptor)).collect::<Vec<_>>(),
            })
        };
        let all = self.images.iter().flat_map(|named| named.image.images.iter().map(move |image| one(named, image)));
        Value::from(all.collect::<Vec<_>>()).to_string().into_bytes()
    }
}

fn blobs(image: &Assembled) -> impl Iterator<Item = Blob<'_>> {
    let images = image.images.iter();
    let layers = images.clone().flat_map(|i| &i.layers).map(|l| Blob::Layer(&l.descriptor));
    layers.chain(images.flat_map(|i| [&i.config, &i.manifest]).chain(&image.index).map(Blob::Document))
}

impl Named<'_> {
    fn index_entries(&self) -> Vec<Value> {
        let Some(top) = self.image.top() else { return Vec::new() };
        let entry = |name: Option<&Reference>| {
            let mut entry = value(&top.descriptor);
            let mut annotations: Map<String, Value> = match entry.get_mut("annotations").map(Value::take) {
                Some(Value::Object(annotations)) => annotations,
                _ => Map::new(),
            };
            if let Some(name) = name {
                annotations.insert(NAME.into(), name.to_string().into());
            }
            annotations.insert("org.opencontainers.image.created".into(), self.created.into());
            if let Some(tag) = name.and_then(Reference::tag_or_latest) {
                annotations.insert("org.opencontainers.image.ref.name".into(), tag.into());
            }
            annotations.sort_keys();
            entry["annotations"] = annotations.into();
            entry
        };
        if self.names.is_empty() { vec![entry(None)] } else { self.names.iter().map(|n| entry(Some(n))).collect() }
    }
}

/// The annotation that holds a name in full, as containerd reads it.
const NAME: &str = "io.containerd.image.name";

enum Blob<'a> {
    Layer(&'a Descriptor),
    Document(&'a Document),
}

impl Blob<'_> {
    fn descriptor(&self) -> &Descriptor {
        match self {
            Self::Layer(descriptor) => descriptor,
            Self::Document(document) => &document.descriptor,
        }
    }
}

fn blob_path(descriptor: &Descriptor) -> String {
    format!("blobs/{}/{}", descriptor.digest().algorithm(), descriptor.digest().digest())
}

fn write_bytes(files: &mut dyn Files, path: &str, bytes: &[u8]) -> Result<(), Error> {
    files.file(path, bytes.len() as u64, &mut &*bytes)
}

fn index(entries: Vec<Value>) -> Vec<u8> {
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": entries,
    });
    index.to_string().into_bytes()
}

/// One tar.
struct Archive(TarWriter<Output>);

impl Archive {
    fn folder(&mut self, path: &str) -> Result<(), Error> {
        let path = EntryPath::parse(path.as_bytes()).map_err(crate::layer::Error::from)?;
        Ok(self.0.add(&Entry::new(path, EntryKind::Dir), &mut std::io::empty())?)
    }
}

impl Files for Archive {
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let path = EntryPath::parse(path.as_bytes()).map_err(crate::layer::Error::from)?;
        Ok(self.0.add(&Entry::new(path, EntryKind::File { size }), content)?)
    }

    fn index(&mut self, entries: Vec<Value>) -> Result<(), Error> {
        write_bytes(self, "index.json", &index(entries))
    }
}

/// A folder.
struct Folder(PathBuf);

impl Folder {
    fn create(path: &Path) -> Result<Self, Error> {
        let blobs = path.join("blobs/sha256");
        std::fs::create_dir_all(&blobs).at("make the folder", &blobs)?;
        Ok(Self(path.into()))
    }
}

impl Files for Folder {
    fn file(&mut self, path: &str, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let path = self.0.join(path);
        let is_blob = path.parent().is_some_and(|p| *p != self.0);
        if is_blob && std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == size) {
            return Ok(());
        }
        let mut file = beside(&path)?;
        let written = std::io::copy(content, &mut file).at("write", &path)?;
        if written != size {
            let short = std::io::Error::other(format!("its content has {written} bytes instead of {size}"));
            return Err(short).at("write", &path);
        }
        file.persist(&path).map(|_| ()).at("write", &path)
    }

    fn index(&mut self, entries: Vec<Value>) -> Result<(), Error> {
        let mut all = old_entries(&self.0.join("index.json"));
        all.retain(|old| !entries.iter().any(|new| replaces(new, old)));
        all.extend(entries);
        write_bytes(self, "index.json", &index(all))
    }
}

/// Whether an entry of an index takes the place of another: it has the same name, or neither has one.
fn replaces(new: &Value, old: &Value) -> bool {
    let name = |entry: &Value| entry.pointer("/annotations/io.containerd.image.name").cloned();
    name(new) == name(old)
}

/// The entries of a layout that is there already; what is no layout has none.
fn old_entries(path: &Path) -> Vec<Value> {
    let read = input::open_regular(path).and_then(|file| input::read_all(file, MAX_INDEX));
    let Ok(text) = read else { return Vec::new() };
    match serde_json::from_slice::<Value>(&text) {
        Ok(mut index) => match index.get_mut("manifests").map(Value::take) {
            Some(Value::Array(entries)) => entries,
            _ => Vec::new(),
        },
        Err(_) => Vec::new(),
    }
}
