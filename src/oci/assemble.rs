//! Images put together: configuration, layers and history to the bytes of the documents that make an image.
//!
//! Pure, and the same input gives the same bytes: maps are sorted, fields stand in one order. Indentation is BuildKit's.

use super::{Descriptor, Digest, History, ImageConfig, MediaType, Platform, RootFs, docker};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// A layer of an image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Layer {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
}

/// A document of an image: a configuration, a manifest, an index.
#[derive(Debug, Clone, PartialEq)]
pub struct Document {
    /// Media type, digest, size; where it is part of an index, its platform and annotations there.
    pub descriptor: Descriptor,
    /// The JSON.
    pub bytes: Vec<u8>,
}

/// An image for one platform.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// Its configuration.
    pub config: Document,
    /// Its manifest.
    pub manifest: Document,
    /// Its layers, lowest first, by the media types of the manifest.
    pub layers: Vec<Layer>,
}

/// What a build made: one image, or an index of several.
#[derive(Debug, Clone, PartialEq)]
pub struct Assembled {
    /// One for each platform.
    pub images: Vec<Image>,
    /// What names them all, where there are several.
    pub index: Option<Document>,
}

/// Whose media types the documents have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Flavor {
    /// The OCI image specification's.
    #[default]
    Oci,
    /// Docker's, version 2, schema 2.
    Docker,
}

/// The annotations of one image or index, by where they stand.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Annotations {
    /// In the document itself.
    pub document: BTreeMap<String, String>,
    /// In the descriptor that leads to it.
    pub descriptor: BTreeMap<String, String>,
}

/// Pieces that make no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// More history entries with a layer than layers.
    #[error("the history of the image for {platform} names {history} layers, but it has {layers}")]
    History {
        /// Which image.
        platform: Platform,
        /// Entries that name a layer.
        history: usize,
        /// Layers that there are.
        layers: usize,
    },
}

impl Assembled {
    /// What a name of the image leads to: the index, or the only manifest. `None` where there is no image at all.
    pub fn top(&self) -> Option<&Document> {
        self.index.as_ref().or_else(|| self.images.first().map(|image| &image.manifest))
    }
}

/// Makes an image for one platform. `config` lacks its `rootfs`, `history` and `created`: these follow from the layers
/// and `history`, whose missing times are filled in as BuildKit does. Annotations are of the manifest and of the
/// descriptor that leads to it; Docker's media types have no annotations in the manifest.
///
/// # Errors
/// [`AssembleError::History`]. History may name fewer layers than there are: then the rest gets entries that say so.
pub fn image(
    mut config: ImageConfig,
    layers: &[Layer],
    history: Vec<History>,
    annotations: &Annotations,
    flavor: Flavor,
) -> Result<Image, AssembleError> {
    let platform = config.platform();
    config.history = complete(history, layers.len(), &platform)?;
    config.created = config.created.or_else(|| config.history.iter().rev().find_map(|h| h.created.clone()));
    config.rootfs = RootFs { diff_ids: layers.iter().map(|l| l.diff_id.clone()).collect(), ..RootFs::default() };
    let layers: Vec<Layer> = layers.iter().map(|l| flavor.layer(l)).collect();
    let config = document(flavor.config(), compact(&config));
    let mut manifest = json!({
        "schemaVersion": 2,
        "mediaType": flavor.manifest().to_string(),
        "config": value(&config.descriptor),
        "layers": layers.iter().map(|l| value(&l.descriptor)).collect::<Vec<_>>(),
    });
    annotate(&mut manifest, &annotations.document);
    let mut manifest = document(flavor.manifest(), pretty(&manifest));
    set_annotations(&mut manifest.descriptor, &annotations.descriptor);
    Ok(Image { platform, config, manifest, layers })
}

/// Joins the images of a build: one stands for itself, several get an index.
pub fn join(images: Vec<Image>, annotations: &Annotations, flavor: Flavor) -> Assembled {
    if images.len() < 2 {
        return Assembled { images, index: None };
    }
    let manifests = images.iter().map(|image| {
        let mut descriptor = value(&image.manifest.descriptor);
        descriptor["platform"] = platform_value(&image.platform);
        descriptor
    });
    let mut index = json!({
        "schemaVersion": 2,
        "mediaType": flavor.index().to_string(),
        "manifests": manifests.collect::<Vec<_>>(),
    });
    annotate(&mut index, &annotations.document);
    let mut index = document(flavor.index(), pretty(&index));
    set_annotations(&mut index.descriptor, &annotations.descriptor);
    Assembled { images, index: Some(index) }
}

/// A descriptor as JSON, its annotations sorted.
pub fn value(descriptor: &Descriptor) -> Value {
    let mut value = serde_json::to_value(descriptor).unwrap_or_default();
    if let Some(Value::Object(annotations)) = value.get_mut("annotations") {
        annotations.sort_keys();
    }
    value
}

impl Flavor {
    fn manifest(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageManifest,
            Self::Docker => MediaType::Other(docker::MANIFEST.into()),
        }
    }

    fn index(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageIndex,
            Self::Docker => MediaType::Other(docker::MANIFEST_LIST.into()),
        }
    }

    fn config(self) -> MediaType {
        match self {
            Self::Oci => MediaType::ImageConfig,
            Self::Docker => MediaType::Other(docker::CONFIG.into()),
        }
    }

    /// A layer under this flavor's media type, without what builders note in its annotations for themselves.
    fn layer(self, layer: &Layer) -> Layer {
        let mut layer = layer.clone();
        let media_type = self.layer_type(layer.descriptor.media_type().as_ref());
        layer.descriptor.set_media_type(MediaType::from(media_type.as_str()));
        let kept: BTreeMap<String, String> = match self {
            Self::Oci => {
                layer.descriptor.annotations().iter().flatten().filter(|(k, _)| !is_internal(k)).map(owned).collect()
            }
            Self::Docker => BTreeMap::new(),
        };
        set_annotations(&mut layer.descriptor, &kept);
        layer
    }

    fn layer_type(self, media_type: &str) -> String {
        const TYPES: [(&str, &str); 3] = [
            ("application/vnd.oci.image.layer.v1.tar+gzip", docker::LAYER_GZIP),
            ("application/vnd.oci.image.layer.v1.tar+zstd", "application/vnd.docker.image.rootfs.diff.tar.zstd"),
            ("application/vnd.oci.image.layer.v1.tar", "application/vnd.docker.image.rootfs.diff.tar"),
        ];
        let known = TYPES.iter().find(|(oci, docker)| [*oci, *docker].contains(&media_type));
        known.map_or(media_type, |(oci, docker)| if self == Self::Oci { oci } else { docker }).to_owned()
    }
}

fn is_internal(annotation: &str) -> bool {
    matches!(annotation, "containerd.io/uncompressed" | "buildkit/createdat")
        || annotation.starts_with("containerd.io/distribution.source.")
}

fn owned((key, value): (&String, &String)) -> (String, String) {
    (key.clone(), value.clone())
}

fn set_annotations(descriptor: &mut Descriptor, annotations: &BTreeMap<String, String>) {
    let annotations = (!annotations.is_empty()).then(|| annotations.iter().map(owned).collect());
    descriptor.set_annotations(annotations);
}

fn annotate(document: &mut Value, annotations: &BTreeMap<String, String>) {
    if !annotations.is_empty() {
        document["annotations"] = json!(annotations);
    }
}

fn platform_value(platform: &Platform) -> Value {
    let mut fields = Map::new();
    fields.insert("architecture".into(), platform.arch.as_str().into());
    fields.insert("os".into(), platform.os.as_str().into());
    if !platform.variant.is_empty() {
        fields.insert("variant".into(), platform.variant.as_str().into());
    }
    fields.into()
}

fn document(media_type: MediaType, bytes: Vec<u8>) -> Document {
    Document { descriptor: super::describe(media_type, &bytes), bytes }
}

fn compact(config: &ImageConfig) -> Vec<u8> {
    // Strings, numbers and maps with text keys: nothing here that JSON can't hold.
    serde_json::to_vec(config).unwrap_or_default()
}

fn pretty(value: &Value) -> Vec<u8> {
    serde_json::to_vec_pretty(value).unwrap_or_default()
}

/// A history with as many layers as there are, and with a time for each entry where any is known.
fn complete(mut history: Vec<History>, layers: usize, platform: &Platform) -> Result<Vec<History>, AssembleError> {
    let named = history.iter().filter(|h| !h.empty_layer).count();
    if named > layers {
        return Err(AssembleError::History { platform: platform.clone(), history: named, layers });
    }
    let unnamed = || History { comment: "buildkit.exporter.image.v0".into(), ..History::default() };
    history.extend(std::iter::repeat_with(unnamed).take(layers - named));
    fill_times(&mut history);
    Ok(history)
}

/// Entries without a time get that of the entry before them; those before the first new layer get that layer's, since
/// otherwise the first new entry would be as old as the base.
fn fill_times(history: &mut [History]) {
    let first_missing = history.iter().position(|h| h.created.is_none()).unwrap_or(history.len());
    let after = history.iter().skip(first_missing).find_map(|h| h.created.clone());
    let mut time = after.or_else(|| history.iter().take(first_missing).rev().find_map(|h| h.created.clone()));
    for entry in history.iter_mut().skip(first_missing) {
        match &entry.created {
            Some(own) => time = Some(own.clone()),
            None => entry.created.clone_from(&time),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(text: &str, media_type: &str) -> Layer {
        let descriptor = crate::oci::describe(MediaType::from(media_type), text.as_bytes());
        Layer { descriptor, diff_id: Digest::of(text.as_bytes()) }
    }

    fn entry(created: Option<&str>, empty_layer: bool) -> History {
        History { created: created.map(Into::into), empty_layer, ..History::default() }
    }

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
    }

    fn config() -> ImageConfig {
        ImageConfig::scratch(&Platform::new("linux", "amd64", ""))
    }

    const OCI_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    #[test]
    fn an_image() {
        let layers = [layer("a", docker::LAYER_GZIP), layer("b", OCI_GZIP)];
        let history = vec![entry(Some("2024"), false), entry(Some("2025"), false), entry(None, true)];
        let annotations = Annotations { document: map(&[("z", "1"), ("a", "2")]), descriptor: map(&[("d", "3")]) };
        let made = image(config(), &layers, history, &annotations, Flavor::Oci).unwrap();
        let read: ImageConfig = serde_json::from_slice(&made.config.bytes).unwrap();
        assert_eq!(read.created.as_deref(), Some("2025"));
        assert_eq!(read.rootfs.diff_ids, [Digest::of(b"a"), Digest::of(b"b")]);
        let text = String::from_utf8(made.manifest.bytes.clone()).unwrap();
        assert!(text.starts_with(
            "{\n  \"schemaVersion\": 2,\n  \"mediaType\": \"application/vnd.oci.image.manifest.v1+json\""
        ));
        assert!(text.ends_with("\"annotations\": {\n    \"a\": \"2\",\n    \"z\": \"1\"\n  }\n}"), "{text}");
        assert_eq!(text.matches(OCI_GZIP).count(), 2);
        assert_eq!(made.manifest.descriptor.annotations().as_ref().unwrap()["d"], "3");
        let again = image(config(), &layers, read.history, &annotations, Flavor::Oci).unwrap();
        assert_eq!(again.manifest.bytes, made.manifest.bytes);
    }

    #[test]
    fn dockers_media_types() {
        let mut noted = layer("a", OCI_GZIP);
        set_annotations(&mut noted.descriptor, &map(&[("k", "v")]));
        let layers = [noted, layer("b", "application/vnd.oci.image.layer.v1.tar+zstd"), layer("c", "text/odd")];
        let made = image(config(), &layers, vec![], &Annotations::default(), Flavor::Docker).unwrap();
        let text = String::from_utf8(made.manifest.bytes).unwrap();
        for part in [docker::MANIFEST, docker::CONFIG, docker::LAYER_GZIP, "diff.tar.zstd", "text/odd"] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains("annotations"));
    }

    #[test]
    fn builders_own_notes_go_away() {
        let mut noted = layer("a", OCI_GZIP);
        set_annotations(&mut noted.descriptor, &map(&[("containerd.io/uncompressed", "x"), ("b", "2"), ("a", "1")]));
        let made = image(config(), &[noted], vec![], &Annotations::default(), Flavor::Oci).unwrap();
        let text = String::from_utf8(made.manifest.bytes).unwrap();
        assert!(!text.contains("containerd.io"));
        assert!(text.find("\"a\"") < text.find("\"b\""), "{text}");
    }

    #[test]
    fn several_platforms() {
        let one = |arch, variant| {
            let config = ImageConfig::scratch(&Platform::new("linux", arch, variant));
            image(config, &[], vec![], &Annotations::default(), Flavor::Oci).unwrap()
        };
        let annotations = Annotations { document: map(&[("k", "v")]), ..Annotations::default() };
        let joined = join(vec![one("amd64", ""), one("arm", "v7")], &annotations, Flavor::Oci);
        let index: Value = serde_json::from_slice(&joined.top().unwrap().bytes).unwrap();
        assert_eq!(index["manifests"][1]["platform"], json!({"architecture": "arm", "os": "linux", "variant": "v7"}));
        assert_eq!(index["annotations"]["k"], "v");
        let single = join(vec![one("amd64", "")], &annotations, Flavor::Oci);
        assert_eq!(single.top(), Some(&single.images[0].manifest));
    }

    #[test]
    fn times_are_filled_in() {
        for (given, want) in [
            (&[None, None][..], &[None, None][..]),
            (&[Some("1"), None, Some("3"), None], &[Some("1"), Some("3"), Some("3"), Some("3")]),
            (&[Some("1"), None, None], &[Some("1"), Some("1"), Some("1")]),
            (&[None, Some("2"), None, Some("4")], &[Some("2"), Some("2"), Some("2"), Some("4")]),
        ] {
            let mut history: Vec<History> = given.iter().map(|t| entry(*t, true)).collect();
            fill_times(&mut history);
            let got: Vec<Option<&str>> = history.iter().map(|h| h.created.as_deref()).collect();
            assert_eq!(got, want, "{given:?}");
        }
    }

    #[test]
    fn history_and_layers_agree() {
        let layers = [layer("a", OCI_GZIP)];
        let made = image(config(), &layers, vec![entry(None, true)], &Annotations::default(), Flavor::Oci).unwrap();
        let read: ImageConfig = serde_json::from_slice(&made.config.bytes).unwrap();
        assert_eq!((read.history.len(), read.history[1].comment.as_str()), (2, "buildkit.exporter.image.v0"));
        let history = vec![entry(None, false); 2];
        assert!(image(config(), &layers, history, &Annotations::default(), Flavor::Oci).is_err());
    }
}
