//! A pool of files and directories that are made in advance, and so have a Landlock rule before a process starts.
//! [`root_entries`](super::root_entries) renames them to where the process wants new ones.
//!
//! Inodes that a RUN does not need remain for the next one, of this kiln or another: RUNs execute one at a time. A rule belongs to
//! an inode wherever that is, so a process that finds the pool can write to what is in it. Everything that was changed is thrown
//! away before the next RUN: otherwise that would find in a new directory what another stage, or another build, has put there.

use crate::sys::{Result, Said, file, tree, xattr};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Statx, StatxFlags, openat, statx};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// The number of directories and files for one RUN. Rules cannot be added while it executes, so this is how many names it can make.
const DIRECTORIES: usize = 1280;
const FILES: usize = 1280;

/// The files and directories for one split directory.
#[derive(Debug)]
pub(super) struct InodePool {
    directories: Inodes,
    files: Inodes,
}

impl InodePool {
    /// A pool in a directory of kiln's own, on the file system of the split directory, that processes cannot reach. Nothing is
    /// made yet.
    pub(super) fn new(path: &Path) -> Result<Self> {
        let mut series = [0; 8];
        rustix::rand::getrandom(&mut series, rustix::rand::GetRandomFlags::empty()).call("getrandom")?;
        let inodes = |name| Inodes::new(path.join(name), u64::from_ne_bytes(series));
        Ok(Self { directories: inodes("directories"), files: inodes("files") })
    }

    /// Takes over the inodes that are there and unchanged, and makes those that are missing. Nobody else may use the pool until the
    /// RUN has ended, and no process may be running.
    pub(super) fn fill(&mut self) -> Result<()> {
        self.directories.fill(DIRECTORIES, |path| std::fs::create_dir(path))?;
        self.files.fill(FILES, |path| std::fs::File::create_new(path).map(drop))
    }

    /// Opens every inode of the pool, one after the other: there are more than a process may have open.
    pub(super) fn all(&self) -> impl Iterator<Item = Result<OwnedFd>> {
        [&self.directories, &self.files].into_iter().flat_map(Inodes::all)
    }

    /// Takes an empty directory out.
    pub(super) fn take_directory(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.directories.take()
    }

    /// Takes an empty file out.
    pub(super) fn take_file(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.files.take()
    }
}

/// The inodes of one kind.
#[derive(Debug)]
struct Inodes {
    /// The directory that they lie in.
    path: PathBuf,
    ready: Vec<PooledInode>,
    /// When the pool was filled last.
    filled: Time,
    /// The beginning of the names of those that are made here, and how many were made.
    series: u64,
    made: u64,
}

/// An inode that nobody has changed since it was made.
#[derive(Debug)]
struct PooledInode {
    name: OsString,
    number: u64,
    /// Its `ctime`, which no process can set.
    changed: Time,
}

/// Seconds and nanoseconds, by the clock of file timestamps.
type Time = (i64, i64);

impl Inodes {
    fn new(path: PathBuf, series: u64) -> Self {
        Self { path, ready: Vec::new(), filled: (0, 0), series, made: 0 }
    }

    fn fill(&mut self, wanted: usize, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
        let mut present = self.names()?;
        let filled = self.filled;
        // Another kiln may have used them.
        let dir = self.open()?;
        self.ready.retain(|inode| inode.is_unchanged(&dir, filled) && present.remove(&inode.name));
        for name in present {
            let path = self.path.join(&name);
            match PooledInode::open(&path, name)? {
                Some(inode) => self.ready.push(inode),
                None => tree::remove(CWD, &path)?,
            }
        }
        while self.ready.len() < wanted {
            self.made += 1;
            // A name is never used twice: another kiln may still know it.
            let name = OsString::from(format!("{:016x}-{}", self.series, self.made));
            let path = self.path.join(&name);
            make(&path).said("create", &path)?;
            self.ready.extend(PooledInode::open(&path, name)?);
        }
        self.filled = file::clock();
        Ok(())
    }

    /// The names in the directory, which is made if it is absent.
    fn names(&self) -> Result<BTreeSet<OsString>> {
        let path = &self.path;
        let entries = match std::fs::read_dir(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                std::fs::create_dir_all(path).said("mkdir", path)?;
                return Ok(BTreeSet::new());
            }
            entries => entries.said("read", path)?,
        };
        entries.map(|entry| Ok(entry.said("read", path)?.file_name())).collect()
    }

    fn open(&self) -> Result<OwnedFd> {
        file::open_dir(&self.path)
    }

    fn all(&self) -> impl Iterator<Item = Result<OwnedFd>> {
        self.ready.iter().map(|inode| open(&self.path.join(&inode.name)))
    }

    fn take(&mut self) -> Option<(PathBuf, OwnedFd)> {
        let path = self.path.join(self.ready.pop()?.name);
        open(&path).ok().map(|fd| (path, fd))
    }
}

const PATH: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

fn open(path: &Path) -> Result<OwnedFd> {
    openat(CWD, path, PATH, Mode::empty()).said("open", path)
}

impl PooledInode {
    /// The inode with a name, if it is empty and belongs to kiln alone.
    fn open(path: &Path, name: OsString) -> Result<Option<Self>> {
        let fd = open(path)?;
        let stat = status(fd.as_fd()).said("statx", path)?;
        let inode = Self { name, number: stat.stx_ino, changed: changed(&stat) };
        Ok(if is_pristine(&fd, &stat) { Some(inode) } else { None })
    }

    /// Whether nothing was done to it. If it changed within the tick of the clock in which the pool was filled, that may have
    /// happened before or after.
    fn is_unchanged(&self, dir: &OwnedFd, filled: Time) -> bool {
        let stat = statx(dir, &self.name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::BASIC_STATS);
        stat.is_ok_and(|stat| {
            let is_same = stat.stx_ino == self.number && changed(&stat) == self.changed;
            let is_pristine = || openat(dir, &self.name, PATH, Mode::empty()).is_ok_and(|fd| is_pristine(&fd, &stat));
            is_same && (self.changed < filled || is_pristine())
        })
    }
}

/// Whether an open inode is as it was made: empty, and kiln's own.
fn is_pristine(fd: &OwnedFd, stat: &Statx) -> bool {
    let is_dir = u32::from(stat.stx_mode) & libc::S_IFMT == libc::S_IFDIR;
    let path = file::by_number(fd);
    let is_empty = match is_dir {
        true => std::fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_none()),
        false => stat.stx_size == 0 && stat.stx_nlink == 1,
    };
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    let is_own = (stat.stx_uid, stat.stx_gid) == own && stat.stx_mode & 0o7022 == 0;
    is_empty && is_own && has_no_attributes(&path)
}

/// Whether a file has no extended attributes except those of a security module or an overlay.
fn has_no_attributes(path: &Path) -> bool {
    let is_theirs = |name: &Vec<u8>| name == b"security.selinux" || name.starts_with(b"trusted.overlay.");
    xattr::list_followed(path).is_ok_and(|names| names.iter().all(is_theirs))
}

fn status(fd: BorrowedFd<'_>) -> rustix::io::Result<Statx> {
    statx(fd, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)
}

fn changed(stat: &Statx) -> Time {
    (stat.stx_ctime.tv_sec, i64::from(stat.stx_ctime.tv_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pool_is_refilled() {
        let dir = tempfile::tempdir().unwrap();
        let mut pool = InodePool::new(dir.path()).unwrap();
        pool.fill().unwrap();
        assert_eq!(pool.all().count(), DIRECTORIES + FILES);
        let (path, _) = pool.take_file().unwrap();
        std::fs::remove_file(path).unwrap();
        let (path, _) = pool.take_directory().unwrap();
        std::fs::rename(path, dir.path().join("taken")).unwrap();
        pool.fill().unwrap();
        assert_eq!(pool.all().count(), DIRECTORIES + FILES);
    }

    #[test]
    fn what_was_changed_is_thrown_away() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let mut pool = InodePool::new(dir.path()).unwrap();
        pool.fill().unwrap();
        let list = |shelf: &str| {
            let entries = std::fs::read_dir(dir.path().join(shelf)).unwrap();
            let mut paths: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
            paths.sort();
            paths
        };
        let (folders, files) = (list("directories"), list("files"));
        std::fs::create_dir_all(folders[0].join("deep/er")).unwrap();
        std::fs::set_permissions(&folders[1], std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::write(&files[0], "planted").unwrap();
        let _ = rustix::fs::setxattr(&files[1], "user.kiln", b"x", rustix::fs::XattrFlags::empty());
        std::fs::set_permissions(&files[2], std::fs::Permissions::from_mode(0o4755)).unwrap();
        // By the kiln that made them, and by one that finds them.
        for mut pool in [pool, InodePool::new(dir.path()).unwrap()] {
            pool.fill().unwrap();
            assert_eq!(pool.all().count(), DIRECTORIES + FILES);
            let (new_folders, new_files) = (list("directories"), list("files"));
            assert!(!folders[..2].iter().any(|f| new_folders.contains(f)), "{new_folders:?}");
            assert!(!new_files.contains(&files[0]) && !new_files.contains(&files[2]), "{new_files:?}");
            assert!(new_folders.contains(&folders[2]) && new_files.contains(&files[3]));
        }
    }

    #[test]
    fn two_kilns_share_a_pool() {
        let dir = tempfile::tempdir().unwrap();
        let mut pools = [InodePool::new(dir.path()).unwrap(), InodePool::new(dir.path()).unwrap()];
        for (round, who) in [0, 1, 1, 0, 0, 1].into_iter().enumerate() {
            let pool = &mut pools[who];
            pool.fill().unwrap();
            assert_eq!(pool.all().count(), DIRECTORIES + FILES);
            for taken in [pool.take_file(), pool.take_directory()] {
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
