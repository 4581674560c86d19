//! Uploads of blobs: there already, mounted from another repository, or sent.
//!
//! A blob costs two round trips, POST and PUT, and for a large one a HEAD before them: it costs nothing against sending
//! a blob that is there. A small blob is sent without asking, since asking takes as long. The protocol's single POST
//! with the content is not used: the distribution project's registry, and with it Docker Hub, answers 202 and wants
//! the content once more.

use super::auth::Scopes;
use super::body::{FilePart, Progress};
use super::endpoint::Endpoint;
use super::manifest::digest_of;
use super::transport::host_of;
use super::{Body, Call, Client, Error, Target};
use crate::oci::{Descriptor, Digest, Reference};
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, Response, Url};
use std::fs::File;
use std::sync::Arc;

/// Blobs up to this size are sent without asking first whether they are there.
const SMALL: u64 = 64 << 10;

/// The piece of an upload in pieces, where a registry (or a proxy before it) takes no whole ones.
const PIECE: u64 = 32 << 20;

/// A blob to upload.
#[derive(Clone)]
pub struct Upload {
    /// Its digest and size.
    pub descriptor: Descriptor,
    /// Its bytes.
    pub content: Content,
    /// A repository of the same registry that may hold it already.
    pub mount_from: Option<String>,
    /// Whether the registry probably has it: then it is asked first, however small the blob.
    pub likely_there: bool,
    /// Told how many bytes are sent; begins again where a connection broke.
    pub progress: Option<Progress>,
}

/// Where a blob's bytes are.
#[derive(Clone)]
pub enum Content {
    /// In a file, from its first byte on.
    File(Arc<File>),
    /// In memory.
    Bytes(Bytes),
    /// Somewhere else. Opening blocks, may take long, and is done only if the registry lacks the blob; an error says why
    /// there is no file.
    Later(Arc<dyn Fn() -> Result<File, String> + Send + Sync>),
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::File(_) => "File",
            Self::Bytes(_) => "Bytes",
            Self::Later(_) => "Later",
        })
    }
}

impl Content {
    /// The body with the bytes from `start` to `end`.
    pub(super) async fn part(&self, start: u64, end: u64, progress: Option<Progress>) -> Result<Body, String> {
        let file = match self {
            Self::File(file) => Arc::clone(file),
            Self::Later(open) => {
                let open = Arc::clone(open);
                let opened = tokio::task::spawn_blocking(move || open()).await;
                Arc::new(opened.map_err(|e| e.to_string()).flatten()?)
            }
            Self::Bytes(bytes) => {
                let clamp = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                return Ok(Body::Bytes(bytes.slice(clamp(start)..clamp(end))));
            }
        };
        Ok(Body::File(FilePart::new(file, start, end, progress)))
    }
}

/// How a blob got there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was there.
    Existed,
    /// The registry took it from another repository.
    Mounted,
    /// It was sent.
    Sent,
}

/// An upload that the registry has opened.
struct Session<'a> {
    client: &'a Client,
    what: &'a str,
    endpoint: &'a Endpoint,
    scopes: &'a Scopes,
    digest: &'a Digest,
    location: Url,
    minimum: u64,
}

impl Client {
    /// Whether a repository holds a blob.
    ///
    /// # Errors
    /// As the registry has it.
    pub async fn has_blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<bool, Error> {
        let what = format!("lookup of {}/{}@{}", reference.registry, reference.repository, descriptor.digest());
        let digest = digest_of(&what, descriptor)?;
        let scopes = Scopes::pull(&reference.repository);
        let endpoint = self.origin(reference);
        self.inner.config.retry.run(|| self.blob_is_there(&what, &endpoint, &scopes, reference, &digest)).await
    }

    /// The repository in the registry of `to` that what was pulled as `from` is in: the same one's, or that of a mirror
    /// which is this very server.
    pub fn mount_source(&self, from: &Reference, to: &Reference) -> Option<String> {
        let target = self.origin(to);
        let sources = self.sources(from).ok()?;
        sources.iter().find(|s| s.host == target.host).map(|source| source.repository(&from.repository))
    }

    async fn blob_is_there(
        &self,
        what: &str,
        endpoint: &Endpoint,
        scopes: &Scopes,
        reference: &Reference,
        digest: &Digest,
    ) -> Result<bool, Error> {
        let path = format!("{}/blobs/{digest}", reference.repository);
        let call = Call::new(what, endpoint, scopes, Method::HEAD, path);
        match self.expect(&call, &[200]).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sees to it that a repository holds a blob, with as little traffic as can be. The registry checks the digest.
    ///
    /// # Errors
    /// As the registry has it; [`Error::Source`] where the content can't be read.
    pub async fn push_blob(&self, reference: &Reference, upload: &Upload) -> Result<Outcome, Error> {
        let what = format!("push of {}/{}@{}", reference.registry, reference.repository, upload.descriptor.digest());
        let digest = digest_of(&what, &upload.descriptor)?;
        let endpoint = self.origin(reference);
        let from = upload.mount_from.as_deref().filter(|from| *from != reference.repository);
        let scopes = Scopes::push(&reference.repository, from);
        let retry = self.inner.config.retry;
        let is_dear = upload.descriptor.size() > SMALL || matches!(upload.content, Content::Later(_));
        if from.is_none() && (is_dear || upload.likely_there) {
            let there = || self.blob_is_there(&what, &endpoint, &scopes, reference, &digest);
            if retry.run(there).await? {
                return Ok(Outcome::Existed);
            }
        }
        retry
            .run(|| async {
                let opened = self.open_upload(&what, &endpoint, &scopes, reference, &digest, from).await?;
                match opened {
                    None => Ok(Outcome::Mounted),
                    Some(session) => session.send(upload).await.map(|()| Outcome::Sent),
                }
            })
            .await
    }

    /// Opens an upload; `None` if the registry could mount the blob instead.
    async fn open_upload<'a>(
        &'a self,
        what: &'a str,
        endpoint: &'a Endpoint,
        scopes: &'a Scopes,
        reference: &Reference,
        digest: &'a Digest,
        from: Option<&str>,
    ) -> Result<Option<Session<'a>>, Error> {
        let mut path = format!("{}/blobs/uploads/", reference.repository);
        if let Some(from) = from {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("mount", digest.as_str())
                .append_pair("from", from)
                .finish();
            path = format!("{path}?{query}");
        }
        let call = Call::new(what, endpoint, scopes, Method::POST, path.clone());
        let response = match self.expect(&call, &[201, 202]).await {
            // Some registries refuse a mount that the account may not do, rather than open an upload.
            Err(e) if from.is_some() && !e.is_transient() => {
                let path = format!("{}/blobs/uploads/", reference.repository);
                self.expect(&Call::new(what, endpoint, scopes, Method::POST, path), &[202]).await?
            }
            other => other?,
        };
        if response.status() == 201 {
            return Ok(None);
        }
        let minimum = response.headers().get("oci-chunk-min-length").and_then(|v| v.to_str().ok()?.parse().ok());
        let location = self.location(what, &response)?;
        let minimum = minimum.unwrap_or(0);
        Ok(Some(Session { client: self, what, endpoint, scopes, digest, location, minimum }))
    }

    /// Where the registry wants the next part of an upload.
    fn location(&self, what: &str, response: &Response) -> Result<Url, Error> {
        let bad = |why: &str| Error::Protocol { what: what.into(), host: host_of(response.url()), why: why.into() };
        let location = response.headers().get(LOCATION).ok_or_else(|| bad("an upload without a Location"))?;
        let location = location.to_str().map_err(|_| bad("a Location that is no address"))?;
        self.inner.transport.resolve(what, response.url(), location)
    }
}

impl Session<'_> {
    /// Sends the content in one PUT; where the registry won't have that, in pieces.
    async fn send(mut self, upload: &Upload) -> Result<(), Error> {
        let size = upload.descriptor.size();
        let whole = self.part(upload, 0, size).await?;
        match self.request(Method::PUT, self.finished(), whole, None, &[201, 200, 204]).await {
            Err(Error::Status { status: 405 | 411 | 413 | 501, .. }) if size > 0 => self.send_in_pieces(upload).await,
            other => other.map(|_| ()),
        }
    }

    async fn send_in_pieces(&mut self, upload: &Upload) -> Result<(), Error> {
        let size = upload.descriptor.size();
        let piece = PIECE.max(self.minimum);
        let mut start = 0;
        while start < size {
            let end = size.min(start.saturating_add(piece));
            let range = HeaderValue::try_from(format!("{start}-{}", end - 1)).ok();
            let part = self.part(upload, start, end).await?;
            let response = self.request(Method::PATCH, self.location.clone(), part, range, &[202, 201, 204]).await?;
            self.location = self.client.location(self.what, &response)?;
            start = end;
        }
        self.request(Method::PUT, self.finished(), Body::Empty, None, &[201, 200, 204]).await.map(|_| ())
    }

    async fn part(&self, upload: &Upload, start: u64, end: u64) -> Result<Body, Error> {
        let failed = |why| Error::Source { what: self.what.to_owned(), why };
        upload.content.part(start, end, upload.progress.clone()).await.map_err(failed)
    }

    /// The upload's address with the digest that closes it. Whatever state stands in its query stays as it is.
    fn finished(&self) -> Url {
        let mut url = self.location.clone();
        url.query_pairs_mut().append_pair("digest", self.digest.as_str());
        url
    }

    async fn request(
        &self,
        method: Method,
        url: Url,
        body: Body,
        range: Option<HeaderValue>,
        good: &[u16],
    ) -> Result<Response, Error> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        if let Some(range) = range {
            headers.insert(CONTENT_RANGE, range);
        }
        let Session { client, what, endpoint, scopes, .. } = self;
        let call = Call { what, endpoint, scopes, method, target: Target::Address(url), headers, body };
        client.expect(&call, good).await
    }
}
