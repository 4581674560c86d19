//! Lists of the files that a step takes of a tree, small enough to be kept, and what differs between two.
//!
//! ```text
//! "kilnlist1\n"
//! for each file:  shared u16, rest u16, rest of the path, kind u8, mode u16, uid u32, gid u32, hash 8 bytes
//! ```
//! Numbers are little-endian; `shared` says how much of the path is that of the one before. Compressed by the store.

use crate::snapshot::{Kind, Meta};
use crate::solve::file::{Selection, Taken};
use crate::solve::key::{Key, Keyer};
use serde::Serialize;
use std::cmp::Ordering;

const MAGIC: &[u8] = b"kilnlist1\n";
/// Bytes of a file's hash that are kept: enough to tell two versions apart.
const HASH: usize = 8;

/// The name of a selection's list: its content, and where that was found.
pub fn id(selection: &Selection) -> Key {
    let mut k = Keyer::new("list 1");
    k.key(Key::new(selection.content));
    for source in selection.sources() {
        k.bytes(source.as_bytes());
    }
    k.finish()
}

/// A file as lists have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its path in the tree that it comes from.
    pub path: Vec<u8>,
    /// What it is.
    pub version: Version,
}

/// What tells two versions of a file apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    kind: u8,
    mode: u16,
    uid: u32,
    gid: u32,
    hash: [u8; HASH],
}

impl Version {
    fn of(meta: &Meta, fingerprint: Option<&[u8; 32]>) -> Self {
        let kind = match meta.kind {
            Kind::File => b'f',
            Kind::Dir => b'd',
            Kind::Symlink => b'l',
            Kind::CharDevice(_) => b'c',
            Kind::BlockDevice(_) => b'b',
            Kind::Fifo => b'p',
            Kind::Socket => b's',
        };
        let mut hash = [0; HASH];
        hash.iter_mut().zip(fingerprint.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        Self { kind, mode: u16::try_from(meta.mode).unwrap_or(u16::MAX), uid: meta.uid, gid: meta.gid, hash }
    }

    /// The word for what it is.
    fn kind(&self) -> &'static str {
        match self.kind {
            b'f' => "file",
            b'd' => "folder",
            b'l' => "link",
            b'p' => "fifo",
            b's' => "socket",
            _ => "device",
        }
    }

    fn hash(&self) -> String {
        self.hash.iter().take(6).map(|b| format!("{b:02x}")).collect()
    }
}

/// A selection's list. It is in the selection's order, which costs nothing here; whoever reads it sorts.
pub fn encode(selection: &Selection) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let (mut last, mut path) = (Vec::new(), Vec::new());
    for taken in selection.taken() {
        set_path(&mut path, &taken);
        let shared = last.iter().zip(&path).take_while(|(a, b)| a == b).count();
        let rest = path.get(shared..).unwrap_or_default();
        // No system has paths so long.
        let (Ok(shared), Ok(length)) = (u16::try_from(shared), u16::try_from(rest.len())) else { continue };
        let version = Version::of(taken.meta, taken.fingerprint);
        bytes.extend(shared.to_le_bytes());
        bytes.extend(length.to_le_bytes());
        bytes.extend(rest);
        bytes.push(version.kind);
        bytes.extend(version.mode.to_le_bytes());
        bytes.extend(version.uid.to_le_bytes());
        bytes.extend(version.gid.to_le_bytes());
        bytes.extend(version.hash);
        std::mem::swap(&mut last, &mut path);
    }
    bytes
}

fn set_path(path: &mut Vec<u8>, taken: &Taken<'_>) {
    path.clear();
    path.extend(taken.source.as_bytes());
    if let Some(inside) = taken.inside {
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend(inside.as_bytes());
    }
}

/// A list, read back, by path; `None` where it is none.
pub fn decode(bytes: &[u8]) -> Option<Vec<Listed>> {
    let mut rest = bytes.strip_prefix(MAGIC)?;
    let mut listed: Vec<Listed> = Vec::new();
    while !rest.is_empty() {
        let shared = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let length = usize::from(u16::from_le_bytes(take(&mut rest)?));
        let (name, after) = rest.split_at_checked(length)?;
        rest = after;
        let above = listed.last().map_or(&[][..], |l| l.path.as_slice());
        let mut path = above.get(..shared)?.to_vec();
        path.extend(name);
        let [kind] = take(&mut rest)?;
        let version = Version {
            kind,
            mode: u16::from_le_bytes(take(&mut rest)?),
            uid: u32::from_le_bytes(take(&mut rest)?),
            gid: u32::from_le_bytes(take(&mut rest)?),
            hash: take(&mut rest)?,
        };
        listed.push(Listed { path, version });
    }
    listed.sort_by(|a, b| a.path.cmp(&b.path));
    listed.dedup_by(|b, a| a.path == b.path);
    Some(listed)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// What differs between two lists.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Difference {
    /// How many files the newer list has.
    pub total: usize,
    /// The files that aren't the same, by path.
    pub files: Vec<Changed>,
}

/// A file that isn't the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Changed {
    /// Its path; bytes that are no UTF-8 are replaced.
    pub path: String,
    /// What it was; `None` where it wasn't there. What doesn't differ isn't said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What it is; `None` where it isn't there any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

/// Compares two lists, both by path.
pub fn difference(old: &[Listed], new: &[Listed]) -> Difference {
    let mut files = Vec::new();
    let (mut olds, mut news) = (old.iter().peekable(), new.iter().peekable());
    loop {
        let order = match (olds.peek(), news.peek()) {
            (None, None) => break,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(o), Some(n)) => o.path.cmp(&n.path),
        };
        let o = if order.is_le() { olds.next() } else { None };
        let n = if order.is_ge() { news.next() } else { None };
        if o.map(|o| o.version) != n.map(|n| n.version) {
            files.extend(changed(o, n));
        }
    }
    Difference { total: new.len(), files }
}

fn changed(old: Option<&Listed>, new: Option<&Listed>) -> Option<Changed> {
    let path = String::from_utf8_lossy(&old.or(new)?.path).into_owned();
    let (old, new) = (old.map(|l| l.version), new.map(|l| l.version));
    let other = |one: Option<Version>, two: Option<Version>| one.map(|v| said(v, two));
    Some(Changed { path, old: other(old, new), new: other(new, old) })
}

/// What a version is, as far as it differs from the other: kind, hash, mode, owner.
fn said(one: Version, other: Option<Version>) -> String {
    let mut words = Vec::new();
    let differs = |same: fn(&Version, &Version) -> bool| other.is_none_or(|o| !same(&one, &o));
    if other.is_some_and(|o| o.kind != one.kind) || (other.is_none() && one.kind != b'f') {
        words.push(one.kind().to_owned());
    }
    if one.hash != [0; HASH] && differs(|a, b| a.hash == b.hash) {
        words.push(one.hash());
    }
    if other.is_some() && differs(|a, b| a.mode == b.mode) {
        words.push(format!("mode {:04o}", one.mode));
    }
    if other.is_some() && differs(|a, b| (a.uid, a.gid) == (b.uid, b.gid)) {
        words.push(format!("owner {}:{}", one.uid, one.gid));
    }
    words.join(", ")
}
