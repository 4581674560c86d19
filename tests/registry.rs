//! `registry` against Debian's docker-registry. No privilege needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod docker_registry;
}

use kiln::oci::{Descriptor, Digest, Hasher, MediaType, Reference, describe};
use kiln::registry::{Client, Config, Content, Error, Manifest, Outcome, Retry, Upload};
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::docker_registry::{DockerRegistry, Options};

fn config() -> Config {
    Config { retry: Retry { first: Duration::from_millis(5), ..Retry::default() }, ..Config::default() }
}

fn reference(registry: &DockerRegistry, rest: &str) -> Reference {
    format!("{}/{rest}", registry.host).parse().unwrap()
}

fn upload(bytes: &[u8], mount_from: Option<&str>) -> Upload {
    Upload {
        descriptor: describe(MediaType::ImageLayerGzip, bytes),
        content: Content::Bytes(bytes.to_vec().into()),
        mount_from: mount_from.map(str::to_owned),
        likely_there: false,
        progress: None,
    }
}

/// A manifest over blobs that are there already.
fn manifest(config: &Descriptor, layers: &[Descriptor]) -> Manifest {
    let json = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": layers,
    });
    Manifest::new("", serde_json::to_vec(&json).unwrap().into())
}

/// Pushes an image of one layer and gives its manifest.
async fn push_image(client: &Client, reference: &Reference, layer: &[u8]) -> Result<Manifest, Error> {
    let text = format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{}},"rootfs":{{"type":"layers","diff_ids":["{}"]}}}}"#,
        Digest::of(b"tar")
    );
    let config =
        Upload { descriptor: describe(MediaType::ImageConfig, text.as_bytes()), ..upload(text.as_bytes(), None) };
    let layer = upload(layer, None);
    client.push_blob(reference, &layer).await?;
    client.push_blob(reference, &config).await?;
    let manifest = manifest(&config.descriptor, &[layer.descriptor]);
    client.push_manifest(reference, &manifest).await?;
    Ok(manifest)
}

#[tokio::test]
async fn an_image_goes_there_and_back() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (client, image) = (Client::new(config()), reference(&registry, "a/b:1"));
    let layer = vec![7; 300_000];
    let pushed = push_image(&client, &image, &layer).await.unwrap();
    assert_eq!(client.resolve(&image).await.unwrap().digest(), pushed.descriptor.digest());
    assert_eq!(client.manifest(&image).await.unwrap(), pushed);
    let got = client.image(&image, &"linux/amd64".parse().unwrap()).await.unwrap();
    assert_eq!((&got.top, &got.manifest), (&pushed, &pushed));
    let mut bytes = Vec::new();
    client.fetch(&image, &got.parsed.layers()[0], &mut bytes, |_| ()).await.unwrap();
    assert_eq!(bytes, layer);
    let pinned = image.pinned(pushed.digest().unwrap());
    assert_eq!(client.manifest(&pinned).await.unwrap(), pushed);
}

#[tokio::test]
async fn blobs_are_found_mounted_or_sent() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (client, here, there) = (Client::new(config()), reference(&registry, "a"), reference(&registry, "b/c"));
    let large = vec![1; 100_000];
    assert_eq!(client.push_blob(&here, &upload(&large, None)).await.unwrap(), Outcome::Sent);
    assert_eq!(client.push_blob(&here, &upload(&large, None)).await.unwrap(), Outcome::Existed);
    assert_eq!(client.push_blob(&there, &upload(&large, Some("a"))).await.unwrap(), Outcome::Mounted);
    assert!(client.has_blob(&there, &upload(&large, None).descriptor).await.unwrap());
    let other = vec![2; 100_000];
    assert_eq!(client.push_blob(&there, &upload(&other, Some("a"))).await.unwrap(), Outcome::Sent);
    assert_eq!(client.push_blob(&there, &upload(b"", None)).await.unwrap(), Outcome::Sent);
}

#[test]
fn what_came_from_a_server_is_mounted_there() {
    let mirrors =
        ["docker.io=http://127.0.0.1:5000", "quay.io=http://127.0.0.1:5000/cache", "ghcr.io=https://m.example"];
    let mirrors = mirrors.map(|m| m.parse().unwrap()).to_vec();
    let client = Client::new(Config { mirrors, ..config() });
    for (from, to, repository) in [
        ("127.0.0.1:5000/a", "127.0.0.1:5000/b", Some("a")),
        ("busybox", "127.0.0.1:5000/b", Some("library/busybox")),
        ("quay.io/x/y", "127.0.0.1:5000/b", Some("cache/x/y")),
        ("busybox", "docker.io/me/b", Some("library/busybox")),
        ("ghcr.io/x", "127.0.0.1:5000/b", None),
        ("127.0.0.1:5001/a", "127.0.0.1:5000/b", None),
    ] {
        let found = client.mount_source(&from.parse().unwrap(), &to.parse().unwrap());
        assert_eq!(found.as_deref(), repository, "{from} to {to}");
    }
}

#[tokio::test]
async fn what_is_missing_is_named() {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let client = Client::new(config());
    let error = client.manifest(&reference(&registry, "no/such:1")).await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("MANIFEST_UNKNOWN"), "{error}");
}

#[tokio::test]
async fn nothing_listens_there() {
    let start = Instant::now();
    let error = Client::new(Config::default()).manifest(&"127.0.0.1:1/x".parse().unwrap()).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error:?}");
    assert!(error.to_string().starts_with("127.0.0.1:1 can't be reached: Connection refused"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn htpasswd() {
    let options = Options { user: Some(("ann", "s3cret")), ..Options::default() };
    let Some(registry) = DockerRegistry::start(&options) else { return };
    let image = reference(&registry, "a:1");
    let nobody = push_image(&Client::new(config()), &image, b"x").await.unwrap_err();
    assert!(matches!(nobody, Error::Unauthorized { with_credentials: false, .. }), "{nobody:?}");
    // base64("ann:s3cret"), base64("ann:wrong")
    for (auth, good) in [("YW5uOnMzY3JldA==", true), ("YW5uOndyb25n", false)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.json");
        std::fs::write(&file, format!(r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#, registry.host)).unwrap();
        let client = Client::new(Config { credentials: Some(file), ..config() });
        match push_image(&client, &image, b"x").await {
            Ok(_) => assert!(good),
            Err(error) => {
                assert!(!good && matches!(error, Error::Unauthorized { with_credentials: true, .. }), "{error:?}");
                assert!(!format!("{error} {error:?}").contains("wrong"), "{error:?}");
            }
        }
    }
}

/// Prints what the machine gives: `cargo test --release --test registry figures -- --ignored --nocapture`.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn figures() {
    for in_memory in [false, true] {
        let Some(registry) = DockerRegistry::start(&Options { in_memory, ..Options::default() }) else { return };
        let (client, here) = (Client::new(config()), reference(&registry, "a"));
        println!("registry keeps blobs {}", if in_memory { "in memory" } else { "on disk" });
        let start = Instant::now();
        client.push_blob(&here, &upload(b"first", None)).await.unwrap();
        println!("  first small blob: {:?}", start.elapsed());
        let start = Instant::now();
        for n in 0..30 {
            client.push_blob(&here, &upload(format!("one {n}").as_bytes(), None)).await.unwrap();
        }
        println!("  30 small blobs, one after another: {:?}", start.elapsed());
        for parallel in [4, 8, 16, 30] {
            let start = Instant::now();
            let permits = Arc::new(tokio::sync::Semaphore::new(parallel));
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..30 {
                let (client, here, permits) = (client.clone(), here.clone(), Arc::clone(&permits));
                tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    client.push_blob(&here, &upload(format!("{parallel} {n}").as_bytes(), None)).await.unwrap();
                });
            }
            tasks.join_all().await;
            println!("  30 small blobs, {parallel} at once: {:?}", start.elapsed());
        }
        if in_memory {
            continue;
        }
        let path = registry.folder().join("large");
        let large = large_blob(&path);
        let start = Instant::now();
        client.push_blob(&here, &large).await.unwrap();
        println!("  push of 268 MB: {:.0} MB/s", 268.4 / start.elapsed().as_secs_f64());
        let start = Instant::now();
        client.fetch(&here, &large.descriptor, &mut tokio::io::sink(), |_| ()).await.unwrap();
        println!("  pull of 268 MB: {:.0} MB/s", 268.4 / start.elapsed().as_secs_f64());
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        println!("  {}", status.lines().find(|line| line.starts_with("VmHWM")).unwrap());
    }
}

/// 268 MB that don't compress, in a file, written piece by piece so that this test's memory is the client's.
fn large_blob(path: &std::path::Path) -> Upload {
    let mut file = std::fs::File::create(path).unwrap();
    let mut hasher = Hasher::sha256();
    let mut word = 1u64;
    for _ in 0..256 {
        let piece: Vec<u8> = (0..1 << 17)
            .flat_map(|_| {
                word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                word.to_be_bytes()
            })
            .collect();
        hasher.update(&piece);
        file.write_all(&piece).unwrap();
    }
    let descriptor = Descriptor::new(MediaType::ImageLayerGzip, 1 << 28, hasher.finish().to_spec());
    let content = Content::File(Arc::new(std::fs::File::open(path).unwrap()));
    Upload { descriptor, content, mount_from: None, likely_there: false, progress: None }
}
