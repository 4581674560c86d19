//! Compression of one block of a stream, so that several can be done at once.
//!
//! Blocks joined in their order are one valid stream, and depend on nothing but the bytes and the level: who compresses
//! them, and how many at once, doesn't change them.

use super::Compression;
use flate2::{Compress, Compression as Level, FlushCompress, Status};
use std::io;

/// A piece of the stream on its way through a compressor, with its buffers.
#[derive(Default)]
pub(super) struct Block {
    /// What came before the piece, as far back as matches may reach, and then the piece itself.
    pub(super) input: Vec<u8>,
    /// Where the piece starts in `input`.
    pub(super) start: usize,
    /// Whether it is the last of the stream.
    pub(super) last: bool,
    /// The piece, compressed.
    pub(super) output: Vec<u8>,
}

/// Compresses blocks one after the other.
pub(super) enum Codec {
    /// Raw deflate; the gzip header and trailer are the stream's. Each block has a new compressor: one that is reset
    /// still finds other matches than a new one (zlib-rs 0.6), so that the bytes would depend on who compressed which
    /// blocks before. Making one is little work beside compressing a block.
    Deflate(Level),
    /// Zstandard, a frame for each block.
    Zstd(zstd::bulk::Compressor<'static>),
}

/// Deflate's window: how far back its matches reach.
const WINDOW: usize = 32 << 10;

/// How many bytes a block of gzip has. Smaller ones cost ratio, larger ones memory.
const GZIP_BLOCK: usize = 256 << 10;
/// Frames know nothing of each other, so that small ones cost more ratio than deflate's blocks do.
const ZSTD_BLOCK: usize = 2 << 20;

impl Block {
    /// The piece.
    pub(super) fn piece(&self) -> &[u8] {
        self.input.get(self.start..).unwrap_or_default()
    }

    /// Empties it, with `before` as what came before.
    pub(super) fn restart(&mut self, before: &[u8]) {
        self.input.clear();
        self.input.extend_from_slice(before);
        self.start = before.len();
        self.last = false;
        self.output.clear();
    }
}

/// How many bytes of the stream a block takes.
pub(super) fn block_size(compression: Compression) -> usize {
    match compression {
        Compression::Zstd(_) => ZSTD_BLOCK,
        _ => GZIP_BLOCK,
    }
}

/// How many bytes before a block it may refer to.
pub(super) fn reach(compression: Compression) -> usize {
    match compression {
        Compression::Zstd(_) => 0,
        _ => WINDOW,
    }
}

impl Codec {
    /// A compressor; [`Compression::None`] gets one that stores.
    pub(super) fn new(compression: Compression) -> io::Result<Self> {
        match compression {
            Compression::Zstd(level) => Ok(Self::Zstd(zstd::bulk::Compressor::new(level)?)),
            Compression::Gzip(level) => Ok(Self::Deflate(Level::new(level.min(9)))),
            Compression::None => Ok(Self::Deflate(Level::none())),
        }
    }

    /// Compresses a block's piece into its output.
    pub(super) fn compress(&mut self, block: &mut Block) -> io::Result<()> {
        block.output.clear();
        match self {
            Self::Deflate(level) => compress_deflate(*level, block),
            Self::Zstd(zstd) => {
                let piece = block.input.get(block.start..).unwrap_or_default();
                block.output.reserve(zstd::zstd_safe::compress_bound(piece.len()));
                zstd.compress_to_buffer(piece, &mut block.output).map(drop)
            }
        }
    }
}

fn compress_deflate(level: Level, block: &mut Block) -> io::Result<()> {
    let Block { input, start, last, output } = block;
    let (before, piece) = input.split_at_checked(*start).unwrap_or_default();
    if is_incompressible(level, input, piece, output)? {
        output.clear();
        store(piece, *last, output);
        return Ok(());
    }
    output.clear();
    // Not the last: up to a byte's border, so that the next block can be put after it.
    let flush = if *last { FlushCompress::Finish } else { FlushCompress::Sync };
    run_deflate(level, before, piece, flush, output)
}

fn run_deflate(
    level: Level,
    before: &[u8],
    mut piece: &[u8],
    flush: FlushCompress,
    output: &mut Vec<u8>,
) -> io::Result<()> {
    let mut deflate = Compress::new(level, false);
    if !before.is_empty() {
        deflate.set_dictionary(before).map_err(io::Error::other)?;
    }
    loop {
        output.reserve(piece.len() + piece.len() / 1000 + 64);
        let sofar = deflate.total_in();
        let status = deflate.compress_vec(piece, output, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(deflate.total_in() - sofar).unwrap_or(usize::MAX);
        piece = piece.get(taken..).unwrap_or_default();
        // Room that is left over says that a flush is complete.
        let flushed = flush == FlushCompress::Sync && piece.is_empty() && output.len() < output.capacity();
        if flushed || status == Status::StreamEnd {
            return Ok(());
        }
    }
}

/// Whether deflate would gain nothing on a piece: what is compressed or encrypted already takes it longest.
///
/// Such bytes are all about as frequent as each other. So are those of the same noise again and again, which a trial on
/// the last bytes of the piece finds out.
fn is_incompressible(level: Level, input: &[u8], piece: &[u8], output: &mut Vec<u8>) -> io::Result<bool> {
    const TRIAL: usize = 16 << 10;
    if piece.len() < 4 * TRIAL || !is_noise(piece) {
        return Ok(false);
    }
    let (before, trial) = input.split_at_checked(input.len() - TRIAL).unwrap_or_default();
    let before = before.get(before.len().saturating_sub(WINDOW)..).unwrap_or_default();
    run_deflate(level, before, trial, FlushCompress::Finish, output)?;
    Ok(output.len() > TRIAL - TRIAL / 100)
}

/// Whether no byte is much more frequent than others: at least 7.9 bits of (collision) entropy a byte.
fn is_noise(piece: &[u8]) -> bool {
    // Four tables, since one would wait for its own last write.
    let mut counts = [[0_u32; 256]; 4];
    for four in piece.chunks_exact(4) {
        for (count, byte) in counts.iter_mut().zip(four) {
            count[usize::from(*byte)] += 1;
        }
    }
    let square = |n: u64| n * n;
    let total = square(piece.len() as u64 / 4 * 4);
    // 256 times the chance that two bytes are equal: 1 for perfect noise, 2^0.1 at 7.9 bits.
    let equal: u64 = (0..256).map(|byte| square(counts.iter().map(|c| u64::from(c[byte])).sum())).sum();
    256 * equal < total + total / 15
}

/// Deflate's stored blocks (RFC 1951, 3.2.4), from a byte's border to one.
fn store(piece: &[u8], last: bool, output: &mut Vec<u8>) {
    const MOST: usize = u16::MAX as usize;
    output.reserve(piece.len() + piece.len().div_ceil(MOST) * 5);
    let mut chunks = piece.chunks(MOST).peekable();
    while let Some(chunk) = chunks.next() {
        let length = chunk.len() as u16;
        output.push(u8::from(last && chunks.peek().is_none()));
        output.extend_from_slice(&length.to_le_bytes());
        output.extend_from_slice(&(!length).to_le_bytes());
        output.extend_from_slice(chunk);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Words out of some thousand and now and then zeros, as a tar of texts has them.
    fn text(length: usize) -> Vec<u8> {
        let (mut state, mut text) = (88_172_645_463_325_252_u64, Vec::new());
        for word in 1.. {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            text.extend_from_slice(format!("{:x} ", (state % 3000).wrapping_mul(0x9e37_79b9_7f4a_7c15)).as_bytes());
            if word % 970 == 0 {
                text.extend_from_slice(&[0; 700]);
            }
            if text.len() >= length {
                break;
            }
        }
        text
    }

    #[test]
    fn a_block_does_not_depend_on_those_compressed_before() {
        let text = text(48 * GZIP_BLOCK);
        let mut used = Codec::new(Compression::Gzip(4)).unwrap();
        for (i, piece) in text.chunks(GZIP_BLOCK).enumerate() {
            let start = if i == 0 { 0 } else { WINDOW };
            let input = &text[i * GZIP_BLOCK - start..i * GZIP_BLOCK + piece.len()];
            let compress = |codec: &mut Codec| {
                let mut block = Block { input: input.to_vec(), start, ..Block::default() };
                codec.compress(&mut block).unwrap();
                block.output
            };
            assert!(compress(&mut used) == compress(&mut Codec::new(Compression::Gzip(4)).unwrap()), "block {i}");
        }
    }
}
