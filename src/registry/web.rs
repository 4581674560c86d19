//! Files of any web server (`ADD https://…`): the same connections, proxies, certificates and patience as for registries,
//! and nothing of their protocol or credentials.

use super::body::Body;
use super::error::printable;
use super::transport::{Request, host_of};
use super::{Client, Error, check, next_chunk};
use bytes::Bytes;
use reqwest::header::{ETAG, HeaderMap, HeaderValue, IF_NONE_MATCH, LAST_MODIFIED};
use reqwest::{Method, Response, Url};

/// A file on its way from a web server.
pub struct WebFile {
    pub(super) client: Client,
    pub(super) what: String,
    pub(super) response: Response,
}

impl Client {
    /// Asks for a file, unless it is still the one with this `etag`. A user and password in the address are sent.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Status`] and the like for answers other than the file; those of the connection.
    pub async fn web(&self, address: &str, etag: Option<&str>) -> Result<WebFile, Error> {
        let what = format!("download of {}", shown(address));
        let url = Url::parse(address).map_err(|e| Error::Content { what: what.clone(), why: e.to_string() })?;
        let mut headers = HeaderMap::new();
        if let Some(etag) = etag.and_then(|e| HeaderValue::from_str(e).ok()) {
            headers.insert(IF_NONE_MATCH, etag);
        }
        let response = self.inner.config.retry.run(|| self.web_once(&what, &url, &headers)).await?;
        Ok(WebFile { client: self.clone(), what, response })
    }

    /// Sends a request as it is, once, and gives back whatever is answered: for protocols that sign their requests, try
    /// again by themselves, and follow no redirect. `headers` go to this address alone.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn exchange(&self, method: Method, url: Url, headers: HeaderMap, body: Bytes) -> Result<WebFile, Error> {
        let what = format!("request to {}", host_of(&url));
        let body = if body.is_empty() { Body::Empty } else { Body::Bytes(body) };
        let request = Request { what: what.clone(), method, url, headers, body };
        let response = self.inner.transport.once(&request).await?;
        Ok(WebFile { client: self.clone(), what, response })
    }

    async fn web_once(&self, what: &str, url: &Url, headers: &HeaderMap) -> Result<Response, Error> {
        let transport = &self.inner.transport;
        let (headers, body) = (headers.clone(), Body::Empty);
        let request = Request { what: what.into(), method: Method::GET, url: url.clone(), headers, body };
        let response = transport.send(request).await?;
        let url = response.url().clone();
        check(transport, what, &url, response, &[200, 203, 304]).await
    }
}

impl WebFile {
    /// Who answered: host and port.
    pub fn host(&self) -> String {
        host_of(self.response.url())
    }

    /// The HTTP status.
    pub fn status(&self) -> u16 {
        self.response.status().as_u16()
    }

    /// All headers of the answer.
    pub fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    /// One of them, where it is text.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// Whether it is still the file with the `etag` that was given; it doesn't come again then.
    pub fn is_unchanged(&self) -> bool {
        self.response.status() == 304
    }

    /// What the server calls this version of the file.
    pub fn etag(&self) -> Option<String> {
        self.response.headers().get(ETAG).and_then(|v| v.to_str().ok()).map(str::to_owned)
    }

    /// When the file was last changed, seconds since 1970, where the server says so in a way that can be read.
    pub fn last_modified(&self) -> Option<i64> {
        let text = self.response.headers().get(LAST_MODIFIED)?.to_str().ok()?;
        jiff::fmt::rfc2822::parse(text).ok().map(|t| t.timestamp().as_second())
    }

    /// How many bytes come, where the server says so.
    pub fn size(&self) -> Option<u64> {
        self.response.content_length()
    }

    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// Where the connection breaks, which is not mended: the file may be another one by now.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        next_chunk(&self.client.inner.transport, &self.what, &mut self.response).await
    }
}

/// An address without user, password and query, which may hold secrets.
pub fn shown(address: &str) -> String {
    let Ok(mut url) = Url::parse(address) else { return printable(address) };
    // Addresses that can't have them don't.
    let _ = (url.set_username(""), url.set_password(None));
    url.set_query(None);
    url.set_fragment(None);
    printable(url.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        for (address, want) in
            [("https://u:p@h/a?token=x#y", "https://h/a"), ("http://h:80/", "http://h/"), ("no address", "no address")]
        {
            assert_eq!(shown(address), want);
        }
    }
}
