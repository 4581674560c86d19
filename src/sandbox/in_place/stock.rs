//! Files and folders that are made beforehand, to be put into `/` for a process ([`names`](super::names)).

use crate::sys::{Result as Called, Said, tree, xattr};
use rustix::fs::{CWD, FileType, Mode, OFlags, Stat, openat};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

/// How many of each are at hand for one process: more names than anybody makes in `/`.
const FOLDERS: usize = 48;
const FILES: usize = 16;

/// Files and folders to be put into `/`. Their rules let every process change those that are left, too: none is given to the
/// next one that isn't as it was made.
#[derive(Debug)]
pub(super) struct Stock {
    folder: PathBuf,
    made: usize,
    folders: Vec<Item>,
    files: Vec<Item>,
    /// When the last process began, by the clock that files are dated with.
    exposed: (i64, i64),
}

/// A file or folder of the stock.
#[derive(Debug)]
struct Item {
    path: PathBuf,
    fd: OwnedFd,
    made: Stat,
}

impl Stock {
    /// An empty one in a folder of kiln's own, on the file system of `/`.
    pub(super) fn new(folder: PathBuf) -> Self {
        Self { folder, made: 0, folders: Vec::new(), files: Vec::new(), exposed: (0, 0) }
    }

    /// Removes what a process changed, and makes what is missing, for one that begins then.
    pub(super) fn fill(&mut self) -> Called<()> {
        if self.made == 0 {
            tree::remove(CWD, &self.folder)?;
            std::fs::create_dir(&self.folder).said("mkdir", &self.folder)?;
        }
        let exposed = self.exposed;
        for items in [&mut self.folders, &mut self.files] {
            let (kept, changed) = std::mem::take(items).into_iter().partition(|item| item.is_as_made(exposed));
            *items = kept;
            changed.iter().try_for_each(|item: &Item| tree::remove(CWD, &item.path))?;
        }
        while self.folders.len() < FOLDERS {
            let path = self.fresh();
            std::fs::create_dir(&path).said("mkdir", &path)?;
            self.folders.push(opened(path)?);
        }
        while self.files.len() < FILES {
            let path = self.fresh();
            std::fs::File::create_new(&path).said("create", &path)?;
            self.files.push(opened(path)?);
        }
        self.exposed = now();
        Ok(())
    }

    /// Everything in it.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.folders.iter().chain(&self.files).map(|item| item.fd.as_fd())
    }

    /// Takes a folder out: its path, and itself.
    pub(super) fn take_folder(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.folders.pop().map(|item| (item.path, item.fd))
    }

    /// Takes a file out, likewise.
    pub(super) fn take_file(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.files.pop().map(|item| (item.path, item.fd))
    }

    fn fresh(&mut self) -> PathBuf {
        self.made += 1;
        self.folder.join(self.made.to_string())
    }
}

impl Item {
    /// Whether nobody changed it since it was made. Where it was made in the tick of the clock in which the last process began,
    /// its times can't tell.
    fn is_as_made(&self, exposed: (i64, i64)) -> bool {
        let Ok(now) = rustix::fs::fstat(&self.fd) else { return false };
        let of = |s: &Stat| (s.st_mode, s.st_uid, s.st_gid, s.st_size, s.st_nlink, s.st_ctime, s.st_ctime_nsec);
        let is_older = (now.st_ctime, i64::try_from(now.st_ctime_nsec).unwrap_or(0)) < exposed;
        of(&now) == of(&self.made) && (is_older || self.is_bare(&now))
    }

    /// Whether there is nothing in it, nor any attribute at it.
    fn is_bare(&self, stat: &Stat) -> bool {
        let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let is_empty = !is_dir || std::fs::read_dir(&self.path).is_ok_and(|mut entries| entries.next().is_none());
        is_empty && xattr::list(&self.path).is_ok_and(|names| names.iter().all(|name| name == b"security.selinux"))
    }
}

fn opened(path: PathBuf) -> Called<Item> {
    let fd =
        openat(CWD, &path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).said("open", &path)?;
    let made = rustix::fs::fstat(&fd).said("fstat", &path)?;
    Ok(Item { path, fd, made })
}

/// The time, by the clock that files are dated with.
pub(super) fn now() -> (i64, i64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_refilled() {
        let dir = tempfile::tempdir().unwrap();
        let mut stock = Stock::new(dir.path().join("stock"));
        stock.fill().unwrap();
        assert_eq!(stock.all().count(), FOLDERS + FILES);
        stock.files.pop().unwrap();
        stock.fill().unwrap();
        assert_eq!(stock.all().count(), FOLDERS + FILES);
    }

    #[test]
    fn nothing_that_a_process_changed_is_given_to_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let mut stock = Stock::new(dir.path().join("stock"));
        stock.fill().unwrap();
        let inode = |item: &Item| item.made.st_ino;
        let before: Vec<_> = stock.folders.iter().chain(&stock.files).map(inode).collect();
        std::fs::write(stock.folders[3].path.join("evil"), "").unwrap();
        std::fs::write(&stock.files[1].path, "evil").unwrap();
        rustix::fs::setxattr(&stock.folders[5].path, "user.evil", b"", rustix::fs::XattrFlags::empty()).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4777);
        std::fs::set_permissions(&stock.files[2].path, mode).unwrap();
        stock.fill().unwrap();
        let after: Vec<_> = stock.folders.iter().chain(&stock.files).map(inode).collect();
        let gone: Vec<_> = (0..before.len()).filter(|at| !after.contains(&before[*at])).collect();
        assert_eq!(after.len(), before.len());
        assert!(gone.len() <= 4, "{gone:?}");
        for item in stock.folders.iter().chain(&stock.files) {
            assert!(item.is_bare(&item.made) && item.made.st_size != 4 && item.made.st_mode & 0o7000 == 0);
        }
    }
}
