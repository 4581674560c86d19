//! A tree of files to a layer's tar stream and back.
//!
//! An [`Entry`] is one file of a layer, whatever it is stored in. [`EntrySink`] takes entries one after the other.

mod codec;
mod compress;
mod compression;
mod entry;
mod error;
mod pack;
mod path;
mod tar;
mod whiteout;
mod workers;

pub use compress::Encoder;
pub use compression::{Compression, CompressionError};
pub use entry::{Device, Entry, EntryKind, EntrySink, Timestamp};
pub use error::Error;
pub use pack::{Packed, Packer};
pub use path::{EntryPath, PathError};
pub use tar::{TarReader, TarWriter, starts_like_tar};
