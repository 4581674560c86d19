//! `registry` against servers that fail, lie, or try to get what isn't theirs. No privilege needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod server;
}

use kiln::oci::{Descriptor, Digest, MediaType, Reference, describe};
use kiln::registry::{Client, Config, Content, Error, Manifest, Outcome, Proxies, Retry, Upload};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use support::server::{Answer, Asked, Server};

const MANIFEST: &str = r#"{"schemaVersion":2,"mediaType":"application/vnd.oci.image.index.v1+json","manifests":[]}"#;
const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
/// base64("ann:s3cret")
const ANN: &str = "YW5uOnMzY3JldA==";

fn config() -> Config {
    let retry = Retry { first: Duration::from_millis(2), ..Retry::default() };
    Config { retry, patience: Duration::from_secs(5), ..Config::default() }
}

/// A client with `auth` for each of `hosts`, and the folder that has its `config.json`.
fn with_credentials(hosts: &[&str], entry: &str) -> (Client, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config.json");
    let entries: Vec<String> = hosts.iter().map(|host| format!(r#""{host}":{entry}"#)).collect();
    std::fs::write(&file, format!(r#"{{"auths":{{{}}}}}"#, entries.join(","))).unwrap();
    (Client::new(Config { credentials: Some(file), ..config() }), folder)
}

fn reference(server: &Server, rest: &str) -> Reference {
    format!("{}/{rest}", server.host).parse().unwrap()
}

fn manifest_answer() -> Answer {
    Answer::new(200).header("Content-Type", INDEX_TYPE).body(MANIFEST)
}

fn upload(bytes: &[u8]) -> Upload {
    Upload {
        descriptor: describe(MediaType::ImageLayerGzip, bytes),
        content: Content::Bytes(bytes.to_vec().into()),
        mount_from: None,
        likely_there: false,
        progress: None,
    }
}

async fn fetch(client: &Client, image: &Reference, blob: &Descriptor) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    client.fetch(image, blob, &mut bytes, |_| ()).await.map(|()| bytes)
}

/// A registry that wants tokens of its own `/token`, which gives them for `authorization` only.
async fn token_registry(
    authorization: Option<String>,
    lifetime: impl Fn(usize) -> bool + Send + Sync + 'static,
) -> Server {
    let host = Arc::new(std::sync::OnceLock::<String>::new());
    let (realm, given) = (Arc::clone(&host), AtomicUsize::new(0));
    let server = Server::start(move |asked| {
        if asked.path.starts_with("/token") {
            if asked.header("authorization").map(str::to_owned) != authorization {
                return Answer::new(401).body(r#"{"details":"incorrect username or password"}"#);
            }
            let n = given.fetch_add(1, Ordering::SeqCst);
            return Answer::new(200).body(format!(r#"{{"token":"t{n}","expires_in":300}}"#));
        }
        let good = (0..given.load(Ordering::SeqCst))
            .any(|n| lifetime(n) && asked.header("authorization") == Some(&format!("Bearer t{n}")));
        if good {
            return manifest_answer();
        }
        let challenge =
            format!(r#"Bearer realm="http://{}/token",service="s v",scope="repository:a:pull""#, realm.get().unwrap());
        Answer::new(401).header("WWW-Authenticate", challenge)
    })
    .await;
    host.set(server.host.clone()).unwrap();
    server
}

#[tokio::test]
async fn tokens_are_fetched_once_and_renewed_once() {
    // The first token is void from the start.
    let server = token_registry(None, |n| n > 0).await;
    let client = Client::new(config());
    let image = reference(&server, "a:1");
    assert!(matches!(client.manifest(&image).await, Err(Error::Unauthorized { with_credentials: false, .. })));
    let before = server.asked().len();
    client.manifest(&image).await.unwrap();
    client.manifest(&image).await.unwrap();
    let lines = server.lines();
    assert_eq!(
        lines[before..],
        ["GET /v2/a/manifests/1", "GET /token", "GET /v2/a/manifests/1", "GET /v2/a/manifests/1"]
    );
    let token = server.asked().into_iter().find(|a| a.path.starts_with("/token")).unwrap();
    assert_eq!(token.path, "/token?service=s+v&scope=repository%3Aa%3Apull");
}

#[tokio::test]
async fn many_requests_share_one_token() {
    let server = token_registry(Some(format!("Basic {ANN}")), |_| true).await;
    let (client, _folder) = with_credentials(&[&server.host], &format!(r#"{{"auth":"{ANN}"}}"#));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (client, image) = (client.clone(), reference(&server, "a:1"));
        tasks.spawn(async move { client.manifest(&image).await.unwrap() });
    }
    tasks.join_all().await;
    let tokens: Vec<Asked> = server.asked().into_iter().filter(|a| a.path.starts_with("/token")).collect();
    assert_eq!(tokens.len(), 1);
    assert!(tokens[0].path.ends_with("&account=ann"), "{}", tokens[0].path);
}

#[tokio::test]
async fn credentials_that_were_read_are_not_read_again() {
    let server = token_registry(Some(format!("Basic {ANN}")), |_| true).await;
    let (_, folder) = with_credentials(&[&server.host], &format!(r#"{{"auth":"{ANN}"}}"#));
    let file = folder.path().join("config.json");
    let good = std::fs::read(&file).unwrap();
    // Of a file that is broken, missing or somebody else's when it is read, what counts is what it was then.
    for at_start in [&b"{"[..], b"{}", b""] {
        std::fs::write(&file, at_start).unwrap();
        let client = Client::new(Config { credentials: Some(file.clone()), ..config() });
        client.read_credentials().await;
        std::fs::write(&file, &good).unwrap();
        let error = client.manifest(&reference(&server, "a:1")).await.unwrap_err();
        assert!(matches!(error, Error::Credentials { .. } | Error::Unauthorized { .. }), "{error:?}");
    }
    let client = Client::new(Config { credentials: Some(file.clone()), ..config() });
    client.read_credentials().await;
    std::fs::remove_file(&file).unwrap();
    client.manifest(&reference(&server, "a:1")).await.unwrap();
}

#[tokio::test]
async fn wrong_passwords_are_said_to_be_wrong() {
    let server = token_registry(Some("Basic other".into()), |_| true).await;
    let (client, _folder) = with_credentials(&[&server.host], &format!(r#"{{"auth":"{ANN}"}}"#));
    let error = client.manifest(&reference(&server, "a:1")).await.unwrap_err();
    assert!(matches!(error, Error::Unauthorized { with_credentials: true, .. }), "{error:?}");
    assert!(error.to_string().contains("incorrect username or password"), "{error}");
    assert!(!format!("{error:?}").contains("s3cret"), "{error:?}");
}

#[tokio::test]
async fn identity_tokens_are_exchanged_by_post() {
    let server = token_registry(None, |_| true).await;
    let (client, _folder) = with_credentials(&[&server.host], r#"{"identitytoken":"id&1"}"#);
    client.manifest(&reference(&server, "a:1")).await.unwrap();
    let asked = server.asked().into_iter().find(|a| a.path.starts_with("/token")).unwrap();
    assert_eq!(asked.method, "POST");
    let form = String::from_utf8(asked.body).unwrap();
    assert!(form.contains("grant_type=refresh_token") && form.ends_with("refresh_token=id%261"), "{form}");
}

#[tokio::test]
async fn a_mount_asks_for_both_repositories() {
    let server = token_registry(None, |_| false).await;
    let image = reference(&server, "a:1");
    let upload = Upload { mount_from: Some("from/it".into()), ..upload(b"x") };
    assert!(Client::new(config()).push_blob(&image, &upload).await.is_err());
    let token = server.asked().into_iter().find(|a| a.path.starts_with("/token")).unwrap();
    for scope in ["scope=repository%3Aa%3Apull%2Cpush&", "scope=repository%3Afrom%2Fit%3Apull"] {
        assert!(token.path.contains(scope), "{}", token.path);
    }
}

#[tokio::test]
async fn credentials_do_not_follow_redirects_to_others() {
    let blob = describe(MediaType::ImageLayerGzip, b"blob");
    let storage = Server::start(|_| Answer::new(200).body("blob")).await;
    let to = format!("http://{}/bucket/x?signature=hunter2", storage.host);
    let server = Server::start(move |asked| match asked.header("authorization") {
        Some(_) => Answer::new(307).header("Location", &to),
        None => Answer::new(401).header("WWW-Authenticate", "Basic realm=x"),
    })
    .await;
    let (client, _folder) = with_credentials(&[&server.host, &storage.host], &format!(r#"{{"auth":"{ANN}"}}"#));
    assert_eq!(fetch(&client, &reference(&server, "a"), &blob).await.unwrap(), b"blob");
    let asked = storage.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!((asked[0].header("authorization"), asked[0].path.as_str()), (None, "/bucket/x?signature=hunter2"));
}

#[tokio::test]
async fn signatures_are_not_in_errors() {
    let server = Server::start(|_| Answer::new(307).header("Location", "http://127.0.0.1:1/x?signature=hunter2")).await;
    let blob = describe(MediaType::ImageLayerGzip, b"blob");
    let error = fetch(&Client::new(config()), &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("hunter2"), "{error:?}");
}

#[tokio::test]
async fn redirects_end() {
    let server = Server::start(|asked| Answer::new(302).header("Location", format!("{}x", asked.path))).await;
    let error = Client::new(config()).manifest(&reference(&server, "a")).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert!(server.asked().len() < 10);
}

#[tokio::test]
async fn no_password_for_a_realm_that_is_no_web_address() {
    for realm in ["file:///etc/passwd", "http://u:p@127.0.0.1/", "not an address", "ftp://x/"] {
        let challenge = format!(r#"Bearer realm="{realm}",service="s""#);
        let server = Server::start(move |_| Answer::new(401).header("WWW-Authenticate", &challenge)).await;
        let (client, _folder) = with_credentials(&[&server.host], &format!(r#"{{"auth":"{ANN}"}}"#));
        let error = client.manifest(&reference(&server, "a")).await.unwrap_err();
        assert!(matches!(error, Error::Realm { .. }), "{realm}: {error:?}");
    }
}

#[tokio::test]
async fn busy_registries_are_asked_again() {
    for (status, after) in [(429, Some("0")), (503, None), (502, None), (408, None), (500, None)] {
        let server = Server::start(move |asked| match asked.number {
            0 | 1 => after.into_iter().fold(Answer::new(status), |a, s| a.header("Retry-After", s)),
            _ => manifest_answer(),
        })
        .await;
        Client::new(config()).manifest(&reference(&server, "a")).await.unwrap();
        assert_eq!(server.asked().len(), 3, "{status}");
    }
}

#[tokio::test]
async fn retry_after_is_waited_for() {
    let server = Server::start(|asked| match asked.number {
        0 => Answer::new(429).header("Retry-After", 1),
        _ => manifest_answer(),
    })
    .await;
    let start = Instant::now();
    Client::new(config()).manifest(&reference(&server, "a")).await.unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[tokio::test]
async fn tries_are_bounded() {
    let body = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"slow\u0007 down"}]}"#;
    for (answer, want) in
        [(Answer::new(503), 6), (Answer::new(429).header("Retry-After", 9999), 1), (Answer::new(400), 1)]
    {
        let answer = answer.body(body);
        let server = Server::start(move |_| answer.clone()).await;
        let error = Client::new(config()).manifest(&reference(&server, "a")).await.unwrap_err();
        assert!(error.to_string().ends_with("(TOOMANYREQUESTS: slow down)"), "{error}");
        assert_eq!(server.asked().len(), want);
    }
}

#[tokio::test]
async fn a_broken_download_goes_on_where_it_stopped() {
    let content: Vec<u8> = (0..100_000).map(|n| (n % 251) as u8).collect();
    let blob = describe(MediaType::ImageLayerGzip, &content);
    for ranges in [true, false] {
        let whole = content.clone();
        let server = Server::start(move |asked| {
            let start = match asked.header("range") {
                Some(range) if ranges => range.trim_start_matches("bytes=").trim_end_matches('-').parse().unwrap(),
                _ => 0,
            };
            let end = whole.len().min(40_000 * (asked.number + 1));
            let answer = Answer::new(if start > 0 { 206 } else { 200 });
            let answer =
                if start > 0 { answer.header("Content-Range", format!("bytes {start}-99999/100000")) } else { answer };
            answer.body(&whole[start..end]).cut(whole.len() - start)
        })
        .await;
        assert_eq!(fetch(&Client::new(config()), &reference(&server, "a"), &blob).await.unwrap(), content, "{ranges}");
        let asked: Vec<Option<String>> = server.asked().iter().map(|a| a.header("range").map(str::to_owned)).collect();
        assert_eq!(asked[0], None);
        assert_eq!(asked.len(), 3, "{asked:?}");
        assert!(asked[1].is_some() && asked[2].is_some());
    }
}

#[tokio::test]
async fn a_download_that_never_gets_on_ends() {
    let server = Server::start(|_| Answer::new(200).cut(100)).await;
    let blob = Descriptor::new(MediaType::ImageLayerGzip, 100, Digest::of(b"x").to_spec());
    let error = fetch(&Client::new(config()), &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(matches!(error, Error::Broken { .. }), "{error:?}");
    assert!(server.asked().len() <= 7);
}

#[tokio::test]
async fn other_content_than_was_asked_for() {
    let blob = describe(MediaType::ImageLayerGzip, b"right");
    let client = Client::new(config());
    let server = Server::start(|_| Answer::new(200).body("wrong")).await;
    let error = fetch(&client, &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error:?}");
    let server = Server::start(|_| Answer::new(200).body("right and more")).await;
    let error = fetch(&client, &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error:?}");
    let server = Server::start(|_| Answer::new(200).body("right").endless()).await;
    let error = fetch(&client, &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(matches!(error, Error::Size { .. }), "{error:?}");
    let server = Server::start(|_| Answer::new(206).header("Content-Range", "bytes 3-5/5").body("ht")).await;
    assert!(fetch(&client, &reference(&server, "a"), &blob).await.is_err());
    let pinned = reference(&server, "a").pinned(Digest::of(b"x"));
    let server = Server::start(|_| manifest_answer()).await;
    let pinned = Reference { registry: server.host.clone(), ..pinned };
    assert!(matches!(client.manifest(&pinned).await, Err(Error::Digest { .. })));
    let server = Server::start(|_| manifest_answer().header("Docker-Content-Digest", Digest::of(b"x"))).await;
    assert!(matches!(client.manifest(&reference(&server, "a")).await, Err(Error::Digest { .. })));
}

#[tokio::test]
async fn endless_answers_are_cut() {
    let server = Server::start(|_| Answer::new(200).body("x".repeat(10_000)).endless()).await;
    let error = Client::new(config()).manifest(&reference(&server, "a")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    let server = Server::start(|_| Answer::new(200).cut(1 << 40)).await;
    let error = Client::new(config()).manifest(&reference(&server, "a")).await.unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error:?}");
    let server = Server::start(|_| Answer::new(404).body("x".repeat(10_000)).endless()).await;
    assert!(Client::new(config()).manifest(&reference(&server, "a")).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn silence_ends() {
    let config =
        Config { patience: Duration::from_millis(100), retry: Retry { attempts: 1, ..config().retry }, ..config() };
    let server = Server::start_async(|_| async { std::future::pending().await }).await;
    let error = Client::new(config).manifest(&reference(&server, "a")).await.unwrap_err();
    assert!(matches!(error, Error::Timeout { .. }), "{error:?}");
}

#[tokio::test]
async fn documents_that_are_no_image() {
    for (body, want) in [
        (r#"{"schemaVersion":1,"name":"a","fsLayers":[]}"#, "schema 1"),
        (
            r#"{"schemaVersion":2,"manifests":[],"layers":[],"mediaType":"application/vnd.oci.image.manifest.v1+json"}"#,
            "at once",
        ),
        (
            r#"{"schemaVersion":2,"mediaType":"application/vnd.evil\u001b+json"}"#,
            "no image, but application/vnd.evil+json",
        ),
        (r#"{"schemaVersion":2}"#, "no sound manifest"),
        ("no json", "no JSON"),
        (&"[".repeat(100_000), "no JSON"),
        (
            r#"{"schemaVersion":2,"manifests":[],"mediaType":"application/vnd.oci.image.index.v1+json"}"#,
            "no image for linux/amd64",
        ),
    ] {
        let body = body.to_owned();
        let server =
            Server::start(move |_| Answer::new(200).header("Content-Type", "text/plain").body(body.clone())).await;
        let client = Client::new(config());
        let error = client.image(&reference(&server, "a"), &"linux/amd64".parse().unwrap()).await.unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
    }
}

const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// What a registry says of an image whose index states one media type, and whose manifest another (or none).
async fn stated(content_type: &'static str, stated: &'static str, own: Option<&str>, parts: [&str; 2]) -> String {
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF"]}}"#;
    let config = config.replace("DIFF", Digest::of(b"layer").as_str());
    let mut manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": describe(parts[0].into(), config.as_bytes()),
        "layers": [describe(parts[1].into(), b"layer")],
    });
    if let Some(own) = own {
        manifest["mediaType"] = own.into();
    }
    let manifest = manifest.to_string();
    let mut entry = serde_json::json!(describe(stated.into(), manifest.as_bytes()));
    entry["platform"] = serde_json::json!({"os": "linux", "architecture": "amd64"});
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [entry]}).to_string();
    let server = Server::start(move |asked| match asked.path.as_str() {
        "/v2/a/manifests/latest" => Answer::new(200).header("Content-Type", INDEX_TYPE).body(index.clone()),
        path if path.contains("/manifests/") => {
            Answer::new(200).header("Content-Type", content_type).body(manifest.clone())
        }
        _ => Answer::new(200).body(config.clone()),
    })
    .await;
    let image = Client::new(config_once()).image(&reference(&server, "a"), &"linux/amd64".parse().unwrap()).await;
    image.map_or_else(|e| e.to_string(), |_| "an image".into())
}

fn config_once() -> Config {
    Config { retry: Retry { attempts: 1, ..config().retry }, ..config() }
}

#[tokio::test]
async fn a_false_media_type_is_an_error_that_names_both() {
    const PARTS: [&str; 2] =
        ["application/vnd.oci.image.config.v1+json", "application/vnd.oci.image.layer.v1.tar+gzip"];
    for (content_type, index, own, parts) in [
        (MANIFEST_TYPE, MANIFEST_TYPE, Some(MANIFEST_TYPE), PARTS),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, PARTS),
        ("text/plain", MANIFEST_TYPE, Some(MANIFEST_TYPE), PARTS),
        (DOCKER_TYPE, DOCKER_TYPE, Some(DOCKER_TYPE), PARTS),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, ["application/vnd.docker.container.image.v1+json", PARTS[1]]),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, ["application/octet-stream", "application/x-some-artifact"]),
    ] {
        assert_eq!(stated(content_type, index, own, parts).await, "an image", "{content_type} {index} {own:?}");
    }
    for (content_type, index, own, parts, says) in [
        (MANIFEST_TYPE, DOCKER_TYPE, Some(MANIFEST_TYPE), PARTS, [DOCKER_TYPE, MANIFEST_TYPE]),
        (MANIFEST_TYPE, INDEX_TYPE, Some(MANIFEST_TYPE), PARTS, [INDEX_TYPE, MANIFEST_TYPE]),
        (INDEX_TYPE, INDEX_TYPE, None, PARTS, [INDEX_TYPE, "but it is an image manifest"]),
        (DOCKER_TYPE, MANIFEST_TYPE, Some(MANIFEST_TYPE), PARTS, [DOCKER_TYPE, MANIFEST_TYPE]),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, [MANIFEST_TYPE, PARTS[1]], ["configuration", MANIFEST_TYPE]),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, [PARTS[1], PARTS[1]], ["configuration", PARTS[1]]),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, [PARTS[0], INDEX_TYPE], ["layer", INDEX_TYPE]),
        (MANIFEST_TYPE, MANIFEST_TYPE, None, [PARTS[0], PARTS[0]], ["layer", PARTS[0]]),
    ] {
        let said = stated(content_type, index, own, parts).await;
        assert!(says.iter().all(|part| said.contains(part)), "{content_type} {index} {own:?}: {said}");
    }
}

#[tokio::test]
async fn foreign_layers_are_refused() {
    let server = Server::start(|_| Answer::new(200)).await;
    let mut blob = describe(MediaType::ImageLayerGzip, b"x");
    blob.set_urls(Some(vec!["http://169.254.169.254/".into()]));
    let error = fetch(&Client::new(config()), &reference(&server, "a"), &blob).await.unwrap_err();
    assert!(error.to_string().contains("foreign"), "{error}");
    assert_eq!(server.asked().len(), 0);
}

/// A registry's side of uploads, with switches for its habits.
async fn upload_server(location: &'static str, put: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Server {
    Server::start(move |asked| match asked.method.as_str() {
        "HEAD" => Answer::new(404),
        "POST" => Answer::new(202).header("Location", location.replace("HOST", asked.header("host").unwrap())),
        "PATCH" => Answer::new(202).header("Location", "/next?state=2"),
        _ => put(asked),
    })
    .await
}

#[tokio::test]
async fn upload_locations_of_every_form() {
    for (location, want) in [
        ("/up/1", "/up/1?digest="),
        ("http://HOST/up/1?_state=a%2Fb==", "/up/1?_state=a%2Fb==&digest="),
        ("1", "/v2/a/blobs/uploads/1?digest="),
    ] {
        let server = upload_server(location, |_| Answer::new(201)).await;
        let upload = Upload { mount_from: Some("other".into()), ..upload(b"x") };
        let outcome = Client::new(config()).push_blob(&reference(&server, "a"), &upload).await.unwrap();
        assert_eq!(outcome, Outcome::Sent);
        let asked = server.asked();
        assert_eq!(asked.len(), 2, "{:?}", server.lines());
        assert!(asked[1].path.starts_with(want), "{}", asked[1].path);
        assert_eq!((asked[1].body.as_slice(), asked[1].header("content-length")), (&b"x"[..], Some("1")));
    }
}

#[tokio::test]
async fn uploads_without_a_location_end() {
    for location in ["http://", "ftp://x/"] {
        let server = upload_server(location, |_| Answer::new(201)).await;
        let error = Client::new(config()).push_blob(&reference(&server, "a"), &upload(b"x")).await.unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    }
    let server = Server::start(|_| Answer::new(202)).await;
    let error = Client::new(config()).push_blob(&reference(&server, "a"), &upload(b"x")).await.unwrap_err();
    assert!(error.to_string().contains("without a Location"), "{error}");
}

#[tokio::test]
async fn a_refused_mount_becomes_an_upload() {
    let server = Server::start(|asked| match asked.method.as_str() {
        "POST" if asked.path.contains("mount=") => Answer::new(405),
        "POST" => Answer::new(202).header("Location", "/up"),
        _ => Answer::new(201),
    })
    .await;
    let upload = Upload { mount_from: Some("other".into()), ..upload(b"x") };
    assert_eq!(Client::new(config()).push_blob(&reference(&server, "a"), &upload).await.unwrap(), Outcome::Sent);
}

#[tokio::test]
async fn uploads_in_pieces_where_whole_ones_are_refused() {
    let server = upload_server("/up/1?state=1", |asked| match asked.body.len() {
        0 => Answer::new(201),
        _ => Answer::new(413),
    })
    .await;
    assert_eq!(
        Client::new(config()).push_blob(&reference(&server, "a"), &upload(b"xyz")).await.unwrap(),
        Outcome::Sent
    );
    let asked = server.asked();
    assert_eq!(server.lines(), ["POST /v2/a/blobs/uploads/", "PUT /up/1", "PATCH /up/1", "PUT /next"]);
    assert_eq!((asked[2].body.as_slice(), asked[2].header("content-range")), (&b"xyz"[..], Some("0-2")));
    assert!(asked[3].path.starts_with("/next?state=2&digest=sha256"));
}

#[tokio::test]
async fn a_broken_upload_starts_again() {
    let tries = AtomicUsize::new(0);
    let server = upload_server("/up", move |_| match tries.fetch_add(1, Ordering::SeqCst) {
        0 => Answer::hang_up(),
        1 => Answer::new(500),
        _ => Answer::new(201),
    })
    .await;
    let content = vec![5; 200_000];
    assert_eq!(
        Client::new(config()).push_blob(&reference(&server, "a"), &upload(&content)).await.unwrap(),
        Outcome::Sent
    );
    let last = server.asked().pop().unwrap();
    assert_eq!(last.body, content);
}

#[tokio::test]
async fn a_blob_file_that_became_shorter_is_no_network_problem() {
    let server = upload_server("/up", |_| Answer::new(201)).await;
    let file = Content::File(Arc::new(tempfile::tempfile().unwrap()));
    let upload = Upload { content: file, ..upload(b"x") };
    let error = Client::new(config()).push_blob(&reference(&server, "a"), &upload).await.unwrap_err();
    assert!(matches!(error, Error::Source { .. }), "{error:?}");
}

#[tokio::test]
async fn a_manifest_stored_wrongly_is_noticed() {
    let server = Server::start(|_| Answer::new(201).header("Docker-Content-Digest", Digest::of(b"other"))).await;
    let manifest = Manifest::new(INDEX_TYPE, MANIFEST.into());
    let error = Client::new(config()).push_manifest(&reference(&server, "a:1"), &manifest).await.unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }), "{error:?}");
    assert_eq!(server.lines(), ["PUT /v2/a/manifests/1"]);
}

#[tokio::test]
async fn mirrors_come_first_and_may_fail() {
    let down = Arc::new(AtomicBool::new(false));
    let is_down = Arc::clone(&down);
    let mirror =
        Server::start(move |_| if is_down.load(Ordering::SeqCst) { Answer::new(500) } else { manifest_answer() }).await;
    let origin = Server::start(|_| manifest_answer()).await;
    let mirrors = vec![format!("{}=http://{}/cache", origin.host, mirror.host).parse().unwrap()];
    let client = Client::new(Config { mirrors, ..config() });
    let image = reference(&origin, "a:1");
    client.manifest(&image).await.unwrap();
    assert_eq!((mirror.lines(), origin.asked().len()), (vec!["GET /v2/cache/a/manifests/1".to_owned()], 0));
    assert_eq!(mirror.asked()[0].path, format!("/v2/cache/a/manifests/1?ns={}", origin.host.replace(':', "%3A")));
    down.store(true, Ordering::SeqCst);
    client.manifest(&image).await.unwrap();
    assert_eq!((mirror.asked().len(), origin.asked().len()), (2, 1));
    let blob = describe(MediaType::ImageLayerGzip, MANIFEST.as_bytes());
    assert_eq!(fetch(&client, &image, &blob).await.unwrap(), MANIFEST.as_bytes());
    client.push_manifest(&image, &Manifest::new(INDEX_TYPE, MANIFEST.into())).await.unwrap();
    assert_eq!(mirror.asked().len(), 3);
}

#[tokio::test]
async fn a_lookup_needs_no_body() {
    let digest = Digest::of(MANIFEST.as_bytes());
    let server = Server::start(move |_| manifest_answer().header("Docker-Content-Digest", &digest)).await;
    let found = Client::new(config()).resolve(&reference(&server, "a:1")).await.unwrap();
    assert_eq!(
        (found.size(), found.digest().to_string()),
        (MANIFEST.len() as u64, Digest::of(MANIFEST.as_bytes()).to_string())
    );
    assert_eq!(server.lines(), ["HEAD /v2/a/manifests/1"]);
    let server = Server::start(|_| manifest_answer()).await;
    Client::new(config()).resolve(&reference(&server, "a:1")).await.unwrap();
    assert_eq!(server.lines(), ["HEAD /v2/a/manifests/1", "GET /v2/a/manifests/1"]);
}

#[tokio::test]
async fn proxies_are_used_but_not_for_those_who_need_none() {
    let proxy = Server::start(|_| manifest_answer()).await;
    for (none, through) in [("", 1), ("registry.test", 0), (".test,other", 0), ("*", 0), ("other", 1)] {
        let before = proxy.asked().len();
        let proxies = Proxies { http: Some(format!("http://{}", proxy.host)), https: None, none: none.into() };
        let mirrors = vec!["origin.test=http://registry.test/".parse().unwrap()];
        let retry = Retry { attempts: 1, ..config().retry };
        let client = Client::new(Config { proxies, mirrors, retry, ..config() });
        let _ = client.manifest(&"origin.test/a:1".parse().unwrap()).await;
        let lines: Vec<String> = proxy.lines().split_off(before);
        assert_eq!(lines.len(), through, "{none}: {lines:?}");
        assert!(lines.iter().all(|line| line == "GET http://registry.test/v2/a/manifests/1"), "{lines:?}");
    }
}
