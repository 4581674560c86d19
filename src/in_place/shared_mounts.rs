//! What every process of a container shares, and in which nothing that one process did is to be found by the next.

use crate::sys::ipc::{self, Object};
use crate::sys::{Error, Result, Said, file, tree};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Stat, Uid};
use rustix::io::Errno;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CString, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// They are the container's own mounts.
pub(super) const SHARED: [&str; 3] = ["/dev", "/dev/shm", "/dev/mqueue"];

/// What is in shared folders, and what has no folder, before a process runs.
#[derive(Debug)]
pub(super) struct SharedMounts {
    folders: Vec<Folder>,
    objects: BTreeSet<Object>,
}

#[derive(Debug)]
struct Folder {
    path: PathBuf,
    fd: OwnedFd,
    /// Itself.
    own: Stat,
    before: BTreeMap<OsString, Thing>,
}

#[derive(Debug)]
struct Thing {
    stat: Stat,
    /// What a link says.
    target: Option<CString>,
}

impl SharedMounts {
    /// Looks at folders; those that aren't there are left out.
    pub(super) fn look(folders: &[&str]) -> Result<Self> {
        let look = |path: &&str| match file::open_dir(Path::new(path)) {
            Err(e) if e.is_not_found() => None,
            fd => Some(fd.and_then(|fd| Folder::look(Path::new(path), fd))),
        };
        Ok(Self { folders: folders.iter().filter_map(look).collect::<Result<_>>()?, objects: ipc::all() })
    }

    /// Removes what is new, and puts back what was removed or replaced.
    pub(super) fn sweep(self) -> Result<()> {
        for folder in self.folders {
            folder.sweep()?;
        }
        ipc::all().difference(&self.objects).try_for_each(|object| object.remove())
    }
}

impl Folder {
    fn look(path: &Path, fd: OwnedFd) -> Result<Self> {
        let own = rustix::fs::fstat(&fd).said("fstat", path)?;
        let mut folder = Self { path: path.into(), fd, own, before: BTreeMap::new() };
        folder.before = folder.now()?;
        Ok(folder)
    }

    fn now(&self) -> Result<BTreeMap<OsString, Thing>> {
        let names = std::fs::read_dir(&self.path).said("read", &self.path)?;
        let mut now = BTreeMap::new();
        for name in names {
            let name = name.said("read", &self.path)?.file_name();
            let stat = rustix::fs::statat(&self.fd, &name, AtFlags::SYMLINK_NOFOLLOW);
            let stat = stat.said("stat", self.path.join(&name))?;
            let is_link = FileType::from_raw_mode(stat.st_mode) == FileType::Symlink;
            let target = is_link.then(|| rustix::fs::readlinkat(&self.fd, &name, Vec::new())).transpose();
            now.insert(name, Thing { stat, target: target.said("readlink", &self.path)? });
        }
        Ok(now)
    }

    fn sweep(&self) -> Result<()> {
        self.own.give_back(&self.fd, Path::new("."), &self.path)?;
        let now = self.now()?;
        for (name, thing) in &now {
            if self.before.get(name).is_none_or(|before| !before.is(thing)) {
                tree::remove(&self.fd, Path::new(name))?;
            }
        }
        for (name, before) in &self.before {
            let at = self.path.join(name);
            if now.get(name).is_none_or(|thing| !before.is(thing)) {
                before.make(&self.fd, Path::new(name)).said("mknod", &at)?;
            }
            if before.target.is_none() {
                before.stat.give_back(&self.fd, Path::new(name), &at)?;
            }
        }
        Ok(())
    }
}

impl Thing {
    /// Whether it is the same still: numbers of inodes are given again.
    fn is(&self, other: &Self) -> bool {
        let of = |thing: &Self| (thing.stat.st_dev, thing.stat.st_ino, thing.stat.st_mode & libc::S_IFMT);
        of(self) == of(other) && self.target == other.target
    }

    /// Makes one like it: a device, a link, or something empty.
    fn make(&self, dir: &OwnedFd, name: &Path) -> std::result::Result<(), Errno> {
        let kind = FileType::from_raw_mode(self.stat.st_mode);
        match (kind, &self.target) {
            (_, Some(target)) => rustix::fs::symlinkat(target, dir, name),
            (FileType::Directory, _) => rustix::fs::mkdirat(dir, name, Mode::RWXU),
            _ => rustix::fs::mknodat(dir, name, kind, Mode::empty(), self.stat.st_rdev),
        }
    }
}

/// Gives a file the owner and mode that it had.
trait GiveBack {
    fn give_back(&self, dir: &OwnedFd, name: &Path, at: &Path) -> Result<()>;
}

impl GiveBack for Stat {
    fn give_back(&self, dir: &OwnedFd, name: &Path, at: &Path) -> Result<()> {
        let wrong = |call| move |errno| Error::new(call, at, errno);
        let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).map_err(wrong("stat"))?;
        if (now.st_uid, now.st_gid) != (self.st_uid, self.st_gid) {
            let (uid, gid) = (Uid::from_raw(self.st_uid), Gid::from_raw(self.st_gid));
            rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).map_err(wrong("chown"))?;
        }
        if now.st_mode != self.st_mode {
            rustix::fs::chmodat(dir, name, Mode::from_raw_mode(self.st_mode), AtFlags::empty())
                .map_err(wrong("chmod"))?;
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
        let folders = [dir.path().to_str().unwrap(), "/nonexistent"];
        let clean = SharedMounts::look(&folders).unwrap();
        fs::create_dir_all(dir.path().join("new/deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        clean.sweep().unwrap();
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
        let clean = SharedMounts::look(&[dir.path().to_str().unwrap()]).unwrap();
        let before = clean.folders[0].now().unwrap();
        fs::remove_file(at("gone")).unwrap();
        fs::remove_file(at("replaced")).unwrap();
        fs::write(at("replaced"), "what the next one reads").unwrap();
        fs::set_permissions(at("closed"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::remove_file(at("link")).unwrap();
        symlink("/elsewhere", at("link")).unwrap();
        let mode = dir.path().metadata().unwrap().permissions();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let folder = file::open_dir(dir.path()).unwrap();
        clean.sweep().unwrap();
        let after = Folder::look(dir.path(), folder).unwrap();
        assert_eq!(after.own.st_mode, mode.mode());
        assert!(at("replaced").symlink_metadata().unwrap().file_type().is_fifo());
        assert_eq!(fs::read_link(at("link")).unwrap(), Path::new("target"));
        for (name, thing) in before {
            assert_eq!(after.before[&name].stat.st_mode, thing.stat.st_mode, "{name:?}");
        }
    }
}
