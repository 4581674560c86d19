//! Sparse files: which pieces of a file are in the archive; between them are zeros that aren't.
//!
//! GNU tar has had four ways to write the map: in the header block and blocks after it (old GNU), and in an extended
//! header as repeated records (PAX 0.0), as one list (0.1), or in front of the content (1.0).

use super::block::{self, Block};
use super::pax::{self, Records};

/// The most pieces that a map may have; 4 MiB of memory.
const MOST_PIECES: usize = 1 << 18;

/// A run of bytes that the archive has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Where it belongs in the file.
    pub(super) offset: u64,
    /// Its length in bytes.
    pub(super) length: u64,
}

/// The pieces of one file: in order, none over another, none beyond its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// The pieces.
    pub(super) pieces: Vec<Piece>,
    /// The file's size with its holes.
    pub(super) size: u64,
}

/// A map while it is read.
#[derive(Debug, Default)]
pub(super) struct Draft(Vec<Piece>);

/// Which of the ways of an extended header it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Version {
    /// The map is in the records: 0.0 and 0.1.
    Records,
    /// The map is in front of the content: 1.0.
    Content,
}

impl Map {
    /// A file without holes.
    pub(super) fn whole(size: u64) -> Self {
        Self { pieces: vec![Piece { offset: 0, length: size }], size }
    }
}

impl Draft {
    /// Adds one piece by numbers from the archive.
    pub(super) fn push(&mut self, offset: Option<i64>, length: Option<i64>) -> Result<(), &'static str> {
        let number = |n: Option<i64>| n.and_then(|n| u64::try_from(n).ok()).ok_or("bad number in the sparse map");
        if self.0.len() >= MOST_PIECES {
            return Err("the sparse map is too long");
        }
        self.0.push(Piece { offset: number(offset)?, length: number(length)? });
        Ok(())
    }

    /// The map of a file of `size` bytes of which the archive has `stored`.
    pub(super) fn finish(self, size: u64, stored: u64) -> Result<Map, &'static str> {
        let (mut end, mut sum) = (0, 0_u64);
        for piece in &self.0 {
            let next = piece.offset.checked_add(piece.length).ok_or("the sparse map overflows")?;
            if piece.offset < end || next > size {
                return Err("the sparse map has pieces out of order or beyond the end");
            }
            end = next;
            sum += piece.length;
        }
        if sum == stored { Ok(Map { pieces: self.0, size }) } else { Err("the sparse map doesn't fit the content") }
    }

    /// Adds the pieces of an old GNU header's field; the first empty one ends it.
    pub(super) fn push_old(&mut self, block: &Block, field: block::Field) -> Result<(), &'static str> {
        const NUMBER: usize = 12;
        let numbers: Vec<_> = block.0[field].chunks_exact(NUMBER).collect();
        for pair in numbers.chunks_exact(2) {
            let [offset, length] = pair else { break };
            if offset.first() == Some(&0) {
                break;
            }
            self.push(block::number(offset), block::number(length))?;
        }
        Ok(())
    }

    /// The map in an extended header's records, 0.0 (made one list when it was read) or 0.1.
    pub(super) fn from_records(records: &Records) -> Result<Self, &'static str> {
        let get = |key: &[u8]| records.get(key).map_or(&b""[..], Vec::as_slice);
        let list = get(b"GNU.sparse.map");
        let mut draft = Self::default();
        let mut numbers = list.split(|b| *b == b',').filter(|_| !list.is_empty());
        while let Some(offset) = numbers.next() {
            draft.push(pax::decimal(offset), numbers.next().and_then(pax::decimal))?;
        }
        let count = pax::decimal(get(b"GNU.sparse.numblocks"));
        if count == i64::try_from(draft.0.len()).ok() { Ok(draft) } else { Err("the sparse map has another length") }
    }
}

/// Whether an extended header is a sparse file's, and which way. Unknown versions are an error: read as plain files they'd
/// have other content.
pub(super) fn version(records: &Records) -> Result<Option<Version>, &'static str> {
    let get = |key: &[u8]| records.get(key).map_or(&b""[..], Vec::as_slice);
    match (get(b"GNU.sparse.major"), get(b"GNU.sparse.minor")) {
        (b"0", b"0" | b"1") => Ok(Some(Version::Records)),
        (b"1", b"0") => Ok(Some(Version::Content)),
        (b"", b"") if !get(b"GNU.sparse.map").is_empty() => Ok(Some(Version::Records)),
        (b"", b"") => Ok(None),
        _ => Err("unknown version of a sparse file"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pieces: &[(i64, i64)], size: u64, stored: u64) -> Result<Map, &'static str> {
        let mut draft = Draft::default();
        for (offset, length) in pieces {
            draft.push(Some(*offset), Some(*length))?;
        }
        draft.finish(size, stored)
    }

    #[test]
    fn maps_that_hold() {
        for (pieces, size, stored) in [
            (&[][..], 0, 0),
            (&[], 100, 0),
            (&[(0, 10)], 10, 10),
            (&[(5, 5), (10, 0), (90, 10)], 100, 15),
            (&[(100, 0)], 100, 0),
        ] {
            assert!(map(pieces, size, stored).is_ok(), "{pieces:?}");
        }
    }

    #[test]
    fn maps_that_do_not() {
        for (pieces, size, stored) in [
            (&[(0, 11)][..], 10, 11),
            (&[(5, 5), (9, 1)], 100, 6),
            (&[(5, 5), (0, 1)], 100, 6),
            (&[(i64::MAX, i64::MAX), (1, 1)], u64::MAX, 1),
            (&[(-1, 5)], 100, 5),
            (&[(1, -5)], 100, 5),
            (&[(0, 5)], 100, 6),
            (&[(0, 5)], 100, 4),
        ] {
            assert!(map(pieces, size, stored).is_err(), "{pieces:?}");
        }
    }

    #[test]
    fn maps_have_a_limit() {
        let mut draft = Draft::default();
        for _ in 0..MOST_PIECES {
            draft.push(Some(0), Some(0)).unwrap();
        }
        assert!(draft.push(Some(0), Some(0)).is_err());
    }

    #[test]
    fn versions() {
        let version_of = |pairs: &[(&str, &str)]| {
            version(
                &pairs.iter().map(|(k, v)| (format!("GNU.sparse.{k}").into_bytes(), v.as_bytes().to_vec())).collect(),
            )
        };
        assert_eq!(version_of(&[]), Ok(None));
        assert_eq!(version_of(&[("map", "0,1")]), Ok(Some(Version::Records)));
        assert_eq!(version_of(&[("major", "0"), ("minor", "1")]), Ok(Some(Version::Records)));
        assert_eq!(version_of(&[("major", "1"), ("minor", "0")]), Ok(Some(Version::Content)));
        assert!(version_of(&[("major", "1"), ("minor", "1")]).is_err());
        assert!(version_of(&[("major", "2")]).is_err());
    }
}
