//! `export`: archives and layouts that other tools read, and pushing while the build runs. No privilege needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod docker_registry;
    pub(crate) mod server;
}

use kiln::export::spec::{Destination, Kind, Place, Spec};
use kiln::export::{BlobSource, Error, Layout, Named, Output, PushBlob, Pusher, RootTar};
use kiln::layer::{Entry, EntryKind, EntryPath, EntrySink as _, TarWriter};
use kiln::oci::assemble::{self, Annotations, Assembled, Flavor, Layer};
use kiln::oci::{Descriptor, Digest, ImageConfig, MediaType, Platform, Reference, describe};
use kiln::registry::{Client, Config, Content, Retry};
use kiln::report::Reporter;
use std::collections::HashMap;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use support::docker_registry::{DockerRegistry, Options};
use support::server::{Answer, Server};

/// Blobs in memory.
#[derive(Default)]
struct Blobs(HashMap<String, Vec<u8>>);

impl BlobSource for Blobs {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        let found = self.0.get(&blob.digest().to_string());
        let digest: Digest = blob.digest().to_string().parse().unwrap();
        Ok(Box::new(found.ok_or(Error::Missing(digest))?.as_slice()))
    }
}

/// Standard output, to be looked at.
#[derive(Clone, Default)]
struct Stdout(Arc<Mutex<Vec<u8>>>);

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

fn tar(name: &str) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    tar.add(&Entry::new(path("etc"), EntryKind::Dir), &mut std::io::empty()).unwrap();
    let file = Entry::new(path(&format!("etc/{name}")), EntryKind::File { size: 3 });
    tar.add(&file, &mut &b"abc"[..]).unwrap();
    tar.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// An image of two layers for each platform, and its blobs.
fn image(platforms: &[&str], flavor: Flavor) -> (Assembled, Blobs) {
    let mut blobs = Blobs::default();
    let mut images = Vec::new();
    for platform in platforms {
        let mut layers = Vec::new();
        for name in ["one", platform] {
            let tar = tar(&name.replace('/', "-"));
            let blob = gzip(&tar);
            let descriptor = describe(MediaType::ImageLayerGzip, &blob);
            layers.push(Layer { diff_id: Digest::of(&tar), descriptor });
            blobs.0.insert(layers.last().unwrap().descriptor.digest().to_string(), blob);
        }
        let mut config = ImageConfig::scratch(&platform.parse::<Platform>().unwrap());
        config.config.env = vec!["A=b".into()];
        config.created = Some("2024-01-02T03:04:05Z".into());
        images.push(assemble::image(config, &layers, vec![], &Annotations::default(), flavor).unwrap());
    }
    (assemble::join(images, &Annotations::default(), flavor), blobs)
}

fn export(output: &str, names: &[&str], image: &Assembled, blobs: &Blobs) -> Result<Vec<u8>, Error> {
    let names: Vec<Reference> = names.iter().map(|n| n.parse().unwrap()).collect();
    let stdout = Stdout::default();
    let spec: Spec = output.parse().unwrap();
    let docker = matches!(spec.kind, Kind::Docker(_));
    let (Kind::Oci(place) | Kind::Docker(place)) = spec.kind else { unreachable!("{output}") };
    let named = Named { image, names: &names, created: "2024-01-02T03:04:05Z" };
    let layout = Layout { images: &[named], docker };
    layout.write(&place, blobs, Box::new(stdout.clone()))?;
    let bytes = stdout.0.lock().unwrap().clone();
    Ok(bytes)
}

/// The output of an installed tool; `None`, and a line that says so, where it is missing.
fn tool(arguments: &[&str]) -> Option<String> {
    match Command::new(arguments[0]).args(&arguments[1..]).stderr(Stdio::piped()).output() {
        Err(_) => {
            println!("SKIPPED: {} is not installed", arguments[0]);
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
            Some(String::from_utf8(output.stdout).unwrap())
        }
    }
}

#[test]
fn oci_archives_are_read_by_skopeo() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar");
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    export(&format!("type=oci,dest={}", file.display()), &["a:1", "b/c"], &image, &blobs).unwrap();
    for tag in ["1", "latest"] {
        let Some(text) = tool(&["skopeo", "inspect", &format!("oci-archive:{}:{tag}", file.display())]) else { return };
        assert!(text.contains(&image.images[0].manifest.descriptor.digest().to_string()), "{text}");
        assert!(text.contains("A=b"));
    }
    let raw = tool(&["tar", "-tf", &file.display().to_string()]).unwrap();
    assert_eq!(raw.lines().take(2).collect::<Vec<_>>(), ["blobs/", "blobs/sha256/"]);
    assert_eq!(raw.lines().count(), 2 + 4 + 2, "{raw}");
}

#[test]
fn docker_archives_are_read_by_skopeo() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.tar");
    let (image, blobs) = image(&["linux/amd64"], Flavor::Docker);
    export(&format!("type=docker,dest={}", file.display()), &["a:1", "r.io/b:2"], &image, &blobs).unwrap();
    let Some(text) = tool(&["skopeo", "inspect", &format!("docker-archive:{}:a:1", file.display())]) else { return };
    assert!(text.contains("A=b"), "{text}");
    let copy = format!("dir:{}", folder.path().join("copy").display());
    tool(&["skopeo", "copy", "--insecure-policy", &format!("docker-archive:{}:r.io/b:2", file.display()), &copy]);
}

#[test]
fn layouts_in_a_folder_are_unpacked_by_umoci() {
    let folder = tempfile::tempdir().unwrap();
    let layout = folder.path().join("layout");
    let output = format!("type=oci,tar=false,dest={}", layout.display());
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    export(&output, &["a:1"], &image, &blobs).unwrap();
    let bundle = folder.path().join("bundle");
    let from = format!("{}:1", layout.display());
    let unpack = ["umoci", "raw", "unpack", "--rootless", "--image", &from, &bundle.display().to_string()];
    if tool(&unpack).is_some() {
        assert_eq!(std::fs::read(bundle.join("etc/one")).unwrap(), b"abc");
    }
}

#[test]
fn a_layout_keeps_the_names_that_are_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let output = format!("type=oci,tar=false,dest={}", folder.path().display());
    let (first, first_blobs) = image(&["linux/amd64"], Flavor::Oci);
    let (second, second_blobs) = image(&["linux/arm64"], Flavor::Oci);
    export(&output, &["a:1"], &first, &first_blobs).unwrap();
    export(&output, &["a:2"], &second, &second_blobs).unwrap();
    export(&output, &["a:1"], &second, &second_blobs).unwrap();
    let index = std::fs::read(folder.path().join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let entries = index["manifests"].as_array().unwrap();
    assert_eq!(entries.len(), 2);
    for entry in entries {
        assert_eq!(entry["digest"], second.top().unwrap().descriptor.digest().to_string());
    }
    assert_eq!(entries[0]["annotations"]["io.containerd.image.name"], "docker.io/library/a:2");
}

#[test]
fn archives_go_to_standard_output() {
    let (image, blobs) = image(&["linux/amd64", "linux/arm64"], Flavor::Oci);
    let bytes = export("type=oci", &[], &image, &blobs).unwrap();
    assert_eq!(bytes, export("type=oci,dest=-", &[], &image, &blobs).unwrap());
    let mut archive = tar::Archive::new(bytes.as_slice());
    let names: Vec<String> =
        archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string()).collect();
    // Three layers (one is shared), two configurations, two manifests, an index; two folders and two files above.
    assert_eq!(names.len(), 8 + 4, "{names:?}");
}

#[test]
fn docker_archives_hold_one_platform() {
    let (image, blobs) = image(&["linux/amd64", "linux/arm64"], Flavor::Docker);
    let error = export("type=docker", &["a"], &image, &blobs).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
}

#[test]
fn a_damaged_blob_leaves_no_archive() {
    let folder = tempfile::tempdir().unwrap();
    let store = kiln::store::Store::open(&folder.path().join("store")).unwrap();
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    for bytes in blobs.0.values() {
        store.write_blob(bytes).unwrap();
    }
    let file = folder.path().join("x.tar");
    let layout = Layout { images: &[Named { image: &image, names: &[], created: "" }], docker: false };
    let place = Place::Archive(Destination::File(file.clone()));
    layout.write(&place, &store, Box::new(std::io::sink())).unwrap();
    std::fs::remove_file(&file).unwrap();
    let layer: Digest = image.images[0].layers[0].descriptor.digest().to_string().parse().unwrap();
    let blob = store.blob_path(&layer);
    let mut bytes = std::fs::read(&blob).unwrap();
    bytes[20] ^= 1;
    std::fs::remove_file(&blob).unwrap();
    std::fs::write(&blob, bytes).unwrap();
    layout.write(&place, &store, Box::new(std::io::sink())).unwrap_err();
    assert!(!file.exists());
    assert_eq!(left_over(folder.path()), Vec::<String>::new());
}

/// Temporary files of an export.
fn left_over(folder: &Path) -> Vec<String> {
    let names = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    names.filter(|n| n.starts_with(".kiln")).collect()
}

#[test]
fn a_root_filesystem_as_one_tar() {
    let stdout = Stdout::default();
    let mut sink = RootTar::new(Output::open(&Destination::Stdout, Box::new(stdout.clone())).unwrap());
    for entry in [Entry::new(path(""), EntryKind::Dir), Entry::new(path("a"), EntryKind::Dir)] {
        sink.add(&entry, &mut std::io::empty()).unwrap();
    }
    sink.finish().unwrap();
    let bytes = stdout.0.lock().unwrap().clone();
    assert_eq!(tar::Archive::new(bytes.as_slice()).entries().unwrap().count(), 1);
}

fn pusher(names: &[String]) -> Pusher {
    let retry = Retry { first: Duration::from_millis(2), ..Retry::default() };
    let client = Client::new(Config { retry, ..Config::default() });
    let names = names.iter().map(|n| n.parse().unwrap()).collect();
    Pusher::new(client, names, tokio::runtime::Handle::current(), Reporter::silent(), None)
}

fn give(pusher: &Pusher, blobs: &Blobs, layer: &Layer) {
    let bytes = blobs.0[&layer.descriptor.digest().to_string()].clone();
    let content = Content::Bytes(bytes.into());
    pusher.layer_ready(PushBlob { descriptor: layer.descriptor.clone(), content, source: None }).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pushed_images_are_read_by_skopeo() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    for (platforms, flavor) in [(&["linux/amd64"][..], Flavor::Oci), (&["linux/amd64", "linux/arm64"], Flavor::Docker)]
    {
        let (image, blobs) = image(platforms, flavor);
        let name = |rest: &str| format!("{}/{}/{rest}", registry.host, platforms.len());
        let pusher = pusher(&[name("a:1"), name("b:1"), name("a:2")]);
        for layer in image.images.iter().flat_map(|i| &i.layers) {
            give(&pusher, &blobs, layer);
        }
        let pushed = pusher.finish(&image, false).await.unwrap();
        assert_eq!(pushed.len(), 3);
        for one in ["a:1", "b:1", "a:2"] {
            let at = format!("docker://{}", name(one));
            let inspect = ["skopeo", "inspect", "--tls-verify=false", "--raw", &at];
            let Some(text) = tool(&inspect) else { return };
            assert_eq!(text.as_bytes(), image.top().unwrap().bytes);
            tool(&["skopeo", "inspect", "--tls-verify=false", &at]);
        }
    }
}

#[tokio::test]
async fn by_digest_there_is_no_tag() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    let name = format!("{}/a:1", registry.host);
    let pusher = pusher(std::slice::from_ref(&name));
    image.images[0].layers.iter().for_each(|layer| give(&pusher, &blobs, layer));
    let pushed = pusher.finish(&image, true).await.unwrap();
    let client = Client::new(Config::default());
    client.manifest(&pushed[0].reference).await.unwrap();
    assert!(client.manifest(&name.parse().unwrap()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_layer_that_was_never_given_leaves_no_tag() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    let name = format!("{}/a:1", registry.host);
    let pusher = pusher(std::slice::from_ref(&name));
    give(&pusher, &blobs, &image.images[0].layers[0]);
    assert!(matches!(pusher.finish(&image, false).await, Err(Error::Missing(_))));
    let client = Client::new(Config::default());
    assert!(client.manifest(&name.parse().unwrap()).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_failed_upload_leaves_no_tag() {
    let server = Server::start(|asked| match asked.method.as_str() {
        "POST" => Answer::new(202).header("Location", "/up"),
        "PUT" if asked.path.starts_with("/up") => Answer::new(400),
        _ => Answer::new(201),
    })
    .await;
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    let pusher = pusher(&[format!("{}/a:1", server.host)]);
    image.images[0].layers.iter().for_each(|layer| give(&pusher, &blobs, layer));
    assert!(matches!(pusher.finish(&image, false).await, Err(Error::Registry(_))));
    assert!(!server.lines().iter().any(|line| line.contains("/manifests/")), "{:?}", server.lines());
}

#[tokio::test]
async fn uploads_begin_before_the_end() {
    let server = Server::start(|asked| match asked.method.as_str() {
        "POST" => Answer::new(202).header("Location", "/up"),
        _ => Answer::new(201),
    })
    .await;
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    let pusher = pusher(&[format!("{}/a:1", server.host)]);
    give(&pusher, &blobs, &image.images[0].layers[0]);
    give(&pusher, &blobs, &image.images[0].layers[0]);
    while server.asked().len() < 2 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(server.lines(), ["POST /v2/a/blobs/uploads/", "PUT /up"]);
    drop(pusher);
}

#[tokio::test]
async fn a_blob_from_the_same_registry_is_mounted_and_never_opened() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (image, blobs) = image(&["linux/amd64"], Flavor::Oci);
    let layers = &image.images[0].layers;
    let first = pusher(&[format!("{}/a:1", registry.host)]);
    layers.iter().for_each(|layer| give(&first, &blobs, layer));
    first.finish(&image, false).await.unwrap();
    let second = pusher(&[format!("{}/b:1", registry.host)]);
    for layer in layers {
        let content = Content::Later(Arc::new(|| Err("it must not be opened".into())));
        let source = Some(format!("{}/a", registry.host).parse().unwrap());
        second.layer_ready(PushBlob { descriptor: layer.descriptor.clone(), content, source }).unwrap();
    }
    second.finish(&image, false).await.unwrap();
}
