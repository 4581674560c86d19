//! What a registry keeps of a cache mount: an OCI artifact with one layer, the tar of the folder.
//!
//! ```text
//! artifactType   application/vnd.kiln.cache-mount.v1+tar
//! config         {} (application/vnd.oci.empty.v1+json)
//! layers         one, of a layer's media types
//! annotations    kiln.mount.key           what it is the content of: see `cache_mount::key`
//!                kiln.mount.id            the mount's id, for people
//!                kiln.mount.fingerprint   see `contents::Marked`: equal ones have equal content
//!                kiln.mount.diff-id       the digest of the tar
//!                kiln.mount.size          the bytes of all files together
//! ```

use super::contents::Contents;
use crate::oci::{Descriptor, Digest, ImageManifest, MediaType, read_json};
use crate::solve::cache::bundle::blob;
use crate::store::Key;
use serde_json::json;

/// What the manifest is to tools (OCI image specification 1.1, "guidelines for artifact usage").
const ARTIFACT_TYPE: &str = "application/vnd.kiln.cache-mount.v1+tar";
/// The type of a configuration that says nothing; its content is `{}`, which each [`CacheStore`] writes with a manifest.
///
/// [`CacheStore`]: crate::solve::cache::CacheStore
const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
const EMPTY: &[u8] = b"{}";

const KEY: &str = "kiln.mount.key";
const ID: &str = "kiln.mount.id";
const FINGERPRINT: &str = "kiln.mount.fingerprint";
const DIFF_ID: &str = "kiln.mount.diff-id";
const SIZE: &str = "kiln.mount.size";

/// The content of a cache mount, as a place keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct Artifact {
    /// What it is the content of.
    pub key: Key,
    /// The mount's id.
    pub id: String,
    /// What is in it.
    pub contents: Contents,
    /// The tar's blob.
    pub blob: Descriptor,
    /// The digest of the tar.
    pub diff_id: Digest,
}

impl Artifact {
    /// The manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "artifactType": ARTIFACT_TYPE,
            "config": { "mediaType": EMPTY_TYPE, "digest": Digest::of(EMPTY).as_str(), "size": EMPTY.len() },
            "layers": [{
                "mediaType": self.blob.media_type().to_string(),
                "digest": self.blob.digest().to_string(),
                "size": self.blob.size(),
            }],
            "annotations": {
                KEY: self.key.to_string(),
                ID: self.id,
                FINGERPRINT: self.contents.fingerprint.to_string(),
                DIFF_ID: self.diff_id.to_string(),
                SIZE: self.contents.bytes.to_string(),
            },
        });
        manifest.to_string().into_bytes()
    }

    /// Reads a manifest that is said to be the content of `key`.
    ///
    /// # Errors
    /// Why it isn't one, or not of this key.
    pub fn parse(bytes: &[u8], key: Key) -> Result<Self, String> {
        let manifest: ImageManifest = read_json(bytes).map_err(|e| format!("no manifest: {e}"))?;
        let said = |name: &str| {
            let value = manifest.annotations().as_ref().and_then(|a| a.get(name));
            value.ok_or_else(|| format!("the annotation {name} is missing"))
        };
        if *said(KEY)? != key.to_string() {
            return Err(format!("it is the content of another mount than {key}"));
        }
        let [layer] = manifest.layers().as_slice() else {
            return Err(format!("{} layers instead of one", manifest.layers().len()));
        };
        let wrong = |name: &str, why: &dyn std::fmt::Display| format!("the annotation {name}: {why}");
        Ok(Self {
            key,
            id: said(ID)?.clone(),
            contents: Contents {
                fingerprint: said(FINGERPRINT)?.parse().map_err(|e| wrong(FINGERPRINT, &e))?,
                bytes: said(SIZE)?.parse().map_err(|e| wrong(SIZE, &e))?,
            },
            blob: blob(layer)?,
            diff_id: said(DIFF_ID)?.parse().map_err(|e| wrong(DIFF_ID, &e))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::describe;

    fn artifact() -> Artifact {
        Artifact {
            key: Key::of(b"k"),
            id: "/root/.cache".into(),
            contents: Contents { fingerprint: Key::of(b"f"), bytes: 7 },
            blob: describe(MediaType::ImageLayerZstd, b"blob"),
            diff_id: Digest::of(b"tar"),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(Artifact::parse(&artifact().to_bytes(), Key::of(b"k")), Ok(artifact()));
    }

    #[test]
    fn what_is_no_content_of_the_mount_is_refused() {
        let text = String::from_utf8(artifact().to_bytes()).unwrap();
        let layer = text.split_once("\"layers\":[").unwrap().1.split_once(']').unwrap().0;
        for (changed, why) in [
            (String::new(), "no manifest"),
            ("[]".into(), "no manifest"),
            (text.replace(&Key::of(b"k").to_string(), &Key::of(b"x").to_string()), "another mount"),
            (text.replace(&format!("[{layer}]"), "[]"), "0 layers"),
            (text.replace(layer, &format!("{layer},{layer}")), "2 layers"),
            (text.replace(FINGERPRINT, "x"), "fingerprint is missing"),
            (text.replace("\"7\"", "\"-7\""), "kiln.mount.size"),
            (text.replace(Digest::of(b"tar").as_str(), "sha256:00"), "diff-id"),
            (text.replace("tar+zstd", "tar+encrypted"), "a layer of type"),
        ] {
            let said = Artifact::parse(changed.as_bytes(), Key::of(b"k")).unwrap_err();
            assert!(said.contains(why), "{why}: {said}");
        }
    }

    #[test]
    fn addresses_and_embedded_data_are_not_taken() {
        let text = String::from_utf8(artifact().to_bytes()).unwrap();
        let more = text.replace("\"layers\":[{", "\"layers\":[{\"urls\":[\"http://x/\"],\"data\":\"eA==\",");
        assert_ne!(more, text);
        assert_eq!(Artifact::parse(more.as_bytes(), Key::of(b"k")), Ok(artifact()));
    }
}
