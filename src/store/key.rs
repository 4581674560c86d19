//! What things that aren't addressed by their content are found under.

use crate::oci::Digest;
use std::fmt;
use std::str::FromStr;

/// 256 bits that name a cache record, a snapshot or a lock: a chain id, or a hash of everything that the thing
/// depends on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key([u8; 32]);

/// A text that is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a key: want 64 lower-case hexadecimal digits")]
pub struct KeyError(String);

impl Key {
    /// A key of these bits.
    pub fn new(bits: [u8; 32]) -> Self {
        Self(bits)
    }

    /// The key of some bytes: their BLAKE3 hash.
    pub fn of(bytes: &[u8]) -> Self {
        Self(*blake3::hash(bytes).as_bytes())
    }

    /// The bits.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 100 bits in base32: short, because the paths of all layers of a root filesystem must fit into one
    /// page of mount options. Where two keys share it, the full key in a snapshot's `meta.json` tells them apart.
    pub fn short(&self) -> String {
        base32(&self.0, 20)
    }
}

/// The first `digits` digits (five bits each) of `bytes`, in RFC 4648's alphabet in lower case.
pub(super) fn base32(bytes: &[u8], digits: usize) -> String {
    let bit = |i: usize| bytes.get(i / 8).map_or(0, |b| b >> (7 - i % 8) & 1);
    (0..digits)
        .map(|d| (0..5).fold(0, |n, i| n << 1 | bit(d * 5 + i)))
        .map(|n| char::from(if n < 26 { b'a' + n } else { b'2' + n - 26 }))
        .collect()
}

impl From<&Digest> for Key {
    /// The digest's own bits; for the longer algorithm, their hash.
    fn from(digest: &Digest) -> Self {
        digest.hex().parse().unwrap_or_else(|_| Self::of(digest.as_str().as_bytes()))
    }
}

impl FromStr for Key {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || KeyError(text.chars().take(200).collect());
        let mut bits = [0; 32];
        if text.len() != 64 || !text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(bad());
        }
        for (bit, pair) in bits.iter_mut().zip(text.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
            *bit = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self(bits))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Key {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base32_is_the_rfcs() {
        assert_eq!(base32(b"foobar", 10), "mzxw6ytboi");
        assert_eq!(base32(&[0xff], 2), "74");
    }

    #[test]
    fn keys_are_their_digests_bits() {
        let digest = Digest::of(b"x");
        let key = Key::from(&digest);
        assert_eq!(key.to_string(), digest.hex());
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(key.short().len(), 20);
        let long: Digest = format!("sha512:{}", "a".repeat(128)).parse().unwrap();
        assert_eq!(Key::from(&long), Key::of(long.as_str().as_bytes()));
    }

    #[test]
    fn refuses_what_is_no_key() {
        for bad in ["", "../", &"A".repeat(64), &"g".repeat(64), &"+1".repeat(32), &"é".repeat(32)] {
            assert!(bad.parse::<Key>().is_err(), "{bad}");
        }
    }
}
