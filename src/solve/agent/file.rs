//! Files of private keys: OpenSSH's own format (its PROTOCOL.key), and what OpenSSL writes (PKCS #1, PKCS #8).

use super::key::{Pair, Unusable};
use super::wire::Wire;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use ring::rsa::{KeyPair, KeyPairComponents, PublicKeyComponents};
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, Ed25519KeyPair, RsaKeyPair};

const MAGIC: &[u8] = b"openssh-key-v1\0";

/// The longest number of an RSA key, in bytes; those that are signed with are half as long at most.
const RSA_LONGEST: usize = 1024;

/// The first private key of a file, and the comment in it.
pub(super) fn read(text: &str) -> Result<(Pair, String), Unusable> {
    let (label, body) = pem(text).ok_or(Unusable::NoKey)?;
    let der = || BASE64_STANDARD.decode(body.replace(char::is_whitespace, "")).map_err(|_| Unusable::Broken);
    let plain = |pair: Result<Pair, Unusable>| pair.map(|pair| (pair, String::new()));
    match label {
        "OPENSSH PRIVATE KEY" => openssh(&der()?),
        "ENCRYPTED PRIVATE KEY" => Err(Unusable::Encrypted),
        _ if body.contains("ENCRYPTED") => Err(Unusable::Encrypted),
        "RSA PRIVATE KEY" => plain(RsaKeyPair::from_der(&der()?).map(Pair::rsa).map_err(rejected)),
        "PRIVATE KEY" => plain(pkcs8(&der()?)),
        other => Err(Unusable::Kind(other.to_lowercase())),
    }
}

/// The label and the body of the first PEM block.
fn pem(text: &str) -> Option<(&str, &str)> {
    let (_, rest) = text.split_once("-----BEGIN ")?;
    let (label, rest) = rest.split_once("-----")?;
    let (body, _) = rest.split_once("-----END ")?;
    Some((label, body))
}

fn rejected(error: ring::error::KeyRejected) -> Unusable {
    Unusable::Rejected(error.to_string())
}

fn pkcs8(der: &[u8]) -> Result<Pair, Unusable> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(Pair::Ed25519(pair));
    }
    for (curve, algorithm) in
        [("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING), ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING)]
    {
        if let Ok(pair) = Pair::ecdsa_from_pkcs8(curve, algorithm, der) {
            return Ok(pair);
        }
    }
    RsaKeyPair::from_pkcs8(der).map(Pair::rsa).map_err(rejected)
}

fn openssh(bytes: &[u8]) -> Result<(Pair, String), Unusable> {
    let mut file = Wire(bytes.strip_prefix(MAGIC).ok_or(Unusable::Broken)?);
    let (cipher, _kdf, _options) = (file.string(), file.string(), file.string());
    if cipher.ok_or(Unusable::Broken)? != b"none" {
        return Err(Unusable::Encrypted);
    }
    let one = file.number() == Some(1);
    let (_public, private) = (file.string(), file.string());
    let mut private = Wire(private.filter(|_| one).ok_or(Unusable::Broken)?);
    // Two equal numbers, which show in an encrypted file whether the passphrase was right.
    if private.number().zip(private.number()).is_none_or(|(a, b)| a != b) {
        return Err(Unusable::Broken);
    }
    let kind = String::from_utf8_lossy(private.string().ok_or(Unusable::Broken)?).into_owned();
    let pair = match kind.as_str() {
        "ssh-ed25519" => ed25519(&mut private),
        "ssh-rsa" => rsa(&mut private),
        "ecdsa-sha2-nistp256" | "ecdsa-sha2-nistp384" => ecdsa(&mut private),
        _ => return Err(Unusable::Kind(kind)),
    }?;
    let comment = private.string().map(|c| String::from_utf8_lossy(c).into_owned()).unwrap_or_default();
    Ok((pair, comment))
}

fn ed25519(fields: &mut Wire<'_>) -> Result<Pair, Unusable> {
    let (public, both) = fields.string().zip(fields.string()).ok_or(Unusable::Broken)?;
    let seed = both.get(..32).ok_or(Unusable::Broken)?;
    Ed25519KeyPair::from_seed_and_public_key(seed, public).map(Pair::Ed25519).map_err(rejected)
}

fn ecdsa(fields: &mut Wire<'_>) -> Result<Pair, Unusable> {
    let (curve, public) = fields.string().zip(fields.string()).ok_or(Unusable::Broken)?;
    let secret = fields.mpint().ok_or(Unusable::Broken)?;
    let (curve, algorithm, size) = match curve {
        b"nistp256" => ("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING, 32usize),
        b"nistp384" => ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING, 48),
        _ => return Err(Unusable::Broken),
    };
    let missing = size.checked_sub(secret.len()).ok_or(Unusable::Broken)?;
    let secret = [vec![0; missing], secret.to_vec()].concat();
    Pair::ecdsa(curve, algorithm, &secret, public).map_err(rejected)
}

fn rsa(fields: &mut Wire<'_>) -> Result<Pair, Unusable> {
    let mut next = || fields.mpint().filter(|n| n.len() <= RSA_LONGEST).ok_or(Unusable::Broken);
    let (n, e, d, q_inverse, p, q) = (next()?, next()?, next()?, next()?, next()?, next()?);
    let (d_p, d_q) = (remainder(d, &less_one(p)?), remainder(d, &less_one(q)?));
    let components = KeyPairComponents {
        public_key: PublicKeyComponents { n, e },
        d,
        p,
        q,
        dP: super::wire::trimmed(&d_p),
        dQ: super::wire::trimmed(&d_q),
        qInv: q_inverse,
    };
    KeyPair::from_components(&components).map(Pair::rsa).map_err(rejected)
}

/// An odd number less one.
fn less_one(number: &[u8]) -> Result<Vec<u8>, Unusable> {
    let mut number = number.to_vec();
    match number.last_mut() {
        Some(last) if *last & 1 == 1 => *last -= 1,
        _ => return Err(Unusable::Broken),
    }
    Ok(number)
}

/// What is left of `number` after division, bit by bit; big-endian, as long as `modulus`, which isn't zero.
fn remainder(number: &[u8], modulus: &[u8]) -> Vec<u8> {
    // One byte more, so that doubling it doesn't lose a bit.
    let modulus = [&[0], modulus].concat();
    let mut rest = vec![0u8; modulus.len()];
    for byte in number {
        for bit in (0..8).rev() {
            let mut carry = (byte >> bit) & 1;
            for b in rest.iter_mut().rev() {
                let doubled = (u16::from(*b) << 1) | u16::from(carry);
                (*b, carry) = ((doubled & 0xff) as u8, (doubled >> 8) as u8);
            }
            if rest >= modulus {
                subtract(&mut rest, &modulus);
            }
        }
    }
    rest
}

/// `from - what`, which is no more than `from` and as long.
fn subtract(from: &mut [u8], what: &[u8]) {
    let mut borrow = false;
    for (a, b) in from.iter_mut().rev().zip(what.iter().rev()) {
        let (less, first) = a.overflowing_sub(*b);
        let (less, second) = less.overflowing_sub(u8::from(borrow));
        (*a, borrow) = (less, first || second);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remainders() {
        for (number, modulus) in [(0u64, 7u32), (6, 7), (7, 7), (0xffff_ffff_ffff, 0x1_0001), (1 << 60, 0xffff_fff1)] {
            let got = remainder(&number.to_be_bytes(), &modulus.to_be_bytes());
            let got = got.iter().fold(0u64, |n, b| (n << 8) | u64::from(*b));
            assert_eq!(got, number % u64::from(modulus), "{number} % {modulus}");
        }
    }

    #[test]
    fn broken_files_are_told() {
        let openssh = |bytes: &[u8]| {
            let text = BASE64_STANDARD.encode(bytes);
            read(&format!("-----BEGIN OPENSSH PRIVATE KEY-----\n{text}\n-----END OPENSSH PRIVATE KEY-----\n")).err()
        };
        assert!(matches!(read("").err(), Some(Unusable::NoKey)));
        assert!(matches!(read("ssh-ed25519 AAAA x@y").err(), Some(Unusable::NoKey)));
        for bytes in [&b""[..], b"openssh-key-v1", b"openssh-key-v1\0\0\0\0\x04none", &[MAGIC, &[0xff; 64]].concat()] {
            assert!(matches!(openssh(bytes), Some(Unusable::Broken)), "{bytes:?}");
        }
        let dsa = "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n";
        assert!(matches!(read(dsa).err(), Some(Unusable::Kind(kind)) if kind == "dsa private key"));
        let old = "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END RSA PRIVATE KEY-----\n";
        assert!(matches!(read(old).err(), Some(Unusable::Encrypted)));
    }
}
