//! What builds did and why: the account that each leaves in the store, and what two of them say together.
//!
//! A build's account ([`Build`]) is some hundred bytes: what became of each step, and what it gave. What the steps *are*
//! stands in its [`Sheet`], which builds of an unchanged plan and context share, and the files that a step takes of a
//! tree in a list ([`files`]) that all sheets share. So a build in which nothing ran writes one small file.
//!
//! [`compare::explain`] holds an account against the earlier ones of the same Dockerfile: of each step that ran, which part
//! of its key was new, and since which build. No value of a variable or a secret is in any of this.

pub mod align;
pub mod compare;
pub mod files;
mod read;
mod sheet;
#[cfg(test)]
mod tests;
mod write;

pub use read::{Head, Numbered, list};
pub use write::{Diary, Journal, found};

use super::key::{Key, Part};
use crate::plan::op::VertexId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// How many builds are remembered.
const KEPT: usize = 50;
/// How many bytes their sheets and lists may take together.
const KEPT_BYTES: u64 = 64 << 20;

/// Which Dockerfile was built, and from what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct About {
    /// The Dockerfile as the user named it.
    pub dockerfile: String,
    /// The context: an absolute folder, an address without its password, `-` for standard input.
    pub context: String,
    /// `--target`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The Dockerfile's path where it is a file that stays, else its name.
    pub path: String,
    /// A hash of the Dockerfile's text, so that it is known in another checkout.
    pub text: Key,
}

impl About {
    /// Whether an earlier build was of the same thing: the same file and context, or the same text.
    pub fn continues(&self, earlier: &Self) -> bool {
        (self.path == earlier.path && self.context == earlier.context) || self.text == earlier.text
    }
}

/// What a build did.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Build {
    /// Of what.
    pub about: About,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long its steps took altogether, in milliseconds.
    pub took_ms: u64,
    /// Whether all of its steps went well.
    pub ok: bool,
    /// What its steps were: the key of a [`Sheet`].
    pub sheet: Key,
    /// What became of each step: one [`How`] for each, as its letter.
    pub how: String,
    /// What each step gave: the first digits of its root filesystem's identity, empty where it isn't known.
    pub identities: Vec<String>,
    /// How long steps took that ran, in milliseconds.
    pub took: BTreeMap<VertexId, u64>,
    /// The steps that had to run whatever the cache said (`--no-cache`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub forced: Vec<VertexId>,
    /// The lists of files that steps took of stages: by step, then by the number of what it reads.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub lists: BTreeMap<VertexId, BTreeMap<usize, Key>>,
}

impl Build {
    /// What became of a step.
    pub fn how(&self, step: VertexId) -> How {
        self.how.as_bytes().get(step).map_or(How::NotReached, |letter| How::of(*letter))
    }

    /// What a step gave, where that is known.
    pub fn identity(&self, step: VertexId) -> Option<&str> {
        self.identities.get(step).map(String::as_str).filter(|i| !i.is_empty())
    }
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It ran.
    Ran,
    /// It ran and failed.
    Failed,
    /// It was stopped because of something else.
    Stopped,
    /// The store had its result.
    Hit,
    /// A cache had its result.
    Cached,
    /// Nobody needed it, or the build ended before.
    NotReached,
}

impl How {
    const LETTERS: [(Self, u8); 6] = [
        (Self::Ran, b'r'),
        (Self::Failed, b'f'),
        (Self::Stopped, b's'),
        (Self::Hit, b'h'),
        (Self::Cached, b'c'),
        (Self::NotReached, b'-'),
    ];

    fn letter(self) -> char {
        Self::LETTERS.iter().find(|(how, _)| *how == self).map_or('-', |(_, letter)| char::from(*letter))
    }

    fn of(letter: u8) -> Self {
        Self::LETTERS.iter().find(|(_, l)| *l == letter).map_or(Self::NotReached, |(how, _)| *how)
    }

    /// Whether it was started rather than found.
    pub fn is_run(self) -> bool {
        matches!(self, Self::Ran | Self::Failed | Self::Stopped)
    }
}

/// What the steps of a build were, in the plan's order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Sheet {
    /// The steps.
    pub steps: Vec<Step>,
}

/// What a step was.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Step {
    /// As it was shown.
    pub name: String,
    /// What it does.
    pub kind: StepKind,
    /// Its key as far as it is known before anything runs.
    pub definition: Key,
    /// What it reads: the root filesystem it stands on first, where there is one.
    pub inputs: Vec<Input>,
    /// What goes into its key besides.
    pub parts: Vec<Part>,
    /// The lists of files that it takes of contexts, by the number of what it reads.
    pub lists: BTreeMap<usize, Key>,
}

/// What a step does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepKind {
    /// A base image.
    Image,
    /// A context, a repository, a file of a web server.
    Source,
    /// A process.
    Process,
    /// Files copied or made.
    Files,
}

/// Something that a step reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The step whose result it is.
    pub step: VertexId,
    /// The number of the read; `None` for the root filesystem that it stands on.
    pub read: Option<usize>,
}
