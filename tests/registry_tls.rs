//! `registry` over TLS, against Debian's docker-registry with certificates that openssl makes. No privilege needed.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod support {
    pub(crate) mod docker_registry;
    pub(crate) mod server;
}

use kiln::oci::Reference;
use kiln::registry::{Certificates, Client, Config, Error, Retry};
use kiln::report::Problem;
use std::net::UdpSocket;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::docker_registry::{DockerRegistry, Options};
use support::server::{Answer, Server};

struct Pair {
    folder: tempfile::TempDir,
}

impl Pair {
    /// A certificate for `address` that signs itself.
    fn new(address: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let name = format!("subjectAltName=IP:{address}");
        let made = Command::new("openssl")
            .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"])
            .args(["-days", "2", "-subj", "/CN=test", "-addext", &name, "-keyout", "key.pem", "-out", "cert.crt"])
            .current_dir(folder.path())
            .stderr(Stdio::null())
            .status();
        if made.is_ok_and(|status| status.success()) {
            return Some(Self { folder });
        }
        println!("SKIPPED: openssl is not installed, or can't make a certificate");
        None
    }

    fn certificate(&self) -> PathBuf {
        self.folder.path().join("cert.crt")
    }

    fn registry(&self, address: &str, token: Option<&str>) -> Option<DockerRegistry> {
        let (certificate, key) = (self.certificate(), self.folder.path().join("key.pem"));
        let token = token.map(|realm| (realm, certificate.as_path()));
        let tls = Some((certificate.as_path(), key.as_path()));
        DockerRegistry::start(&Options { address: Some(address), tls, token, ..Options::default() })
    }
}

/// An address of this machine that isn't loopback: there certificates are checked.
fn outer_address() -> Option<String> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // Nothing is sent; the system only chooses an address.
    let address = socket.connect("192.0.2.1:9").ok().and_then(|()| Some(socket.local_addr().ok()?.ip()));
    let found = address.filter(|ip| !ip.is_loopback()).map(|ip| ip.to_string());
    if found.is_none() {
        println!("SKIPPED: this machine has no address but loopback");
    }
    found
}

fn config() -> Config {
    Config { retry: Retry { first: Duration::from_millis(5), ..Retry::default() }, ..Config::default() }
}

/// What a client says of an image that isn't there: `NotFound` when the way to the registry works.
async fn ask(config: Config, registry: &DockerRegistry) -> Error {
    let image: Reference = format!("{}/no/such", registry.host).parse().unwrap();
    Client::new(config).manifest(&image).await.unwrap_err()
}

#[tokio::test]
async fn on_loopback_tls_is_found_out_and_not_checked() {
    let Some(registry) = Pair::new("192.0.2.7").and_then(|pair| pair.registry("127.0.0.1", None)) else { return };
    let error = ask(config(), &registry).await;
    assert!(error.is_not_found(), "{error:?}");
}

#[tokio::test]
async fn elsewhere_certificates_are_checked() {
    let Some(address) = outer_address() else { return };
    let Some(pair) = Pair::new(&address) else { return };
    let Some(registry) = pair.registry(&address, None) else { return };
    let error = ask(config(), &registry).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    assert!(Problem::from(error).hints.iter().any(|hint| hint.contains("--insecure-registry")));
    let per_registry = pair.folder.path().join("certs.d");
    std::fs::create_dir_all(per_registry.join(&registry.host)).unwrap();
    std::fs::copy(pair.certificate(), per_registry.join(&registry.host).join("ca.crt")).unwrap();
    let of_file = Certificates { file: Some(pair.certificate()), ..Certificates::default() };
    let of_folder = Certificates { per_registry: vec![per_registry], ..Certificates::default() };
    let no_such = Certificates { file: Some("/no/such".into()), ..Certificates::default() };
    for certificates in [of_file, of_folder] {
        let error = ask(Config { certificates, ..config() }, &registry).await;
        assert!(error.is_not_found(), "{error:?}");
    }
    let error = ask(Config { certificates: no_such, ..config() }, &registry).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    for insecure in [registry.host.clone(), address] {
        let error = ask(Config { insecure: vec![insecure], ..config() }, &registry).await;
        assert!(error.is_not_found(), "{error:?}");
    }
}

/// What a RUN does in place, while kiln pushes: it puts certificates where kiln looks for them.
#[tokio::test]
async fn certificates_that_were_read_at_the_start_are_not_read_again() {
    let Some(address) = outer_address() else { return };
    let Some(pair) = Pair::new(&address) else { return };
    let Some(registry) = pair.registry(&address, None) else { return };
    let folder = tempfile::tempdir().unwrap();
    let (file, own) = (folder.path().join("cert.pem"), folder.path().join("certs.d").join(&registry.host));
    let certificates = || Certificates {
        file: Some(file.clone()),
        per_registry: vec![folder.path().join("certs.d")],
        ..Certificates::default()
    };
    let with = |certificates| Config { certificates, ..config() };
    // Nothing is there at the start, and what comes later is not trusted.
    let held = with(certificates().hold());
    std::fs::create_dir_all(&own).unwrap();
    std::fs::copy(pair.certificate(), own.join("ca.crt")).unwrap();
    std::fs::copy(pair.certificate(), &file).unwrap();
    let error = ask(held, &registry).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    // What is there at the start is trusted, also when it is gone.
    let held = with(certificates().hold());
    std::fs::remove_file(&file).unwrap();
    let of_registry = with(Certificates { file: None, ..certificates() }.hold());
    std::fs::remove_dir_all(&own).unwrap();
    for config in [held, of_registry] {
        let error = ask(config, &registry).await;
        assert!(error.is_not_found(), "{error:?}");
    }
}

#[tokio::test]
async fn a_certificate_of_the_users_is_still_for_one_name() {
    let Some(address) = outer_address() else { return };
    let Some(pair) = Pair::new("192.0.2.77") else { return };
    let Some(registry) = pair.registry(&address, None) else { return };
    let certificates = Certificates { file: Some(pair.certificate()), ..Certificates::default() };
    let error = ask(Config { certificates, ..config() }, &registry).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn insecure_registries_may_speak_plain_http_others_not() {
    let Some(address) = outer_address() else { return };
    let options = Options { address: Some(&address), ..Options::default() };
    let Some(registry) = DockerRegistry::start(&options) else { return };
    let error = ask(Config { insecure: vec![registry.host.clone()], ..config() }, &registry).await;
    assert!(error.is_not_found(), "{error:?}");
    let error = ask(config(), &registry).await;
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_registry_with_tls_cannot_send_the_password_over_plain_http() {
    let token_server = Server::start(|_| Answer::new(200).body(r#"{"token":"t"}"#)).await;
    let realm = format!("http://{}/token", token_server.host);
    let Some(pair) = Pair::new("127.0.0.1") else { return };
    let Some(registry) = pair.registry("127.0.0.1", Some(&realm)) else { return };
    let file = pair.folder.path().join("config.json");
    let text = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uOnMzY3JldA=="}}}}}}"#, registry.host);
    std::fs::write(&file, text).unwrap();
    let error = ask(Config { credentials: Some(file), ..config() }, &registry).await;
    assert!(matches!(error, Error::Realm { .. }), "{error:?}");
    assert!(token_server.asked().is_empty());
}

#[tokio::test]
async fn a_certificate_file_that_is_none_is_named() {
    let Some(address) = outer_address() else { return };
    let Some(registry) = Pair::new(&address).and_then(|pair| pair.registry(&address, None)) else { return };
    let folder = tempfile::tempdir().unwrap();
    let own = folder.path().join(&registry.host);
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("ca.crt"), "-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n").unwrap();
    let certificates = Certificates { per_registry: vec![folder.path().into()], ..Certificates::default() };
    let error = ask(Config { certificates, ..config() }, &registry).await;
    assert!(matches!(&error, Error::Setup(why) if why.contains("ca.crt")), "{error:?}");
}
