//! Private keys, and the agent that kiln itself is for them.
//!
//! It says which keys there are, and signs. Messages: draft-ietf-sshm-ssh-agent; keys and signatures: RFC 4253, section 6.6,
//! RFC 5656, RFC 8332, RFC 8709.

use super::file;
use super::wire::{Wire, put, put_mpint, strings};
use super::{FAILURE, IDENTITIES, SIGN};
use ring::rand::SystemRandom;
use ring::rsa::PublicKeyComponents;
use ring::signature::{
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RsaKeyPair,
};

/// SSH_AGENT_IDENTITIES_ANSWER and SSH_AGENT_SIGN_RESPONSE.
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;

/// SSH_AGENT_RSA_SHA2_256 and SSH_AGENT_RSA_SHA2_512.
const WITH_SHA256: u32 = 2;
const WITH_SHA512: u32 = 4;

/// Why a key file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// It has no private key.
    #[error("there is no private key in it")]
    NoKey,
    /// It wants a passphrase.
    #[error("it is encrypted with a passphrase, which kiln doesn't ask for")]
    Encrypted,
    /// It says that it is a key, and isn't.
    #[error("it is broken")]
    Broken,
    /// A key of a kind that kiln doesn't sign with.
    #[error(
        "keys of the kind {0:?} are not supported: kiln signs with ed25519, RSA, and ECDSA on nistp256 and nistp384"
    )]
    Kind(String),
    /// A key whose parts don't fit together, or too small a one.
    #[error("the key can't be used: {0}")]
    Rejected(String),
}

/// A key to sign with.
pub(super) enum Pair {
    Ed25519(Ed25519KeyPair),
    Ecdsa { curve: &'static str, pair: Box<EcdsaKeyPair> },
    Rsa(Box<RsaKeyPair>),
}

/// A key as an agent has it.
struct Key {
    pair: Pair,
    public: Vec<u8>,
    comment: String,
}

/// Keys of files, which kiln itself is the agent of.
pub struct Keys(Vec<Key>);

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Keys({})", self.0.len())
    }
}

impl Keys {
    /// None yet.
    pub fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes the private key of a file's text; `name` is what it is called where it has no comment.
    ///
    /// # Errors
    /// [`Unusable`].
    pub fn add(&mut self, text: &str, name: &str) -> Result<(), Unusable> {
        let (pair, comment) = file::read(text)?;
        let comment = if comment.is_empty() { name.to_owned() } else { comment };
        self.0.push(Key { public: pair.public(), pair, comment });
        Ok(())
    }

    /// Answers a question that has its length in front, with its own.
    pub(super) fn answer(&self, question: &[u8]) -> Vec<u8> {
        let body = match question.get(4..).and_then(<[u8]>::split_first) {
            Some((&IDENTITIES, _)) => Some(self.identities()),
            Some((&SIGN, rest)) => self.signed(rest),
            _ => None,
        };
        let Some(body) = body else { return FAILURE.to_vec() };
        let mut message = Vec::new();
        put(&mut message, &body);
        message
    }

    fn identities(&self) -> Vec<u8> {
        let mut body = vec![IDENTITIES_ANSWER];
        body.extend(u32::try_from(self.0.len()).unwrap_or(u32::MAX).to_be_bytes());
        for key in &self.0 {
            body.extend(strings(&[&key.public, key.comment.as_bytes()]));
        }
        body
    }

    fn signed(&self, question: &[u8]) -> Option<Vec<u8>> {
        let mut question = Wire(question);
        let (public, data, flags) = (question.string()?, question.string()?, question.number()?);
        let key = self.0.iter().find(|key| key.public == public)?;
        let mut body = vec![SIGN_RESPONSE];
        put(&mut body, &key.pair.sign(data, flags)?);
        Some(body)
    }
}

impl Default for Keys {
    fn default() -> Self {
        Self::new()
    }
}

impl Pair {
    pub(super) fn rsa(pair: RsaKeyPair) -> Self {
        Self::Rsa(Box::new(pair))
    }

    pub(super) fn ecdsa(
        curve: &'static str,
        algorithm: &'static EcdsaSigningAlgorithm,
        secret: &[u8],
        public: &[u8],
    ) -> Result<Self, ring::error::KeyRejected> {
        let pair = EcdsaKeyPair::from_private_key_and_public_key(algorithm, secret, public, &SystemRandom::new())?;
        Ok(Self::Ecdsa { curve, pair: Box::new(pair) })
    }

    pub(super) fn ecdsa_from_pkcs8(
        curve: &'static str,
        algorithm: &'static EcdsaSigningAlgorithm,
        der: &[u8],
    ) -> Result<Self, ring::error::KeyRejected> {
        let pair = EcdsaKeyPair::from_pkcs8(algorithm, der, &SystemRandom::new())?;
        Ok(Self::Ecdsa { curve, pair: Box::new(pair) })
    }

    /// The public key as SSH writes it.
    fn public(&self) -> Vec<u8> {
        match self {
            Self::Ed25519(pair) => strings(&[b"ssh-ed25519", pair.public_key().as_ref()]),
            Self::Ecdsa { curve, pair } => {
                strings(&[format!("ecdsa-sha2-{curve}").as_bytes(), curve.as_bytes(), pair.public_key().as_ref()])
            }
            Self::Rsa(pair) => {
                let PublicKeyComponents::<Vec<u8>> { n, e } = pair.public().into();
                let mut public = strings(&[b"ssh-rsa"]);
                put_mpint(&mut public, &e);
                put_mpint(&mut public, &n);
                public
            }
        }
    }

    /// The signature with its algorithm. RSA only with SHA-2: OpenSSH takes no other since 8.8.
    fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let random = SystemRandom::new();
        match self {
            Self::Ed25519(pair) => Some(strings(&[b"ssh-ed25519", pair.sign(data).as_ref()])),
            Self::Ecdsa { curve, pair } => {
                let signature = pair.sign(&random, data).ok()?;
                let (r, s) = signature.as_ref().split_at_checked(signature.as_ref().len() / 2)?;
                let mut numbers = Vec::new();
                put_mpint(&mut numbers, r);
                put_mpint(&mut numbers, s);
                Some(strings(&[format!("ecdsa-sha2-{curve}").as_bytes(), &numbers]))
            }
            Self::Rsa(pair) => {
                let (name, padding) = match flags {
                    _ if flags & WITH_SHA512 != 0 => (&b"rsa-sha2-512"[..], &RSA_PKCS1_SHA512),
                    _ if flags & WITH_SHA256 != 0 => (&b"rsa-sha2-256"[..], &RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, data, &mut signature).ok()?;
                Some(strings(&[name, &signature]))
            }
        }
    }
}
