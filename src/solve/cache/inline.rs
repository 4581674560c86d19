//! The records that ride in an image: its own steps', in a field of its configuration.
//!
//! They cost no further manifest and no tag, and are found by the image's name. The image's id differs from that of the
//! same image without them, so they are there only where they were asked for.

use super::bundle::{Entry, MOST, Step};
use crate::oci::ImageConfig;
use crate::registry::Image;
use crate::solve::chain::{Chain, Origin};
use serde::{Deserialize, Serialize};
use serde_json::json;

/// The field of the image configuration.
const FIELD: &str = "kiln.cache.v1";
/// The fields of builders that say where an image's own steps came from: they are not true of an image built upon it.
const OTHERS: [&str; 2] = [FIELD, "moby.buildkit.cache.v0"];

/// A step, and which of the image's layers is its.
#[derive(Debug, Serialize, Deserialize)]
struct Carried {
    /// Counted from the lowest, the base image's included.
    layer: usize,
    #[serde(flatten)]
    step: Step,
}

/// Lets an image's configuration carry the records of its `chain`, and none where there is no chain; those of its base
/// image go away in either case. With `timeless` they don't say when steps ran, so that the same build gives the same image.
pub fn carry(config: &mut ImageConfig, chain: Option<&Chain>, timeless: bool) {
    for field in OTHERS {
        config.other.shift_remove(field);
    }
    let Some(chain) = chain else { return };
    let layers = chain.layers().iter().enumerate();
    let carried = layers.filter_map(|(layer, l)| {
        let step = Step::of(l)?;
        Some(Carried { layer, step: Step { made: step.made.filter(|_| !timeless), ..step } })
    });
    let carried: Vec<Carried> = carried.collect();
    config.other.insert(FIELD.into(), json!(carried));
}

/// The records that an image carries; its layers can be had from `origin`.
///
/// # Errors
/// Why they can't be those of this image.
pub fn carried(image: &Image, origin: &Origin) -> Result<Vec<Entry>, String> {
    let Some(field) = image.config.other.get(FIELD) else { return Ok(Vec::new()) };
    let carried: Vec<Carried> = serde_json::from_value(field.clone()).map_err(|e| format!("{FIELD}: {e}"))?;
    if carried.len() > MOST {
        return Err(format!("{FIELD}: more than {MOST} layers"));
    }
    let entry = |Carried { layer, step }: Carried| {
        let diff_id = image.config.rootfs.diff_ids.get(layer);
        match image.parsed.layers().get(layer) {
            Some(blob) if diff_id == Some(&step.diff_id) => Entry::new(step, blob, origin),
            _ => Err(format!("{FIELD}: the image has no such layer {layer}")),
        }
    };
    carried.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::{Digest, Platform};
    use crate::registry::Manifest;
    use crate::solve::key::named;
    use serde_json::Value;

    fn image(field: Value) -> Image {
        let mut config = ImageConfig::scratch(&Platform::new("linux", "amd64", ""));
        config.rootfs.diff_ids = vec![Digest::of(b"base"), Digest::of(b"step")];
        config.other.insert(FIELD.into(), field);
        let layer = |text: &str| json!({ "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": Digest::of(text.as_bytes()).as_str(), "size": 4 });
        let parsed = json!({
            "schemaVersion": 2,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": Digest::of(b"").as_str(), "size": 0 },
            "layers": [layer("base.gz"), layer("step.gz")],
        });
        let manifest = Manifest::new("", parsed.to_string().into());
        let parsed = serde_json::from_value(parsed).unwrap();
        Image { top: manifest.clone(), manifest, parsed, config, config_bytes: Vec::new().into() }
    }

    fn step() -> Value {
        json!({ "layer": 1, "keys": [named("key", "k")], "identity": named("run", "1"), "created": "", "name": "RUN x",
                "diff_id": Digest::of(b"step").as_str(), "made": 9 })
    }

    #[test]
    fn what_an_image_carries_is_of_its_layers() {
        let read = carried(&image(json!([step()])), &Origin::Step).unwrap();
        assert_eq!(read[0].stored.descriptor.digest().to_string(), Digest::of(b"step.gz").as_str());
        assert_eq!((read[0].step.keys[0], read[0].step.made), (named("key", "k"), Some(9)));
        let with = |name: &str, value: Value| {
            let mut step = step();
            step[name] = value;
            json!([step])
        };
        let refused = [
            with("layer", json!(0)),
            with("layer", json!(2)),
            with("layer", json!(-1)),
            with("diff_id", json!(Digest::of(b"else").as_str())),
            with("keys", json!("x")),
            json!("text"),
            json!([1]),
            json!(vec![step(); MOST + 1]),
        ];
        for field in refused {
            assert!(carried(&image(field.clone()), &Origin::Step).is_err(), "{field}");
        }
    }

    #[test]
    fn a_bases_records_are_not_its_users() {
        let mut config = ImageConfig::default();
        for field in OTHERS {
            config.other.insert(field.into(), json!("x"));
        }
        config.other.insert("odd".into(), json!(1));
        carry(&mut config, None, false);
        assert_eq!(config.other.keys().collect::<Vec<_>>(), ["odd"]);
        carry(&mut config, Some(&Chain::default()), true);
        assert_eq!(config.other[FIELD], json!([]));
    }
}
