//! The tar format as layers use it: POSIX.1-1988 `ustar` headers with POSIX.1-2001 extended headers (PAX).
//!
//! [`TarWriter`] writes what Go's `archive/tar` writes in PAX format, since that is what made most layers there are.
//! [`TarReader`] reads that, and V7, GNU and sparse archives; what it takes and refuses follows Go's reader too, because
//! a layer must mean the same here as in the runtimes that unpack it.

mod block;
mod pax;
mod raw;
mod reader;
mod sparse;
mod stream;
mod writer;

#[cfg(test)]
mod tests;

pub(super) use raw::starts_like_tar;
pub use reader::TarReader;
pub use writer::TarWriter;

/// The most bytes that an extended header or a long name may have, as in Go.
const MOST_SPECIAL: u64 = 1 << 20;

/// What stands in front of an extended attribute's name in an extended header.
const XATTR: &[u8] = b"SCHILY.xattr.";
