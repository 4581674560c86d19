//! Compressed streams to plain ones, by what they start with.

use super::tar::starts_like_tar;
use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use std::io::{self, BufReader, Chain, Cursor, Read};

/// How a stream is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Not at all, or in a way that kiln doesn't know.
    Plain,
    /// gzip (RFC 1952).
    Gzip,
    /// bzip2.
    Bzip2,
    /// xz.
    Xz,
    /// Zstandard (RFC 8878).
    Zstd,
}

/// The most memory that an xz stream may ask for: twice what `xz -9` does.
const XZ_MEMORY_KIB: u32 = 128 << 10;
/// The largest zstd window that is taken, as a power of two: what `zstd --ultra -22` uses. It is filled, and so takes
/// memory, only as far as the stream reaches.
const ZSTD_WINDOW: u32 = 27;
/// How many bytes a format can be told from.
const LONGEST_MAGIC: u64 = 6;

impl Format {
    /// The format that a stream's first bytes tell; six are enough.
    pub fn sniff(start: &[u8]) -> Self {
        match start {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            // A frame, or one that is to be skipped.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }
}

/// Decompresses what it reads, whatever of the [`Format`]s it is; several members or frames in a row are one stream.
///
/// Memory doesn't grow with the stream. After an error every further read is an error.
pub struct Decoder<R: Read> {
    kind: Kind<R>,
    format: Format,
    broken: bool,
}

type Input<R> = BufReader<Chain<Cursor<Vec<u8>>, R>>;

enum Kind<R: Read> {
    Plain(Input<R>),
    Gzip(MultiGzDecoder<Input<R>>),
    Bzip2(MultiBzDecoder<Input<R>>),
    Xz(XzReader<Input<R>>),
    Zstd(zstd::stream::read::Decoder<'static, Input<R>>),
}

impl<R: Read> Decoder<R> {
    /// Reads the first bytes of `input` to find out what it is.
    pub fn new(mut input: R) -> io::Result<Self> {
        let mut start = Vec::new();
        input.by_ref().take(LONGEST_MAGIC).read_to_end(&mut start)?;
        let format = Format::sniff(&start);
        let input = BufReader::with_capacity(1 << 16, Cursor::new(start).chain(input));
        let kind = match format {
            Format::Plain => Kind::Plain(input),
            Format::Gzip => Kind::Gzip(MultiGzDecoder::new(input)),
            Format::Bzip2 => Kind::Bzip2(MultiBzDecoder::new(input)),
            Format::Xz => Kind::Xz(XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB)),
            Format::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?;
                decoder.window_log_max(ZSTD_WINDOW)?;
                Kind::Zstd(decoder)
            }
        };
        Ok(Self { kind, format, broken: false })
    }

    /// How the stream is compressed.
    pub fn format(&self) -> Format {
        self.format
    }

    /// Reads what a decompressor left of its input, so that a reader beneath sees the end of the stream. Only after this
    /// one's own end.
    pub(super) fn drain(&mut self) -> io::Result<()> {
        if self.broken {
            return Err(broken());
        }
        let input = match &mut self.kind {
            Kind::Plain(input) => input,
            Kind::Gzip(decoder) => decoder.get_mut(),
            Kind::Bzip2(decoder) => decoder.get_mut(),
            Kind::Xz(decoder) => decoder.inner_mut(),
            Kind::Zstd(decoder) => decoder.get_mut(),
        };
        io::copy(input, &mut io::sink()).map(drop)
    }
}

impl<R: Read> Read for Decoder<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.broken {
            return Err(broken());
        }
        let result = match &mut self.kind {
            Kind::Plain(input) => input.read(buf),
            Kind::Gzip(decoder) => decoder.read(buf),
            Kind::Bzip2(decoder) => decoder.read(buf),
            Kind::Xz(decoder) => decoder.read(buf),
            Kind::Zstd(decoder) => decoder.read(buf),
        };
        self.broken = result.as_ref().is_err_and(|e| e.kind() != io::ErrorKind::Interrupted);
        result
    }
}

/// Whether `ADD` takes a local file with this content for an archive: plain or compressed, and its first header is a tar's.
/// Reads as little as that takes.
pub fn is_archive(input: impl Read) -> bool {
    Decoder::new(input).is_ok_and(starts_like_tar)
}

fn broken() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the stream was broken before")
}
