//! How fields become a key, and, where somebody wants to know later what was new, which part of them gave what.

use super::key::Key;
use serde::{Deserialize, Serialize};

/// A part of what a step is, that its key takes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// What it is.
    pub sort: Sort,
    /// Which one: a variable's name, a mount's target; empty where there is only one.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The first digits of its hash.
    pub digest: String,
    /// What it says, where that is never a secret and short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
}

/// The sorts of parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sort {
    /// The program and its arguments.
    Command,
    /// A variable, of ENV or ARG.
    Variable,
    /// The folder a process starts in.
    Folder,
    /// Who it runs as.
    User,
    /// A mount but for the files in it.
    Mount,
    /// `--network`.
    Network,
    /// `--security`.
    Security,
    /// The machine's name.
    Hostname,
    /// The platform.
    Platform,
    /// An entry of /etc/hosts.
    Host,
    /// `--shm-size` and `--ulimit`.
    Limits,
    /// `--link`.
    Link,
    /// Whether a folder is a WORKDIR.
    Workdir,
    /// What is copied, by name.
    Sources,
    /// Where files go.
    Destination,
    /// `--chown`.
    Owner,
    /// `--chmod`.
    Mode,
    /// `--parents`.
    Parents,
    /// Whether archives are unpacked.
    Unpack,
    /// A folder that is made.
    MadeFolder,
    /// A file whose content is in the Dockerfile.
    MadeFile,
    /// The layers of a base image.
    Image,
    /// A repository's commit, and what is taken of it.
    Git,
    /// A web server's file.
    Http,
    /// A context's name.
    Context,
    /// The order of parts that are otherwise the same.
    Order,
}

/// Hex digits of a part's hash that are kept: enough to tell two apart.
const DIGITS: usize = 12;
/// The longest value that is kept, in bytes.
const SHORT: usize = 200;

/// Hashes fields so that no two sequences of them give the same bytes: everything carries its length.
#[derive(Debug, Clone)]
pub struct Keyer {
    whole: blake3::Hasher,
    parts: Option<Parts>,
}

/// Parts as they come; what is fed between them belongs to none.
#[derive(Debug, Clone, Default)]
struct Parts {
    open: Vec<Option<blake3::Hasher>>,
    done: Vec<Part>,
}

impl Keyer {
    /// A key of some kind; kinds never collide with each other.
    pub fn new(kind: &str) -> Self {
        let mut k = Self { whole: blake3::Hasher::new(), parts: None };
        k.tag(kind);
        k
    }

    /// The same, taking parts down.
    pub fn with_parts(kind: &str) -> Self {
        Self { parts: Some(Parts::default()), ..Self::new(kind) }
    }

    fn feed(&mut self, bytes: &[u8]) {
        self.whole.update(bytes);
        if let Some(Some(part)) = self.parts.as_mut().and_then(|p| p.open.last_mut()) {
            part.update(bytes);
        }
    }

    /// Feeds something that is a part of its own, for the key the same as without this.
    pub fn part(&mut self, sort: Sort, name: &str, value: Option<&str>, feed: impl FnOnce(&mut Self)) {
        let Some(parts) = &mut self.parts else { return feed(self) };
        parts.open.push(Some(blake3::Hasher::new()));
        feed(self);
        let Some(parts) = &mut self.parts else { return };
        if let Some(Some(hash)) = parts.open.pop() {
            let digest = hash.finalize().to_hex().chars().take(DIGITS).collect();
            let value = value.filter(|v| v.len() <= SHORT).map(str::to_owned);
            parts.done.push(Part { sort, name: name.to_owned(), digest, value });
        }
    }

    /// Feeds something that belongs to no part, though it stands inside one.
    pub fn apart(&mut self, feed: impl FnOnce(&mut Self)) {
        if let Some(parts) = &mut self.parts {
            parts.open.push(None);
        }
        feed(self);
        if let Some(parts) = &mut self.parts {
            parts.open.pop();
        }
    }

    /// Bytes.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.feed(bytes);
    }

    /// A text.
    pub fn text(&mut self, text: &str) {
        self.bytes(text.as_bytes());
    }

    /// The name of a case.
    pub fn tag(&mut self, tag: &str) {
        self.text(tag);
    }

    /// A number.
    pub fn number(&mut self, n: u64) {
        self.feed(&n.to_le_bytes());
    }

    /// Yes or no.
    pub fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    /// Another key.
    pub fn key(&mut self, key: Key) {
        self.feed(key.as_bytes());
    }

    /// Something that may be missing.
    pub fn option<T>(&mut self, value: Option<&T>, mut each: impl FnMut(&mut Self, &T)) {
        self.flag(value.is_some());
        if let Some(v) = value {
            each(self, v);
        }
    }

    /// Any number of things.
    pub fn list<T>(&mut self, values: &[T], mut each: impl FnMut(&mut Self, &T)) {
        self.number(values.len() as u64);
        for v in values {
            each(self, v);
        }
    }

    /// The key of everything fed.
    pub fn finish(self) -> Key {
        Key::new(*self.whole.finalize().as_bytes())
    }

    /// The parts that were taken down.
    pub fn into_parts(self) -> Vec<Part> {
        self.parts.map(|p| p.done).unwrap_or_default()
    }
}
