//! Credentials into Docker's `config.json` and its helpers, and out again, as `docker login` and `docker logout` do it.

use super::auth::Scopes;
use super::credentials::{self, DOCKER_HUB, canonical};
use super::{Call, Client, Config, Credential, Endpoint, Error, Method};
use crate::sys::input;
use base64::Engine as _;
use serde_json::{Map, Value, json};
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Where a credential went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// Into the file, as good as plain text.
    File(PathBuf),
    /// To the helper `docker-credential-NAME`.
    Helper(String),
}

impl Client {
    /// Asks a registry whether it takes a credential. One that wants none takes any.
    ///
    /// # Errors
    /// [`Error::Unauthorized`] where it doesn't; else as the registry has it.
    pub async fn verify(&self, host: &str, credential: Credential) -> Result<(), Error> {
        // Nothing of another account may answer in its place.
        let client = Self::new(Config { credentials: None, given: None, ..self.inner.config.clone() });
        let endpoint = Endpoint::origin(host, &client.inner.config.insecure);
        client.inner.auth.set_credential(&endpoint, credential);
        let what = format!("login to {host}");
        let scopes = Scopes::default();
        let call = Call::new(&what, &endpoint, &scopes, Method::GET, String::new());
        client.inner.config.retry.run(|| client.expect(&call, &[200])).await.map(drop)
    }
}

/// A `config.json` as it stands, with all that kiln doesn't know of.
#[derive(Debug)]
pub struct LoginFile {
    path: PathBuf,
    /// Where credential helpers are looked for.
    helpers: OsString,
    /// All fields; `auths` is empty here while it is looked into.
    fields: Map<String, Value>,
    /// The field `auths`.
    auths: Map<String, Value>,
}

impl LoginFile {
    /// Reads the file at `path`; one that isn't there is empty. Helpers are looked for in `helpers` (`$PATH`).
    ///
    /// # Errors
    /// [`Error::Credentials`] for a file that can't be read or isn't a JSON object.
    pub fn open(path: &Path, helpers: &OsStr) -> Result<Self, Error> {
        let bad = |why: String| bad(path, &why);
        // A link stays one.
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let text = match input::open_regular(&path).and_then(|file| input::read_all(file, credentials::LARGEST)) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => b"{}".to_vec(),
            other => other.map_err(|e| bad(e.to_string()))?,
        };
        match serde_json::from_slice(&text) {
            Ok(Value::Object(mut fields)) => {
                let auths = match fields.get_mut("auths").map(Value::take) {
                    Some(Value::Object(auths)) => auths,
                    _ => Map::new(),
                };
                Ok(Self { path, helpers: helpers.into(), fields, auths })
            }
            Ok(_) => Err(bad("it is no JSON object".into())),
            Err(e) => Err(bad(format!("it is no JSON (line {}, column {})", e.line(), e.column()))),
        }
    }

    /// Keeps a user's password: with the helper that the file names, or in the file.
    ///
    /// # Errors
    /// [`Error::Credentials`] where the helper or the file won't have it.
    pub async fn keep(mut self, host: &str, user: &str, password: &super::Secret) -> Result<Kept, Error> {
        let key = key(host);
        let kept = match self.helper(host) {
            Some(name) => {
                let input = json!({ "ServerURL": key, "Username": user, "Secret": password.reveal() });
                credentials::tell_helper(&name, &self.helpers, "store", &input.to_string())
                    .await
                    .map_err(|why| bad_host(host, why))?;
                self.auths.insert(key, json!({}));
                Kept::Helper(name)
            }
            None => {
                let pair = format!("{user}:{}", password.reveal());
                let auth = base64::engine::general_purpose::STANDARD.encode(pair);
                self.auths.insert(key, json!({ "auth": auth }));
                Kept::File(self.path.clone())
            }
        };
        self.write()?;
        Ok(kept)
    }

    /// Forgets what is kept of a registry; says whether there was anything.
    ///
    /// # Errors
    /// [`Error::Credentials`] where the helper or the file can't be changed.
    pub async fn forget(mut self, host: &str) -> Result<bool, Error> {
        let helped = match self.helper(host) {
            Some(name) => credentials::tell_helper(&name, &self.helpers, "erase", &key(host))
                .await
                .map_err(|why| bad_host(host, why))?,
            None => false,
        };
        let before = self.auths.len();
        self.auths.retain(|key, _| canonical(key) != canonical(host));
        let found = self.auths.len() < before;
        if found {
            self.write()?;
        }
        Ok(found || helped)
    }

    /// The helper of a registry, or that of all.
    fn helper(&self, host: &str) -> Option<String> {
        let own = self.fields.get("credHelpers").and_then(Value::as_object);
        let own = own.and_then(|all| all.iter().find(|(key, _)| canonical(key) == canonical(host))).map(|(_, v)| v);
        let name = own.or_else(|| self.fields.get("credsStore"))?.as_str()?;
        (!name.is_empty()).then(|| name.to_owned())
    }

    /// Writes the file beside its place, readable for nobody else, and renames it.
    fn write(mut self) -> Result<(), Error> {
        self.fields.insert("auths".into(), self.auths.into());
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let written = || -> std::io::Result<()> {
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
            // Made with mode 0600.
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            // Docker's indentation.
            let mut text = Vec::new();
            let formatter = serde_json::ser::PrettyFormatter::with_indent(b"\t");
            let mut serializer = serde_json::Serializer::with_formatter(&mut text, formatter);
            serde::Serialize::serialize(&self.fields, &mut serializer)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(&self.path)?;
            Ok(())
        };
        written().map_err(|e| bad(&self.path, &e.to_string()))
    }
}

/// The key that docker keeps a registry's credential under.
fn key(host: &str) -> String {
    if canonical(host) == "docker.io" { DOCKER_HUB.into() } else { host.into() }
}

fn bad(path: &Path, why: &str) -> Error {
    Error::Setup(format!("{}: {why}", path.display()))
}

fn bad_host(host: &str, why: String) -> Error {
    Error::Credentials { host: host.into(), why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Secret;
    use std::os::unix::fs::PermissionsExt as _;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn read(path: &Path) -> Value {
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    }

    #[test]
    fn a_credential_goes_into_the_file_and_out_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/config.json");
        let keep = |host: &str| {
            let password = Secret::new("p");
            let kept = LoginFile::open(&path, OsStr::new("")).unwrap().keep(host, "u", &password);
            assert_eq!(runtime().block_on(kept).unwrap(), Kept::File(path.clone()));
        };
        keep("r.io");
        keep("docker.io");
        let auths = json!({ "r.io": { "auth": "dTpw" }, "https://index.docker.io/v1/": { "auth": "dTpw" } });
        assert_eq!(read(&path), json!({ "auths": auths }));
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        for (host, want) in [("docker.io", true), ("docker.io", false), ("other.io", false), ("r.io", true)] {
            assert_eq!(
                runtime().block_on(LoginFile::open(&path, OsStr::new("")).unwrap().forget(host)).unwrap(),
                want,
                "{host}"
            );
        }
        assert_eq!(read(&path), json!({ "auths": {} }));
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn what_others_wrote_stays() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.json"), folder.path().join("config.json"));
        std::fs::write(&path, r#"{"HttpHeaders":{"a":"b"},"auths":{"x":{"auth":"eA=="}},"z":1}"#).unwrap();
        std::os::unix::fs::symlink(&path, &link).unwrap();
        runtime()
            .block_on(LoginFile::open(&link, OsStr::new("")).unwrap().keep("r.io", "u", &Secret::new("p")))
            .unwrap();
        let auths = json!({ "x": { "auth": "eA==" }, "r.io": { "auth": "dTpw" } });
        assert_eq!(read(&path), json!({ "HttpHeaders": { "a": "b" }, "auths": auths, "z": 1 }));
        assert!(link.is_symlink());
    }

    #[test]
    fn a_file_that_is_something_else_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.json");
        for text in ["[]", "{", "secret"] {
            std::fs::write(&path, text).unwrap();
            let error = LoginFile::open(&path, OsStr::new("")).unwrap_err().to_string();
            assert!(error.contains("config.json") && !error.contains("secret"), "{error}");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
    }

    #[test]
    fn helpers_are_chosen_as_docker_does() {
        let with = |text: &str| {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("c");
            std::fs::write(&path, text).unwrap();
            LoginFile::open(&path, OsStr::new("")).unwrap()
        };
        let file = with(r#"{"credsStore":"all","credHelpers":{"https://r.io":"own"}}"#);
        assert_eq!(file.helper("r.io").as_deref(), Some("own"));
        assert_eq!(file.helper("s.io").as_deref(), Some("all"));
        assert_eq!(with(r#"{"credsStore":""}"#).helper("s.io"), None);
    }
}
