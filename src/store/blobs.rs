//! Content by digest.

use super::error::{At as _, Error, Result};
use super::{Store, files};
use crate::oci::{Digest, Hasher};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Store {
    /// Where a blob is, or would be. Opening it past [`Store::blob`] doesn't keep a pruner from it.
    pub fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.inner.root.join("blobs").join(digest.algorithm()).join(digest.hex())
    }

    /// A stored blob, kept from pruning while this store is open. `None` where there is none, or one of another size
    /// than expected, which is what a power cut leaves.
    pub fn blob(&self, digest: &Digest, size: Option<u64>) -> Result<Option<Blob>> {
        let path = self.blob_path(digest);
        let Some(file) = self.inner.hold(&path, || files::open(&path))? else { return Ok(None) };
        let found = file.metadata().at("look at", &path)?.len();
        if size.is_some_and(|s| s != found) {
            self.discard_blob(digest)?;
            return Ok(None);
        }
        Ok(Some(Blob { digest: digest.clone(), size: found, path, file, store: self.clone() }))
    }

    /// A small blob as bytes: read whole and verified. `None` where there is none.
    ///
    /// # Errors
    /// [`Error::TooLarge`] beyond `limit` bytes; [`Error::Damaged`] where the content isn't the digest's.
    pub fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Option<Vec<u8>>> {
        let Some(blob) = self.blob(digest, None)? else { return Ok(None) };
        if blob.size > limit {
            return Err(Error::TooLarge { digest: digest.clone(), size: blob.size, limit });
        }
        let path = blob.path.clone();
        let mut bytes = Vec::new();
        match blob.verified().take(limit.saturating_add(1)).read_to_end(&mut bytes) {
            Err(e) if e.kind() == io::ErrorKind::InvalidData => Err(Error::Damaged(digest.clone())),
            other => other.at("read", &path).map(|_| Some(bytes)),
        }
    }

    /// Stores bytes; those that are there already are kept.
    pub fn write_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.blob(&digest, Some(bytes.len() as u64))?.is_none() {
            let mut ingest = self.ingest_unhashed()?;
            ingest.write_all(bytes).at("write", &ingest.path)?;
            ingest.commit(&digest)?;
        }
        Ok(digest)
    }

    /// Takes a blob away that turned out not to be what its name says.
    pub fn discard_blob(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.at("remove", &path),
        }
    }

    /// Begins a blob whose digest is computed while it is written.
    pub fn ingest(&self) -> Result<Ingest> {
        Ok(Ingest { raw: self.ingest_unhashed()?, hasher: Hasher::sha256() })
    }

    /// Begins a blob that is to have this digest, by its algorithm.
    pub fn ingest_expecting(&self, digest: &Digest) -> Result<Ingest> {
        Ok(Ingest { raw: self.ingest_unhashed()?, hasher: digest.hasher() })
    }

    /// Begins a blob whose writer hashes the bytes itself.
    pub fn ingest_unhashed(&self) -> Result<RawIngest> {
        let path = self.inner.temp_path()?;
        let file = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&path).at("create", &path)?;
        Ok(RawIngest { store: self.clone(), path, file, size: 0, done: false })
    }
}

/// A stored blob, open. Its bytes are as the disk has them: see [`Blob::verified`].
#[derive(Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Where it is.
    pub path: PathBuf,
    file: File,
    store: Store,
}

impl Blob {
    /// The file as it is, for users that hash it themselves (a registry does, and a `diff_id` says the same).
    pub fn into_file(self) -> File {
        self.file
    }

    /// A reader whose end is an error of kind `InvalidData` when the content wasn't the digest's. Such a blob is
    /// taken out of the store. Nothing may be relied on before the end was read.
    pub fn verified(self) -> Verified {
        Verified { hasher: Some(self.digest.hasher()), blob: self }
    }
}

/// Reads a blob and verifies it at its end.
#[derive(Debug)]
pub struct Verified {
    hasher: Option<Hasher>,
    blob: Blob,
}

impl Read for Verified {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.file.read(buf)?;
        let read = buf.get(..n).unwrap_or_default();
        if n > 0 || buf.is_empty() {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(read);
            }
            return Ok(n);
        }
        // Asked once: after an end, the same end.
        if self.hasher.take().is_none_or(|h| h.finish() == self.blob.digest) {
            return Ok(0);
        }
        let _ = self.blob.store.discard_blob(&self.blob.digest);
        Err(io::Error::new(io::ErrorKind::InvalidData, Error::Damaged(self.blob.digest.clone())))
    }
}

/// A blob being written. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct RawIngest {
    store: Store,
    path: PathBuf,
    file: File,
    size: u64,
    done: bool,
}

impl RawIngest {
    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Where the bytes stand until the commit; a reader may follow the writer.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the blob into its place under the digest that the writer computed from these very bytes.
    pub fn commit(mut self, digest: &Digest) -> Result<()> {
        let inner = Arc::clone(&self.store.inner);
        let target = self.store.blob_path(digest);
        inner.mark_new(&self.file, &self.path)?;
        inner.put(&self.path, &target)?;
        inner.dirty.store(true, Ordering::Release);
        inner.written.fetch_add(self.size, Ordering::AcqRel);
        self.done = true;
        Ok(())
    }
}

impl Write for RawIngest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for RawIngest {
    fn drop(&mut self) {
        if !self.done {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// A blob being written and hashed. Dropped without a commit, it leaves nothing.
#[derive(Debug)]
pub struct Ingest {
    raw: RawIngest,
    hasher: Hasher,
}

impl Ingest {
    /// How many bytes were written so far.
    pub fn size(&self) -> u64 {
        self.raw.size
    }

    /// Where the bytes stand until the commit.
    pub fn path(&self) -> &Path {
        &self.raw.path
    }

    /// Puts the blob into its place and says its digest.
    ///
    /// # Errors
    /// [`Error::Mismatch`] where the digest isn't the expected one; nothing is stored then.
    pub fn commit(self, expected: Option<&Digest>) -> Result<Digest> {
        let got = self.hasher.finish();
        match expected {
            Some(expected) if *expected != got => Err(Error::Mismatch { expected: expected.clone(), got }),
            _ => self.raw.commit(&got).map(|()| got),
        }
    }
}

impl Write for Ingest {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.raw.write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
