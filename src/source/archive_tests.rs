//! Archives made here, loaded.

use super::*;
use crate::layer::{Entry, EntrySink as _, TarWriter};
use std::io::Write;

const CONFIG: &str = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#;

fn tar(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for (path, content) in files {
        let path = EntryPath::parse(path.as_bytes()).unwrap();
        tar.add(&Entry::new(path, EntryKind::File { size: content.len() as u64 }), &mut &content[..]).unwrap();
    }
    for (path, target) in links {
        let path = EntryPath::parse(path.as_bytes()).unwrap();
        let link = Entry::new(path, EntryKind::Symlink(target.as_bytes().to_vec()));
        tar.add(&link, &mut std::io::empty()).unwrap();
    }
    tar.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn loaded(archive: &[u8]) -> (tempfile::TempDir, Result<Vec<Loaded>>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let loaded = load(&store, archive, &Cancel::new().unwrap());
    (folder, loaded)
}

fn why(archive: &[u8]) -> String {
    loaded(archive).1.unwrap_err().to_string()
}

/// A docker archive of one layer as `docker save` wrote them for years, the layer behind a link.
fn docker(layer: &[u8], diff_id: &Digest) -> Vec<u8> {
    let config = CONFIG.replace("DIFF", diff_id.as_str());
    let manifest = r#"[{"Config":"c.json","RepoTags":["app:1.0","r.io/app:2"],"Layers":["b/layer.tar"]}]"#;
    let files = [("a/layer.tar", layer), ("c.json", config.as_bytes()), ("manifest.json", manifest.as_bytes())];
    tar(&files, &[("b/layer.tar", "../a/layer.tar")])
}

#[test]
fn docker_archives_get_a_manifest() {
    let layer = tar(&[("x", b"y")], &[]);
    for (blob, media_type) in [(layer.clone(), MediaType::ImageLayer), (gzip(&layer), MediaType::ImageLayerGzip)] {
        for archive in [docker(&blob, &Digest::of(&layer)), gzip(&docker(&blob, &Digest::of(&layer)))] {
            let (folder, images) = loaded(&archive);
            let images = images.unwrap();
            let names: Vec<String> = images[0].names.iter().map(ToString::to_string).collect();
            assert_eq!(names, ["docker.io/library/app:1.0", "r.io/app:2"]);
            let store = Store::open(folder.path()).unwrap();
            let top = Digest::try_from(images[0].top.digest()).unwrap();
            let manifest = store.read_blob(&top, 1 << 20).unwrap().unwrap();
            let manifest: ImageManifest = serde_json::from_slice(&manifest).unwrap();
            assert_eq!(*manifest.layers()[0].media_type(), media_type);
            assert_eq!(manifest.layers()[0].digest().to_string(), Digest::of(&blob).to_string());
        }
    }
}

#[test]
fn a_layout_of_several_images() {
    let layer = gzip(&tar(&[("x", b"y")], &[]));
    let config = CONFIG.replace("DIFF", Digest::of(b"any").as_str());
    let layer_is = describe(MediaType::ImageLayerGzip, &layer);
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": describe(MediaType::ImageConfig, config.as_bytes()), "layers": [layer_is],
    })
    .to_string();
    let top = describe(MediaType::ImageManifest, manifest.as_bytes());
    let entry = |annotation: &str, name: &str| {
        let mut entry = serde_json::to_value(&top).unwrap();
        entry["annotations"] = json!({ annotation: name });
        entry
    };
    let entries = [entry(NAME, "r.io/a:1"), entry(REF_NAME, "r.io/a:2"), entry(REF_NAME, "latest")];
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    let path = |bytes: &[u8]| format!("blobs/sha256/{}", Digest::of(bytes).hex());
    let paths = [path(&layer), path(config.as_bytes()), path(manifest.as_bytes())];
    let files = [
        (paths[0].as_str(), layer.as_slice()),
        (&paths[1], config.as_bytes()),
        (&paths[2], manifest.as_bytes()),
        ("index.json", index.as_bytes()),
    ];
    let (_folder, images) = loaded(&tar(&files, &[]));
    let names = ["r.io/a:1", "r.io/a:2"].map(|n| n.parse().unwrap()).to_vec();
    assert_eq!(images.unwrap(), [Loaded { top, names }]);
    let text = why(&tar(&files[1..], &[]));
    assert!(text.contains("lacks a part of sha256:"), "{text}");
    let text = why(&tar(&[(paths[0].as_str(), b"other".as_slice()), ("index.json", index.as_bytes())], &[]));
    assert!(text.contains(&Digest::of(b"other").to_string()), "{text}");
}

/// An archive that is a layout: these documents as blobs, and an index of descriptors.
fn layout(blobs: &[&str], entries: &[Value]) -> Vec<u8> {
    let index = json!({ "schemaVersion": 2, "manifests": entries }).to_string();
    let paths: Vec<_> =
        blobs.iter().map(|blob| format!("blobs/sha256/{}", Digest::of(blob.as_bytes()).hex())).collect();
    let mut files: Vec<_> = paths.iter().map(String::as_str).zip(blobs.iter().map(|blob| blob.as_bytes())).collect();
    files.push(("index.json", index.as_bytes()));
    tar(&files, &[])
}

#[test]
fn a_false_media_type_is_an_error_that_names_both() {
    let config = CONFIG.replace("\"DIFF\"", "");
    let part = json!(describe(MediaType::ImageConfig, config.as_bytes()));
    let [manifest, index] = [MediaType::ImageManifest, MediaType::ImageIndex].map(|t| t.to_string());
    let docker = crate::oci::docker::MANIFEST;
    let document = |own: Option<&str>, config: &Value| {
        let mut document = json!({"schemaVersion": 2, "config": config, "layers": []});
        own.into_iter().for_each(|own| document["mediaType"] = own.into());
        document.to_string()
    };
    let as_layer = json!(describe(MediaType::ImageLayerGzip, config.as_bytes()));
    for (stated, own, part, says) in [
        (&*manifest, Some(&*manifest), &part, None),
        (&manifest, None, &part, None),
        (docker, Some(docker), &part, None),
        (docker, Some(&manifest), &part, Some([docker, &manifest])),
        (&index, Some(&manifest), &part, Some([&index, &manifest])),
        (&index, None, &part, Some([&index, "but it is an image manifest"])),
        ("application/x-other", Some(&manifest), &part, Some(["application/x-other", &manifest])),
        (&manifest, None, &as_layer, Some(["configuration", "tar+gzip"])),
    ] {
        let document = document(own, part);
        let inner = json!(describe(stated.into(), document.as_bytes()));
        let outer = json!({"schemaVersion": 2, "mediaType": index, "manifests": [inner]}).to_string();
        let outer_is = json!(describe(MediaType::ImageIndex, outer.as_bytes()));
        for entry in [&inner, &outer_is] {
            let loaded = loaded(&layout(&[&config, &document, &outer], std::slice::from_ref(entry))).1;
            match (loaded, says) {
                (Ok(images), None) => assert_eq!(images.len(), 1),
                (Err(said), Some(says)) => {
                    let said = said.to_string();
                    assert!(says.iter().all(|part| said.contains(part)), "{stated} {own:?}: {said}");
                }
                (loaded, _) => panic!("{stated} {own:?}: {loaded:?}"),
            }
        }
    }
}

#[test]
fn indexes_inside_indexes_end() {
    let config = CONFIG.replace("\"DIFF\"", "");
    let part = json!(describe(MediaType::ImageConfig, config.as_bytes()));
    let manifest = json!({"schemaVersion": 2, "config": part, "layers": []}).to_string();
    let mut blobs = vec![config, manifest.clone()];
    let mut entry = json!(describe(MediaType::ImageManifest, manifest.as_bytes()));
    for depth in 0..8 {
        // A thousand times the same one, at each level.
        let index = json!({"schemaVersion": 2, "manifests": vec![entry; 1000]}).to_string();
        entry = json!(describe(MediaType::ImageIndex, index.as_bytes()));
        blobs.push(index);
        let blobs: Vec<_> = blobs.iter().map(String::as_str).collect();
        let loaded = loaded(&layout(&blobs, std::slice::from_ref(&entry))).1;
        match depth < MAX_DEPTH {
            true => assert_eq!(loaded.unwrap().len(), 1, "{depth}"),
            false => assert!(loaded.unwrap_err().to_string().contains("without end"), "{depth}"),
        }
    }
}

#[test]
fn what_is_no_archive_of_images() {
    let layer = tar(&[("x", b"y")], &[]);
    let wrong = Digest::of(b"wrong");
    for (archive, part) in [
        (tar(&[("x", b"y")], &[]), "neither an index.json nor a manifest.json"),
        (b"no tar at all, but long enough to be taken for the beginning of one".repeat(20), "archive"),
        (docker(&layer, &wrong), "isn't the layer"),
        (tar(&[("manifest.json", br#"[{"Config":"../c","Layers":[]}]"#)], &[]), "it has no file ../c"),
        (tar(&[("manifest.json", br#"[{"Config":"c"}]"#)], &[("c", "d"), ("d", "c")]), "it has no file c"),
        (tar(&[("index.json", b"{")], &[]), "index.json: "),
    ] {
        let text = why(&archive);
        assert!(text.contains(part), "{part:?} isn't in {text}");
    }
}

#[test]
fn a_cancelled_load_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    assert!(matches!(load(&store, tar(&[("x", b"y")], &[]).as_slice(), &cancel), Err(Error::Cancelled)));
}
