//! GitHub's cache service (version 2) as a cache: `type=gha`.
//!
//! The service keeps files under keys and never changes one, nor frees the key of somebody who broke off while writing. So
//! all keys end in `#N`, and the newest is found by what stands before: `kiln-blob-DIGEST` for a blob, `kiln-SCOPE-KEY` for
//! the manifest of a key. A damaged or an old one can be followed by a better one. Calls are Twirp's: JSON posted to `/twirp/github.actions.results.api.v1.CacheService/METHOD`. They name signed
//! addresses of Azure's blob store, from which files are read, and to which they are written as block blobs.

use super::{Answer, CacheStore, Error, MAX_MANIFEST};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::{self, Client, Content, Part, Secret, Service, Signed};
use crate::report::{Event, Reporter, Step};
use crate::source::stopped;
use crate::store::{Key, Store};
use crate::sys::Cancel;
use bytes::Bytes;
use futures_util::stream::{StreamExt as _, TryStreamExt as _, iter};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io::Write as _;
use std::ops::Range;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

const SERVICE: &str = "twirp/github.actions.results.api.v1.CacheService";
/// Whatever is kept differs from what other programs keep, and from what other versions of kiln will.
const VERSION: &[u8] = b"kiln cache 1";
/// The largest file that is sent in one piece, and the pieces of larger ones, in bytes.
const PIECE: u64 = 32 << 20;
/// How many pieces are sent at once.
const AT_ONCE: usize = 4;
/// How many numbers are tried where others have begun to write and not finished.
const NUMBERS: u64 = 3;
/// How often a download that breaks is gone on with.
const BREAKS: u32 = 3;
/// How long a silent service is waited for by somebody who asks for a record.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a cache of the service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ActionsAt {
    /// The service's address.
    pub address: String,
    /// Who asks.
    pub token: Secret,
    /// What the names of manifests begin with, so that builds can keep apart.
    pub scope: String,
    /// How long an export, or one download, may take.
    pub timeout: Duration,
}

/// The service as a cache.
#[derive(Debug)]
pub struct Actions {
    service: Service,
    /// Asks once: a cache isn't worth waiting for.
    asker: Service,
    scope: String,
    timeout: Duration,
    store: Store,
    reporter: Reporter,
    cancel: Cancel,
    /// The numbers of the newest manifests, of keys that were asked for.
    newest: Mutex<HashMap<Key, u64>>,
}

/// A file that the service has.
struct Located {
    /// Which of those with its prefix.
    number: u64,
    from: Signed,
}

impl Actions {
    /// The cache at a place; what it gives goes into `store`, unless `cancel` stops it.
    ///
    /// # Errors
    /// Where the address or the token can't be one.
    pub fn new(
        at: &ActionsAt,
        client: &Client,
        store: Store,
        reporter: Reporter,
        cancel: Cancel,
    ) -> Result<Self, Error> {
        let service = |client| Service::new(client, &at.address, &at.token);
        let (service, asker) = (service(client.clone())?, service(client.hurried(1, PATIENCE))?);
        let (scope, timeout) = (at.scope.clone(), at.timeout);
        Ok(Self { service, asker, scope, timeout, store, reporter, cancel, newest: Mutex::default() })
    }

    fn prefix(&self, key: Key) -> String {
        format!("kiln-{}-{key}#", self.scope)
    }

    async fn call(&self, method: &str, request: Value) -> Result<Value, registry::Error> {
        call(&self.service, method, request).await
    }

    /// What a key leads to, for somebody who can do without.
    async fn ask(&self, key: Key) -> Result<Option<Vec<u8>>, Error> {
        let prefix = self.prefix(key);
        let Some(found) = locate(&self.asker, &prefix).await? else { return Ok(None) };
        self.newest.lock().unwrap_or_else(PoisonError::into_inner).insert(key, found.number);
        read(&self.asker, &found).await.map(Some)
    }

    /// Keeps a file; says whether it was this call that did, since no file is ever changed.
    async fn save(&self, key: &str, size: u64, content: &Content) -> Result<bool, Error> {
        let created = match self.call("CreateCacheEntry", json!({ "key": key })).await {
            Err(registry::Error::Status { status: 409, .. }) => return Ok(false),
            other => other?,
        };
        let Some(address) = created["signed_upload_url"].as_str().filter(|_| created["ok"] == true) else {
            return Ok(false);
        };
        let to = self.service.signed("an address of the cache service", address)?;
        self.send(&to, size, content).await?;
        // The protocol's JSON has numbers of 64 bits as texts.
        let request = json!({ "key": key, "size_bytes": size.to_string() });
        match self.call("FinalizeCacheEntryUpload", request).await? {
            done if done["ok"] == true => Ok(true),
            _ => Err(Error::Refused(format!("the cache service doesn't take {key}"))),
        }
    }

    /// Keeps a file under `prefix` and a number above `newest`, unless another job is faster.
    async fn keep(&self, prefix: &str, newest: u64, size: u64, content: &Content) -> Result<(), Error> {
        for number in (1..=NUMBERS).map(|n| newest.saturating_add(n)) {
            let saved = self.timed(self.save(&format!("{prefix}{number}"), size, content)).await?;
            let newer = |found: Located| found.number > newest;
            if saved || locate(&self.service, prefix).await?.is_some_and(newer) {
                return Ok(());
            }
        }
        Err(Error::Refused(format!("other jobs are writing {prefix}, or broke off while they did")))
    }

    /// A block blob: in one request, or block by block and then the list of the blocks.
    async fn send(&self, to: &Signed, size: u64, content: &Content) -> Result<(), Error> {
        let what = "upload to the cache service";
        if size <= PIECE {
            let headers = &[("x-ms-blob-type", "BlockBlob")];
            return Ok(self.service.put(what, to, &Part { query: &[], headers, content, range: 0..size }).await?);
        }
        let sent = blocks(size).map(|(id, range)| self.send_block(to, id, range, content));
        iter(sent).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
        let ids: String = blocks(size).map(|(id, _)| format!("<Latest>{id}</Latest>")).collect();
        let list = format!("<?xml version=\"1.0\" encoding=\"utf-8\"?><BlockList>{ids}</BlockList>");
        let (range, list) = (0..list.len() as u64, Content::Bytes(Bytes::from(list)));
        let part = Part { query: &[("comp", "blocklist")], headers: &[], content: &list, range };
        Ok(self.service.put(what, to, &part).await?)
    }

    async fn send_block(&self, to: &Signed, id: String, range: Range<u64>, content: &Content) -> Result<(), Error> {
        let query = &[("comp", "block"), ("blockid", id.as_str())];
        let part = Part { query, headers: &[], content, range };
        Ok(self.service.put("upload to the cache service", to, &part).await?)
    }

    /// Downloads a blob into the store; a connection that breaks is made anew for the rest.
    async fn download(&self, step: Step, blob: &Descriptor, digest: &Digest) -> Result<(), Error> {
        let found = locate(&self.service, &blob_prefix(digest)).await?;
        let found = found.ok_or_else(|| Error::Refused(format!("the cache service has no {digest}")))?;
        let mut ingest = self.store.ingest_expecting(digest)?;
        let mut breaks = 0;
        while ingest.size() < blob.size() || breaks == 0 {
            match self.receive(step, blob, &found, &mut ingest).await {
                Ok(()) if ingest.size() == blob.size() => break,
                Ok(()) if breaks >= BREAKS => return Err(Error::Refused(format!("{digest} ends early"))),
                Err(Error::Registry(e)) if !e.is_transient() || breaks >= BREAKS => return Err(e.into()),
                Ok(()) | Err(Error::Registry(_)) => breaks += 1,
                Err(e) => return Err(e),
            }
        }
        ingest.commit(Some(digest))?;
        Ok(())
    }

    /// Takes what comes of the rest of a blob.
    async fn receive(
        &self,
        step: Step,
        blob: &Descriptor,
        found: &Located,
        ingest: &mut crate::store::Ingest,
    ) -> Result<(), Error> {
        let mut file = self.service.get("download from the cache service", &found.from, ingest.size()).await?;
        let what = blob.digest().to_string();
        while let Some(chunk) = file.chunk().await? {
            if ingest.size() + chunk.len() as u64 > blob.size() {
                return Err(Error::Refused(format!("more bytes came than {what} has")));
            }
            // Into the page cache: not worth another thread.
            let written = ingest.write_all(&chunk);
            written.map_err(|source| Error::Io { what: "write", path: ingest.path().display().to_string(), source })?;
            let (done, total) = (ingest.size(), Some(blob.size()));
            self.reporter.send(Event::Progress { step, what: what.clone(), done, total });
        }
        Ok(())
    }

    async fn timed<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let late = |_| Error::Refused(format!("not done after {} seconds", self.timeout.as_secs()));
        tokio::select! {
            done = tokio::time::timeout(self.timeout, work) => done.map_err(late)?,
            () = stopped(&self.cancel) => Err(Error::Refused("stopped".into())),
        }
    }
}

async fn call(service: &Service, method: &str, mut request: Value) -> Result<Value, registry::Error> {
    request["version"] = Digest::of(VERSION).hex().into();
    service.call(&format!("{method} of the cache service"), &format!("{SERVICE}/{method}"), &request).await
}

/// The newest file whose key is `prefix` and a number.
async fn locate(service: &Service, prefix: &str) -> Result<Option<Located>, Error> {
    let request = json!({ "key": prefix, "restore_keys": [prefix] });
    let found = match call(service, "GetCacheEntryDownloadURL", request).await {
        Err(e) if e.is_not_found() => return Ok(None),
        other => other?,
    };
    if found["ok"] != true {
        return Ok(None);
    }
    let number = found["matched_key"].as_str().and_then(|key| key.strip_prefix(prefix)?.parse().ok());
    let number =
        number.ok_or_else(|| Error::Refused(format!("the cache service has something else than {prefix}N")))?;
    let address = found["signed_download_url"].as_str().unwrap_or_default();
    Ok(Some(Located { number, from: service.signed("an address of the cache service", address)? }))
}

/// The whole of a small file.
async fn read(service: &Service, found: &Located) -> Result<Vec<u8>, Error> {
    let mut file = service.get("download from the cache service", &found.from, 0).await?;
    let mut whole = Vec::new();
    while let Some(chunk) = file.chunk().await? {
        if (whole.len() + chunk.len()) as u64 > MAX_MANIFEST {
            return Err(Error::Refused(format!("a record larger than {MAX_MANIFEST} bytes")));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(whole)
}

/// What the keys of a blob begin with, whatever the scope: its digest says what it is.
fn blob_prefix(digest: &Digest) -> String {
    format!("kiln-blob-{digest}#")
}

/// The blocks of a large file: their names, which are as long as each other, and their bytes.
fn blocks(size: u64) -> impl Iterator<Item = (String, Range<u64>)> {
    use base64::Engine as _;
    (0..size.div_ceil(PIECE)).map(move |n| {
        let id = base64::engine::general_purpose::STANDARD.encode(format!("{n:08}"));
        (id, n * PIECE..size.min((n + 1) * PIECE))
    })
}

impl CacheStore for Actions {
    fn name(&self) -> String {
        format!("gha at {}", self.service.host())
    }

    fn get(&self, key: Key) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(self.ask(key))
    }

    fn fetch<'a>(&'a self, step: Step, blob: &'a Descriptor) -> Answer<'a, ()> {
        Box::pin(async move {
            let digest = Digest::try_from(blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
            if self.store.blob(&digest, Some(blob.size()))?.is_some() {
                return Ok(());
            }
            self.timed(self.download(step, blob, &digest)).await
        })
    }

    fn put_blob<'a>(&'a self, blob: &'a Descriptor, content: Content) -> Answer<'a, ()> {
        Box::pin(async move {
            let digest = Digest::try_from(blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
            let prefix = blob_prefix(&digest);
            // Another branch's files can be read, and needn't be kept again.
            match locate(&self.service, &prefix).await? {
                Some(_) => Ok(()),
                None => self.keep(&prefix, 0, blob.size(), &content).await,
            }
        })
    }

    fn put<'a>(&'a self, key: Key, manifest: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let newest = self.newest.lock().unwrap_or_else(PoisonError::into_inner).get(&key).copied();
            let content = Content::Bytes(Bytes::copy_from_slice(manifest));
            // Where another job is faster its record is as good as this one.
            self.keep(&self.prefix(key), newest.unwrap_or(0), manifest.len() as u64, &content).await
        })
    }

    fn repository(&self) -> Option<&Reference> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_cover_a_file() {
        for size in [PIECE + 1, 2 * PIECE, 3 * PIECE - 1] {
            let blocks: Vec<_> = blocks(size).collect();
            assert!(blocks.windows(2).all(|w| w[0].1.end == w[1].1.start && w[0].0.len() == w[1].0.len()));
            assert_eq!((blocks[0].1.start, blocks.last().unwrap().1.end), (0, size));
        }
    }
}
