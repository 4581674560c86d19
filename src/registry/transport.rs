//! HTTP itself: clients, proxies, redirects, time limits, and what a failure on this level means.

use super::body::{Body, FilePart};
use super::endpoint::{Endpoint, Scheme, authority, host_name, is_loopback};
use super::error::printable;
use super::tls::{self, Certificates};
use super::{Config, Error, Proxies, Resolver};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, LOCATION, USER_AGENT};
use reqwest::{Client, Method, Response, StatusCode, Url};
use std::collections::HashMap;
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::OnceCell;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_REDIRECTS: usize = 6;

/// One request, before it is known where redirects lead.
pub(crate) struct Request {
    /// For errors: `pull of docker.io/library/busybox:latest`.
    pub(crate) what: String,
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Body,
}

/// Which of the clients: each has a connection pool and trusts other certificates.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Trust {
    Plain,
    Anybody,
    Roots(Vec<PathBuf>),
}

pub(crate) struct Transport {
    insecure: Vec<String>,
    certificates: Certificates,
    proxies: Proxies,
    resolver: Option<Resolver>,
    user_agent: String,
    patience: Duration,
    clients: Mutex<HashMap<Trust, Client>>,
    /// Whether a host that may be either speaks TLS.
    speaks_tls: Mutex<HashMap<String, Arc<OnceCell<bool>>>>,
}

impl Transport {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            insecure: config.insecure.clone(),
            certificates: config.certificates.clone(),
            proxies: config.proxies.clone(),
            resolver: config.resolver.clone(),
            user_agent: config.user_agent.clone(),
            patience: config.patience,
            clients: Mutex::default(),
            speaks_tls: Mutex::default(),
        }
    }

    /// How long a silent server is waited for.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether `endpoint` speaks TLS; the first call for a host that may be either asks it.
    pub(crate) async fn speaks_tls(&self, endpoint: &Endpoint) -> Result<bool, Error> {
        let https_first = match endpoint.scheme {
            Scheme::Https => return Ok(true),
            Scheme::Http => return Ok(false),
            Scheme::EitherHttpFirst => false,
            Scheme::EitherHttpsFirst => true,
        };
        let cell = Arc::clone(lock(&self.speaks_tls).entry(endpoint.host.clone()).or_default());
        cell.get_or_try_init(|| self.probe(endpoint, https_first)).await.copied()
    }

    async fn probe(&self, endpoint: &Endpoint, https_first: bool) -> Result<bool, Error> {
        let first = match self.answers(endpoint, https_first).await {
            Ok(true) => return Ok(https_first),
            // Nobody listens on this port, whatever the protocol; but the two have different ports by default.
            Err(e @ Error::Unreachable { .. }) if !https_first || host_name(&endpoint.host) != endpoint.host => {
                return Err(e);
            }
            // Whoever wants TLS says at once that this is none.
            Err(e @ Error::Timeout { .. }) if !https_first => return Err(e),
            other => other,
        };
        match self.answers(endpoint, !https_first).await {
            Ok(true) => Ok(!https_first),
            _ => first.map(|_| https_first),
        }
    }

    /// Whether a server speaks HTTP with or without TLS. TLS servers answer plain requests with 400, or an alert.
    async fn answers(&self, endpoint: &Endpoint, tls: bool) -> Result<bool, Error> {
        let request = Request {
            what: format!("connection to {}", endpoint.name),
            method: Method::GET,
            url: endpoint.url(tls, "")?,
            headers: HeaderMap::new(),
            body: Body::Empty,
        };
        let response = self.once(&request).await?;
        let speaks = tls || response.status() != StatusCode::BAD_REQUEST;
        if response.content_length().is_some_and(|n| n < 4096) {
            // Read, so that the connection can be used again.
            let _ = tokio::time::timeout(self.patience, response.bytes()).await;
        }
        Ok(speaks)
    }

    /// Sends a request and follows redirects of GET and HEAD. Credentials stay with the server they are for.
    pub(crate) async fn send(&self, mut request: Request) -> Result<Response, Error> {
        for _ in 0..MAX_REDIRECTS {
            let response = self.once(&request).await?;
            let Some(next) = self.redirect(&request, &response)? else { return Ok(response) };
            if next.origin() != request.url.origin() {
                request.headers.remove(AUTHORIZATION);
            }
            request.url = next;
        }
        Err(protocol(&request.what, &request.url, "redirects without end"))
    }

    fn redirect(&self, request: &Request, response: &Response) -> Result<Option<Url>, Error> {
        let follows = matches!(request.method, Method::GET | Method::HEAD)
            && matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308);
        let Some(location) = response.headers().get(LOCATION).filter(|_| follows) else { return Ok(None) };
        let location = location.to_str().unwrap_or("http:");
        self.resolve(&request.what, &request.url, location).map(Some)
    }

    /// An address from a `Location` header. From TLS it can't lead to plain HTTP, except on hosts that are trusted so.
    pub(crate) fn resolve(&self, what: &str, from: &Url, location: &str) -> Result<Url, Error> {
        let bad = |why: &str| protocol(what, from, why);
        let mut next = from.join(location).map_err(|_| bad("it leads to an address that is none"))?;
        if from.scheme() == "https" && next.scheme() == "http" {
            if next.host_str() == from.host_str() && next.port().is_none_or(|p| Some(p) == from.port()) {
                // A proxy in front of the registry took the TLS off, and the registry doesn't know.
                let _ = (next.set_scheme("https"), next.set_port(from.port()));
            } else if self.verifies(&host_of(&next)) {
                return Err(bad("it leads from TLS to plain HTTP"));
            }
        }
        if !matches!(next.scheme(), "http" | "https") || next.host_str().is_none() {
            return Err(bad("it leads to what is no web address"));
        }
        Ok(next)
    }

    /// Whether a host's certificate is checked.
    fn verifies(&self, host: &str) -> bool {
        !is_loopback(host) && !self.insecure.iter().any(|i| i == host || i == host_name(host))
    }

    /// Sends a request, and follows no redirect.
    pub(crate) async fn once(&self, request: &Request) -> Result<Response, Error> {
        let client = self.client(&request.url)?;
        let mut headers = request.headers.clone();
        if !matches!(request.method, Method::GET | Method::HEAD) {
            headers.insert(CONTENT_LENGTH, request.body.len().into());
        }
        let mut built = client.request(request.method.clone(), request.url.clone()).headers(headers);
        if !matches!(request.body, Body::Empty) {
            built = built.body(request.body.to_reqwest());
        }
        let sending = built.send();
        let answer = match &request.body {
            Body::File(part) => self.watched(sending, part).await,
            Body::Empty | Body::Bytes(_) => tokio::time::timeout(self.patience, sending).await.ok(),
        };
        match answer {
            Some(Ok(response)) => Ok(response),
            Some(Err(e)) => Err(failure(request, &e)),
            None => {
                Err(Error::Timeout { what: request.what.clone(), host: host_of(&request.url), after: self.patience })
            }
        }
    }

    /// Waits for an upload as long as bytes move, and after the last of them ten times as long as for anything else:
    /// registries copy whole blobs before they answer. `None` when patience ran out.
    async fn watched<T>(&self, sending: impl Future<Output = T>, part: &FilePart) -> Option<T> {
        tokio::pin!(sending);
        let (mut before, mut idle) = (0, 0);
        loop {
            if let Ok(answer) = tokio::time::timeout(self.patience, &mut sending).await {
                return Some(answer);
            }
            let sent = part.sent();
            idle = if sent == before { idle + 1 } else { 0 };
            before = sent;
            let limit = if sent == part.len() { 10 } else { 1 };
            if idle >= limit {
                return None;
            }
        }
    }

    fn client(&self, url: &Url) -> Result<Client, Error> {
        let host = authority(url).unwrap_or_default();
        let trust = if url.scheme() == "http" {
            Trust::Plain
        } else if self.verifies(&host) {
            Trust::Roots(self.certificates.of_registry(&host))
        } else {
            Trust::Anybody
        };
        let mut clients = lock(&self.clients);
        if let Some(client) = clients.get(&trust) {
            return Ok(client.clone());
        }
        let client = self.build(&trust)?;
        clients.insert(trust, client.clone());
        Ok(client)
    }

    fn build(&self, trust: &Trust) -> Result<Client, Error> {
        let tls = match trust {
            Trust::Plain => tls::none()?,
            Trust::Anybody => tls::unverified()?,
            Trust::Roots(extra) => self.certificates.verifying(extra)?,
        };
        let mut headers = HeaderMap::new();
        if let Ok(agent) = self.user_agent.parse() {
            headers.insert(USER_AGENT, agent);
        }
        // One connection for each transfer: HTTP/2 would squeeze all blobs through the window of one.
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls)
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            .connect_timeout(CONNECT_TIMEOUT.min(self.patience))
            .pool_idle_timeout(Duration::from_secs(30))
            .default_headers(headers)
            .no_proxy();
        for proxy in self.proxies.to_reqwest()? {
            builder = builder.proxy(proxy);
        }
        if let Some(resolver) = &self.resolver {
            builder = builder.dns_resolver(resolver.clone());
        }
        builder.build().map_err(|e| Error::Setup(format!("HTTP client: {}", innermost(&e))))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The host and port of an address, for errors.
pub(crate) fn host_of(url: &Url) -> String {
    authority(url).unwrap_or_default()
}

fn protocol(what: &str, url: &Url, why: &str) -> Error {
    Error::Protocol { what: what.into(), host: host_of(url), why: why.into() }
}

/// What a failed exchange means. The library's own text is not used: it holds the address, which may hold a signature.
fn failure(request: &Request, error: &reqwest::Error) -> Error {
    if let Body::File(part) = &request.body
        && let Some(why) = part.failure()
    {
        return Error::Source { what: request.what.clone(), why };
    }
    broken(&request.what, &request.url, error)
}

/// An error of a connection, by what lies at its root.
pub(crate) fn broken(what: &str, url: &Url, error: &reqwest::Error) -> Error {
    let (what, host, why) = (what.to_owned(), host_of(url), innermost(error));
    if is_tls(error) {
        Error::Tls { host, why }
    } else if error.is_connect() {
        Error::Unreachable { host, why }
    } else {
        Error::Broken { what, host, why }
    }
}

fn causes<'a>(
    error: &'a (dyn std::error::Error + 'static),
) -> impl Iterator<Item = &'a (dyn std::error::Error + 'static)> {
    std::iter::successors(Some(error), |e| match e.downcast_ref::<std::io::Error>() {
        // An io::Error that wraps another one skips it in source().
        Some(io) => io.get_ref().map(|inner| inner as &(dyn std::error::Error + 'static)),
        None => e.source(),
    })
}

fn is_tls(error: &reqwest::Error) -> bool {
    causes(error).any(|e| e.is::<rustls::Error>())
}

fn innermost(error: &reqwest::Error) -> String {
    let text = causes(error).last().map(ToString::to_string).unwrap_or_default();
    printable(&text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_locations_lead() {
        let transport = Transport::new(&Config { insecure: vec!["lab".into()], ..Config::default() });
        for (from, location, want) in [
            ("https://r.io/v2/a/blobs/uploads/", "/up?x=1", Some("https://r.io/up?x=1")),
            ("https://r.io/v2/a", "https://cdn.io/x", Some("https://cdn.io/x")),
            ("http://r.io/v2/a", "https://cdn.io/x", Some("https://cdn.io/x")),
            ("http://r.io/v2/a", "http://cdn.io/x", Some("http://cdn.io/x")),
            ("https://r.io/v2/a", "http://r.io/x", Some("https://r.io/x")),
            ("https://r.io:8443/v2/a", "http://r.io/x", Some("https://r.io:8443/x")),
            ("https://r.io/v2/a", "http://r.io:8080/x", None),
            ("https://r.io/v2/a", "http://cdn.io/x", None),
            ("https://r.io/v2/a", "http://lab:9/x", Some("http://lab:9/x")),
            ("https://r.io/v2/a", "//cdn.io/x", Some("https://cdn.io/x")),
            ("https://r.io/v2/a", "file:///etc/passwd", None),
            ("https://r.io/v2/a", "data:text/plain,x", None),
            ("https://r.io/v2/a", "http://[", None),
        ] {
            let got = transport.resolve("x", &Url::parse(from).unwrap(), location).ok();
            assert_eq!(got.as_ref().map(Url::as_str), want, "{from} -> {location}");
        }
    }

    #[test]
    fn a_client_is_built_once_for_each_trust() {
        let transport = Transport::new(&Config::default());
        for url in ["http://a/", "http://b/", "https://127.0.0.1/", "https://localhost/"] {
            transport.client(&Url::parse(url).unwrap()).unwrap();
        }
        assert_eq!(lock(&transport.clients).len(), 2);
    }

    #[test]
    fn bad_proxies_are_not_shown() {
        let proxies = Proxies { http: Some("ftp://u:hunter2@x".into()), ..Proxies::default() };
        let config = Config { proxies, ..Config::default() };
        let error = Transport::new(&config).client(&Url::parse("http://a/").unwrap()).err();
        let shown = format!("{error:?} {config:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
