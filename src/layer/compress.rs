//! Compression of a stream on several cores, with bounded memory.
//!
//! The writing thread cuts the stream into blocks, hands them to workers and writes what comes back, in order. A stream
//! of no more than one block starts no thread. One block more than there are workers is under way at most, so that a slow
//! output stops the writer instead of filling memory.

use super::Compression;
use super::codec::{self, Block, Codec};
use super::workers::Workers;
use flate2::Crc;
use std::io::{self, Write};
use std::num::NonZeroUsize;

/// A gzip header that says nothing: no name, no time, no system (RFC 1952).
const GZIP_HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses what is written to it and writes that to another stream.
///
/// The bytes follow from the input and the compression, not from the number of threads or the sizes of the writes.
/// Without [`Encoder::finish`] the stream is incomplete. After an error it is of no more use.
pub struct Encoder<W>(Kind<W>);

enum Kind<W> {
    Plain(W),
    Blocks(Blocks<W>),
}

struct Blocks<W> {
    out: W,
    compression: Compression,
    /// Of the uncompressed stream.
    crc: Crc,
    block: Block,
    spare: Vec<Block>,
    workers: Workers,
    begun: bool,
}

impl<W: Write> Encoder<W> {
    /// Compresses to `out` with up to `threads` threads beside the caller's.
    pub fn new(out: W, compression: Compression, threads: NonZeroUsize) -> Self {
        Self(match compression {
            Compression::None => Kind::Plain(out),
            _ => Kind::Blocks(Blocks {
                out,
                compression,
                crc: Crc::new(),
                block: Block::default(),
                spare: Vec::new(),
                workers: Workers::new(compression, threads.get()),
                begun: false,
            }),
        })
    }

    /// Ends the stream and gives back what it was written to, unflushed.
    pub fn finish(self) -> io::Result<W> {
        match self.0 {
            Kind::Plain(out) => Ok(out),
            Kind::Blocks(blocks) => blocks.finish(),
        }
    }
}

impl<W: Write> Write for Encoder<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match &mut self.0 {
            Kind::Plain(out) => out.write(buf),
            Kind::Blocks(blocks) => blocks.write(buf),
        }
    }

    /// Flushes what was compressed; blocks that aren't full stay, since cutting them would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        match &mut self.0 {
            Kind::Plain(out) => out.flush(),
            Kind::Blocks(blocks) => blocks.out.flush(),
        }
    }
}

impl<W: Write> Blocks<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let size = codec::block_size(self.compression);
        // Only with more to come, so that the last block is known to be the last.
        if self.block.piece().len() >= size && !buf.is_empty() {
            self.hand_over()?;
        }
        let room = size.saturating_sub(self.block.piece().len());
        let taken = buf.get(..room).unwrap_or(buf);
        self.crc.update(taken);
        self.block.input.extend_from_slice(taken);
        Ok(taken.len())
    }

    /// Gives the full block to the workers, and writes what they have ready.
    fn hand_over(&mut self) -> io::Result<()> {
        while let Some(ready) = if self.workers.are_full() { self.workers.wait() } else { self.workers.poll() } {
            self.put(ready?)?;
        }
        let mut next = self.spare.pop().unwrap_or_default();
        let input = &self.block.input;
        let before = input.len().saturating_sub(codec::reach(self.compression));
        next.restart(input.get(before..).unwrap_or_default());
        self.workers.give(std::mem::replace(&mut self.block, next))
    }

    fn finish(mut self) -> io::Result<W> {
        self.block.last = true;
        if self.workers.are_idle() {
            Codec::new(self.compression)?.compress(&mut self.block)?;
            let block = std::mem::take(&mut self.block);
            self.put(block)?;
        } else {
            self.hand_over()?;
            while let Some(block) = self.workers.wait() {
                self.put(block?)?;
            }
        }
        if let Compression::Gzip(_) = self.compression {
            // Both are little-endian; the length is what is left of 2^32.
            self.out.write_all(&self.crc.sum().to_le_bytes())?;
            self.out.write_all(&self.crc.amount().to_le_bytes())?;
        }
        Ok(self.out)
    }

    fn put(&mut self, block: Block) -> io::Result<()> {
        if let (Compression::Gzip(_), false) = (self.compression, self.begun) {
            self.out.write_all(&GZIP_HEADER)?;
        }
        self.begun = true;
        self.out.write_all(&block.output)?;
        self.spare.push(block);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_started_only_for_a_second_block() {
        let mut encoder = Encoder::new(io::sink(), Compression::GZIP, NonZeroUsize::MIN);
        let mut is_idle_after = |len| {
            encoder.write_all(&vec![b'x'; len]).unwrap();
            matches!(&encoder.0, Kind::Blocks(blocks) if blocks.workers.are_idle())
        };
        let block = codec::block_size(Compression::GZIP);
        assert!(is_idle_after(1) && is_idle_after(block - 1));
        assert!(!is_idle_after(1));
    }

    #[test]
    fn buffers_are_used_again() {
        let mut encoder = Encoder::new(io::sink(), Compression::GZIP, NonZeroUsize::MIN);
        encoder.write_all(&vec![b'x'; 50 * codec::block_size(Compression::GZIP)]).unwrap();
        assert!(matches!(&encoder.0, Kind::Blocks(blocks) if blocks.spare.len() <= 3));
    }
}
