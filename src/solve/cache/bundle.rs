//! What a cache keeps under a key: a small manifest with the records of a step and of all steps below it.
//!
//! A result is only good on the very root filesystem it was made on, and that is known by the records below it. So each
//! manifest brings the whole chain: one answer is enough for a build whose disk is empty, and it fits together whoever
//! wrote other keys meanwhile. It is an OCI image manifest, so that a registry keeps the blobs that it lists.

use crate::oci::{self, Descriptor, Digest, ImageManifest, MediaType, read_json};
use crate::solve::chain::{Chain, Layer, Origin, StoredLayer};
use crate::solve::record::{self, Record};
use crate::store::Key;
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The type of the (empty) configuration: says what the manifest is to people and tools.
pub const CONFIG_TYPE: &str = "application/vnd.kiln.cache.config.v1+json";
/// The configuration.
pub const CONFIG: &[u8] = b"{}";
/// The annotation of the manifest with the key that it is kept under.
const KEY: &str = "kiln.cache.key";
/// The annotation of a layer with the step that made it.
const STEP: &str = "kiln.cache.step";
/// More layers than an image can have.
pub const MOST: usize = 1000;

/// The records of a chain's steps, lowest first.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// What it is kept under.
    pub key: Key,
    /// The steps' layers.
    pub entries: Vec<Entry>,
}

/// A step and its layer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What the step was.
    pub step: Step,
    /// Its layer's blob.
    pub stored: StoredLayer,
    /// Where that can be had.
    pub origin: Origin,
}

/// What a record says of a step besides its layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// The keys that lead to it.
    pub keys: Vec<Key>,
    /// As in [`Record`].
    pub identity: Key,
    /// As in [`Record`].
    pub created: String,
    /// As in [`Record`].
    pub name: String,
    /// The digest of the layer's tar.
    pub diff_id: Digest,
    /// As in [`Record`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub made: Option<i64>,
}

impl Step {
    /// What is said of a layer; `None` for a base image's, and for one that has no blob.
    pub fn of(layer: &Layer) -> Option<Self> {
        if matches!(layer.origin, Origin::Base { .. }) {
            return None;
        }
        Some(Self {
            keys: layer.claimed.clone(),
            identity: layer.own,
            created: layer.created.clone().unwrap_or_default(),
            name: layer.name.clone(),
            diff_id: layer.stored.get()?.diff_id.clone(),
            made: layer.made,
        })
    }
}

impl Bundle {
    /// The steps of `chain`; `None` where one of its layers has no blob.
    pub fn of(key: Key, chain: &Chain) -> Option<Self> {
        let steps = chain.layers().iter().filter(|l| !matches!(l.origin, Origin::Base { .. }));
        let entries = steps.map(|layer| {
            let (step, stored) = (Step::of(layer)?, layer.stored.get()?.clone());
            Some(Entry { step, stored, origin: layer.origin.clone() })
        });
        Some(Self { key, entries: entries.collect::<Option<_>>()? })
    }

    /// Whether it names the same results; the keys that lead to them are no matter.
    pub fn is(&self, other: &Self) -> bool {
        let result = |e: &Entry| (e.step.identity, e.stored.descriptor.digest().to_string());
        self.key == other.key && self.entries.iter().map(result).eq(other.entries.iter().map(result))
    }

    /// Whether none of its steps was made before `oldest`.
    pub fn is_fresh(&self, oldest: Option<i64>) -> bool {
        self.entries.iter().all(|e| record::is_fresh(e.step.made, oldest))
    }

    /// The manifest.
    pub fn to_bytes(&self) -> Vec<u8> {
        let layers: Vec<_> = self
            .entries
            .iter()
            .map(|e| -> serde_json::Value {
                let blob = &e.stored.descriptor;
                json!({
                    "mediaType": blob.media_type().to_string(),
                    "digest": blob.digest().to_string(),
                    "size": blob.size(),
                    "annotations": { STEP: json!(e.step).to_string() },
                })
            })
            .collect();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MediaType::ImageManifest.to_string(),
            "config": { "mediaType": CONFIG_TYPE, "digest": Digest::of(CONFIG).as_str(), "size": CONFIG.len() },
            "layers": layers,
            "annotations": { KEY: self.key.to_string() },
        });
        manifest.to_string().into_bytes()
    }

    /// Reads a manifest that is said to be that of `key`; its layers can be had from `origin`.
    ///
    /// # Errors
    /// Why it isn't one, or not that of this key.
    pub fn parse(bytes: &[u8], key: Key, origin: &Origin) -> Result<Self, String> {
        let manifest: ImageManifest = read_json(bytes).map_err(|e| format!("no manifest: {e}"))?;
        if manifest.media_type().as_ref().is_some_and(|t| *t != MediaType::ImageManifest) {
            return Err("it is no image manifest".into());
        }
        let named = manifest.annotations().as_ref().and_then(|a| a.get(KEY));
        if named.is_none_or(|n| *n != key.to_string()) {
            return Err(format!("it is the record of another key than {key}"));
        }
        if manifest.layers().len() > MOST {
            return Err(format!("more than {MOST} layers"));
        }
        let entries = manifest.layers().iter().map(|layer| entry(layer, origin)).collect::<Result<_, _>>()?;
        Ok(Self { key, entries })
    }
}

fn entry(layer: &Descriptor, origin: &Origin) -> Result<Entry, String> {
    let text = layer.annotations().as_ref().and_then(|a| a.get(STEP)).ok_or("a layer without a step")?;
    let step: Step = serde_json::from_str(text).map_err(|e| format!("a layer's step: {e}"))?;
    Entry::new(step, layer, origin)
}

/// A layer's descriptor without anything but what names its bytes: no addresses, no embedded data.
///
/// # Errors
/// Why it is no layer's.
pub(in crate::solve) fn blob(layer: &Descriptor) -> Result<Descriptor, String> {
    let media_type = layer.media_type();
    if !oci::is_layer(media_type) {
        return Err(format!("a layer of type {media_type}"));
    }
    let digest = Digest::try_from(layer.digest()).map_err(|e| e.to_string())?;
    Ok(Descriptor::new(media_type.clone(), layer.size(), digest.to_spec()))
}

impl Entry {
    /// A step and the blob that is said to be its layer's.
    ///
    /// # Errors
    /// Why the blob is none.
    pub fn new(step: Step, layer: &Descriptor, origin: &Origin) -> Result<Self, String> {
        let stored = StoredLayer { descriptor: blob(layer)?, diff_id: step.diff_id.clone() };
        Ok(Self { step, stored, origin: origin.clone() })
    }

    /// As a record under one of its keys.
    pub fn record(&self, key: Key) -> Record {
        Record {
            key,
            identity: self.step.identity,
            created: self.step.created.clone(),
            stored: Some(self.stored.clone()),
            name: self.step.name.clone(),
            made: self.step.made,
            keys: self.step.keys.clone(),
        }
    }
}
