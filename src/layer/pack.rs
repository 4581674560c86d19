//! A layer's blob in one pass: entries, tar, diff id, compression, digest.

use super::compress::Encoder;
use super::whiteout::is_reserved;
use super::{Compression, Entry, EntrySink, Error, TarWriter};
use crate::oci::{Descriptor, Digest, Hasher, MediaType};
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;

/// Takes entries and writes a layer's blob, or that of another archive.
///
/// The same entries under the same compression give the same bytes, whatever the number of threads.
pub struct Packer<W: Write> {
    tar: TarWriter<Hashed<Encoder<Hashed<W>>>>,
    compression: Compression,
    /// Whether the blob will be read as a layer, in which some names mark removed files.
    is_layer: bool,
}

/// What a layer's blob turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packed {
    /// The digest of the uncompressed tar.
    pub diff_id: Digest,
    /// The uncompressed tar's length in bytes.
    pub unpacked_size: u64,
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's length in bytes.
    pub size: u64,
    /// What the blob is.
    pub media_type: MediaType,
}

impl Packed {
    /// The blob's descriptor.
    pub fn descriptor(&self) -> Descriptor {
        Descriptor::new(self.media_type.clone(), self.size, self.digest.to_spec())
    }
}

impl<W: Write> Packer<W> {
    /// Writes a layer's blob to `out`, compressed with up to `threads` threads beside the caller's. A file whose name would
    /// act as a whiteout is an error.
    pub fn layer(out: W, compression: Compression, threads: NonZeroUsize) -> Self {
        Self { is_layer: true, ..Self::archive(out, compression, threads) }
    }

    /// Writes a blob that is read by [`TarReader::archive`](super::TarReader::archive): every name is that of a file.
    pub fn archive(out: W, compression: Compression, threads: NonZeroUsize) -> Self {
        let encoder = Encoder::new(Hashed::new(out), compression, threads);
        Self { tar: TarWriter::new(Hashed::new(encoder)), compression, is_layer: false }
    }

    /// Ends the layer; gives back what it was written to, unflushed.
    pub fn finish(self) -> Result<(Packed, W), Error> {
        let tar = self.tar.finish()?;
        let blob = tar.inner.finish().map_err(Error::Write)?;
        let packed = Packed {
            diff_id: tar.hasher.finish(),
            unpacked_size: tar.size,
            digest: blob.hasher.finish(),
            size: blob.size,
            media_type: self.compression.media_type(),
        };
        Ok((packed, blob.inner))
    }
}

impl<W: Write> EntrySink for Packer<W> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        if self.is_layer && is_reserved(&entry.path) {
            return Err(Error::Reserved(entry.path.clone()));
        }
        self.tar.add(entry, content)
    }
}

/// Hashes and counts what is written through it.
struct Hashed<W> {
    inner: W,
    hasher: Hasher,
    size: u64,
}

impl<W> Hashed<W> {
    fn new(inner: W) -> Self {
        Self { inner, hasher: Hasher::sha256(), size: 0 }
    }
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buf)?;
        self.hasher.update(buf.get(..n).unwrap_or(buf));
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
