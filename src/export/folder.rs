//! The root filesystem's files in a folder of the user's, as BuildKit's local exporter leaves them: merged into what is
//! there, owned by the user who builds.
//!
//! The image's files are hostile: no symbolic link is ever followed, neither one of the image nor one that stood in the
//! folder before, so nothing is written outside of it.

use super::Error;
use super::error::At as _;
use crate::layer::{self, Device, Entry, EntryKind, EntryPath, EntrySink, Timestamp};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat, fsetxattr,
    linkat, makedev, mkdirat, mknodat, openat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use std::fs::{DirBuilder, File};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

/// Takes the entries of a flattened root filesystem and writes them into a folder.
pub struct Folder {
    root: OwnedFd,
    owner: (Uid, Gid),
    /// The folder that the last entry went into, open.
    parent: (EntryPath, OwnedFd),
    /// Modes and times that folders get at the end: until then kiln writes in them.
    pending: Vec<(EntryPath, u32, Timestamp)>,
    temporary: u64,
}

impl Folder {
    /// Opens a folder, and makes it where it isn't there, for its owner alone as BuildKit does.
    ///
    /// # Errors
    /// [`Error::Io`], also where something else stands there.
    pub fn create(path: &Path) -> Result<Self, Error> {
        DirBuilder::new().recursive(true).mode(0o700).create(path).at("make the folder", path)?;
        let open = || openat(CWD, path, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
        let owner = (rustix::process::geteuid(), rustix::process::getegid());
        let parent = (EntryPath::root(), open().at("open the folder", path)?);
        Ok(Self { root: open().at("open the folder", path)?, owner, parent, pending: Vec::new(), temporary: 0 })
    }

    /// Gives the folders their modes and times.
    ///
    /// # Errors
    /// [`Error::Layer`].
    pub fn finish(mut self) -> Result<(), Error> {
        // The last first: what is inside a folder before the folder itself, which may become unreadable.
        while let Some((path, mode, mtime)) = self.pending.pop() {
            let (parent, name) = self.place(&path).map_err(|e| failed("write", &path, e))?;
            chmodat(parent, name, Mode::from_raw_mode(mode), AtFlags::empty())
                .and_then(|()| utimensat(parent, name, &times(mtime), AtFlags::SYMLINK_NOFOLLOW))
                .map_err(|e| failed("write", &path, e))?;
        }
        Ok(())
    }

    /// The open folder of an entry, and the entry's name in it.
    fn place<'a>(&'a mut self, path: &'a EntryPath) -> Result<(BorrowedFd<'a>, &'a [u8]), Errno> {
        let parent = path.parent().unwrap_or_default();
        if self.parent.0 != parent {
            let opened = self.walk(&parent)?;
            self.parent = (parent, opened);
        }
        Ok((self.parent.1.as_fd(), path.file_name().unwrap_or(b".")))
    }

    /// Opens a folder below the root; a symbolic link on the way is an error.
    fn walk(&self, path: &EntryPath) -> Result<OwnedFd, Errno> {
        let flags = OFlags::DIRECTORY | OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let start = openat(&self.root, c".", flags, Mode::empty())?;
        path.components().try_fold(start, |folder, name| openat(&folder, name, flags, Mode::empty()))
    }

    /// Makes an entry. What stands in its place goes away; a folder stays one, with what is in it.
    fn make(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        let fail = |e: Errno| failed("write", &entry.path, e);
        let linked = match &entry.kind {
            EntryKind::Hardlink(target) => Some((
                self.walk(&target.parent().unwrap_or_default()).map_err(fail)?,
                target.file_name().unwrap_or(b"."),
            )),
            _ => None,
        };
        self.temporary += 1;
        let temporary = format!(".tmp.kiln-{}", self.temporary);
        let owner = self.owner;
        let (parent, name) = self.place(&entry.path).map_err(fail)?;
        let old = match statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Some(FileType::from_raw_mode(stat.st_mode)),
            Err(Errno::NOENT) => None,
            Err(e) => return Err(fail(e)),
        };
        let is_dir = entry.kind == EntryKind::Dir;
        let stays = is_dir && old == Some(FileType::Directory);
        let new = if old.is_some() && !stays { temporary.as_bytes() } else { name };
        match &entry.kind {
            EntryKind::Dir if stays => {}
            EntryKind::File { size } => write_file(parent, new, entry, *size, content)?,
            kind => create(parent, new, kind, linked.as_ref()).map_err(fail)?,
        }
        own(parent, new, entry, owner).map_err(fail)?;
        if new != name {
            // Renaming one name of a file to another of the same file does nothing.
            if is_dir || linked.is_some() || old == Some(FileType::Directory) {
                remove(parent, name).map_err(fail)?;
            }
            renameat(parent, new, parent, name).map_err(fail)?;
        }
        if is_dir {
            self.pending.push((entry.path.clone(), entry.mode & 0o7777, entry.mtime));
        }
        Ok(())
    }
}

impl EntrySink for Folder {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        match entry.kind {
            // The folder is the user's; the image says nothing about it.
            _ if entry.path.is_root() => Ok(()),
            EntryKind::Whiteout | EntryKind::Opaque => {
                Err(layer::Error::file("write", &entry.path, "the mark of a removed file is no file"))
            }
            _ => self.make(entry, content),
        }
    }
}

fn failed(action: &'static str, path: &EntryPath, errno: Errno) -> layer::Error {
    layer::Error::file(action, path, std::io::Error::from(errno))
}

fn times(mtime: Timestamp) -> Timestamps {
    let time = Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Makes whatever has no content.
fn create(
    parent: BorrowedFd<'_>,
    name: &[u8],
    kind: &EntryKind,
    linked: Option<&(OwnedFd, &[u8])>,
) -> Result<(), Errno> {
    let node = |kind, device: Device| {
        mknodat(parent, name, kind, Mode::from_raw_mode(0o600), makedev(device.major, device.minor))
    };
    match kind {
        EntryKind::Dir => mkdirat(parent, name, Mode::from_raw_mode(0o700)),
        EntryKind::Symlink(target) => symlinkat(target.as_slice(), parent, name),
        EntryKind::CharDevice(device) => node(FileType::CharacterDevice, *device),
        EntryKind::BlockDevice(device) => node(FileType::BlockDevice, *device),
        EntryKind::Fifo => node(FileType::Fifo, Device::default()),
        EntryKind::Hardlink(_) => {
            let (folder, target) = linked.ok_or(Errno::INVAL)?;
            linkat(folder, *target, parent, name, AtFlags::empty())
        }
        EntryKind::File { .. } | EntryKind::Whiteout | EntryKind::Opaque => Err(Errno::INVAL),
    }
}

fn write_file(
    parent: BorrowedFd<'_>,
    name: &[u8],
    entry: &Entry,
    size: u64,
    content: &mut dyn Read,
) -> Result<(), layer::Error> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(parent, name, flags, Mode::from_raw_mode(0o600)).map_err(|e| failed("write", &entry.path, e))?;
    let copied = std::io::copy(content, &mut File::from(file));
    let written = copied.map_err(|e| layer::Error::file("write", &entry.path, e))?;
    if written == size {
        return Ok(());
    }
    let found = if written < size { "fewer" } else { "more" };
    Err(layer::Error::Changed { path: entry.path.clone(), expected: size, found })
}

/// Gives a new file its owner, extended attributes, mode and time, in this order: changing the owner takes set-id bits
/// and capabilities away. A hardlink has all that already, and folders get mode and time at the end.
fn own(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry, (uid, gid): (Uid, Gid)) -> Result<(), Errno> {
    if matches!(entry.kind, EntryKind::Hardlink(_)) {
        return Ok(());
    }
    chownat(parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
    set_xattrs(parent, name, entry);
    if entry.kind == EntryKind::Dir {
        return Ok(());
    }
    if !matches!(entry.kind, EntryKind::Symlink(_)) {
        chmodat(parent, name, Mode::from_raw_mode(entry.mode & 0o7777), AtFlags::empty())?;
    }
    utimensat(parent, name, &times(entry.mtime), AtFlags::SYMLINK_NOFOLLOW)
}

/// Sets what the file system and the user's rights allow, as BuildKit does.
fn set_xattrs(parent: BorrowedFd<'_>, name: &[u8], entry: &Entry) {
    if entry.xattrs.is_empty() || !matches!(entry.kind, EntryKind::File { .. } | EntryKind::Dir) {
        return;
    }
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    if let Ok(file) = openat(parent, name, flags, Mode::empty()) {
        for (key, value) in &entry.xattrs {
            let _ = fsetxattr(&file, key.as_slice(), value, XattrFlags::empty());
        }
    }
}

/// Removes a file, or a folder with all that is in it, without following a link.
fn remove(parent: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    match unlinkat(parent, name, AtFlags::empty()) {
        Err(Errno::ISDIR | Errno::PERM) => {}
        other => return other,
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let folder = openat(parent, name, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            remove(folder.as_fd(), name)?;
        }
    }
    unlinkat(parent, name, AtFlags::REMOVEDIR)
}

#[cfg(test)]
#[path = "folder_tests.rs"]
mod tests;
