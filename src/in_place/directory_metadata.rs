//! The metadata of a directory that stays in place while its entries are switched.

use crate::sys::xattr;
use crate::sys::{Error, Result, Said};
use rustix::fs::{Gid, Mode, Timespec, Timestamps, Uid};
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// Mode, owner, modification time and extended attributes of a directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct DirectoryMetadata {
    /// Permission, set-ID and sticky bits.
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    /// Seconds and nanoseconds since 1970.
    mtime: (i64, i64),
    /// Names and values of attributes: those of users, and access control lists, which would apply to a stage's files as well.
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
}

impl DirectoryMetadata {
    /// A directory that was made on the way to something else.
    pub(super) fn made() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: (0, libc::UTIME_NOW), attributes: Vec::new() }
    }

    /// Whether everything but the time is the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        Self { mtime: other.mtime, ..self.clone() } == *other
    }

    /// Reads the metadata of an open directory; `path` is for errors.
    ///
    /// # Errors
    /// As `fstat(2)` and `fgetxattr(2)`.
    pub(super) fn read(dir: impl AsFd, path: &Path) -> Result<Self> {
        let stat = rustix::fs::fstat(&dir).said("fstat", path)?;
        let mut attributes = Vec::new();
        for name in switched_attributes(&dir, path)? {
            // One that is gone by now is not there.
            if let Some(value) = xattr::get_fd(&dir, OsStr::from_bytes(&name), path)? {
                attributes.push((name, value));
            }
        }
        let mtime = (stat.st_mtime, i64::try_from(stat.st_mtime_nsec).unwrap_or(0));
        Ok(Self { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid, mtime, attributes })
    }

    /// Gives an open directory this metadata; `path` is for errors.
    ///
    /// # Errors
    /// As the calls that change metadata. Attributes that the file system does not support are an error only if there are any.
    pub(super) fn apply(&self, dir: impl AsFd, path: &Path) -> Result<()> {
        let now = Self::read(&dir, path)?;
        let is_gone = |name: &Vec<u8>| !self.attributes.iter().any(|(other, _)| other == name);
        for (name, _) in now.attributes.iter().filter(|(name, _)| is_gone(name)) {
            xattr::remove_fd(&dir, OsStr::from_bytes(name), path)?;
        }
        if (now.uid, now.gid) != (self.uid, self.gid) {
            let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
            rustix::fs::fchown(&dir, Some(uid), Some(gid)).said("fchown", path)?;
        }
        for (name, value) in self.attributes.iter().filter(|attribute| !now.attributes.contains(attribute)) {
            xattr::set_fd(&dir, OsStr::from_bytes(name), value, path)?;
        }
        // A change of the owner clears set-ID bits, and an access control list changes the group's bits.
        if now != *self {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(self.mode)).said("fchmod", path)?;
        }
        self.apply_time(dir).map_err(|errno| Error { call: "futimens", path: Some(path.into()), errno })
    }

    fn apply_time(&self, dir: impl AsFd) -> rustix::io::Result<()> {
        let last_access = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
        let last_modification = Timespec { tv_sec: self.mtime.0, tv_nsec: self.mtime.1 };
        rustix::fs::futimens(dir, &Timestamps { last_access, last_modification })
    }
}

/// The names of the attributes that are switched with a directory.
fn switched_attributes(dir: impl AsFd, path: &Path) -> Result<Vec<Vec<u8>>> {
    let mut names = xattr::list_fd(dir, path)?;
    names.sort();
    names.retain(|name| {
        let is_users = name.starts_with(b"user.") && !name.starts_with(b"user.overlay.");
        is_users || name.starts_with(b"system.posix_acl_")
    });
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::file::open_dir;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn metadata_of_one_directory_is_given_to_another() {
        let temp = tempfile::tempdir().unwrap();
        let (a, b) = (temp.path().join("a"), temp.path().join("b"));
        for dir in [&a, &b] {
            std::fs::create_dir(dir).unwrap();
        }
        std::fs::set_permissions(&a, std::fs::Permissions::from_mode(0o1770)).unwrap();
        let has_attributes = rustix::fs::setxattr(&b, "user.x", b"1", rustix::fs::XattrFlags::empty()).is_ok();
        let (from, to) = (open_dir(&a).unwrap(), open_dir(&b).unwrap());
        let wanted = DirectoryMetadata::read(&from, &a).unwrap();
        let before = DirectoryMetadata::read(&to, &b).unwrap();
        assert_eq!(before.attributes.len(), usize::from(has_attributes));
        wanted.apply(&to, &b).unwrap();
        assert_eq!(DirectoryMetadata::read(&to, &b).unwrap(), wanted);
        before.apply(&to, &b).unwrap();
        assert_eq!(DirectoryMetadata::read(&to, &b).unwrap(), before);
    }
}
