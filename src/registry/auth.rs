//! Who kiln is, for each registry: credentials, and the tokens they are exchanged for.
//!
//! Nothing is asked ahead of time: the first request goes without credentials, and a 401 says what is wanted. Its
//! challenge is remembered, so that later requests to the same registry carry the right header at once. Many uploads
//! start together, therefore a token is fetched by one of them while the others wait for it.

use super::body::Body;
use super::challenge::{self, Challenge};
use super::credentials::{self, Credential, DockerConfig, Place};
use super::endpoint::{Endpoint, canonical_name};
use super::error::Said;
use super::secret::Secret;
use super::transport::{Request, Transport};
use super::{Error, read_body};
use base64::Engine as _;
use bytes::Bytes;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{Method, Response, Url};
use std::collections::{BTreeSet, HashMap};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;
use tokio::time::Instant;

/// A token's answer is a few kilobytes; Azure's are the longest.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;

/// What a request needs to be allowed to do, as the token protocol writes it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Scopes(BTreeSet<String>);

impl Scopes {
    /// Reading a repository.
    pub(crate) fn pull(repository: &str) -> Self {
        Self([format!("repository:{repository}:pull")].into())
    }

    /// Writing to a repository, and reading from another one to mount its blobs.
    pub(crate) fn push(repository: &str, mount_from: Option<&str>) -> Self {
        let source = mount_from.map(|from| format!("repository:{from}:pull"));
        Self(std::iter::once(format!("repository:{repository}:pull,push")).chain(source).collect())
    }

    fn with(&self, asked: &str) -> Self {
        Self(self.0.iter().cloned().chain(asked.split_ascii_whitespace().map(str::to_owned)).collect())
    }

    fn joined(&self) -> String {
        self.0.iter().map(String::as_str).collect::<Vec<_>>().join(" ")
    }
}

struct Token {
    header: HeaderValue,
    expires: Instant,
}

type Slot = Arc<tokio::sync::Mutex<Option<Token>>>;

/// What is known of one registry.
#[derive(Default)]
struct Host {
    challenge: Mutex<Option<Challenge>>,
    credential: OnceCell<Option<Credential>>,
    tokens: Mutex<HashMap<String, Slot>>,
}

pub(crate) struct Auth {
    path: Option<PathBuf>,
    given: Option<Secret>,
    helpers: OsString,
    /// What was given, and the file, once they were read; or why they can't be. They are read once: later another file may
    /// stand in the place of a broken one.
    configs: Arc<OnceCell<Result<[DockerConfig; 2], String>>>,
    hosts: Mutex<HashMap<String, Arc<Host>>>,
}

impl Auth {
    /// Credentials come from what was given, and from the `config.json` at `path`, whose helpers are looked for in `helpers`
    /// (`$PATH`).
    pub(crate) fn new(path: Option<PathBuf>, given: Option<Secret>, helpers: OsString) -> Self {
        Self { path, given, helpers, configs: Arc::default(), hosts: Mutex::default() }
    }

    /// The same credentials for another client: what was read isn't read again.
    pub(crate) fn again(&self) -> Self {
        Self {
            path: self.path.clone(),
            given: self.given.clone(),
            helpers: self.helpers.clone(),
            configs: self.configs.clone(),
            hosts: Mutex::default(),
        }
    }

    /// Reads `config.json` now rather than when it is first needed. What is wrong with it is told then.
    pub(crate) async fn read(&self) {
        let _ = self.configs().await;
    }

    async fn configs(&self) -> Result<&[DockerConfig; 2], String> {
        let read = || async {
            let given = self.given.as_ref().map_or_else(|| Ok(DockerConfig::default()), credentials::given)?;
            let file = self.path.as_deref().map_or_else(|| Ok(DockerConfig::default()), credentials::read)?;
            Ok([given, file])
        };
        self.configs.get_or_init(read).await.as_ref().map_err(String::clone)
    }

    /// The header that requests to this registry need, as far as earlier answers told.
    pub(crate) async fn known(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
    ) -> Result<Option<HeaderValue>, Error> {
        let host = self.host(endpoint);
        let challenge = lock(&host.challenge).clone();
        match challenge {
            None => Ok(None),
            Some(challenge) => self.answer(transport, endpoint, &host, &challenge, scopes, None).await,
        }
    }

    /// The header that answers a 401; `None` where kiln has nothing better than what was refused.
    pub(crate) async fn challenged(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        scopes: &Scopes,
        response: &Response,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let values = response.headers().get_all(WWW_AUTHENTICATE).iter().filter_map(|v| v.to_str().ok());
        let challenges: Vec<Challenge> = values.flat_map(challenge::parse).collect();
        let is_bearer = |c: &&Challenge| matches!(c, Challenge::Bearer { .. });
        let Some(chosen) = challenges.iter().find(is_bearer).or(challenges.first()) else { return Ok(None) };
        let host = self.host(endpoint);
        // What the registry asks for belongs to the refused request, not to later ones.
        *lock(&host.challenge) = Some(chosen.without_scope());
        let header = self.answer(transport, endpoint, &host, chosen, scopes, refused).await?;
        Ok(header.filter(|h| Some(h) != refused))
    }

    /// Uses this credential for a registry, whatever the file says; to be called before anything else.
    pub(crate) fn set_credential(&self, endpoint: &Endpoint, credential: Credential) {
        // One that was looked up already stays.
        let _ = self.host(endpoint).credential.set(Some(credential));
    }

    /// Whether there are credentials for a registry; said in errors.
    pub(crate) async fn has_credential(&self, endpoint: &Endpoint) -> bool {
        self.credential(endpoint, &self.host(endpoint)).await.is_ok_and(|c| c.is_some())
    }

    fn host(&self, endpoint: &Endpoint) -> Arc<Host> {
        Arc::clone(lock(&self.hosts).entry(endpoint.name.clone()).or_default())
    }

    async fn answer(
        &self,
        transport: &Transport,
        endpoint: &Endpoint,
        host: &Host,
        challenge: &Challenge,
        scopes: &Scopes,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let credential = self.credential(endpoint, host).await?;
        match (challenge, credential) {
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                basic_header(username, password.reveal()).map(Some)
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { .. }, Some(Credential::Registry(token))) => {
                bearer_header(endpoint, token.reveal()).map(Some)
            }
            (Challenge::Bearer { realm, service, scope }, credential) => {
                let slot = Arc::clone(lock(&host.tokens).entry(scopes.joined()).or_default());
                let mut slot = slot.lock().await;
                if let Some(token) = slot.as_ref()
                    && Some(&token.header) != refused
                    && token.expires > Instant::now()
                {
                    return Ok(Some(token.header.clone()));
                }
                let asking = TokenRequest { transport, endpoint, realm, service, scopes: scopes.with(scope) };
                let token = asking.send(credential.as_ref()).await?;
                Ok(Some(slot.insert(token).header.clone()))
            }
        }
    }

    async fn credential<'h>(&self, endpoint: &Endpoint, host: &'h Host) -> Result<&'h Option<Credential>, Error> {
        let failed = |why| Error::Credentials { host: endpoint.name.clone(), why };
        host.credential
            .get_or_try_init(|| async {
                let registry = canonical_name(&endpoint.name);
                for place in self.configs().await.map_err(failed)?.iter().flat_map(|c| c.places(registry)) {
                    match place {
                        Place::Here(credential) => return Ok(Some(credential)),
                        Place::Helper { name, key } => {
                            let asked = credentials::ask_helper(&name, &self.helpers, &key).await;
                            if let Some(found) = asked.map_err(failed)? {
                                return Ok(Some(found));
                            }
                        }
                    }
                }
                Ok(None)
            })
            .await
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn basic_header(username: &str, password: &str) -> Result<HeaderValue, Error> {
    let text = base64::engine::general_purpose::STANDARD.encode(format!("{username}:{password}"));
    let mut header = HeaderValue::try_from(format!("Basic {text}")).map_err(|e| Error::Setup(e.to_string()))?;
    header.set_sensitive(true);
    Ok(header)
}

fn bearer_header(endpoint: &Endpoint, token: &str) -> Result<HeaderValue, Error> {
    let bad =
        |_| Error::Realm { host: endpoint.name.clone(), why: "its token holds characters that no header may".into() };
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(bad)?;
    header.set_sensitive(true);
    Ok(header)
}

/// One exchange of a credential, or of none, for a token.
struct TokenRequest<'a> {
    transport: &'a Transport,
    endpoint: &'a Endpoint,
    realm: &'a str,
    service: &'a str,
    scopes: Scopes,
}

#[derive(serde::Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl TokenRequest<'_> {
    async fn send(&self, credential: Option<&Credential>) -> Result<Token, Error> {
        let realm = self.checked_realm().await?;
        let request = match credential {
            Some(Credential::Identity(token)) => self.refresh(realm, token.reveal()),
            Some(Credential::Basic { username, password }) => {
                let mut request = self.get(realm, Some(username));
                request.headers.insert(AUTHORIZATION, basic_header(username, password.reveal())?);
                request
            }
            Some(Credential::Registry(_)) | None => self.get(realm, None),
        };
        let (what, url) = (request.what.clone(), request.url.clone());
        let response = self.transport.send(request).await?;
        let status = response.status().as_u16();
        if matches!(status, 401 | 403) {
            let said =
                Said::parse(&read_body(self.transport, &what, response, MAX_TOKEN_ANSWER).await.unwrap_or_default());
            let host = self.endpoint.name.clone();
            return Err(Error::Unauthorized { what, host, with_credentials: credential.is_some(), said });
        }
        let response = super::check(self.transport, &what, &url, response, &[200]).await?;
        let body = read_body(self.transport, &what, response, MAX_TOKEN_ANSWER).await?;
        self.token(&body)
    }

    fn token(&self, body: &[u8]) -> Result<Token, Error> {
        let none = || Error::Realm { host: self.endpoint.name.clone(), why: "its answer holds no token".into() };
        let answer: TokenAnswer = serde_json::from_slice(body).map_err(|_| none())?;
        let text = answer.token.or(answer.access_token).filter(|t| !t.is_empty()).ok_or_else(none)?;
        // 60 seconds is the protocol's default and its least; what is about to expire is not used.
        let lives = Duration::from_secs(answer.expires_in.unwrap_or(60).clamp(60, 24 * 3600));
        Ok(Token { header: bearer_header(self.endpoint, &text)?, expires: Instant::now() + lives.mul_f64(0.8) })
    }

    /// A token server behind plain HTTP would show the password to the network, so only a registry that is itself
    /// spoken to without TLS may name one.
    async fn checked_realm(&self) -> Result<Url, Error> {
        let bad = |why: &str| Error::Realm { host: self.endpoint.name.clone(), why: why.into() };
        let url = Url::parse(self.realm).map_err(|_| bad("is no address"))?;
        if !url.username().is_empty() || url.password().is_some() || url.host_str().is_none() {
            return Err(bad("is no address that credentials may go to"));
        }
        match url.scheme() {
            "https" => Ok(url),
            "http" if !self.transport.speaks_tls(self.endpoint).await? => Ok(url),
            "http" => Err(bad("speaks plain HTTP, which credentials must not go to")),
            _ => Err(bad("is no web address")),
        }
    }

    fn request(&self, method: Method, url: Url) -> Request {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        Request { what: format!("token for {}", self.endpoint.name), method, url, headers, body: Body::Empty }
    }

    fn get(&self, mut url: Url, account: Option<&str>) -> Request {
        let mut query = url.query_pairs_mut();
        if !self.service.is_empty() {
            query.append_pair("service", self.service);
        }
        for scope in &self.scopes.0 {
            query.append_pair("scope", scope);
        }
        if let Some(account) = account {
            query.append_pair("account", account);
        }
        drop(query);
        self.request(Method::GET, url)
    }

    /// OAuth2's refresh, as the distribution project's token specification has it.
    fn refresh(&self, url: Url, token: &str) -> Request {
        let form = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("client_id", "kiln")
            .append_pair("service", self.service)
            .append_pair("scope", &self.scopes.joined())
            .append_pair("refresh_token", token)
            .finish();
        let mut request = self.request(Method::POST, url);
        request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        request.body = Body::Bytes(Bytes::from(form));
        request
    }
}
