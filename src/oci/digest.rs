//! Content digests, by the OCI image specification's `digest` grammar.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest as _, Sha256, Sha512};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// `sha256:` or `sha512:` and lower-case hexadecimal digits: checked once, cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(Arc<str>);

/// A text that is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a digest: want sha256: or sha512: and 64 or 128 lower-case hexadecimal digits")]
pub struct DigestError(String);

impl Digest {
    /// The sha256 digest of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        let mut h = Hasher::sha256();
        h.update(bytes);
        h.finish()
    }

    /// `sha256` or `sha512`.
    pub fn algorithm(&self) -> &str {
        self.0.split_once(':').map_or("", |(a, _)| a)
    }

    /// The hexadecimal digits; safe as a file name.
    pub fn hex(&self) -> &str {
        self.0.split_once(':').map_or("", |(_, h)| h)
    }

    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// An empty hasher of this digest's algorithm, to verify content with.
    pub fn hasher(&self) -> Hasher {
        if self.algorithm() == "sha512" { Hasher::Sha512(Sha512::new()) } else { Hasher::sha256() }
    }

    /// As `oci-spec` has it.
    pub fn to_spec(&self) -> oci_spec::image::Digest {
        // Both grammars accept exactly what `from_str` below let in.
        oci_spec::image::Digest::from_str(&self.0).unwrap_or_else(|_| unreachable!("a checked digest"))
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        let digits = match s.split_once(':') {
            Some(("sha256", h)) if h.len() == 64 => h,
            Some(("sha512", h)) if h.len() == 128 => h,
            _ => return Err(DigestError(s.chars().take(200).collect())),
        };
        if digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            Ok(Self(s.into()))
        } else {
            Err(DigestError(s.chars().take(200).collect()))
        }
    }
}

impl TryFrom<&oci_spec::image::Digest> for Digest {
    type Error = DigestError;

    fn try_from(d: &oci_spec::image::Digest) -> Result<Self, Self::Error> {
        d.as_ref().parse()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

/// A running hash.
#[derive(Clone, Debug)]
pub enum Hasher {
    /// SHA-256, what kiln writes.
    Sha256(Sha256),
    /// SHA-512, accepted where others wrote it.
    Sha512(Sha512),
}

impl Hasher {
    /// An empty SHA-256.
    pub fn sha256() -> Self {
        Self::Sha256(Sha256::new())
    }

    /// Feeds bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    /// The digest of everything fed.
    pub fn finish(self) -> Digest {
        let (name, bytes) = match self {
            Self::Sha256(h) => ("sha256:", h.finalize().to_vec()),
            Self::Sha512(h) => ("sha512:", h.finalize().to_vec()),
        };
        let mut text = String::with_capacity(7 + 2 * bytes.len());
        text.push_str(name);
        for b in bytes {
            for nibble in [b >> 4, b & 15] {
                text.push(char::from_digit(u32::from(nibble), 16).unwrap_or('0'));
            }
        }
        Digest(text.into())
    }
}

impl std::io::Write for Hasher {
    fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
        self.update(buf);
        Ok(buf.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_of_known_texts() {
        let d = Digest::of(b"");
        assert_eq!(d.as_str(), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(d.to_spec().to_string(), d.to_string());
        assert_eq!(d.as_str().parse(), Ok(d));
    }

    #[test]
    fn refuses_what_is_no_digest() {
        let path = format!("sha256:{}", "../".repeat(21) + "x");
        for bad in ["", "sha256:", "sha256:E3", "md5:00", &path, &format!("sha256:{}", "G".repeat(64))] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
