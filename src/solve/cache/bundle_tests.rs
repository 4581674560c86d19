//! What is written is read again, and what isn't of this key or no layer is refused.

use super::bundle::{Bundle, Entry, Step};
use crate::oci::{Digest, MediaType, describe};
use crate::solve::chain::{Origin, StoredLayer};
use crate::solve::key::named;
use crate::store::Key;
use proptest::prelude::*;
use serde_json::{Value, json};

fn entry(n: &str) -> Entry {
    let diff_id = Digest::of(n.as_bytes());
    let step = Step {
        keys: vec![named("key", n), named("other", n)],
        identity: named("run", n),
        created: "2026-01-01T00:00:00Z".into(),
        name: n.to_owned(),
        diff_id: diff_id.clone(),
        made: Some(7),
    };
    let stored = StoredLayer { descriptor: describe(MediaType::ImageLayerGzip, n.as_bytes()), diff_id };
    Entry { step, stored, origin: Origin::Step }
}

fn key() -> Key {
    named("key", "top")
}

fn tampered(change: impl FnOnce(&mut Value)) -> Result<Bundle, String> {
    let bundle = Bundle { key: key(), entries: vec![entry("a"), entry("b")] };
    let mut value: Value = serde_json::from_slice(&bundle.to_bytes()).unwrap();
    change(&mut value);
    Bundle::parse(value.to_string().as_bytes(), key(), &Origin::Step)
}

#[test]
fn a_record_is_refused_where_it_is_not_what_it_should_be() {
    assert!(tampered(|_| ()).is_ok());
    type Change = fn(&mut Value);
    let changes: [(&str, Change); 10] = [
        ("an index", |v| v["mediaType"] = json!("application/vnd.oci.image.index.v1+json")),
        ("another key's", |v| v["annotations"]["kiln.cache.key"] = json!(named("key", "else").to_string())),
        ("no key", |v| v["annotations"] = json!({})),
        ("no step", |v| v["layers"][1]["annotations"] = json!({})),
        ("a step that is no JSON", |v| v["layers"][0]["annotations"]["kiln.cache.step"] = json!("{")),
        ("a step without an identity", |v| v["layers"][0]["annotations"]["kiln.cache.step"] = json!("{\"keys\":[]}")),
        ("no layer", |v| v["layers"][0]["mediaType"] = json!("text/html")),
        ("a foreign layer", |v| {
            v["layers"][0]["mediaType"] = json!("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip");
        }),
        ("no digest", |v| v["layers"][0]["digest"] = json!("sha256:../../etc")),
        ("too many", |v| v["layers"] = json!(vec![v["layers"][0].clone(); 1001])),
    ];
    for (what, change) in changes {
        assert!(tampered(change).is_err(), "{what}");
    }
    assert!(Bundle::parse(b"", key(), &Origin::Step).is_err());
    assert!(Bundle::parse(b"[]", key(), &Origin::Step).is_err());
}

#[test]
fn addresses_in_a_descriptor_are_forgotten() {
    let read = tampered(|v| v["layers"][0]["urls"] = json!(["http://evil.example/"])).unwrap();
    assert!(read.entries[0].stored.descriptor.urls().is_none());
}

#[test]
fn a_manifest_is_small_and_an_image_manifest() {
    let bytes = Bundle { key: key(), entries: vec![entry("a")] }.to_bytes();
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    assert_eq!(value["mediaType"], "application/vnd.oci.image.manifest.v1+json");
    assert_eq!(value["config"]["size"], 2);
    assert!(bytes.len() < 1200, "{}", bytes.len());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn what_is_written_is_read(names in proptest::collection::vec("\\PC{0,20}", 0..8)) {
        let bundle = Bundle { key: key(), entries: names.iter().map(|n| entry(n)).collect() };
        let read = Bundle::parse(&bundle.to_bytes(), key(), &Origin::Step).unwrap();
        prop_assert!(read.is(&bundle));
        let steps = |b: &Bundle| b.entries.iter().map(|e| (e.step.clone(), e.stored.clone())).collect::<Vec<_>>();
        prop_assert_eq!(steps(&read), steps(&bundle));
    }

    #[test]
    fn bytes_of_any_kind_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = Bundle::parse(&bytes, key(), &Origin::Step);
    }
}
