//! Debian's `docker-registry` on a free loopback port, gone when dropped.

#![allow(dead_code, reason = "each test uses a part of it")]

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

pub(crate) struct DockerRegistry {
    child: Child,
    /// Host and port.
    pub(crate) host: String,
    folder: tempfile::TempDir,
}

/// What stands in the registry's configuration besides storage and address.
#[derive(Default)]
pub(crate) struct Options<'a> {
    /// User and password of an htpasswd file.
    pub(crate) user: Option<(&'a str, &'a str)>,
    /// Certificate and key.
    pub(crate) tls: Option<(&'a Path, &'a Path)>,
    /// The token server that it names, and the certificate of its tokens.
    pub(crate) token: Option<(&'a str, &'a Path)>,
    /// Another address than 127.0.0.1.
    pub(crate) address: Option<&'a str>,
    /// Keep nothing on disk: to measure the client rather than the disk.
    pub(crate) in_memory: bool,
}

impl DockerRegistry {
    /// `None`, and a line that says so, where the program is missing.
    pub(crate) fn start(options: &Options<'_>) -> Option<Self> {
        if Command::new("docker-registry").arg("--version").stdout(Stdio::null()).status().is_err() {
            println!("SKIPPED: docker-registry is not installed (apt-get install docker-registry)");
            return None;
        }
        // Two tests may be given the same free port; the second one tries again.
        (0..5).find_map(|_| Self::try_start(options))
    }

    fn try_start(options: &Options<'_>) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let address = options.address.unwrap_or("127.0.0.1");
        let port = TcpListener::bind((address, 0)).unwrap().local_addr().unwrap().port();
        let host = format!("{address}:{port}");
        let config = folder.path().join("config.yml");
        std::fs::write(&config, configuration(&host, folder.path(), options)).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let end = Instant::now() + Duration::from_secs(20);
        while Instant::now() < end && child.try_wait().unwrap().is_none() {
            if listens(&host) {
                return Some(Self { child, host, folder });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = child.kill();
        None
    }

    /// Where it keeps its files.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

fn listens(host: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(host) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok() && stream.read(&mut [0; 1]).is_ok_and(|n| n > 0)
}

fn configuration(host: &str, folder: &Path, options: &Options<'_>) -> String {
    let storage = match options.in_memory {
        true => "inmemory: {}".to_owned(),
        false => format!("filesystem: {{rootdirectory: {}}}", folder.join("data").display()),
    };
    let mut text = format!(
        "version: 0.1\nlog: {{level: error, accesslog: {{disabled: true}}}}\nstorage: {{{storage}, delete: {{enabled: true}}}}\n\
         http:\n  addr: {host}\n"
    );
    if let Some((certificate, key)) = options.tls {
        text += &format!("  tls: {{certificate: {}, key: {}}}\n", certificate.display(), key.display());
    }
    if let Some((user, password)) = options.user {
        let file = folder.join("htpasswd");
        let made = Command::new("htpasswd").args(["-Bbn", user, password]).output().unwrap();
        std::fs::write(&file, made.stdout).unwrap();
        text += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
    }
    if let Some((realm, certificate)) = options.token {
        text += &format!(
            "auth: {{token: {{realm: {realm}, service: s, issuer: i, rootcertbundle: {}}}}}\n",
            certificate.display()
        );
    }
    text
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
