//! An OCI image layout on this machine, as `oci-layout://PATH[:TAG|@DIGEST]` names it.

use super::error::{At as _, Error, Result};
use crate::oci::{Descriptor, Digest, ImageIndex, MediaType, Reference, read_json};
use crate::sys::file::open_dir;
use crate::sys::input;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The largest `index.json` that is read, in bytes.
const MAX_INDEX: u64 = 4 << 20;
/// The annotations that name an image in a layout, by the image specification and by containerd.
const NAMES: [&str; 2] = ["org.opencontainers.image.ref.name", "io.containerd.image.name"];

/// A layout and which of its images is meant.
pub(super) struct Layout {
    folder: PathBuf,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Layout {
    /// Takes the name apart; nothing is read yet.
    pub(super) fn open(text: &str) -> Result<Self> {
        let (rest, digest) = match text.rsplit_once('@') {
            Some((rest, digest)) => {
                let digest = digest.parse::<Digest>();
                let bad = |e: crate::oci::DigestError| Error::Layout { path: text.into(), why: e.to_string() };
                (rest, Some(digest.map_err(bad)?))
            }
            None => (text, None),
        };
        // A colon behind the last slash starts a tag.
        let (folder, tag) = match rest.rsplit_once(':') {
            Some((folder, tag)) if !tag.contains('/') && !folder.is_empty() => (folder, Some(tag.to_owned())),
            _ => (rest, None),
        };
        Ok(Self { folder: folder.into(), tag, digest })
    }

    pub(super) fn bad(&self, why: String) -> Error {
        Error::Layout { path: self.folder.clone(), why }
    }

    /// The descriptor of the image that is meant. One that nobody named is the layout's only one, or `latest`.
    pub(super) fn find(&self) -> Result<Descriptor> {
        let path = self.folder.join("index.json");
        // Nothing verifies this one, and an error about it may quote it. So a link in the layout must not lead out.
        let root = open_dir(&self.folder).at("open", &self.folder)?;
        let file = input::open_inside(&root, Path::new("index.json")).at("open", &path)?;
        let bytes =
            read_limited(file, &path, MAX_INDEX)?.ok_or_else(|| self.bad("its index.json is too large".into()))?;
        let index: ImageIndex = read_json(&bytes).map_err(|e| self.bad(format!("index.json: {e}")))?;
        check_index(&index).map_err(|why| self.bad(format!("index.json: {why}")))?;
        let all = index.manifests();
        if let Some(digest) = &self.digest {
            let listed = all.iter().find(|d| d.digest().as_ref() == digest.as_str()).cloned();
            // An image inside a listed index needn't be listed itself.
            return Ok(listed.unwrap_or_else(|| Descriptor::new("".into(), 0, digest.to_spec())));
        }
        match (&self.tag, all.as_slice()) {
            (None, [only]) => Ok(only.clone()),
            (tag, _) => {
                let tag = tag.as_deref().unwrap_or("latest");
                let named = all.iter().find(|d| has_tag(d, tag)).cloned();
                named.ok_or_else(|| self.bad(format!("it has no image with the tag {tag:?}")))
            }
        }
    }

    /// A blob of at most `limit` bytes, verified.
    pub(super) fn read(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let too_large = || self.bad(format!("{digest} is too large"));
        let bytes = read_limited(self.blob(digest)?, &self.blob_path(digest), limit)?.ok_or_else(too_large)?;
        let mut hasher = digest.hasher();
        hasher.update(&bytes);
        if hasher.finish() == *digest { Ok(bytes) } else { Err(self.bad(format!("{digest} is damaged"))) }
    }

    /// A blob to read, as it is.
    pub(super) fn blob(&self, digest: &Digest) -> Result<File> {
        let path = self.blob_path(digest);
        input::open_regular(&path).at("open", &path)
    }

    fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.folder.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// What an image of the layout is called where a reference is wanted: by its folder's name, pinned.
    pub(super) fn reference(&self, digest: &Digest) -> Reference {
        let name = self.folder.file_name().map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default();
        let reference = format!("oci-layout.localhost/{name}@{digest}").parse();
        reference.unwrap_or_else(|_| Reference {
            registry: "oci-layout.localhost".into(),
            repository: "image".into(),
            tag: None,
            digest: Some(digest.clone()),
        })
    }
}

/// Refuses an `index.json` that says that it is something else.
pub(super) fn check_index(index: &ImageIndex) -> std::result::Result<(), String> {
    match index.media_type() {
        Some(own) if *own != MediaType::ImageIndex => {
            Err(format!("its media type is {own}, not {}", MediaType::ImageIndex))
        }
        _ => Ok(()),
    }
}

/// Whether a descriptor's annotations give it a tag, alone or behind a whole name.
fn has_tag(descriptor: &Descriptor, tag: &str) -> bool {
    let annotations = descriptor.annotations().as_ref();
    let names = NAMES.iter().filter_map(|name| annotations?.get(*name));
    names.into_iter().any(|name| name == tag || name.strip_suffix(tag).is_some_and(|front| front.ends_with(':')))
}

/// A file's bytes, or `None` where there are more than `limit`.
fn read_limited(file: File, path: &Path, limit: u64) -> Result<Option<Vec<u8>>> {
    match input::read_all(file, limit) {
        Err(e) if e.kind() == ErrorKind::FileTooLarge => Ok(None),
        other => other.at("read", path).map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_taken_apart() {
        let digest = Digest::of(b"");
        for (text, folder, tag, pinned) in [
            ("/a/b", "/a/b", None, false),
            ("/a/b:1.0", "/a/b", Some("1.0"), false),
            ("./a:b/c", "./a:b/c", None, false),
            (&format!("a@{digest}"), "a", None, true),
            (&format!("a:t@{digest}"), "a", Some("t"), true),
        ] {
            let layout = Layout::open(text).unwrap();
            assert_eq!((layout.folder.to_str().unwrap(), layout.tag.as_deref()), (folder, tag), "{text}");
            assert_eq!(layout.digest.is_some(), pinned, "{text}");
        }
        assert!(Layout::open("a@sha256:1").is_err());
    }

    #[test]
    fn an_image_is_found_by_tag_digest_or_because_it_is_alone() {
        let temp = tempfile::tempdir().unwrap();
        let entry = |name: &str, content: &[u8]| {
            let digest = Digest::of(content);
            let media_type = "application/vnd.oci.image.manifest.v1+json";
            serde_json::json!({
                "mediaType": media_type, "size": 1, "digest": digest,
                "annotations": {"org.opencontainers.image.ref.name": name},
            })
        };
        let write = |entries: &[serde_json::Value]| {
            let index = serde_json::json!({"schemaVersion": 2, "manifests": entries});
            std::fs::write(temp.path().join("index.json"), index.to_string()).unwrap();
        };
        let find = |suffix: &str| {
            let text = format!("{}{suffix}", temp.path().display());
            Layout::open(&text).unwrap().find().ok().map(|d| d.digest().to_string())
        };
        let [a, b] = [Digest::of(b"a"), Digest::of(b"b")].map(|d| d.to_string());
        write(&[entry("one", b"a")]);
        assert_eq!((find(""), find(":one"), find(":two")), (Some(a.clone()), Some(a.clone()), None));
        write(&[entry("one", b"a"), entry("docker.io/x/y:latest", b"b")]);
        assert_eq!((find(""), find(":one")), (Some(b.clone()), Some(a)));
        assert_eq!(find(&format!("@{b}")), Some(b));
    }
}
