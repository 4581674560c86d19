//! Downloads of blobs: in pieces, verified at the end, resumed where a connection breaks.

use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::manifest::digest_of;
use super::{Call, Client, Error, next_chunk};
use crate::oci::{Descriptor, Digest, Hasher, Reference};
use backon::BackoffBuilder as _;
use bytes::Bytes;
use reqwest::header::{CONTENT_RANGE, HeaderValue, RANGE};
use reqwest::{Method, Response};
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

/// What must arrive between two breaks so that they don't count as tries of the same thing.
const PROGRESS: u64 = 1 << 20;

/// A blob on its way. Its bytes are worth nothing before [`Blob::chunk`] has said `None`: only then are size and digest
/// checked.
pub struct Blob {
    client: Client,
    what: String,
    repository: String,
    digest: Digest,
    size: u64,
    hasher: Option<Hasher>,
    received: u64,
    /// What a server without ranges sends again.
    to_skip: u64,
    /// Where to ask; the current one is the first.
    sources: Vec<Endpoint>,
    response: Option<Response>,
    pauses: <backon::ExponentialBuilder as backon::BackoffBuilder>::Backoff,
    last_break: u64,
}

impl Client {
    /// Starts the download of a blob; nothing is sent before the first [`Blob::chunk`].
    ///
    /// # Errors
    /// [`Error::Content`] for a descriptor that leads elsewhere (`urls`) or has a digest that kiln can't check.
    pub fn blob(&self, reference: &Reference, descriptor: &Descriptor) -> Result<Blob, Error> {
        let what = format!("pull of {}/{}@{}", reference.registry, reference.repository, descriptor.digest());
        if descriptor.urls().as_ref().is_some_and(|urls| !urls.is_empty()) {
            return Err(Error::Content {
                what,
                why: "a foreign layer, which is not in the registry: kiln doesn't follow its URLs".into(),
            });
        }
        let digest = digest_of(&what, descriptor)?;
        Ok(Blob {
            client: self.clone(),
            repository: reference.repository.clone(),
            hasher: Some(digest.hasher()),
            digest,
            size: descriptor.size(),
            received: 0,
            to_skip: 0,
            sources: self.sources(reference)?,
            response: None,
            pauses: self.inner.config.retry.pauses().build(),
            last_break: 0,
            what,
        })
    }

    /// A whole blob of at most `limit` bytes, verified.
    ///
    /// # Errors
    /// As [`Blob::chunk`]; [`Error::TooLarge`].
    pub async fn small_blob(&self, reference: &Reference, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Error> {
        let mut blob = self.blob(reference, descriptor)?;
        if descriptor.size() > limit {
            return Err(Error::TooLarge { what: blob.what, limit });
        }
        let mut whole = Vec::new();
        while let Some(chunk) = blob.chunk().await? {
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.into())
    }

    /// Downloads a blob into `sink`, telling `progress` how many bytes are done. What `sink` got is worth nothing if
    /// this fails.
    ///
    /// # Errors
    /// As [`Blob::chunk`]; [`Error::Source`] where `sink` takes no more.
    pub async fn fetch<W: AsyncWrite + Unpin>(
        &self,
        reference: &Reference,
        descriptor: &Descriptor,
        sink: &mut W,
        mut progress: impl FnMut(u64),
    ) -> Result<(), Error> {
        let mut blob = self.blob(reference, descriptor)?;
        while let Some(chunk) = blob.chunk().await? {
            let written = sink.write_all(&chunk).await;
            written.map_err(|e| Error::Sink { what: blob.what.clone(), why: e.to_string() })?;
            progress(blob.received);
        }
        sink.flush().await.map_err(|e| Error::Sink { what: blob.what.clone(), why: e.to_string() })
    }
}

impl Blob {
    /// The next bytes; `None` once all have come and are what the descriptor says. A broken connection is made anew and
    /// the rest asked for.
    ///
    /// # Errors
    /// [`Error::Digest`], [`Error::Size`], or what the registry answers once the tries are used up. The blob can't be
    /// read on after an error.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        loop {
            match self.step().await {
                Ok(Some(chunk)) => match self.take(chunk)? {
                    chunk if chunk.is_empty() => {}
                    chunk => return Ok(Some(chunk)),
                },
                Err(_) | Ok(None) if self.received == self.size => return self.verify(),
                Ok(None) => {
                    let (what, host, why) = (self.what.clone(), self.host(), "it ended early".to_owned());
                    self.recover(Error::Broken { what, host, why }).await?;
                }
                Err(error) => self.recover(error).await?,
            }
        }
    }

    /// Bytes that have come so far.
    pub fn received(&self) -> u64 {
        self.received
    }

    async fn step(&mut self) -> Result<Option<Bytes>, Error> {
        if self.received == self.size && (self.size == 0 || self.response.is_none()) {
            return Ok(None);
        }
        let mut response = match self.response.take() {
            Some(response) => response,
            None => self.open().await?,
        };
        let chunk = next_chunk(&self.client.inner.transport, &self.what, &mut response).await?;
        self.response = chunk.is_some().then_some(response);
        Ok(chunk)
    }

    fn take(&mut self, mut chunk: Bytes) -> Result<Bytes, Error> {
        let again = self.to_skip.min(chunk.len() as u64);
        self.to_skip -= again;
        // The cast can't cut: it is at most the chunk's length.
        let chunk = chunk.split_off(again as usize);
        self.received += chunk.len() as u64;
        if self.received > self.size {
            self.response = None;
            return Err(Error::Size {
                what: self.what.clone(),
                host: self.host(),
                got: self.received,
                want: self.size,
            });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(&chunk);
        }
        Ok(chunk)
    }

    fn verify(&mut self) -> Result<Option<Bytes>, Error> {
        let Some(hasher) = self.hasher.take() else { return Ok(None) };
        let got = hasher.finish();
        if got == self.digest {
            return Ok(None);
        }
        Err(Error::Digest { what: self.what.clone(), host: self.host(), got, want: self.digest.clone() })
    }

    fn host(&self) -> String {
        self.sources.first().map(|e| e.name.clone()).unwrap_or_default()
    }

    /// Goes on to the next source, or waits before the next try at the last one.
    async fn recover(&mut self, error: Error) -> Result<(), Error> {
        self.response = None;
        if self.sources.len() > 1 {
            self.client.pass_over(&self.sources.remove(0), &error);
            return Ok(());
        }
        let retry = self.client.inner.config.retry;
        if self.received >= self.last_break + PROGRESS {
            self.pauses = retry.pauses().build();
        }
        self.last_break = self.received;
        let pause: Option<Duration> = self.pauses.next().filter(|_| error.is_transient());
        match pause.and_then(|pause| retry.adjusted(&error, pause)) {
            None => Err(error),
            Some(pause) => {
                tokio::time::sleep(pause).await;
                Ok(())
            }
        }
    }

    /// Asks for what is missing.
    async fn open(&mut self) -> Result<Response, Error> {
        let Some(endpoint) = self.sources.first().cloned() else {
            return Err(Error::Setup(format!("{}: nowhere to look", self.what)));
        };
        let repository = endpoint.repository(&self.repository);
        let scopes = Scopes::pull(&repository);
        let path = format!("{repository}/blobs/{}", self.digest);
        let mut call = Call::new(&self.what, &endpoint, &scopes, Method::GET, path);
        if self.received > 0
            && let Ok(range) = HeaderValue::try_from(format!("bytes={}-", self.received))
        {
            call.headers.insert(RANGE, range);
        }
        let response = self.client.expect(&call, if self.received > 0 { &[200, 206] } else { &[200] }).await?;
        self.to_skip = match range_start(&response) {
            Some(start) if start == self.received => 0,
            None if response.status() == 200 => self.received,
            _ => {
                let why = "it sent another part of the blob than was asked for".to_owned();
                return Err(Error::Protocol { what: self.what.clone(), host: self.host(), why });
            }
        };
        Ok(response)
    }
}

/// Where a partial answer starts.
pub(super) fn range_start(response: &Response) -> Option<u64> {
    let range = response.headers().get(CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.parse().ok()
}
