//! The bytes of an archive: header blocks, the content after them, and how far we are.

use super::MOST_SPECIAL;
use super::block::{self, Block};
use crate::layer::Error;
use crate::layer::path::show;
use std::io::{self, BufRead, BufReader, Read};

/// An archive, read block by block. As a [`Read`] it gives the current entry's content as it is stored, without holes.
pub(super) struct Stream<R> {
    input: BufReader<R>,
    /// How many bytes were read.
    offset: u64,
    /// Where the current header is, for messages.
    header_at: u64,
    /// The current entry's name, for messages.
    pub(super) name: Vec<u8>,
    /// Bytes of the current content that weren't read.
    pub(super) remaining: u64,
    /// Bytes after the content.
    padding: usize,
}

impl<R: Read> Stream<R> {
    /// An archive from its start.
    pub(super) fn new(input: R) -> Self {
        let input = BufReader::with_capacity(1 << 16, input);
        Self { input, offset: 0, header_at: 0, name: Vec::new(), remaining: 0, padding: 0 }
    }

    /// Reads to the end of the stream: what follows the archive's end belongs to the blob too.
    pub(super) fn drain(&mut self) -> Result<(), Error> {
        self.skip(u64::MAX).map(drop)
    }

    /// What is wrong with the current entry.
    pub(super) fn malformed(&self, reason: impl Into<String>) -> Error {
        Error::Malformed { entry: show(&self.name), offset: self.header_at, reason: reason.into() }
    }

    /// What is wrong with the stream.
    pub(super) fn read_error(&self, source: io::Error) -> Error {
        Error::Read { offset: self.offset, source }
    }

    /// The next header block that is no padding; `None` at the archive's end. Its checksum is right.
    pub(super) fn block(&mut self) -> Result<Option<Block>, Error> {
        let skipped = self.skip(self.remaining)?;
        if skipped < self.remaining {
            return Err(self.read_error(truncated()));
        }
        self.remaining = 0;
        // Some writers leave out the last entry's padding, as others do the blocks of zeros.
        let padding = std::mem::take(&mut self.padding) as u64;
        if self.skip(padding)? < padding {
            return Ok(None);
        }
        self.header_at = self.offset;
        let Some(block) = self.bare_block()? else { return Ok(None) };
        if block.is_zero() {
            return match self.bare_block()? {
                Some(second) if !second.is_zero() => Err(self.malformed("a block of zeros between entries")),
                _ => Ok(None),
            };
        }
        if block.is_sealed() { Ok(Some(block)) } else { Err(self.malformed("not a tar header: wrong checksum")) }
    }

    /// The next block, whatever it is; `None` at the stream's end.
    pub(super) fn bare_block(&mut self) -> Result<Option<Block>, Error> {
        let mut block = Block::zero();
        let mut rest = block.0.as_mut_slice();
        while !rest.is_empty() {
            match self.input.read(rest) {
                Ok(0) if rest.len() == block::SIZE => return Ok(None),
                Ok(0) => return Err(self.read_error(truncated())),
                Ok(n) => {
                    self.offset += n as u64;
                    rest = rest.get_mut(n..).unwrap_or_default();
                }
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(self.read_error(e)),
            }
        }
        Ok(Some(block))
    }

    /// Skips up to `most` bytes; returns how many there were.
    fn skip(&mut self, most: u64) -> Result<u64, Error> {
        let mut left = most;
        while left > 0 {
            let there = match self.input.fill_buf() {
                Ok(bytes) => bytes.len(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.read_error(e)),
            };
            let n = usize::try_from(left).unwrap_or(usize::MAX).min(there);
            if n == 0 {
                break;
            }
            self.input.consume(n);
            self.offset += n as u64;
            left -= n as u64;
        }
        Ok(most - left)
    }

    /// The whole content of an entry that is about the next one.
    pub(super) fn special(&mut self, block: &Block) -> Result<Vec<u8>, Error> {
        let size = self.size(block.number(block::LENGTH))?;
        if size > MOST_SPECIAL {
            return Err(self.malformed(format!("an extended header of {size} bytes; the most is {MOST_SPECIAL}")));
        }
        self.start_content(size);
        let mut bytes = Vec::new();
        self.read_to_end(&mut bytes).map_err(|e| self.read_error(e))?;
        Ok(bytes)
    }

    /// Content of that many bytes comes next.
    pub(super) fn start_content(&mut self, size: u64) {
        self.remaining = size;
        self.padding = block::padding(size);
    }

    /// A size from a header, which may be none.
    pub(super) fn size(&self, size: Option<i64>) -> Result<u64, Error> {
        size.and_then(|n| u64::try_from(n).ok()).ok_or_else(|| self.malformed("the size is no number or negative"))
    }
}

impl<R: Read> Read for Stream<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..most).filter(|b| !b.is_empty()) else { return Ok(0) };
        let n = self.input.read(buf)?;
        if n == 0 {
            return Err(truncated());
        }
        self.offset += n as u64;
        self.remaining = self.remaining.saturating_sub(n as u64);
        Ok(n)
    }
}

/// What is missing at the end of a stream.
pub(super) fn truncated() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the archive is cut off")
}
