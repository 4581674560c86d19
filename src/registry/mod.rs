//! The distribution protocol: resolve, pull, push, with mirrors, credentials, retries and verification.
//!
//! [`Client`] is cheap to clone and safe to share; all of its work is asynchronous. Reading the parts in order:
//! `endpoint` (where a name leads), `dns` (its address, where the system is not to be asked), `transport` (HTTP, TLS,
//! redirects), `auth` (who kiln is), `retry`, then what is done with them: `manifest`, `blob`, `upload`.
//!
//! Invariants:
//! - Nothing a registry sends is trusted: sizes are bounded before memory is taken, digests are checked, addresses it
//!   names never get credentials that are not for them, its texts are stripped of control characters.
//! - Nothing secret is in an error, an event or a `Debug` form.
//! - No TLS is set up, and no file of credentials read, before a connection needs it.

mod auth;
mod blob;
mod body;
mod challenge;
mod credentials;
mod dns;
mod endpoint;
mod error;
mod login;
mod manifest;
mod retry;
mod secret;
mod select;
mod service;
mod tls;
mod transport;
mod upload;
mod web;

pub use blob::Blob;
pub use body::Progress;
pub use credentials::Credential;
pub use dns::{Resolver, fixed_resolver};
pub use endpoint::Mirror;
pub(crate) use error::printable;
pub use error::{Error, Said};
pub use login::{Kept, LoginFile};
pub use manifest::{Document, Image, Manifest, check_parts};
pub use retry::Retry;
pub use secret::Secret;
pub use select::best;
pub use service::{Part, Service, Signed};
pub use tls::Certificates;
pub use upload::{Content, Outcome, Upload};
pub use web::{WebFile, shown};

use crate::oci::Reference;
use crate::report::{Event, Reporter};
use auth::{Auth, Scopes};
use body::Body;
use bytes::Bytes;
use endpoint::Endpoint;
use reqwest::header::{AUTHORIZATION, HeaderMap, RETRY_AFTER};
use reqwest::{Method, Response, Url};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use transport::{Request, Transport, broken, host_of};

/// How much of an error's body is read.
const MAX_ERROR: u64 = 64 << 10;

/// How to reach registries.
#[derive(Debug, Clone)]
pub struct Config {
    /// Servers asked first for what is pulled; those of one registry in order.
    pub mirrors: Vec<Mirror>,
    /// Hosts (with or without port) that may speak plain HTTP or have a certificate that nobody signed. Loopback needs
    /// no mention.
    pub insecure: Vec<String>,
    /// Proxies.
    pub proxies: Proxies,
    /// Certificates beside those built in.
    pub certificates: Certificates,
    /// Who finds the addresses of hosts, proxies too; `None` is the system.
    pub resolver: Option<Resolver>,
    /// Docker's `config.json`.
    pub credentials: Option<PathBuf>,
    /// Credentials that come before those of the file: the text of another one, `$DOCKER_AUTH_CONFIG`.
    pub given: Option<Secret>,
    /// Where credential helpers are looked for: `$PATH`.
    pub helpers: OsString,
    /// How often and how fast failed requests are sent again.
    pub retry: Retry,
    /// How long a silent server is waited for.
    pub patience: Duration,
    /// What kiln calls itself.
    pub user_agent: String,
    /// Told when a mirror is passed over.
    pub reporter: Reporter,
}

impl Default for Config {
    /// No mirrors, proxies or credentials.
    fn default() -> Self {
        Self {
            mirrors: Vec::new(),
            insecure: Vec::new(),
            proxies: Proxies::default(),
            certificates: Certificates::default(),
            resolver: None,
            credentials: None,
            given: None,
            helpers: OsString::new(),
            retry: Retry::default(),
            patience: Duration::from_secs(60),
            user_agent: concat!("kiln/", env!("CARGO_PKG_VERSION")).into(),
            reporter: Reporter::silent(),
        }
    }
}

impl Config {
    /// What the environment says: `$DOCKER_CONFIG` or `$HOME`, `$DOCKER_AUTH_CONFIG`, `$PATH`, proxies, `$SSL_CERT_FILE`, `$SSL_CERT_DIR`; and
    /// Docker's folders of certificates.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let credentials = credentials::path(env);
        let own = credentials.as_ref().and_then(|file| Some(file.parent()?.join("certs.d")));
        let set = |name| env(name).filter(|v: &String| !v.is_empty()).map(PathBuf::from);
        Self {
            proxies: Proxies::from_env(env),
            certificates: Certificates {
                file: set("SSL_CERT_FILE"),
                folder: set("SSL_CERT_DIR"),
                per_registry: std::iter::once(PathBuf::from("/etc/docker/certs.d")).chain(own).collect(),
                held: None,
            },
            credentials,
            given: env("DOCKER_AUTH_CONFIG").filter(|v| !v.is_empty()).map(Secret::new),
            helpers: env("PATH").unwrap_or_default().into(),
            ..Self::default()
        }
    }
}

/// Proxies by the usual variables. Loopback, and those who tell a machine of a cloud who it is, are never reached through
/// one.
#[derive(Clone, Default)]
pub struct Proxies {
    /// For plain HTTP: `$HTTP_PROXY`.
    pub http: Option<String>,
    /// For TLS: `$HTTPS_PROXY`.
    pub https: Option<String>,
    /// Hosts reached without one: `$NO_PROXY`.
    pub none: String,
}

impl std::fmt::Debug for Proxies {
    /// Proxy addresses may hold a password.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Proxies {{ http: {}, https: {} }}", self.http.is_some(), self.https.is_some())
    }
}

impl Proxies {
    /// Reads the variables; the upper-case form wins, as in Go.
    pub fn from_env(env: &dyn Fn(&str) -> Option<String>) -> Self {
        let either = |name: &str| {
            [name.to_owned(), name.to_ascii_lowercase()].iter().filter_map(|n| env(n)).find(|v| !v.is_empty())
        };
        Self { http: either("HTTP_PROXY"), https: either("HTTPS_PROXY"), none: either("NO_PROXY").unwrap_or_default() }
    }

    fn to_reqwest(&self) -> Result<Vec<reqwest::Proxy>, Error> {
        let none = format!("{},localhost,127.0.0.0/8,::1,169.254.0.0/16,metadata.google.internal", self.none);
        let none = reqwest::NoProxy::from_string(none.trim_start_matches(','));
        // The library's error would show the address, and with it a password.
        let bad = |name: &str| Error::Setup(format!("${name} is not the address of an HTTP proxy"));
        let http = self.http.as_ref().map(|p| reqwest::Proxy::http(p).map_err(|_| bad("HTTP_PROXY")));
        let https = self.https.as_ref().map(|p| reqwest::Proxy::https(p).map_err(|_| bad("HTTPS_PROXY")));
        http.into_iter().chain(https).map(|p| Ok(p?.no_proxy(none.clone()))).collect()
    }
}

/// A client of all registries: their connections, tokens and credentials. Clones share them.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    transport: Transport,
    auth: Auth,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// Where a call goes.
enum Target {
    /// Below `/v2/` of the endpoint.
    Path(String),
    /// An address that the registry named.
    Address(Url),
}

/// One call of the protocol.
struct Call<'a> {
    what: &'a str,
    endpoint: &'a Endpoint,
    scopes: &'a Scopes,
    method: Method,
    target: Target,
    headers: HeaderMap,
    body: Body,
}

impl Client {
    /// Does nothing yet but keep the configuration.
    pub fn new(config: Config) -> Self {
        let transport = Transport::new(&config);
        let auth = Auth::new(config.credentials.clone(), config.given.clone(), config.helpers.clone());
        Self { inner: Arc::new(Inner { config, transport, auth }) }
    }

    /// Reads the file of credentials now rather than when it is first needed, when something else may stand in its place.
    /// What is wrong with it is told then.
    pub async fn read_credentials(&self) {
        self.inner.auth.read().await;
    }

    /// Finds out now who kiln is to a reference's registry, by asking a helper, say. What goes wrong is told when it is needed.
    pub async fn find_credential(&self, reference: &Reference) {
        self.inner.auth.has_credential(&self.origin(reference)).await;
    }

    /// A client that is set up the same and asks once, for what can be done without an answer.
    pub fn impatient(&self) -> Self {
        self.hurried(1, Duration::from_secs(10))
    }

    /// A client that is set up the same, sends nothing more than `attempts` times, and waits no longer than `patience` for
    /// a silent server.
    pub fn hurried(&self, attempts: u32, patience: Duration) -> Self {
        let retry = Retry { attempts, ..self.inner.config.retry };
        let config = Config { retry, patience, ..self.inner.config.clone() };
        let (transport, auth) = (Transport::new(&config), self.inner.auth.again());
        Self { inner: Arc::new(Inner { config, transport, auth }) }
    }

    /// Where to pull from: the mirrors in order, then the registry itself.
    fn sources(&self, reference: &Reference) -> Result<Vec<Endpoint>, Error> {
        let config = &self.inner.config;
        let registry = endpoint::canonical_name(&reference.registry);
        let mirrors = config.mirrors.iter().filter(|m| m.registry == registry);
        let mut sources = mirrors.map(|m| m.endpoint(&config.insecure)).collect::<Result<Vec<_>, _>>()?;
        sources.push(self.origin(reference));
        Ok(sources)
    }

    fn origin(&self, reference: &Reference) -> Endpoint {
        Endpoint::origin(&reference.registry, &self.inner.config.insecure)
    }

    /// How often to try at `endpoint`: a mirror once, since somebody else can be asked.
    fn retry_at(&self, endpoint: &Endpoint) -> Retry {
        let retry = self.inner.config.retry;
        if endpoint.mirror_of.is_some() { Retry { attempts: 1, ..retry } } else { retry }
    }

    /// A mirror failed. The registry itself is asked next, and its answer is the one that counts.
    fn pass_over(&self, endpoint: &Endpoint, error: &Error) {
        let of = endpoint.mirror_of.as_deref().unwrap_or_default();
        self.inner
            .config
            .reporter
            .send(Event::Note(format!("mirror {} of {of} is passed over: {error}", endpoint.name)));
    }

    /// Sends a call once, with what the registry wants to know of who is there; a 401 is answered once.
    async fn call(&self, call: &Call<'_>) -> Result<Response, Error> {
        let Inner { transport, auth, .. } = &*self.inner;
        let tls = transport.speaks_tls(call.endpoint).await?;
        let home = call.endpoint.url(tls, "")?;
        let url = match &call.target {
            Target::Path(path) => call.endpoint.url(tls, path)?,
            Target::Address(url) => url.clone(),
        };
        let is_home = url.origin() == home.origin();
        let mut authorization = if is_home { auth.known(transport, call.endpoint, call.scopes).await? } else { None };
        let response = transport.send(call.request(url.clone(), authorization.clone())).await?;
        if response.status() != 401 || !is_home {
            return Ok(response);
        }
        authorization =
            auth.challenged(transport, call.endpoint, call.scopes, &response, authorization.as_ref()).await?;
        match authorization {
            None => Ok(response),
            Some(_) => transport.send(call.request(url, authorization)).await,
        }
    }

    /// Sends a call once and takes only the answers `good`; the others become errors.
    async fn expect(&self, call: &Call<'_>, good: &[u16]) -> Result<Response, Error> {
        let response = self.call(call).await?;
        let url = response.url().clone();
        match check(&self.inner.transport, call.what, &url, response, good).await {
            Err(Error::Unauthorized { what, host, said, .. }) => {
                let with_credentials = self.inner.auth.has_credential(call.endpoint).await;
                // The name that people log in to.
                let host = if host == call.endpoint.host { call.endpoint.name.clone() } else { host };
                Err(Error::Unauthorized { what, host, with_credentials, said })
            }
            other => other,
        }
    }
}

impl<'a> Call<'a> {
    fn new(what: &'a str, endpoint: &'a Endpoint, scopes: &'a Scopes, method: Method, path: String) -> Self {
        let (target, headers) = (Target::Path(path), HeaderMap::new());
        Self { what, endpoint, scopes, method, target, headers, body: Body::Empty }
    }

    fn request(&self, url: Url, authorization: Option<reqwest::header::HeaderValue>) -> Request {
        let mut headers = self.headers.clone();
        if let Some(authorization) = authorization {
            headers.insert(AUTHORIZATION, authorization);
        }
        Request { what: self.what.into(), method: self.method.clone(), url, headers, body: self.body.clone() }
    }
}

/// Turns an answer that isn't among the `good` ones into an error with the registry's own words.
async fn check(
    transport: &Transport,
    what: &str,
    url: &Url,
    response: Response,
    good: &[u16],
) -> Result<Response, Error> {
    let status = response.status().as_u16();
    if good.contains(&status) {
        return Ok(response);
    }
    let after = response.headers().get(RETRY_AFTER).and_then(|v| retry::parse_retry_after(v.to_str().ok()?));
    let said = Said::parse(&read_body(transport, what, response, MAX_ERROR).await.unwrap_or_default());
    let (what, host) = (what.to_owned(), host_of(url));
    Err(match status {
        401 | 403 => Error::Unauthorized { what, host, with_credentials: false, said },
        404 => Error::NotFound { what, host, said },
        _ => Error::Status { what, host, status, said, retry_after: after },
    })
}

/// Reads a whole body of at most `limit` bytes.
async fn read_body(transport: &Transport, what: &str, mut response: Response, limit: u64) -> Result<Bytes, Error> {
    let too_large = || Error::TooLarge { what: what.to_owned(), limit };
    if response.content_length().is_some_and(|n| n > limit) {
        return Err(too_large());
    }
    let mut whole = Vec::new();
    while let Some(chunk) = next_chunk(transport, what, &mut response).await? {
        if (whole.len() + chunk.len()) as u64 > limit {
            return Err(too_large());
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole.into())
}

/// The next bytes of a body; `None` at its end.
async fn next_chunk(transport: &Transport, what: &str, response: &mut Response) -> Result<Option<Bytes>, Error> {
    let after = transport.patience();
    match tokio::time::timeout(after, response.chunk()).await {
        Ok(Ok(chunk)) => Ok(chunk),
        Ok(Err(e)) => Err(broken(what, response.url(), &e)),
        Err(_) => Err(Error::Timeout { what: what.to_owned(), host: host_of(response.url()), after }),
    }
}
