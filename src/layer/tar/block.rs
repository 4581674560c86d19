//! A header block: 512 bytes of fields at fixed places.

use std::ops::Range;

/// Headers and contents take multiples of this many bytes.
pub(super) const SIZE: usize = 512;

/// Where a field is.
pub(super) type Field = Range<usize>;

pub(super) const NAME: Field = 0..100;
pub(super) const MODE: Field = 100..108;
pub(super) const UID: Field = 108..116;
pub(super) const GID: Field = 116..124;
pub(super) const LENGTH: Field = 124..136;
pub(super) const MTIME: Field = 136..148;
const CHECKSUM: Field = 148..156;
const KIND: usize = 156;
pub(super) const LINK: Field = 157..257;
/// Magic and version are taken as one.
const MAGIC: Field = 257..265;
pub(super) const MAJOR: Field = 329..337;
pub(super) const MINOR: Field = 337..345;
pub(super) const PREFIX: Field = 345..500;
/// Joerg Schilling's tar has a shorter prefix, two times, and ends with its own magic.
pub(super) const STAR_PREFIX: Field = 345..476;
const STAR_MAGIC: Field = 508..512;
/// GNU puts other things where POSIX has the prefix.
pub(super) const GNU_ATIME: Field = 345..357;
pub(super) const GNU_CTIME: Field = 357..369;
pub(super) const GNU_SPARSE: Field = 386..482;
pub(super) const GNU_SPARSE_MORE: usize = 482;
pub(super) const GNU_REAL_SIZE: Field = 483..495;
/// In the blocks that go on with an old GNU sparse map.
pub(super) const MORE_SPARSE: Field = 0..504;
pub(super) const MORE_SPARSE_MORE: usize = 504;

/// What kind of entry a header is for (`typeflag`).
pub(super) mod kind {
    pub(in super::super) const OLD_FILE: u8 = 0;
    pub(in super::super) const FILE: u8 = b'0';
    pub(in super::super) const HARDLINK: u8 = b'1';
    pub(in super::super) const SYMLINK: u8 = b'2';
    pub(in super::super) const CHAR: u8 = b'3';
    pub(in super::super) const BLOCK: u8 = b'4';
    pub(in super::super) const DIR: u8 = b'5';
    pub(in super::super) const FIFO: u8 = b'6';
    pub(in super::super) const CONTIGUOUS: u8 = b'7';
    pub(in super::super) const PAX: u8 = b'x';
    pub(in super::super) const PAX_GLOBAL: u8 = b'g';
    pub(in super::super) const GNU_LONG_NAME: u8 = b'L';
    pub(in super::super) const GNU_LONG_LINK: u8 = b'K';
    pub(in super::super) const GNU_SPARSE: u8 = b'S';
}

/// Which dialect a header speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    V7,
    Ustar,
    Star,
    Gnu,
}

/// One header block.
#[derive(Clone)]
pub(super) struct Block(pub(super) [u8; SIZE]);

impl Block {
    /// All zeros.
    pub(super) fn zero() -> Self {
        Self([0; SIZE])
    }

    /// Whether all is zero, as at the end of an archive.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|b| *b == 0)
    }

    /// The kind of entry.
    pub(super) fn kind(&self) -> u8 {
        self.0[KIND]
    }

    /// Sets the kind of entry.
    pub(super) fn set_kind(&mut self, kind: u8) {
        self.0[KIND] = kind;
    }

    /// Which dialect it is; meaningful only if the checksum is right.
    pub(super) fn dialect(&self) -> Dialect {
        match &self.0[MAGIC] {
            b"ustar  \0" => Dialect::Gnu,
            magic if !magic.starts_with(b"ustar\0") => Dialect::V7,
            _ if &self.0[STAR_MAGIC] == b"tar\0" => Dialect::Star,
            _ => Dialect::Ustar,
        }
    }

    /// The text of a field, up to its first NUL.
    pub(super) fn text(&self, field: Field) -> &[u8] {
        until_nul(&self.0[field])
    }

    /// The number in a field: octal digits, or GNU's base-256. `None` if it is neither, or too big.
    pub(super) fn number(&self, field: Field) -> Option<i64> {
        number(&self.0[field])
    }

    /// Writes as much of a text as fits. A cut that leaves a slash at the end drops the slash, since some readers would
    /// take the entry for a directory.
    pub(super) fn set_text(&mut self, field: Field, text: &[u8]) {
        let field = &mut self.0[field];
        for (to, from) in field.iter_mut().zip(text) {
            *to = *from;
        }
        if text.len() > field.len() {
            for b in field.iter_mut().rev().take_while(|b| **b == b'/') {
                *b = 0;
            }
        }
    }

    /// Writes a number in octal digits with a NUL after them; zero if it doesn't fit (an extended header has it then).
    pub(super) fn set_octal(&mut self, field: Field, value: i64) {
        let width = field.len() - 1;
        let mut rest = if fits_octal(&field, value) { value } else { 0 };
        for b in self.0[field][..width].iter_mut().rev() {
            *b = b'0' + (rest & 7) as u8;
            rest >>= 3;
        }
    }

    /// Makes it a POSIX header: magic, version and, since nothing may change after it, the checksum.
    pub(super) fn seal(&mut self) {
        self.0[MAGIC].copy_from_slice(b"ustar\x0000");
        let (sum, _) = self.sums();
        self.set_octal(CHECKSUM.start..CHECKSUM.end - 1, sum);
        self.0[CHECKSUM.end - 1] = b' ';
    }

    /// Whether the checksum is right, as unsigned or, as some old programs had it, signed bytes.
    pub(super) fn is_sealed(&self) -> bool {
        let (unsigned, signed) = self.sums();
        let stored = octal(&self.0[CHECKSUM]);
        stored == Some(unsigned) || stored == Some(signed)
    }

    /// The sums of all bytes, those of the checksum itself taken as spaces.
    fn sums(&self) -> (i64, i64) {
        let spaces = (CHECKSUM.len() as i64) * i64::from(b' ');
        let others = || self.0[..CHECKSUM.start].iter().chain(&self.0[CHECKSUM.end..]);
        let unsigned: i64 = others().map(|b| i64::from(*b)).sum();
        let signed: i64 = others().map(|b| i64::from(b.cast_signed())).sum();
        (unsigned + spaces, signed + spaces)
    }
}

/// The bytes before the first NUL.
pub(super) fn until_nul(bytes: &[u8]) -> &[u8] {
    bytes.split(|b| *b == 0).next().unwrap_or_default()
}

/// Whether a number can be written in a field's octal digits.
pub(super) fn fits_octal(field: &Field, value: i64) -> bool {
    let bits = 3 * (field.len() as u32 - 1);
    value >= 0 && value.checked_shr(bits).unwrap_or(0) == 0
}

/// How many bytes of padding follow content of that size.
pub(super) fn padding(size: u64) -> usize {
    (size.wrapping_neg() % SIZE as u64) as usize
}

/// A number: octal digits, or GNU's base-256, which has its first bit set.
pub(super) fn number(bytes: &[u8]) -> Option<i64> {
    match bytes.first() {
        Some(first) if first & 0x80 != 0 => base256(bytes),
        _ => octal(bytes),
    }
}

/// Octal digits with spaces and NULs around them; nothing at all is zero.
fn octal(bytes: &[u8]) -> Option<i64> {
    let blank = |b: &u8| matches!(b, 0 | b' ');
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |i| i + 1);
    let digits = until_nul(bytes.get(start..end)?);
    digits.iter().try_fold(0_i64, |n, b| match b {
        b'0'..=b'7' => n.checked_mul(8)?.checked_add(i64::from(b - b'0')),
        _ => None,
    })
}

/// Two's complement, big end first, the first bit only a mark.
fn base256(bytes: &[u8]) -> Option<i64> {
    let (first, rest) = bytes.split_first()?;
    // The second bit is the sign.
    let first = i64::from(if first & 0x40 != 0 { *first } else { first & 0x7f }.cast_signed());
    rest.iter().try_fold(first, |n, b| Some(n.checked_mul(256)? | i64::from(*b)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_numbers() {
        for (bytes, want) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"    644 ", Some(0o644)),
            (b"644 \0\0\0\0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"", Some(0)),
            (b"77777777777", Some(0o77777777777)),
            (b"12\x0034567", Some(0o12)),
            (b"0000008\0", None),
            (b"-1", None),
            (b"0x10", None),
            (b"7777777777777777777777777", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\0\0\0\0\x02\0\0\0", Some(0x2000000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xfe", Some(-2)),
            (b"\xff\xff\xff\xff\x80\0\0\0\0\0\0\0", Some(i64::MIN)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\xff\xff\xff\xfe\0\0\0\0\0\0\0\0", None),
        ] {
            assert_eq!(number(bytes), want, "{bytes:02x?}");
        }
    }

    #[test]
    fn writes_octal() {
        let mut b = Block::zero();
        b.set_octal(MODE, 0o755);
        assert_eq!(&b.0[MODE], b"0000755\0");
        b.set_octal(MODE, 0o7777777);
        assert_eq!(&b.0[MODE], b"7777777\0");
        b.set_octal(MODE, 0o10000000);
        assert_eq!(&b.0[MODE], b"0000000\0");
        b.set_octal(MODE, -1);
        assert_eq!(&b.0[MODE], b"0000000\0");
    }

    #[test]
    fn what_fits() {
        assert!(fits_octal(&MODE, 0) && fits_octal(&MODE, 0o7777777) && !fits_octal(&MODE, 0o10000000));
        assert!(fits_octal(&LENGTH, 0o77777777777) && !fits_octal(&LENGTH, 0o100000000000));
        assert!(!fits_octal(&LENGTH, -1) && !fits_octal(&LENGTH, i64::MAX));
    }

    #[test]
    fn pads_to_blocks() {
        for (size, want) in [(0, 0), (1, 511), (511, 1), (512, 0), (513, 511), (u64::MAX, 1)] {
            assert_eq!(padding(size), want, "{size}");
        }
    }

    #[test]
    fn a_seal_holds_and_breaks() {
        let mut b = Block::zero();
        b.set_text(NAME, b"n\xff\xfe");
        assert!(!b.is_sealed());
        b.seal();
        assert!(b.is_sealed() && b.dialect() == Dialect::Ustar);
        b.0[0] ^= 1;
        assert!(!b.is_sealed());
    }

    #[test]
    fn a_signed_checksum_is_right_too() {
        let mut b = Block::zero();
        b.set_text(NAME, b"n\xff");
        let (_, signed) = b.sums();
        b.set_octal(CHECKSUM, signed);
        assert!(b.is_sealed());
    }

    #[test]
    fn cut_texts_lose_their_slash() {
        let mut b = Block::zero();
        let long = [vec![b'a'; 98], b"//x".to_vec()].concat();
        b.set_text(NAME, &long);
        assert_eq!(b.text(NAME), vec![b'a'; 98]);
        let mut b = Block::zero();
        let fits = [vec![b'a'; 99], b"/".to_vec()].concat();
        b.set_text(NAME, &fits);
        assert_eq!(b.text(NAME), fits);
    }
}
