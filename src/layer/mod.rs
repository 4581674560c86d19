//! A tree of files to a layer's tar stream and back.
//!
//! An [`Entry`] is one file of a layer, whatever it is stored in, and [`EntrySink`] takes entries one after the other.
//!
//! - Writing: a [`Packer`] is a sink that makes a blob in one pass: [`TarWriter`], the diff id's hash, [`Encoder`], the
//!   digest's hash. It needs the memory of a few blocks, whatever the layer's size.
//! - Reading: a [`LayerReader`] decompresses and verifies a blob, a [`TarReader`] takes its entries out.
//!
//! What is read is hostile: paths are confined when they are parsed ([`EntryPath`]), memory is bounded, and a stream
//! counts only when its end was accepted.

mod codec;
mod compress;
mod compression;
mod decompress;
mod entry;
mod error;
mod pack;
mod path;
mod tar;
mod verify;
mod whiteout;
mod workers;

#[cfg(test)]
mod tests;

pub use compress::Encoder;
pub use compression::{Compression, CompressionError};
pub use decompress::{Decoder, Format, is_archive};
pub use entry::{Device, Entry, EntryKind, EntrySink, Timestamp};
pub use error::Error;
pub use pack::{Packed, Packer};
pub use path::{EntryPath, MAX_PATH, PathError};
pub use tar::{TarReader, TarWriter};
pub use verify::{LayerReader, Verified, VerifyError};
