//! A file tree to read from, whatever it is stored in.

use super::Error;
use super::at::{self, Kind, Meta, Xattrs};
use crate::layer::{Entry, EntryKind, EntryPath, Timestamp};
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::sync::Arc;

/// A read-only view of a file tree that hostile content can't lead out of.
///
/// Every path but that of [`lookup`](Tree::lookup) and [`resolve`](Tree::resolve) is taken literally: a symbolic link on
/// the way is no directory, so there is nothing behind it. Implementations are free to assume that the tree doesn't
/// change; if it does, they may answer with the old or the new, but never with what is outside.
pub trait Tree: Send + Sync {
    /// What stands at `path`; `None` where nothing does.
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error>;

    /// The names in a directory with what they are, sorted by bytes.
    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error>;

    /// The target of a symbolic link.
    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error>;

    /// Opens a regular file to read it.
    fn open(&self, path: &EntryPath) -> Result<File, Error>;

    /// The extended attributes that a layer keeps, of a regular file or a directory; nothing else has any.
    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error>;

    /// Whether something stands at `path` that this view leaves out because of its ignore rules. For hints.
    fn is_ignored(&self, _path: &EntryPath) -> bool {
        false
    }

    /// Where `path` leads when symbolic links are followed, as chroot(2) would: absolute targets and `..` stay inside. The
    /// last component is followed only if `follow_last`. What isn't there stays in the path as it is.
    fn resolve(&self, path: &EntryPath, follow_last: bool) -> Result<EntryPath, Error> {
        follow(path, follow_last, |next| {
            let is_link = self.stat(next)?.is_some_and(|m| m.kind == Kind::Symlink);
            is_link.then(|| self.read_link(next)).transpose()
        })
    }

    /// What stands at `path` when symbolic links are followed, and where that is.
    fn lookup(&self, path: &EntryPath, follow_last: bool) -> Result<Option<Found>, Error> {
        let path = self.resolve(path, follow_last)?;
        Ok(self.stat(&path)?.map(|meta| Found { path, meta }))
    }
}

/// Where a path leads when symbolic links are followed inside the root; `target` says where the link at a path points, or
/// that there is no link. What [`Tree::resolve`] does for a tree.
pub fn follow(
    path: &EntryPath,
    follow_last: bool,
    mut target: impl FnMut(&EntryPath) -> Result<Option<Vec<u8>>, Error>,
) -> Result<EntryPath, Error> {
    let mut todo: Vec<Vec<u8>> = path.components().rev().map(<[u8]>::to_vec).collect();
    let mut done = EntryPath::root();
    let mut hops = 0;
    while let Some(name) = todo.pop() {
        if name == b".." {
            done = done.parent().unwrap_or_default();
            continue;
        }
        let next = done.join(&name)?;
        let link = if follow_last || !todo.is_empty() { target(&next)? } else { None };
        let Some(link) = link else {
            done = next;
            continue;
        };
        hops += 1;
        if hops > MOST_LINKS {
            return Err(Error::Loop(path.clone()));
        }
        if link.starts_with(b"/") {
            done = EntryPath::root();
        }
        todo.extend(steps(&link));
    }
    Ok(done)
}

/// A link's target as steps to take, the first one last.
pub(super) fn steps(target: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    target.rsplit(|b| *b == b'/').filter(|c| !matches!(*c, b"" | b".")).map(<[u8]>::to_vec)
}

/// How many symbolic links one path may lead through, as in BuildKit and Go.
pub(super) const MOST_LINKS: usize = 255;

/// What a path led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it stands: no symbolic link on the way.
    pub path: EntryPath,
    /// What it is.
    pub meta: Meta,
}

impl<T: Tree + ?Sized> Tree for Arc<T> {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        (**self).stat(path)
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        (**self).read_dir(path)
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        (**self).read_link(path)
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        (**self).open(path)
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        (**self).xattrs(path)
    }

    fn is_ignored(&self, path: &EntryPath) -> bool {
        (**self).is_ignored(path)
    }
}

/// A tree with nothing in it: what `FROM scratch` starts with.
#[derive(Debug, Clone, Copy, Default)]
pub struct EmptyTree;

impl Tree for EmptyTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let (mtime, inode) = (Timestamp::default(), (0, 0));
        let root = Meta { kind: Kind::Dir, mode: 0o755, uid: 0, gid: 0, size: 0, mtime, ctime: mtime, inode, links: 2 };
        Ok(path.is_root().then_some(root))
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        if path.is_root() { Ok(Vec::new()) } else { Err(missing("open", path)) }
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        Err(missing("readlink", path))
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        Err(missing("open", path))
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        if path.is_root() { Ok(Xattrs::new()) } else { Err(missing("flistxattr", path)) }
    }
}

/// What stands at `path` as an entry of a layer, under the same path; a socket, which layers don't have, as an empty file
/// (as BuildKit copies them).
pub fn entry(tree: &dyn Tree, path: &EntryPath, meta: &Meta) -> Result<Entry, Error> {
    let mut entry = bare_entry(tree, path, meta)?;
    if matches!(meta.kind, Kind::File | Kind::Dir) {
        entry.xattrs = tree.xattrs(path)?;
    }
    Ok(entry)
}

/// The same without its extended attributes, for those who read them later, with the content.
pub fn bare_entry(tree: &dyn Tree, path: &EntryPath, meta: &Meta) -> Result<Entry, Error> {
    let kind = match meta.kind {
        Kind::File => EntryKind::File { size: meta.size },
        Kind::Socket => EntryKind::File { size: 0 },
        Kind::Dir => EntryKind::Dir,
        Kind::Symlink => EntryKind::Symlink(tree.read_link(path)?),
        Kind::CharDevice(device) => EntryKind::CharDevice(device),
        Kind::BlockDevice(device) => EntryKind::BlockDevice(device),
        Kind::Fifo => EntryKind::Fifo,
    };
    let Meta { mode, uid, gid, mtime, .. } = *meta;
    Ok(Entry { path: path.clone(), kind, mode, uid, gid, mtime, xattrs: Xattrs::new() })
}

/// The error for what isn't there.
pub(super) fn missing(call: &'static str, path: &EntryPath) -> Error {
    Error::inside(call, path, rustix::io::Errno::NOENT)
}

/// The extended attributes that a layer keeps, of the open regular file at `path`.
pub fn xattrs_of(file: &File, path: &EntryPath) -> Result<Xattrs, Error> {
    at::xattrs(file.as_fd()).map_err(|e| Error::inside("flistxattr", path, e))
}

/// Identifies what is in a regular file: its bytes and the extended attributes that a layer keeps, not its name, mode,
/// owner or time. 256 bits of BLAKE3; for cache keys inside kiln, never for what others see.
pub type Fingerprint = [u8; 32];

/// Reads a regular file for its [`Fingerprint`].
pub fn fingerprint(tree: &dyn Tree, path: &EntryPath) -> Result<Fingerprint, Error> {
    let file = tree.open(path)?;
    fingerprint_of(&file, path, None)
}

/// The [`Fingerprint`] of an open file that isn't known to have changed since it was looked at as `meta`, and what it is
/// once it has been read. It is that of the version that `meta` is of, if both are the same.
pub fn fingerprint_again(file: &File, path: &EntryPath, meta: &Meta) -> Result<(Fingerprint, Meta), Error> {
    let fingerprint = fingerprint_of(file, path, Some(meta.size))?;
    let now = rustix::fs::fstat(file).map_err(|e| Error::inside("fstat", path, e))?;
    Ok((fingerprint, now.into()))
}

/// Reads a file up to its end, or up to `size` where somebody looks at it again afterwards.
fn fingerprint_of(mut file: &File, path: &EntryPath, size: Option<u64>) -> Result<Fingerprint, Error> {
    let xattrs = xattrs_of(file, path)?;
    let mut hasher = blake3::Hasher::new();
    // Most files are small: a larger buffer would cost more than it saves.
    let mut buffer = [0; 16 << 10];
    while size.is_none_or(|size| hasher.count() < size) {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => {
                hasher.update(buffer.get(..n).unwrap_or_default());
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(Error::inside("read", path, e)),
        }
    }
    let content = *hasher.finalize().as_bytes();
    if xattrs.is_empty() {
        return Ok(content);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.update(&content);
    for (name, value) in &xattrs {
        // Lengths in front keep two attributes from reading like one.
        hasher.update(&(name.len() as u64).to_le_bytes()).update(name);
        hasher.update(&(value.len() as u64).to_le_bytes()).update(value);
    }
    Ok(*hasher.finalize().as_bytes())
}
