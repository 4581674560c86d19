//! Credentials from Docker's `config.json` and its credential helpers.
//!
//! The file is read once, when a registry first asks who is there. Lookup follows the docker command: what `$DOCKER_AUTH_CONFIG`
//! gives, a helper for the host (`credHelpers`), then the general helper (`credsStore`), then what stands in the file (`auths`).

use super::secret::Secret;
use crate::sys::input;
use crate::sys::program::{absolute, find};
use base64::Engine as _;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncWriteExt as _;

/// The key under which Docker Hub's credentials are kept, since before there were repositories with two parts.
pub(crate) const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// How long a helper may take.
const HELPER_TIMEOUT: Duration = Duration::from_secs(60);

/// What proves to a registry who is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user name and a password.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, good for asking the token server for others.
    Identity(Secret),
    /// A token for the registry itself.
    Registry(Secret),
}

/// Docker's `config.json`, as far as credentials go.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct DockerConfig {
    auths: Option<BTreeMap<String, AuthEntry>>,
    creds_store: Option<String>,
    cred_helpers: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct AuthEntry {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
    registrytoken: Option<String>,
}

/// The largest `config.json` that is read, in bytes.
pub(crate) const LARGEST: u64 = 16 << 20;

/// Where to find the credential of a registry.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Ask this helper for this key.
    Helper { name: String, key: String },
    /// It stood in the file.
    Here(Credential),
}

/// Reads `config.json`; a file that isn't there holds nothing.
///
/// # Errors
/// Says why a file that is there can't be read, never what stands in it.
pub(crate) fn read(path: &Path) -> Result<DockerConfig, String> {
    match input::open_regular(path).and_then(|file| input::read_all(file, LARGEST)) {
        Ok(bytes) => parse(&bytes, &path.display().to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(DockerConfig::default()),
        Err(e) => Err(format!("{}: {e}", path.display())),
    }
}

/// What `$DOCKER_AUTH_CONFIG` says: a `config.json` of which only `auths` counts, as with docker.
///
/// # Errors
/// Says that it isn't one, never what it is.
pub(crate) fn given(text: &Secret) -> Result<DockerConfig, String> {
    let DockerConfig { auths, .. } = parse(text.reveal().as_bytes(), "$DOCKER_AUTH_CONFIG")?;
    Ok(DockerConfig { auths, ..DockerConfig::default() })
}

fn parse(bytes: &[u8], what: &str) -> Result<DockerConfig, String> {
    serde_json::from_slice(bytes)
        .map_err(|e| format!("{what} is not the JSON that docker writes (line {}, column {})", e.line(), e.column()))
}

/// The path of `config.json`: in `$DOCKER_CONFIG`, else in `$HOME/.docker`.
pub(crate) fn path(env: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    let set = |name| env(name).filter(|v: &String| !v.is_empty());
    let folder = set("DOCKER_CONFIG").map(PathBuf::from).or_else(|| Some(Path::new(&set("HOME")?).join(".docker")))?;
    Some(folder.join("config.json"))
}

impl DockerConfig {
    /// The places to look for a registry's credential, in order.
    pub(crate) fn places(&self, registry: &str) -> Vec<Place> {
        let key = if canonical(registry) == "docker.io" { DOCKER_HUB } else { registry };
        let helper = |name: &String| Place::Helper { name: name.clone(), key: key.to_owned() };
        let for_host = self.cred_helpers.as_ref().and_then(|h| lookup(h, registry)).filter(|n| !n.is_empty());
        let general = self.creds_store.as_ref().filter(|n| !n.is_empty());
        let here = self.auths.as_ref().and_then(|a| lookup(a, registry)).and_then(AuthEntry::credential);
        for_host.or(general).map(helper).into_iter().chain(here.map(Place::Here)).collect()
    }
}

/// The entry of a registry: under its very name, or under an address that leads to it.
fn lookup<'a, V>(map: &'a BTreeMap<String, V>, registry: &str) -> Option<&'a V> {
    map.get(registry).or_else(|| map.iter().find(|(key, _)| canonical(key) == canonical(registry)).map(|(_, v)| v))
}

/// The host that a key of `config.json` is about.
pub(crate) fn canonical(key: &str) -> &str {
    let host = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    match host.split('/').next().unwrap_or(host) {
        "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

impl AuthEntry {
    fn credential(&self) -> Option<Credential> {
        let set = |field: &Option<String>| field.clone().filter(|v| !v.is_empty());
        if let Some(token) = set(&self.identitytoken) {
            return Some(Credential::Identity(Secret::new(token)));
        }
        if let Some(token) = set(&self.registrytoken) {
            return Some(Credential::Registry(Secret::new(token)));
        }
        let (username, password) =
            set(&self.auth).and_then(|a| decode(&a)).or_else(|| Some((set(&self.username)?, set(&self.password)?)))?;
        Some(Credential::Basic { username, password: Secret::new(password) })
    }
}

/// `base64(user:password)`; older versions of docker left zero bytes at the end.
fn decode(auth: &str) -> Option<(String, String)> {
    let config = base64::engine::GeneralPurposeConfig::new()
        .with_decode_padding_mode(base64::engine::DecodePaddingMode::Indifferent);
    let engine = base64::engine::GeneralPurpose::new(&base64::alphabet::STANDARD, config);
    let text = String::from_utf8(engine.decode(auth.trim()).ok()?).ok()?;
    let (user, password) = text.split_once(':')?;
    Some((user.to_owned(), password.trim_end_matches('\0').to_owned()))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HelperAnswer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// Asks `docker-credential-NAME`, which is looked for in `path` (`$PATH`), for a key; `None` where it has none.
///
/// # Errors
/// Says how the helper failed, never what it printed.
pub(crate) async fn ask_helper(name: &str, path: &OsStr, key: &str) -> Result<Option<Credential>, String> {
    let (program, output) = run_helper(name, path, "get", key).await?;
    read_answer(&program, output.status, &output.stdout)
}

/// Has `docker-credential-NAME` store or erase something; `false` where it had nothing to erase.
///
/// # Errors
/// Says how the helper failed, never what it printed.
pub(crate) async fn tell_helper(name: &str, path: &OsStr, action: &str, input: &str) -> Result<bool, String> {
    let (program, output) = run_helper(name, path, action, input).await?;
    if output.status.success() {
        return Ok(true);
    }
    failed_answer(&program, output.status, &output.stdout).map(|()| false)
}

async fn run_helper(
    name: &str,
    path: &OsStr,
    action: &str,
    input: &str,
) -> Result<(String, std::process::Output), String> {
    let program = format!("docker-credential-{name}");
    if name.contains('/') {
        return Err(format!("{program:?} is not the name of a program"));
    }
    let found = find(&program, path).ok_or_else(|| format!("{program} is in no absolute directory of $PATH"))?;
    let failed = |e: std::io::Error| format!("running {program}: {e}");
    let mut child = tokio::process::Command::new(&found)
        .arg(action)
        .env("PATH", absolute(path))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(failed)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A helper that doesn't read its input says so by its exit code.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = tokio::time::timeout(HELPER_TIMEOUT, child.wait_with_output())
        .await
        .map_err(|_| format!("{program} took longer than {} seconds", HELPER_TIMEOUT.as_secs()))?
        .map_err(failed)?;
    Ok((program, output))
}

/// What a helper's failure means: nothing, if it only has nothing.
fn failed_answer(program: &str, status: std::process::ExitStatus, stdout: &[u8]) -> Result<(), String> {
    // The protocol of docker-credential-helpers: the error is text on standard output.
    let is_none = String::from_utf8_lossy(stdout).contains("credentials not found");
    if is_none { Ok(()) } else { Err(format!("{program} failed ({status}); run it by hand to see why")) }
}

fn read_answer(program: &str, status: std::process::ExitStatus, stdout: &[u8]) -> Result<Option<Credential>, String> {
    if !status.success() {
        return failed_answer(program, status, stdout).map(|()| None);
    }
    let answer: HelperAnswer =
        serde_json::from_slice(stdout).map_err(|_| format!("{program} printed no JSON with a Secret"))?;
    let secret = Secret::new(answer.secret);
    Ok(Some(match answer.username.as_str() {
        "<token>" => Credential::Identity(secret),
        _ => Credential::Basic { username: answer.username, password: secret },
    }))
}

#[cfg(test)]
#[path = "credentials_tests.rs"]
mod tests;
