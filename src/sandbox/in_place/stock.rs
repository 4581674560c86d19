//! Files and folders that have a rule of Landlock's before a process starts, to be renamed to where it [wants](super::names)
//! new ones.
//!
//! What isn't needed is there for the next process, of this kiln or another one: they run one at a time.

use crate::sys::{Result, Said};
use rustix::fs::{CWD, Mode, OFlags, openat};
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
pub(super) struct Stock {
    folders: Shelf,
    files: Shelf,
}

impl Stock {
    /// In a folder of kiln's own, on the file system of `/`, that processes can't reach. Nothing is made yet.
    pub(super) fn new(folder: &Path) -> Result<Self> {
        let mut series = [0; 8];
        rustix::rand::getrandom(&mut series, rustix::rand::GetRandomFlags::empty()).call("getrandom")?;
        let shelf = |name| Shelf::new(folder.join(name), u64::from_ne_bytes(series));
        Ok(Self { folders: shelf("folders"), files: shelf("files") })
    }

    /// Takes in what is there, and makes what is missing. Nobody else may use the folder until the process has ended.
    pub(super) fn fill(&mut self) -> Result<()> {
        self.folders.fill(FOLDERS, |path| std::fs::create_dir(path))?;
        self.files.fill(FILES, |path| std::fs::File::create_new(path).map(drop))
    }

    /// Everything in it.
    pub(super) fn all(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.folders.things.iter().chain(&self.files.things).map(|(_, fd)| fd.as_fd())
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
    things: Vec<(OsString, OwnedFd)>,
    /// What the names of those begin with that are made here, and how many were.
    series: u64,
    made: u64,
}

impl Shelf {
    fn new(folder: PathBuf, series: u64) -> Self {
        Self { folder, things: Vec::new(), series, made: 0 }
    }

    fn fill(&mut self, wanted: usize, make: impl Fn(&Path) -> std::io::Result<()>) -> Result<()> {
        let mut there = self.there()?;
        // Another kiln may have used them.
        self.things.retain(|(name, _)| there.remove(name));
        for name in there {
            self.add(name)?;
        }
        while self.things.len() < wanted {
            self.made += 1;
            // Nothing ever gets a name that something had: another kiln may still know that by it.
            let name = OsString::from(format!("{:016x}-{}", self.series, self.made));
            let path = self.folder.join(&name);
            make(&path).said("create", &path)?;
            self.add(name)?;
        }
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

    fn add(&mut self, name: OsString) -> Result<()> {
        let path = self.folder.join(&name);
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(CWD, &path, flags, Mode::empty()).said("open", &path)?;
        self.things.push((name, fd));
        Ok(())
    }

    fn take(&mut self) -> Option<(PathBuf, OwnedFd)> {
        self.things.pop().map(|(name, fd)| (self.folder.join(name), fd))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stock_is_refilled() {
        let dir = tempfile::tempdir().unwrap();
        let mut stock = Stock::new(dir.path()).unwrap();
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
    fn two_kilns_share_a_stock() {
        let dir = tempfile::tempdir().unwrap();
        let mut stocks = [Stock::new(dir.path()).unwrap(), Stock::new(dir.path()).unwrap()];
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
