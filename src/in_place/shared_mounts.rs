//! Restores what a RUN changed in the mounts that all processes of a container share.
//!
//! At the other levels each RUN gets a `/dev` of its own, with terminals, shared memory and message queues, and an IPC namespace.
//! In place it has the container's. So the entries of these directories are recorded before a RUN. Afterwards, new entries are
//! removed, and the others are what they were: their type, target, owner, mode, and attributes (an ACL is one). New objects of System
//! V IPC are removed as well.
//!
//! The content of a file that was there before is not restored, because other processes of the container may be writing to it.

use crate::sys::ipc::{self, Object};
use crate::sys::{Result, Said, file, tree, xattr};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What a mount's entries are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entries {
    /// Files that processes create and remove.
    Files,
    /// Files that the kernel creates and removes. Only their owners, modes and attributes can be changed.
    OfKernel,
}

/// The container's own mounts that a RUN can write to.
pub(super) const SHARED: [(&str, Entries); 4] = [
    ("/dev", Entries::Files),
    ("/dev/shm", Entries::Files),
    ("/dev/mqueue", Entries::Files),
    ("/dev/pts", Entries::OfKernel),
];

/// Extended attributes, sorted by name.
type Attributes = Vec<(Vec<u8>, Vec<u8>)>;

/// The state of shared mounts, and the objects of System V IPC, before a RUN.
#[derive(Debug)]
pub(super) struct SharedMounts {
    directories: Vec<Directory>,
    objects: BTreeSet<Object>,
}

#[derive(Debug)]
struct Directory {
    path: PathBuf,
    fd: OwnedFd,
    entries: Entries,
    own: Metadata,
    before: BTreeMap<OsString, Entry>,
}

#[derive(Debug)]
struct Entry {
    metadata: Metadata,
    /// The target of a symbolic link.
    target: Option<CString>,
}

#[derive(Debug)]
struct Metadata {
    stat: Stat,
    attributes: Attributes,
}

impl SharedMounts {
    /// Records these directories; those that do not exist are left out.
    pub(super) fn record(directories: &[(&str, Entries)]) -> Result<Self> {
        let record = |(path, entries): &(&str, Entries)| match file::open_dir(Path::new(path)) {
            Err(e) if e.is_not_found() => None,
            fd => Some(fd.and_then(|fd| Directory::record(Path::new(path), fd, *entries))),
        };
        let directories = directories.iter().filter_map(record).collect::<Result<_>>()?;
        Ok(Self { directories, objects: ipc::all() })
    }

    /// Restores everything, as far as possible.
    ///
    /// # Errors
    /// The first of them, after all of it was tried.
    pub(super) fn restore(self) -> Result<()> {
        // A RUN may have filled the memory with objects: nothing else works before they are gone.
        let objects = ipc::all().difference(&self.objects).map(|object| object.remove()).fold(Ok(()), Result::and);
        self.directories.iter().map(Directory::restore).fold(objects, Result::and)
    }
}

impl Directory {
    fn record(path: &Path, fd: OwnedFd, entries: Entries) -> Result<Self> {
        let stat = rustix::fs::fstat(&fd).said("fstat", path)?;
        let own = Metadata { stat, attributes: xattr::all(path)? };
        let mut directory = Self { path: path.into(), fd, entries, own, before: BTreeMap::new() };
        directory.before = directory.list()?;
        Ok(directory)
    }

    fn list(&self) -> Result<BTreeMap<OsString, Entry>> {
        let names = std::fs::read_dir(&self.path).said("read", &self.path)?;
        let mut entries = BTreeMap::new();
        for name in names {
            let name = name.said("read", &self.path)?.file_name();
            match self.entry(&name) {
                // A terminal may have been closed meanwhile.
                Err(e) if e.is_not_found() => {}
                entry => drop(entries.insert(name, entry?)),
            }
        }
        Ok(entries)
    }

    fn entry(&self, name: &OsStr) -> Result<Entry> {
        let path = self.path.join(name);
        let stat = rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW).said("stat", &path)?;
        let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
        let target = is_link.then(|| rustix::fs::readlinkat(&self.fd, name, Vec::new())).transpose();
        let target = target.said("readlink", &path)?;
        Ok(Entry { metadata: Metadata { stat, attributes: xattr::all(&path)? }, target })
    }

    fn restore(&self) -> Result<()> {
        self.own.restore(&self.fd, Path::new("."), &self.path)?;
        let now = self.list()?;
        let is_same = |name, before: &Entry| now.get(name).is_some_and(|now| before.is(now));
        let mut done = Ok(());
        if self.entries == Entries::Files {
            let new = now.iter().filter(|(name, now)| self.before.get(*name).is_none_or(|before| !before.is(now)));
            done = new.map(|(name, _)| tree::remove(&self.fd, Path::new(name))).fold(done, Result::and);
            let gone = self.before.iter().filter(|(name, before)| !is_same(*name, before));
            let create = |(name, before): (&OsString, &Entry)| {
                before.create(&self.fd, Path::new(name)).said("mknod", self.path.join(name))
            };
            done = gone.map(create).fold(done, Result::and);
        }
        let kept = self.before.iter().filter(|(name, _)| self.entries == Entries::Files || now.contains_key(*name));
        let kept = kept.filter(|(_, before)| before.target.is_none());
        let restored =
            kept.map(|(name, before)| before.metadata.restore(&self.fd, Path::new(name), &self.path.join(name)));
        restored.fold(done, Result::and)
    }
}

impl Entry {
    /// Whether it is still the same file. The number of an inode can be used again.
    fn is(&self, other: &Self) -> bool {
        let identity = |entry: &Self| {
            let stat = &entry.metadata.stat;
            (stat.st_dev, stat.st_ino, stat.st_mode & libc::S_IFMT, stat.st_rdev)
        };
        identity(self) == identity(other) && self.target == other.target
    }

    /// Creates one like it: a device, a link, or something empty.
    fn create(&self, dir: &OwnedFd, name: &Path) -> std::result::Result<(), Errno> {
        let stat = &self.metadata.stat;
        let kind = FileType::from_raw_mode(stat.st_mode);
        match (kind, &self.target) {
            (_, Some(target)) => rustix::fs::symlinkat(target, dir, name),
            (FileType::Directory, _) => rustix::fs::mkdirat(dir, name, Mode::RWXU),
            _ => rustix::fs::mknodat(dir, name, kind, Mode::empty(), stat.st_rdev),
        }
    }
}

impl Metadata {
    /// Gives a file, which is no link, the owner, mode and attributes that it had. `path` leads to the same file.
    fn restore(&self, dir: &OwnedFd, name: &Path, path: &Path) -> Result<()> {
        let stat = &self.stat;
        let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).said("stat", path)?;
        if (now.st_uid, now.st_gid) != (stat.st_uid, stat.st_gid) {
            let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).said("chown", path)?;
        }
        self.restore_attributes(path)?;
        // After the ACL, which changes the mode with it.
        let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).said("stat", path)?;
        if now.st_mode != stat.st_mode {
            let mode = Mode::from_raw_mode(stat.st_mode);
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).said("chmod", path)?;
        }
        Ok(())
    }

    fn restore_attributes(&self, path: &Path) -> Result<()> {
        let now = xattr::all(path)?;
        for (name, _) in now.iter().filter(|(name, _)| !self.attributes.iter().any(|(before, _)| before == name)) {
            xattr::remove(path, OsStr::from_bytes(name))?;
        }
        for (name, value) in self.attributes.iter().filter(|attribute| !now.contains(attribute)) {
            xattr::set(path, OsStr::from_bytes(name), value)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink};

    #[test]
    fn only_what_is_new_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("own"), "").unwrap();
        let directories = [(dir.path().to_str().unwrap(), Entries::Files), ("/nonexistent", Entries::Files)];
        let shared = SharedMounts::record(&directories).unwrap();
        fs::create_dir_all(dir.path().join("new/deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        shared.restore().unwrap();
        let names: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["own"]);
    }

    #[test]
    fn what_was_removed_or_replaced_or_changed_is_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let pipe = |name: &str| {
            rustix::fs::mknodat(rustix::fs::CWD, at(name), FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
        };
        pipe("gone");
        pipe("replaced");
        pipe("closed");
        symlink("target", at("link")).unwrap();
        let shared = SharedMounts::record(&[(dir.path().to_str().unwrap(), Entries::Files)]).unwrap();
        let before = shared.directories[0].list().unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::remove_file(at("replaced")).unwrap();
        fs::write(at("replaced"), "what the next one reads").unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::remove_file(at("link")).unwrap();
        symlink("/elsewhere", at("link")).unwrap();
        let mode = dir.path().metadata().unwrap().permissions();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let fd = file::open_dir(dir.path()).unwrap();
        shared.restore().unwrap();
        let after = Directory::record(dir.path(), fd, Entries::Files).unwrap();
        assert_eq!(after.own.stat.st_mode, mode.mode());
        assert!(at("replaced").symlink_metadata().unwrap().file_type().is_fifo());
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("target"));
        for (name, entry) in before {
            assert_eq!(after.before[&name].metadata.stat.st_mode, entry.metadata.stat.st_mode, "{name:?}");
        }
    }

    #[test]
    fn attributes_and_owners_are_restored_and_entries_of_the_kernel_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("kept"), "").unwrap();
        fs::write(at("closed"), "").unwrap();
        xattr::set(&at("kept"), "user.before".as_ref(), b"1").unwrap();
        let shared = SharedMounts::record(&[(dir.path().to_str().unwrap(), Entries::OfKernel)]).unwrap();
        for path in [dir.path(), &at("kept")] {
            xattr::set(path, "user.new".as_ref(), b"2").unwrap();
        }
        xattr::set(&at("kept"), "user.before".as_ref(), b"2").unwrap();
        fs::set_permissions(at("kept"), fs::Permissions::from_mode(0o666)).unwrap();
        fs::write(at("opened"), "").unwrap();
        fs::remove_file(at("closed")).unwrap();
        shared.restore().unwrap();
        assert_eq!(xattr::all(&at("kept")).unwrap(), [(b"user.before".to_vec(), b"1".to_vec())]);
        assert_eq!(xattr::all(dir.path()).unwrap(), []);
        assert_eq!(fs::metadata(at("kept")).unwrap().permissions().mode() & 0o777, 0o644);
        assert!(at("opened").exists() && !at("closed").exists());
    }
}
