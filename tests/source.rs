//! `source` against a real registry, a git daemon, and a web server of the test's own. Unpacking needs root: device
//! nodes and owners.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod support {
    pub(crate) mod docker_registry;
    pub(crate) mod server;
}

use kiln::layer::{Entry, EntryKind, EntryPath, EntrySink as _, TarWriter};
use kiln::oci::{Digest, MediaType, Platform, Reference, describe};
use kiln::plan::op::{GitOp, HttpOp, ImageOp};
use kiln::plan::{GitKey, HttpKey, ImageKey, ImageName, ResolvedBases, ResolvedImage, Wanted};
use kiln::registry::{Client, Config, Content, Manifest, Retry, Upload};
use kiln::report::{Event, Kind, Problem, Reporter, Span};
use kiln::source::{Git, Puller, Remotes, Resolver};
use kiln::store::{Key, Store};
use kiln::sys::Cancel;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use support::docker_registry::{DockerRegistry, Options};
use support::server::{Answer, Server};

/// A store and what fetches into it.
struct Place {
    _temp: tempfile::TempDir,
    store: Store,
    client: Client,
    cancel: Cancel,
}

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let retry = Retry { attempts: 2, first: Duration::from_millis(5), ..Retry::default() };
        let client = Client::new(Config { retry, ..Config::default() });
        Self { _temp: temp, store, client, cancel: Cancel::new().unwrap() }
    }

    fn git(&self) -> Git {
        Git::new(self.store.clone(), self.cancel.clone(), &|name| std::env::var_os(name).filter(|_| name == "PATH"))
    }

    fn resolver(&self) -> Resolver {
        let (store, registry, cancel) = (self.store.clone(), self.client.clone(), self.cancel.clone());
        Resolver { store, registry, pull: false, git: self.git(), cancel }
    }

    fn remotes(&self) -> Remotes {
        let (store, client, cancel) = (self.store.clone(), self.client.clone(), self.cancel.clone());
        Remotes { store, client, git: self.git(), cancel }
    }

    fn puller(&self) -> Puller {
        Puller::new(self.store.clone(), self.client.clone(), Reporter::silent(), self.cancel.clone())
    }

    async fn image(&self, name: &Reference) -> Result<ResolvedImage, Problem> {
        image_with(&self.resolver(), ImageName::Registry(name.clone())).await
    }
}

async fn image_with(resolver: &Resolver, name: ImageName) -> Result<ResolvedImage, Problem> {
    let key = ImageKey { name, platform: amd64() };
    let wanted = Wanted { images: vec![(key.clone(), Span::new(5, 9))], ..Wanted::default() };
    let mut known = ResolvedBases::default();
    resolver.resolve(&wanted, &mut known).await?;
    Ok(known.images.remove(&key).unwrap())
}

fn amd64() -> Platform {
    "linux/amd64".parse().unwrap()
}

fn reference(registry: &DockerRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host).parse().unwrap()
}

fn op(image: ResolvedImage, layout: Option<String>) -> ImageOp {
    let ResolvedImage { reference, manifest, layers, .. } = image;
    ImageOp { reference, layout, manifest, platform: amd64(), layers }
}

fn keys(image: &ImageOp) -> Vec<Key> {
    let mut chain = Vec::new();
    let below = |layer: &kiln::plan::op::BaseLayer| {
        chain.extend_from_slice(layer.diff_id.as_str().as_bytes());
        Key::of(&chain)
    };
    image.layers.iter().map(below).collect()
}

fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

/// A layer's tar: files with their content, and names that are removed.
fn tar(files: &[(&str, &str)], removed: &[&str]) -> Vec<u8> {
    let mut tar = TarWriter::new(Vec::new());
    for name in removed {
        tar.add(&Entry::new(path(name), EntryKind::Whiteout), &mut std::io::empty()).unwrap();
    }
    for (name, text) in files {
        let entry = Entry::new(path(name), EntryKind::File { size: text.len() as u64 });
        tar.add(&entry, &mut text.as_bytes()).unwrap();
    }
    tar.finish().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What a test image consists of.
struct TestImage {
    manifest: Vec<u8>,
    config: Vec<u8>,
    layers: Vec<(MediaType, Vec<u8>)>,
}

/// An image of these tars: the first with gzip, the second with zstd, the rest as they are.
fn image(tars: &[Vec<u8>]) -> TestImage {
    let diff_ids: Vec<Digest> = tars.iter().map(|t| Digest::of(t)).collect();
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "config": {"Env": ["A=b"]},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    let config = serde_json::to_vec(&config).unwrap();
    let blob = |(i, tar): (usize, &Vec<u8>)| match i {
        0 => (MediaType::ImageLayerGzip, gzip(tar)),
        1 => (MediaType::ImageLayerZstd, zstd::encode_all(&tar[..], 1).unwrap()),
        _ => (MediaType::ImageLayer, tar.clone()),
    };
    let layers: Vec<_> = tars.iter().enumerate().map(blob).collect();
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": describe(MediaType::ImageConfig, &config),
        "layers": layers.iter().map(|(t, b)| describe(t.clone(), b)).collect::<Vec<_>>(),
    });
    TestImage { manifest: serde_json::to_vec(&manifest).unwrap(), config, layers }
}

async fn push(client: &Client, name: &Reference, image: &TestImage) {
    let config = (MediaType::ImageConfig, image.config.clone());
    for (media_type, bytes) in image.layers.iter().chain([&config]) {
        let descriptor = describe(media_type.clone(), bytes);
        let content = Content::Bytes(bytes.clone().into());
        client
            .push_blob(name, &Upload { descriptor, content, mount_from: None, likely_there: false, progress: None })
            .await
            .unwrap();
    }
    client.push_manifest(name, &Manifest::new("", image.manifest.clone().into())).await.unwrap();
}

fn three_layers() -> TestImage {
    let first = tar(&[("a", "one"), ("b/c", "two")], &[]);
    let second = tar(&[("a", "three")], &[]);
    image(&[first, second, tar(&[("d", "four")], &["b"])])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_base_is_resolved_without_its_layers_and_kept() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    let pushed = three_layers();
    push(&place.client, &name, &pushed).await;
    let found = place.image(&name).await.unwrap();
    assert_eq!(found.manifest, Digest::of(&pushed.manifest));
    assert_eq!((found.config.config.env[0].as_str(), found.layers.len()), ("A=b", 3));
    assert_eq!(found.reference, name.pinned(found.manifest.clone()));
    assert_eq!(place.store.usage().unwrap().blobs.count, 2, "manifest and configuration");
    // A second build only asks what the tag means now; a pinned one asks nothing.
    let pinned = found.reference.clone();
    std::fs::remove_dir_all(registry.folder().join("data/docker/registry/v2/blobs")).unwrap();
    drop(registry);
    assert_eq!(place.image(&pinned).await.unwrap().layers.len(), 3);
    let told = place.image(&name).await.unwrap_err();
    assert_eq!((told.kind, told.span), (Kind::Network, Some(Span::new(5, 9))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_tag_is_seen() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    for text in ["old", "new"] {
        let pushed = image(&[tar(&[("f", text)], &[])]);
        push(&place.client, &name, &pushed).await;
        assert_eq!(place.image(&name).await.unwrap().manifest, Digest::of(&pushed.manifest));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_store_s_own_image_comes_first_unless_pulled() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    let (theirs, own) = (image(&[tar(&[("f", "theirs")], &[])]), image(&[tar(&[("f", "own")], &[])]));
    push(&place.client, &name, &theirs).await;
    for bytes in [&own.manifest, &own.config, &own.layers[0].1] {
        place.store.write_blob(bytes).unwrap();
    }
    let descriptor = describe(MediaType::ImageManifest, &own.manifest);
    place.store.publish(&place.store.settle().unwrap(), &name, &descriptor, "").unwrap();
    assert_eq!(place.image(&name).await.unwrap().manifest, Digest::of(&own.manifest));
    let pulling = Resolver { pull: true, ..place.resolver() };
    let pulled = image_with(&pulling, ImageName::Registry(name.clone())).await.unwrap();
    assert_eq!(pulled.manifest, Digest::of(&theirs.manifest));
    // Nor does one that isn't whole count.
    place.store.discard_blob(&Digest::of(&own.layers[0].1)).unwrap();
    assert_eq!(place.image(&name).await.unwrap().manifest, Digest::of(&theirs.manifest));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_layers_are_unpacked_while_they_come_and_once() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    push(&place.client, &name, &three_layers()).await;
    let base = op(place.image(&name).await.unwrap(), None);
    let keys = keys(&base);
    // Two at once, as two processes would.
    let others = Store::open(place.store.root()).unwrap();
    let other = Puller::new(others, place.client.clone(), Reporter::silent(), place.cancel.clone());
    let own = place.puller();
    let (one, two) = tokio::join!(own.unpacked(0, &base, &keys), other.unpacked(0, &base, &keys));
    let (one, two) = (one.unwrap(), two.unwrap());
    let (one, two) = (one.folders(), two.folders());
    assert_eq!(one, two);
    // Topmost first.
    let file = |layer: usize, name: &str| one[2 - layer].join("fs").join(name);
    let text = |layer: usize, name: &str| std::fs::read_to_string(file(layer, name)).unwrap();
    assert_eq!((text(0, "b/c"), text(1, "a"), text(2, "d")), ("two".into(), "three".into(), "four".into()));
    let gone = std::fs::symlink_metadata(file(2, "b")).unwrap();
    assert!(std::os::unix::fs::FileTypeExt::is_char_device(&gone.file_type()));
    drop(registry);
    assert_eq!(place.puller().unpacked(0, &base, &keys).await.unwrap().folders(), one);
    assert_eq!(std::fs::read_dir(place.store.root().join("locks")).unwrap().count(), 0);
}

/// The digest of an uncompressed first layer is also its chain ID, by which its unpacking is locked.
#[tokio::test(flavor = "multi_thread")]
async fn as_root_an_uncompressed_first_layer_is_downloaded_while_its_unpacking_is_locked() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let name = reference(&registry, "base:plain");
    let text = "x".repeat(3 << 20);
    let plain = tar(&[("a", &text)], &[]);
    let mut pushed = image(std::slice::from_ref(&plain));
    pushed.layers[0] = (MediaType::ImageLayer, plain.clone());
    let mut manifest: serde_json::Value = serde_json::from_slice(&pushed.manifest).unwrap();
    manifest["layers"] = serde_json::json!([describe(MediaType::ImageLayer, &plain)]);
    pushed.manifest = serde_json::to_vec(&manifest).unwrap();
    let place = Place::new();
    push(&place.client, &name, &pushed).await;
    let base = op(place.image(&name).await.unwrap(), None);
    let chain = Key::from(&Digest::of(&plain));
    let puller = place.puller();
    let unpacked = tokio::time::timeout(Duration::from_secs(20), puller.unpacked(0, &base, &[chain])).await;
    let stopped = || place.cancel.cancel();
    assert_eq!(unpacked.inspect_err(|_| stopped()).expect("a deadlock").unwrap().folders().len(), 1);
    // Whoever comes first: here the unpacking, of another process.
    let other = Place::new();
    let _unpacking = other.store.try_lock(&chain).unwrap().unwrap();
    let puller = other.puller();
    let fetched = tokio::time::timeout(Duration::from_secs(20), puller.fetch(0, &base, 0)).await;
    fetched.inspect_err(|_| other.cancel.cancel()).expect("a deadlock").unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_layer_that_is_not_what_it_should_be_leaves_nothing() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let lie = |layers: Vec<(MediaType, Vec<u8>)>| {
        let honest = three_layers();
        let mut manifest: serde_json::Value = serde_json::from_slice(&honest.manifest).unwrap();
        manifest["layers"] = layers.iter().map(|(t, b)| serde_json::json!(describe(t.clone(), b))).collect();
        TestImage { manifest: serde_json::to_vec(&manifest).unwrap(), config: honest.config, layers }
    };
    let honest = three_layers().layers;
    let mut other = honest.clone();
    other[1] = (MediaType::ImageLayerGzip, gzip(&tar(&[("a", "other")], &[])));
    let mut broken = honest.clone();
    broken[0].1.truncate(40);
    let mut unknown = honest;
    unknown[2].0 = "application/vnd.wasm".into();
    for (tag, layers, words) in [
        ("other", other, "configuration says"),
        ("broken", broken, "cannot unpack layer"),
        ("unknown", unknown, "application/vnd.wasm"),
    ] {
        let (place, name) = (Place::new(), reference(&registry, &format!("base:{tag}")));
        push(&place.client, &name, &lie(layers)).await;
        let base = op(place.image(&name).await.unwrap(), None);
        let told = Problem::from(place.puller().unpacked(0, &base, &keys(&base)).await.unwrap_err());
        assert!(told.kind == Kind::Build && told.message.contains(words), "{tag}: {told:?}");
        // Downloads that nobody waits for any more end soon, and take their files with them.
        let session = std::fs::read_dir(place.store.root().join("tmp")).unwrap().next().unwrap().unwrap().path();
        let mut rounds = 0;
        while std::fs::read_dir(&session).unwrap().count() > 0 {
            rounds += 1;
            assert!(rounds < 200, "{tag}: something is left");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_download_that_fails_is_told_by_its_own_reason() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    push(&place.client, &name, &three_layers()).await;
    let base = op(place.image(&name).await.unwrap(), None);
    drop(registry);
    let told = Problem::from(place.puller().unpacked(0, &base, &keys(&base)).await.unwrap_err());
    assert_eq!(told.kind, Kind::Network);
    place.cancel.cancel();
    let told = Problem::from(place.puller().unpacked(0, &base, &keys(&base)).await.unwrap_err());
    assert_eq!(told.kind, Kind::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn downloads_tell_how_far_they_are() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (place, name) = (Place::new(), reference(&registry, "base:1"));
    let pushed = three_layers();
    push(&place.client, &name, &pushed).await;
    let base = op(place.image(&name).await.unwrap(), None);
    let (sender, events) = std::sync::mpsc::sync_channel(100);
    let puller = Puller::new(place.store.clone(), place.client.clone(), Reporter::new(sender), place.cancel.clone());
    puller.fetch(7, &base, 1).await.unwrap();
    puller.fetch(7, &base, 1).await.unwrap();
    drop(puller);
    let size = pushed.layers[1].1.len() as u64;
    let told: Vec<Event> = events.iter().collect();
    assert!(
        matches!(&told[..], [Event::Progress { step: 7, done, total: Some(t), .. }] if (*done, *t) == (size, size))
    );
    assert!(place.store.blob(&Digest::of(&pushed.layers[1].1), Some(size)).unwrap().is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_layout_that_states_a_false_media_type_is_refused() {
    let (place, layout) = (Place::new(), tempfile::tempdir().unwrap());
    write_layout(layout.path(), &three_layers());
    let text = std::fs::read_to_string(layout.path().join("index.json")).unwrap();
    let name = ImageName::Layout(layout.path().display().to_string());
    let [manifest, docker] = ["oci.image.manifest.v1+json", "docker.distribution.manifest.v2+json"];
    for (text, says) in [
        (text.clone(), None),
        (text.replace(manifest, docker), Some([docker, manifest])),
        (text.replace(manifest, "oci.image.index.v1+json"), Some(["image.index", manifest])),
        (
            text.replacen('{', r#"{"mediaType":"application/vnd.oci.image.manifest.v1+json","#, 1),
            Some(["index.json", manifest]),
        ),
    ] {
        std::fs::write(layout.path().join("index.json"), text).unwrap();
        match (image_with(&place.resolver(), name.clone()).await, says) {
            (Ok(image), None) => assert_eq!(image.layers.len(), 3),
            (Err(told), Some(says)) => assert!(says.iter().all(|part| told.message.contains(part)), "{told:?}"),
            (other, _) => panic!("{other:?}"),
        }
    }
}

/// Writes an image as an OCI layout.
fn write_layout(folder: &Path, image: &TestImage) {
    let blobs = folder.join("blobs/sha256");
    std::fs::create_dir_all(&blobs).unwrap();
    for bytes in image.layers.iter().map(|(_, b)| b).chain([&image.config, &image.manifest]) {
        std::fs::write(blobs.join(Digest::of(bytes).hex()), bytes).unwrap();
    }
    let index = serde_json::json!({
        "schemaVersion": 2, "manifests": [describe(MediaType::ImageManifest, &image.manifest)],
    });
    std::fs::write(folder.join("index.json"), index.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn as_root_a_layout_is_as_good_as_a_registry() {
    let (place, temp) = (Place::new(), tempfile::tempdir().unwrap());
    let image = three_layers();
    write_layout(temp.path(), &image);
    let layout = temp.path().display().to_string();
    let found = image_with(&place.resolver(), ImageName::Layout(layout.clone())).await.unwrap();
    assert_eq!((&found.manifest, found.layers.len()), (&Digest::of(&image.manifest), 3));
    let base = op(found, Some(layout.clone()));
    let unpacked = place.puller().unpacked(0, &base, &keys(&base)).await.unwrap();
    assert_eq!(std::fs::read_to_string(unpacked.folders()[0].join("fs/d")).unwrap(), "four");
    assert!(place.store.blob(&Digest::of(&image.layers[0].1), None).unwrap().is_some());
    std::fs::write(temp.path().join("blobs/sha256").join(Digest::of(&image.config).hex()), "{}").unwrap();
    let told = image_with(&place.resolver(), ImageName::Layout(layout)).await.unwrap_err();
    assert!(told.kind == Kind::Usage && told.message.contains("damaged"), "{told:?}");
}

fn http_op(url: &str, content: Option<Digest>) -> HttpOp {
    HttpOp { url: url.into(), checksum: None, filename: "name".into(), content }
}

async fn resolve_http(place: &Place, url: &str, checksum: Option<Digest>) -> Result<(Digest, Option<i64>), Problem> {
    let key = HttpKey { url: url.into(), checksum };
    let wanted = Wanted { http: vec![(key.clone(), Span::default())], ..Wanted::default() };
    let mut known = ResolvedBases::default();
    place.resolver().resolve(&wanted, &mut known).await?;
    let found = &known.http[&key];
    Ok((found.content.clone(), found.time))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_file_is_fetched_once_and_asked_about_again() {
    let server = Server::start(|asked| match asked.header("if-none-match") {
        Some("\"v1\"") => Answer::new(304),
        _ => Answer::new(200)
            .header("ETag", "\"v1\"")
            .header("Last-Modified", "Tue, 14 Nov 2023 22:13:20 GMT")
            .body("content"),
    })
    .await;
    let (place, url) = (Place::new(), format!("http://{}/file?x=1", server.host));
    for _ in 0..2 {
        let found = resolve_http(&place, &url, None).await.unwrap();
        assert_eq!(found, (Digest::of(b"content"), Some(1_700_000_000)));
    }
    let tree = place.remotes().http(&http_op(&url, Some(Digest::of(b"content")))).await.unwrap();
    assert_eq!(server.asked().len(), 2);
    let names = tree.read_dir(&EntryPath::root()).unwrap();
    let meta = names[0].1;
    assert_eq!((names.len(), names[0].0.as_slice()), (1, &b"name"[..]));
    assert_eq!((meta.mode, meta.uid, meta.size, meta.mtime.secs), (0o600, 0, 7, 1_700_000_000));
    let mut text = String::new();
    tree.open(&path("name")).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "content");
    assert_eq!(kiln::snapshot::fingerprint(&*tree, &path("name")).unwrap(), *blake3::hash(b"content").as_bytes());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checksum_is_asked_for_late_and_held_to() {
    let server = Server::start(|_| Answer::new(200).body("other")).await;
    let (place, url) = (Place::new(), format!("http://{}/file", server.host));
    let checksum = Digest::of(b"content");
    assert_eq!(resolve_http(&place, &url, Some(checksum.clone())).await.unwrap(), (checksum.clone(), None));
    assert!(server.asked().is_empty());
    let op = HttpOp { checksum: Some(checksum.clone()), ..http_op(&url, Some(checksum.clone())) };
    let told = Problem::from(place.remotes().http(&op).await.map(drop).unwrap_err());
    assert!(told.kind == Kind::Build && told.message.contains(checksum.as_str()), "{told:?}");
    assert!(place.store.blob(&Digest::of(b"other"), None).unwrap().is_none());
    let right = HttpOp { checksum: Some(Digest::of(b"other")), ..http_op(&url, None) };
    assert!(place.remotes().http(&right).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_file_that_changes_is_another_and_a_missing_one_is_told() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/gone" => Answer::new(404),
        "/cut" => Answer::new(200).body("half").cut(100),
        _ => Answer::new(200).header("ETag", asked.number).body(format!("{}", asked.number)),
    })
    .await;
    let place = Place::new();
    let url = |name: &str| format!("http://me:hush@{}/{name}", server.host);
    for number in ["0", "1"] {
        assert_eq!(resolve_http(&place, &url("file"), None).await.unwrap().0, Digest::of(number.as_bytes()));
    }
    for name in ["gone", "cut"] {
        let told = resolve_http(&place, &url(name), None).await.unwrap_err();
        assert!(told.kind == Kind::Network && told.message.contains(name), "{told:?}");
        assert!(!format!("{told:?}").contains("hush"), "{told:?}");
    }
    assert!(server.asked()[0].header("authorization").is_some_and(|a| a.starts_with("Basic ")));
}

/// `git daemon` over a folder, gone when dropped.
struct GitDaemon {
    child: Child,
    port: u16,
}

impl GitDaemon {
    fn start(folder: &Path) -> Option<Self> {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let child = Command::new("git")
            .args(["daemon", "--export-all", "--listen=127.0.0.1", &format!("--port={port}"), "--reuseaddr"])
            .arg(format!("--base-path={}", folder.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        let Ok(child) = child else {
            println!("SKIPPED: git is not installed (apt-get install git)");
            return None;
        };
        let daemon = Self { child, port };
        for _ in 0..400 {
            if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some(daemon);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("git daemon doesn't listen");
    }
}

impl Drop for GitDaemon {
    fn drop(&mut self) {
        let _ = rustix::process::kill_process(pid(&self.child), rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn pid(child: &Child) -> rustix::process::Pid {
    rustix::process::Pid::from_raw(child.id().try_into().unwrap()).unwrap()
}

fn git(folder: &Path, args: &[&str]) -> String {
    let output = Command::new("git")
        .args(["-c", "user.name=T", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
        .args(args)
        .current_dir(folder)
        .env("GIT_CONFIG_GLOBAL", "/dev/null")
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_comes_over_the_network() {
    let temp = tempfile::tempdir().unwrap();
    let Some(daemon) = GitDaemon::start(temp.path()) else { return };
    let repo = temp.path().join("repo.git");
    std::fs::create_dir(&repo).unwrap();
    git(&repo, &["init", "-q"]);
    let mut commits = Vec::new();
    for text in ["one", "two", "three"] {
        std::fs::write(repo.join("file"), text).unwrap();
        git(&repo, &["add", "."]);
        git(&repo, &["commit", "-qm", text]);
        commits.push(git(&repo, &["rev-parse", "HEAD"]));
    }
    let place = Place::new();
    let remote = format!("git://127.0.0.1:{}/repo.git", daemon.port);
    let key = GitKey { remote: remote.clone(), reference: String::new(), timed: false };
    let wanted = Wanted { git: vec![(key.clone(), Span::default())], ..Wanted::default() };
    let mut known = ResolvedBases::default();
    place.resolver().resolve(&wanted, &mut known).await.unwrap();
    assert_eq!(known.git[&key].commit, commits[2]);
    // The newest, and one that no reference names.
    for (commit, text) in [(&commits[2], "three"), (&commits[0], "one")] {
        let op = GitOp {
            remote: remote.clone(),
            reference: String::new(),
            commit: commit.clone(),
            subdir: String::new(),
            keep_git_dir: false,
            submodules: true,
        };
        let tree: Arc<dyn kiln::snapshot::Tree> = place.remotes().git(&op).await.unwrap();
        let mut found = String::new();
        tree.open(&path("file")).unwrap().read_to_string(&mut found).unwrap();
        assert_eq!(found, text);
    }
}

/// The process's CPU time, milliseconds.
fn cpu() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Duration::new(t.tv_sec.try_into().unwrap(), t.tv_nsec.try_into().unwrap()).as_secs_f64() * 1e3
}

/// Wall time and CPU milliseconds: `cargo test --release --test source figures -- --ignored --nocapture`
#[test]
#[ignore = "measures, tests nothing"]
fn figures() {
    use kiln::source::LocalTree;
    let (place, temp) = (Place::new(), tempfile::tempdir().unwrap());
    for i in 0..20_000 {
        let folder = temp.path().join(format!("folder{}/sub{}", i / 2000, i % 50));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("file{i}.txt")), "some text\n".repeat(i % 1200)).unwrap();
    }
    std::fs::write(temp.path().join(".dockerignore"), "**/*.o\n.git\nnode_modules\n!keep\n").unwrap();
    std::thread::sleep(Duration::from_millis(50));
    for round in 0..6 {
        let start = (std::time::Instant::now(), cpu());
        let passed = || format!("{:.1?}/{:.1}", start.0.elapsed(), cpu() - start.1);
        let store = Store::open(place.store.root()).unwrap();
        let opened = passed();
        let rules = kiln::source::ignore_rules(temp.path(), None).unwrap();
        let tree = LocalTree::open(&store, temp.path(), rules, 2.try_into().unwrap(), &place.cancel).unwrap();
        tree.prefetch(&EntryPath::root()).unwrap();
        let walked = passed();
        let mut files = Vec::new();
        let mut folders = vec![EntryPath::root()];
        while let Some(folder) = folders.pop() {
            for (name, meta) in kiln::snapshot::Tree::read_dir(&tree, &folder).unwrap() {
                let path = folder.join(&name).unwrap();
                if meta.is_dir() { folders.push(path) } else { files.push((path, meta)) }
            }
        }
        let listed = passed();
        tree.fingerprints(&files[..1]).unwrap();
        let loaded = passed();
        tree.fingerprints(&files).unwrap();
        let hashed = passed();
        tree.remember().unwrap();
        let all = passed();
        println!(
            "round {round}: opened {opened}, walked {walked}, listed {listed}, loaded {loaded}, hashed {hashed}, remembered {all}"
        );
    }
}
