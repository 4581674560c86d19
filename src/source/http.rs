//! Files of web servers: `ADD https://…`.
//!
//! A file is a blob of the store. A record under its address says which blob that is, when the server says it was
//! changed, and what the server calls this version, so that an unchanged file isn't sent again.

use super::error::{Error, Result};
use super::file::FileTree;
use crate::layer::EntryPath;
use crate::oci::Digest;
use crate::plan::op::HttpOp;
use crate::plan::{HttpKey, ResolvedHttp};
use crate::registry::{Client, WebFile, shown};
use crate::store::{Key, Store};
use serde::{Deserialize, Serialize};
use std::io::Write as _;

/// The records of what addresses have.
pub(super) const FILES: &str = "http";

/// What an address had when it was last asked.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) url: String,
    pub(super) content: Digest,
    pub(super) etag: Option<String>,
    /// Seconds since 1970.
    pub(super) changed: Option<i64>,
}

/// What an address has. With a checksum that is known, and nobody is asked: the file comes when a step needs it.
pub(super) async fn resolve(store: &Store, client: &Client, key: &HttpKey) -> Result<ResolvedHttp> {
    let known = store.record::<Known>(FILES, &address_key(&key.url))?;
    if let Some(content) = &key.checksum {
        let time = known.filter(|k| k.content == *content).and_then(|k| k.changed);
        return Ok(ResolvedHttp { content: content.clone(), time });
    }
    let known = fetch(store, client, &key.url, None, known).await?;
    Ok(ResolvedHttp { content: known.content, time: known.changed })
}

/// The file of an op as a tree with nothing else in it: mode 0600, root's, changed when the server says or in 1970.
pub(super) async fn tree(store: &Store, client: &Client, op: &HttpOp) -> Result<FileTree> {
    let wanted = op.content.as_ref().or(op.checksum.as_ref());
    let known = store.record::<Known>(FILES, &address_key(&op.url))?;
    let known = match known.filter(|k| wanted.is_some_and(|w| *w == k.content)) {
        Some(known) if store.blob(&known.content, None)?.is_some() => known,
        _ => fetch(store, client, &op.url, wanted, None).await?,
    };
    let gone = || Error::Http { url: shown(&op.url), why: "it has been pruned from the store meanwhile".into() };
    let blob = store.blob(&known.content, None)?.ok_or_else(gone)?;
    let name = EntryPath::root().join(op.filename.as_bytes());
    let name = name.map_err(|e| Error::Http { url: shown(&op.url), why: e.to_string() })?;
    Ok(FileTree::new(name, blob, known.changed.unwrap_or(0)))
}

fn address_key(url: &str) -> Key {
    Key::of(url.as_bytes())
}

/// Gets a file into the store, unless it is there and hasn't changed.
async fn fetch(
    store: &Store,
    client: &Client,
    url: &str,
    expected: Option<&Digest>,
    known: Option<Known>,
) -> Result<Known> {
    let known = match known {
        Some(known) if store.blob(&known.content, None)?.is_some() => Some(known),
        _ => None,
    };
    let etag = known.as_ref().and_then(|k| k.etag.as_deref());
    let mut file = client.web(url, etag).await?;
    // Some servers have etags but send the file again all the same.
    if let Some(known) = known.filter(|k| file.is_unchanged() || (k.etag.is_some() && k.etag == file.etag())) {
        return Ok(known);
    }
    let content = receive(store, url, expected, &mut file).await?;
    let known = Known { url: shown(url), content, etag: file.etag(), changed: file.last_modified() };
    store.put_record(FILES, &address_key(url), &known)?;
    Ok(known)
}

/// Writes a file into the store as it comes.
async fn receive(store: &Store, url: &str, expected: Option<&Digest>, file: &mut WebFile) -> Result<Digest> {
    let mut ingest = match expected {
        Some(digest) => store.ingest_expecting(digest)?,
        None => store.ingest()?,
    };
    while let Some(chunk) = file.chunk().await? {
        let written = ingest.write_all(&chunk);
        written.map_err(|source| crate::store::Error::Io { what: "write", path: ingest.path().into(), source })?;
    }
    match ingest.commit(expected) {
        Err(crate::store::Error::Mismatch { expected, got }) => Err(Error::Checksum { url: shown(url), expected, got }),
        other => Ok(other?),
    }
}
