//! Files and folders that have a rule of Landlock's before a process starts, to be renamed to where it [wants](super::root_entries)
//! new ones.
//!
//! What isn't needed is there for the next process, of this kiln or another one: they run one at a time. A rule is for a file
//! wherever that is, so a process that looks for the stock can write to what is in it. What anybody changed is thrown away before
//! the next one: else it would find in a new folder of its own what another stage, or another build, has put there.

use crate::sys::{Result, Said, file, tree, xattr};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, statx};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// How many of each are at hand for one process: more names than anybody makes in `/`.
const FOLDERS: usize = 48;
const FILES: usize = 16;

/// Files and folders to be put into `/`.
#[derive(Debug)]
pub(super) struct InodePool {
    folders: Shelf,
    files: Shelf,
}

impl InodePool {
    /// In a folder of kiln's own, on the file system of `/`, that processes can't reach. Nothing is made yet.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let mut series = [0; 8];
        rustix::rand::getrandom(&mut series, rustix::rand::GetRandomFlags::empty()).call("getrandom")?;
        let shelf = |name| Shelf::new(folder.join(name), u64::from_ne_bytes(series));
        Ok(Self { folders: shelf("folders"), files: shelf("files") })
    }

    /// Takes in what is there and as it was made, and makes what is missing. Nobody else may use the folder until the process has
    /// ended, and none may be running.
    pub(super) fn fill(&mut self) -> Result<()> {
        self.folders.fill(FOLDERS, |path| std::fs::create_dir(path))?;
        self.files.fill(FILES, |path| std::fs::File::create_new(path).map(drop))
    }

    /// Everything in it.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.folders.things.iter().chain(&self.files.things).map(|thing| thing.fd.as_fd())
    }

    /// Takes an empty folder out.
    pub(super) fn folder(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.folders.take()
    }

    /// Takes an empty file out.
    pub(super) fn file(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.files.take()
    }
}

/// Things of one kind, by the names that they have in a folder.
#[derive(Debug)]
struct Shelf {
    folder: PathBuf,
    things: Vec<Thing>,
    /// When it was filled last: what changed before then is known.
    filled: Time,
    /// What the names of those begin with that are made here, and how many were.
    series: u64,
    made: u64,
}

/// Something that is as it was made.
#[derive(Debug)]
struct Thing {
    name: OsString,
    fd: OwnedFd,
    /// When its inode changed last, which nobody can set.
    changed: Time,
}

/// Seconds and nanoseconds, by the clock that files are dated with.
type Time = (i64, i64);

impl Shelf {
    fn new(folder: PathBuf, series: u64) -> Self {
        Self { folder, things: Vec::new(), filled: (0, 0), series, made: 0 }
    }

    fn fill(&mut self, wanted: usize, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
        let mut there = self.there()?;
        let filled = self.filled;
        // Another kiln may have used them.
        self.things.retain(|thing| thing.is_as_it_was(filled) && there.remove(&thing.name));
        for name in there {
            let path = self.folder.join(&name);
            match Thing::open(&path, name)? {
                Some(thing) => self.things.push(thing),
                None => tree::remove(CWD, &path)?,
            }
        }
        while self.things.len() < wanted {
            self.made += 1;
            // Nothing ever gets a name that something had: another kiln may still know that by it.
            let name = OsString::from(format!("{:016x}-{}", self.series, self.made));
            let path = self.folder.join(&name);
            make(&path).said("create", &path)?;
            self.things.extend(Thing::open(&path, name)?);
        }
        self.filled = file::clock();
        Ok(())
    }

    /// The names in the folder, which is made.
    fn there(&self) -> Result<BTreeSet<OsString>> {
        let folder = &self.folder;
        let entries = match std::fs::read_dir(folder) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(folder).said("mkdir", folder)?;
                return Ok(BTreeSet::new());
            }
            entries => entries.said("read", folder)?,
        };
        entries.map(|entry| Ok(entry.said("read", folder)?.file_name())).collect()
    }

    fn take(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.things.pop().map(|thing| (self.folder.join(thing.name), thing.fd))
    }
}

impl Thing {
    /// What has a name, if it is empty and nobody's but kiln's.
    fn open(path: &Path, name: OsString) -> Result<Option<Self>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, path, flags, Mode::empty()).said("open", path)?;
        let stat = look(fd.as_fd()).said("statx", path)?;
        let thing = Self { name, fd, changed: changed(&stat) };
        Ok(if thing.is_pristine(&stat) { Some(thing) } else { None })
    }

    /// Whether nothing was done to it. What changed within the tick of the clock in which the stock was filled may have done so
    /// before or after.
    fn is_as_it_was(&self, filled: Time) -> bool {
        look(self.fd.as_fd())
            .is_ok_and(|stat| changed(&stat) == self.changed && (self.changed < filled || self.is_pristine(&stat)))
    }

    fn is_pristine(&self, stat: &Statx) -> bool {
        let is_dir = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
        let path = file::by_number(&self.fd);
        let is_empty = match is_dir {
            true => std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()),
            false => stat.stx_size == 0 && stat.stx_nlink == 1,
        };
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let is_own = (stat.stx_uid, stat.stx_gid) == own && stat.stx_mode & 0o7022 == 0;
        is_empty && is_own && has_no_attributes(&path)
    }
}

/// Whether a file has no extended attributes but what a security module or an overlay gave it.
fn has_no_attributes(path: &Path) -> bool {
    let is_theirs = |name: &Vec<u8>| name == b"security.selinux" || name.starts_with(b"trusted.overlay.");
    xattr::list_followed(path).is_ok_and(|names| names.iter().all(is_theirs))
}

fn look(fd: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

fn changed(stat: &Statx) -> Time {
    (stat.stx_ctime.tv_sec, i64::from(stat.stx_ctime.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_refilled() {
        let dir = tempfile::tempdir().unwrap();
        let mut stock = InodePool::new(dir.path()).unwrap();
        stock.fill().unwrap();
        assert_eq!(stock.all().count(), FOLDERS + FILES);
        let (path, _) = stock.file().unwrap();
        std::fs::remove_file(path).unwrap();
        let (path, _) = stock.folder().unwrap();
        std::fs::rename(path, dir.path().join("taken")).unwrap();
        stock.fill().unwrap();
        assert_eq!(stock.all().count(), FOLDERS + FILES);
    }

    #[test]
    fn what_was_changed_is_thrown_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut stock = InodePool::new(dir.path()).unwrap();
        stock.fill().unwrap();
        let list = |shelf: &str| {
            let entries = std::fs::read_dir(dir.path().join(shelf)).unwrap();
            let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let (folders, files) = (list("folders"), list("files"));
        std::fs::create_dir_all(folders[0].join("deep/er")).unwrap();
        std::fs::set_permissions(&folders[1], std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&files[0], "planted").unwrap();
        let _ = rustix::fs::setxattr(&files[1], "user.kiln", b"x", rustix::fs::XattrFlags::empty());
        std::fs::set_permissions(&files[2], std::fs::Permissions::from_mode(0o4755)).unwrap();
        // By the kiln that made them, and by one that finds them.
        for mut stock in [stock, InodePool::new(dir.path()).unwrap()] {
            stock.fill().unwrap();
            assert_eq!(stock.all().count(), FOLDERS + FILES);
            let (new_folders, new_files) = (list("folders"), list("files"));
            assert!(!folders[..2].iter().any(|f| new_folders.contains(f)), "{new_folders:?}");
            assert!(!new_files.contains(&files[0]) && !new_files.contains(&files[2]), "{new_files:?}");
            assert!(new_folders.contains(&folders[2]) && new_files.contains(&files[3]));
        }
    }

    #[test]
    fn two_kilns_share_a_stock() {
        let dir = tempfile::tempdir().unwrap();
        let mut stocks = [InodePool::new(dir.path()).unwrap(), InodePool::new(dir.path()).unwrap()];
        for (round, who) in [0, 1, 1, 0, 0, 1].into_iter().enumerate() {
            let stock = &mut stocks[who];
            stock.fill().unwrap();
            assert_eq!(stock.all().count(), FOLDERS + FILES);
            for taken in [stock.file(), stock.folder()] {
                let (path, fd) = taken.unwrap();
                let renamed = dir.path().join(format!("{round}-{}", path.is_dir()));
                std::fs::rename(&path, &renamed).unwrap();
                let inode = |stat: rustix::fs::Stat| stat.st_ino;
                let (held, there) = (rustix::fs::fstat(&fd).unwrap(), rustix::fs::stat(&renamed).unwrap());
                assert_eq!(inode(held), inode(there));
            }
        }
    }
}
