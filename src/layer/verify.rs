//! Streams that are what they were said to be, or end in an error.

use super::Decoder;
use crate::oci::{Digest, Hasher};
use std::io::{self, Read};

/// Content that isn't what its descriptor says. It comes inside of an [`io::Error`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// Other bytes.
    #[error("content of {expected} is broken: its digest is {found}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// Fewer bytes.
    #[error("content of {digest} is cut off: {missing} of {size} bytes are missing")]
    Short {
        /// What was asked for.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// How many of them didn't come.
        missing: u64,
    },
    /// More bytes.
    #[error("content of {digest} has more than its {size} bytes")]
    Long {
        /// What was asked for.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
    },
}

/// Reads content and accepts its end only if size and digest are right; more bytes than said are an error at once.
///
/// Until the end was read without an error, nothing is known of the bytes.
pub struct Verified<R> {
    inner: R,
    digest: Digest,
    size: Option<u64>,
    read: u64,
    /// `None` once the end was accepted.
    hasher: Option<Hasher>,
}

impl<R: Read> Verified<R> {
    /// Expects the content of `digest`, `size` bytes of it where that is known.
    pub fn new(inner: R, digest: Digest, size: Option<u64>) -> Self {
        let hasher = Some(digest.hasher());
        Self { inner, digest, size, read: 0, hasher }
    }

    /// Whether the end was read, and right.
    pub fn is_accepted(&self) -> bool {
        self.hasher.is_none()
    }

    fn take(&mut self, bytes: &[u8]) -> Result<(), VerifyError> {
        self.read += bytes.len() as u64;
        if let Some(size) = self.size.filter(|size| self.read > *size) {
            return Err(VerifyError::Long { digest: self.digest.clone(), size });
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
        Ok(())
    }

    fn accept(&mut self) -> Result<(), VerifyError> {
        let Some(hasher) = &self.hasher else { return Ok(()) };
        if let Some(size) = self.size.filter(|size| self.read < *size) {
            return Err(VerifyError::Short { digest: self.digest.clone(), size, missing: size - self.read });
        }
        let found = hasher.clone().finish();
        if found != self.digest {
            return Err(VerifyError::Digest { expected: self.digest.clone(), found });
        }
        self.hasher = None;
        Ok(())
    }
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        let checked = match buf.get(..n) {
            _ if buf.is_empty() => Ok(()),
            Some(bytes) if n > 0 => self.take(bytes),
            _ => self.accept(),
        };
        checked.map(|()| n).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }
}

/// A layer's blob, decompressed, with the blob and what is in it verified.
///
/// Its end is accepted only when the blob was read to its own end and has the right size and digest, and the tar has the
/// right diff id. Whoever reads it must therefore read to the end ([`TarReader::drain`](super::TarReader::drain)) before
/// anything made from it counts.
pub struct LayerReader<R: Read>(Unpacked<R>);

enum Unpacked<R: Read> {
    Blob(Drained<R>),
    BlobAndDiffId(Verified<Drained<R>>),
}

/// Reads the rest of the compressed stream at the end of the uncompressed one.
struct Drained<R: Read>(Decoder<Verified<R>>);

impl<R: Read> LayerReader<R> {
    /// Reads a blob of `size` bytes and `digest`, whose tar has `diff_id` if that is known.
    pub fn new(blob: R, digest: &Digest, size: u64, diff_id: Option<&Digest>) -> io::Result<Self> {
        let decoder = Drained(Decoder::new(Verified::new(blob, digest.clone(), Some(size)))?);
        Ok(Self(match diff_id {
            Some(diff_id) => Unpacked::BlobAndDiffId(Verified::new(decoder, diff_id.clone(), None)),
            None => Unpacked::Blob(decoder),
        }))
    }
}

impl<R: Read> Read for LayerReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match &mut self.0 {
            Unpacked::Blob(tar) => tar.read(buf),
            Unpacked::BlobAndDiffId(tar) => tar.read(buf),
        }
    }
}

impl<R: Read> Read for Drained<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.0.read(buf)?;
        if n == 0 && !buf.is_empty() {
            self.0.drain()?;
        }
        Ok(n)
    }
}
