//! Web services that keep files for whoever has a token (GitHub's cache of actions): calls that answer JSON to JSON, and
//! addresses that carry a permission of their own, to which no token goes.
//!
//! Neither the token nor such an address is ever in an error or a `Debug` form.

use super::blob::range_start;
use super::body::Body;
use super::error::printable;
use super::transport::{Request, host_of};
use super::web::WebFile;
use super::{Client, Content, Error, Secret, check, read_body};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RANGE};
use reqwest::{Method, Url};
use serde_json::Value;
use std::ops::Range;

/// The longest answer of a call that is read, in bytes.
const MAX_ANSWER: u64 = 64 << 10;

/// A web service.
#[derive(Debug, Clone)]
pub struct Service {
    client: Client,
    base: Url,
    authorization: HeaderValue,
}

/// An address that a service named, with its permission in it.
pub struct Signed(Url);

impl std::fmt::Debug for Signed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Signed({})", host_of(&self.0))
    }
}

/// A part of a file for a signed address.
#[derive(Debug)]
pub struct Part<'a> {
    /// What is added to the address's query.
    pub query: &'a [(&'a str, &'a str)],
    /// What the service wants to know besides.
    pub headers: &'a [(&'static str, &'static str)],
    /// The file.
    pub content: &'a Content,
    /// Which of its bytes.
    pub range: Range<u64>,
}

impl Service {
    /// The service at `address`, to which the paths of calls are added.
    ///
    /// # Errors
    /// [`Error::Setup`] for an address or a token that can't be one.
    pub fn new(client: Client, address: &str, token: &Secret) -> Result<Self, Error> {
        let parsed = Url::parse(address).ok().filter(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        let mut base = parsed.ok_or_else(|| Error::Setup("the service's address is no web address".into()))?;
        base.set_query(None);
        base.set_fragment(None);
        if !base.path().ends_with('/') {
            base.set_path(&format!("{}/", base.path()));
        }
        let authorization = HeaderValue::try_from(format!("Bearer {}", token.reveal()));
        let mut authorization =
            authorization.map_err(|_| Error::Setup("the service's token has characters that no token has".into()))?;
        authorization.set_sensitive(true);
        Ok(Self { client, base, authorization })
    }

    /// The service's host and port.
    pub fn host(&self) -> String {
        host_of(&self.base)
    }

    /// Calls the service; `what` names the call in errors.
    ///
    /// # Errors
    /// [`Error::Unauthorized`], [`Error::Status`] and the like for answers other than 200; [`Error::Content`] for one that
    /// is no JSON; those of the connection.
    pub async fn call(&self, what: &str, path: &str, request: &Value) -> Result<Value, Error> {
        let no_address = |_| Error::Setup(format!("{what}: no address"));
        let url = self.base.join(path).map_err(no_address)?;
        let json = HeaderValue::from_static("application/json");
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, self.authorization.clone());
        headers.insert(CONTENT_TYPE, json.clone());
        headers.insert(ACCEPT, json);
        let body = Body::Bytes(request.to_string().into());
        let transport = &self.client.inner.transport;
        let answer = self.client.inner.config.retry.run(|| async {
            let (url, headers, body) = (url.clone(), headers.clone(), body.clone());
            let request = Request { what: what.into(), method: Method::POST, url: url.clone(), headers, body };
            let response = transport.send(request).await?;
            let response = check(transport, what, &url, response, &[200]).await.map_err(with_token)?;
            read_body(transport, what, response, MAX_ANSWER).await
        });
        let no_json = |e: serde_json::Error| Error::Content { what: what.into(), why: printable(&e.to_string()) };
        serde_json::from_slice(&answer.await?).map_err(no_json)
    }

    /// Takes an address that the service named. From TLS it leads to TLS.
    ///
    /// # Errors
    /// [`Error::Protocol`] for what is no such address.
    pub fn signed(&self, what: &str, address: &str) -> Result<Signed, Error> {
        self.client.inner.transport.resolve(what, &self.base, address).map(Signed)
    }

    /// Sends a part of a file.
    ///
    /// # Errors
    /// As [`Service::call`]; [`Error::Source`] where the file can't be read.
    pub async fn put(&self, what: &str, to: &Signed, part: &Part<'_>) -> Result<(), Error> {
        let mut url = to.0.clone();
        for (name, value) in part.query {
            url.query_pairs_mut().append_pair(name, value);
        }
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        for (name, value) in part.headers {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let failed = |why| Error::Source { what: what.to_owned(), why };
        let body = part.content.part(part.range.start, part.range.end, None).await.map_err(failed)?;
        let transport = &self.client.inner.transport;
        let once = || async {
            let (url, headers, body) = (url.clone(), headers.clone(), body.clone());
            let request = Request { what: what.into(), method: Method::PUT, url: url.clone(), headers, body };
            let response = transport.send(request).await?;
            check(transport, what, &url, response, &[200, 201]).await.map_err(with_token)
        };
        self.client.inner.config.retry.run(once).await.map(drop)
    }

    /// Asks for a file from its byte `start` on.
    ///
    /// # Errors
    /// As [`Service::call`]; [`Error::Protocol`] where another part comes.
    pub async fn get(&self, what: &str, from: &Signed, start: u64) -> Result<WebFile, Error> {
        let transport = &self.client.inner.transport;
        let mut headers = HeaderMap::new();
        if start > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={start}-"))
        {
            headers.insert(RANGE, range);
        }
        let once = || async {
            let (url, headers) = (from.0.clone(), headers.clone());
            let request =
                Request { what: what.into(), method: Method::GET, url: url.clone(), headers, body: Body::Empty };
            let response = transport.send(request).await?;
            check(transport, what, &url, response, if start > 0 { &[206] } else { &[200] }).await.map_err(with_token)
        };
        let response = self.client.inner.config.retry.run(once).await?;
        if start > 0 && range_start(&response) != Some(start) {
            let why = "it sent another part of the file than was asked for".to_owned();
            return Err(Error::Protocol { what: what.into(), host: host_of(&from.0), why });
        }
        Ok(WebFile { client: self.client.clone(), what: what.into(), response })
    }
}

/// Here a permission was always sent.
fn with_token(error: Error) -> Error {
    match error {
        Error::Unauthorized { what, host, said, .. } => {
            Error::Unauthorized { what, host, with_credentials: true, said }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Config;

    fn service(address: &str, token: &str) -> Result<Service, Error> {
        Service::new(Client::new(Config::default()), address, &Secret::new(token))
    }

    #[test]
    fn secrets_are_not_shown() {
        let service = service("https://results.example/a?b=hunter2", "hunter2").unwrap();
        let signed = service.signed("x", "https://blobs.example/c?sig=hunter2").unwrap();
        let shown = format!("{service:?} {signed:?}");
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(service.base.as_str(), "https://results.example/a/");
    }

    #[test]
    fn no_services() {
        for (address, token) in
            [("", "t"), ("ftp://h/", "t"), ("h:1", "t"), ("https://h/", "a\nb"), ("http://h/\u{7f}?hunter2", "a\nb")]
        {
            let error = service(address, token).unwrap_err().to_string();
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_signed_address_stays_with_tls() {
        let service = service("https://results.example/", "t").unwrap();
        for address in ["http://blobs.example/x", "file:///etc/passwd", "http://["] {
            assert!(service.signed("x", address).is_err(), "{address}");
        }
    }
}
