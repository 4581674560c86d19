//! What has to be asked of the world before a plan can be made, and the answers.
//!
//! [`super::bases`] says what is [`Wanted`]; whoever resolves it adds the answers to [`ResolvedBases`] and asks again,
//! until nothing is wanted: an image can bring ONBUILD triggers that name further images, and its ENV can be part of
//! an ADD's address. Two rounds are the rule, the second empty for most files.

use super::op::BaseLayer;
use crate::oci::{Digest, ImageConfig, Platform, Reference};
use crate::report::Span;
use std::collections::HashMap;

/// Everything that isn't known yet, each once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Wanted {
    /// Images to resolve to a digest, a configuration and layers.
    pub images: Vec<(ImageKey, Span)>,
    /// Git references to resolve to a commit.
    pub git: Vec<(GitKey, Span)>,
    /// Addresses to resolve to the digest of what they have.
    pub http: Vec<(HttpKey, Span)>,
}

impl Wanted {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.images.is_empty() && self.git.is_empty() && self.http.is_empty()
    }
}

/// Where an image is.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ImageName {
    /// In a registry.
    Registry(Reference),
    /// In an OCI layout on this machine: `PATH[:TAG|@DIGEST]`.
    Layout(String),
}

impl std::fmt::Display for ImageName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::Layout(path) => write!(f, "oci-layout://{path}"),
        }
    }
}

/// An image for a platform.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ImageKey {
    /// Where it is.
    pub name: ImageName,
    /// The platform asked for.
    pub platform: Platform,
}

/// A git reference.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct GitKey {
    /// Where to fetch from, without a fragment.
    pub remote: String,
    /// Branch, tag or commit as written; empty for the default branch.
    pub reference: String,
    /// Whether the commit's time is wanted, too. No server can be asked for that alone: the commit is fetched for it.
    pub timed: bool,
}

/// An address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpKey {
    /// The address.
    pub url: String,
    /// What its content must be (`ADD --checksum`).
    pub checksum: Option<Digest>,
}

/// An image, resolved; its configuration is verified against the manifest, its layers aren't downloaded.
#[derive(Debug, Clone)]
pub struct ResolvedImage {
    /// Where it is; the digest is that of the manifest or of the index it was found in, what the step's name shows.
    pub reference: Reference,
    /// The digest of the platform's manifest.
    pub manifest: Digest,
    /// Its configuration, whose platform may differ from the one asked for (a warning then).
    pub config: ImageConfig,
    /// Its layers, lowest first; one for each of the configuration's `diff_ids`.
    pub layers: Vec<BaseLayer>,
}

/// A git reference, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedGit {
    /// The commit, 40 or 64 hexadecimal digits.
    pub commit: String,
    /// When it was committed, seconds since 1970, where known.
    pub time: Option<i64>,
}

/// An address, resolved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedHttp {
    /// The digest of what it has.
    pub content: Digest,
    /// `Last-Modified`, seconds since 1970, where the server says.
    pub time: Option<i64>,
}

/// The answers so far.
#[derive(Debug, Clone, Default)]
pub struct ResolvedBases {
    /// Images.
    pub images: HashMap<ImageKey, ResolvedImage>,
    /// Git references.
    pub git: HashMap<GitKey, ResolvedGit>,
    /// Addresses.
    pub http: HashMap<HttpKey, ResolvedHttp>,
}
