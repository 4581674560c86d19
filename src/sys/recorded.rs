//! What files are meant to be, where whoever makes them can't make them so: their owner, and that they are devices.
//!
//! In a user namespace with a single number every file belongs to that, and no device can be made. What was meant goes with
//! the file: for regular files (which stand for devices, too) and folders in the attribute `user.kiln.owner`, so that it
//! moves with them and is copied with them by overlayfs. Links, pipes and sockets can't have such attributes. They are
//! known by their inode's number and time of birth, in a file `owners` beside the layer's folder: a number alone may be
//! another file's the moment after.

use super::file::by_number;
use super::{Error, Result, Said, xattr};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, StatxFlags, Uid, chownat, openat, statx};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

/// What begins the names of attributes that are kiln's own, and in no layer.
pub const PREFIX: &[u8] = b"user.kiln.";
const ATTRIBUTE: &str = "user.kiln.owner";
/// More would be somebody's attempt to fill the memory.
const MOST: usize = 1 << 20;

/// What a file is meant to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Its owner.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// The device that it stands for.
    pub device: Option<Device>,
}

/// A device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Device {
    /// Whether it is a block device.
    pub block: bool,
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl Recorded {
    /// As the attribute has it: `UID GID`, with `b MAJOR MINOR` or `c MAJOR MINOR` for a device.
    fn text(&self) -> String {
        let mut text = format!("{} {}", self.uid, self.gid);
        if let Some(Device { block, major, minor }) = self.device {
            // Writing to a string can't fail.
            let _ = write!(text, " {} {major} {minor}", if block { 'b' } else { 'c' });
        }
        text
    }

    /// `None` for what [`text`](Self::text) doesn't write: somebody else's.
    fn parse(text: &[u8]) -> Option<Self> {
        let fields: Vec<&str> = std::str::from_utf8(text).ok()?.split(' ').collect();
        let (owner, device) = match fields.as_slice() {
            [uid, gid] => ((uid, gid), None),
            [uid, gid, kind @ ("b" | "c"), major, minor] => {
                let device = Device { block: *kind == "b", major: major.parse().ok()?, minor: minor.parse().ok()? };
                ((uid, gid), Some(device))
            }
            _ => return None,
        };
        Some(Self { uid: owner.0.parse().ok()?, gid: owner.1.parse().ok()?, device })
    }

    /// Whether there is nothing to record.
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }
}

/// What tells a file from all others of a file system, those before and after it included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    inode: u64,
    /// Seconds and nanoseconds; 0 where the file system doesn't know.
    born: (i64, u32),
}

/// What is recorded of files: by their attributes, and of the others in here.
#[derive(Debug, Clone, Default)]
pub struct Records {
    /// Of layers that are there already.
    read: HashMap<Identity, (u32, u32)>,
    /// Since then.
    put: HashMap<Identity, (u32, u32)>,
}

impl Records {
    /// Adds what was recorded beside the layer whose files are in `files`, if anything was.
    ///
    /// # Errors
    /// If it can't be read.
    pub fn read(&mut self, files: &Path) -> Result<()> {
        let path = place(files);
        let text = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            text => text.said("read", &path)?,
        };
        for line in text.lines() {
            let numbers: Option<Vec<u64>> = line.split(' ').map(|n| n.parse().ok()).collect();
            let Some([inode, secs, nanos, uid, gid]) = numbers.as_deref() else {
                return Err(Error::new("read", path, Errno::INVAL));
            };
            let born = (secs.cast_signed(), *nanos as u32);
            self.read.insert(Identity { inode: *inode, born }, (*uid as u32, *gid as u32));
        }
        Ok(())
    }

    /// Writes what was [put](Self::put) in here beside a layer; nothing where there is nothing.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, files: &Path) -> Result<()> {
        if self.put.is_empty() { Ok(()) } else { write(files, self.put.iter().collect()) }
    }

    /// Writes everything in here beside a root filesystem that is one folder and not a layer upon others.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write_all(&self, files: &Path) -> Result<()> {
        if self.put.is_empty() {
            return Ok(());
        }
        let below = self.read.iter().filter(|(identity, _)| !self.put.contains_key(identity));
        write(files, below.chain(&self.put).collect())
    }

    /// Whether anything was recorded of links and pipes that may be gone by now: one that is made within the same tick of the
    /// file system's clock can get the number, and the time of birth, of one that was removed, so that whoever makes one
    /// puts down what it is.
    pub fn is_any_put(&self) -> bool {
        !self.put.is_empty()
    }

    /// What is recorded of an open file (an `O_PATH` descriptor will do).
    ///
    /// # Errors
    /// As `statx(2)` and `getxattr(2)`.
    pub fn get(&self, file: impl AsFd) -> std::result::Result<Option<Recorded>, Errno> {
        let file = file.as_fd();
        match xattr::get_followed(&by_number(file), OsStr::new(ATTRIBUTE)) {
            Ok(Some(text)) => return Ok(Recorded::parse(&text)),
            // Those of procfs may be seen by nobody.
            Ok(None) | Err(Errno::PERM | Errno::ACCESS) => {}
            Err(errno) => return Err(errno),
        }
        if self.put.is_empty() && self.read.is_empty() {
            return Ok(None);
        }
        let (identity, _) = identity(file)?;
        Ok(self.put.get(&identity).or_else(|| self.read.get(&identity)).map(|(uid, gid)| Recorded {
            uid: *uid,
            gid: *gid,
            device: None,
        }))
    }

    /// Records something of an open file.
    ///
    /// # Errors
    /// As `statx(2)` and `setxattr(2)`; `ENOSPC` where too much is recorded.
    pub fn put(&mut self, file: impl AsFd, meant: Recorded) -> std::result::Result<(), Errno> {
        let file = file.as_fd();
        let (identity, kind) = identity(file)?;
        if matches!(kind, FileType::RegularFile | FileType::Directory) {
            let (path, name) = (by_number(file), OsStr::new(ATTRIBUTE));
            let done = match meant.is_plain() {
                true => xattr::remove_followed(&path, name),
                false => xattr::set_followed(&path, name, meant.text().as_bytes()),
            };
            // File systems without attributes, such as that of pipes.
            if done != Err(Errno::OPNOTSUPP) {
                return done;
            }
        }
        match (meant.uid, meant.gid) {
            (0, 0) if !self.read.contains_key(&identity) => drop(self.put.remove(&identity)),
            _ if self.put.len() >= MOST => return Err(Errno::NOSPC),
            owner => drop(self.put.insert(identity, owner)),
        }
        Ok(())
    }
}

/// Gives a file or folder an owner and a group (the largest number leaves either), or records that it is meant to have them
/// where there is a single number. Of links, pipes and sockets nothing is recorded.
///
/// # Errors
/// If it can't be opened, given or recorded.
pub fn give(path: &Path, uid: u32, gid: u32) -> Result<()> {
    let given = |id: u32| (id != u32::MAX).then_some(id);
    if !super::userns::is_single()? {
        let (uid, gid) = (given(uid).map(Uid::from_raw), given(gid).map(Gid::from_raw));
        return chownat(CWD, path, uid, gid, AtFlags::SYMLINK_NOFOLLOW).said("chown", path);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(CWD, path, flags, Mode::empty()).said("open", path)?;
    let mut records = Records::default();
    let before = records.get(&file).said("getxattr", path)?.unwrap_or_default();
    let (uid, gid) = (given(uid).unwrap_or(before.uid), given(gid).unwrap_or(before.gid));
    records.put(&file, Recorded { uid, gid, ..before }).said("setxattr", path)
}

/// Writes what is recorded of files, a line each, beside the folder that they are in.
fn write(files: &Path, mut all: Vec<(&Identity, &(u32, u32))>) -> Result<()> {
    all.sort_unstable();
    let mut text = String::new();
    for (Identity { inode, born: (secs, nanos) }, (uid, gid)) in all {
        // Writing to a string can't fail.
        let _ = writeln!(text, "{inode} {} {nanos} {uid} {gid}", secs.cast_unsigned());
    }
    let path = place(files);
    std::fs::write(&path, text).said("write", &path)
}

fn place(files: &Path) -> PathBuf {
    files.with_file_name("owners")
}

/// What tells an open file from others, and its kind.
///
/// # Errors
/// As `statx(2)`.
pub fn identity(file: impl AsFd) -> std::result::Result<(Identity, FileType), Errno> {
    let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
    let stat = statx(file, "", AtFlags::EMPTY_PATH, wanted)?;
    let born = match stat.stx_mask & StatxFlags::BTIME.bits() {
        0 => (0, 0),
        _ => (stat.stx_btime.tv_sec, stat.stx_btime.tv_nsec),
    };
    Ok((Identity { inode: stat.stx_ino, born }, FileType::from_raw_mode(stat.stx_mode.into())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::OwnedFd;

    fn path_only(path: &Path) -> OwnedFd {
        openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).unwrap()
    }

    #[test]
    fn texts_are_read_as_they_are_written() {
        let device = Device { block: true, major: 8, minor: 1 };
        for (recorded, text) in [
            (Recorded { uid: 1, gid: u32::MAX, device: None }, "1 4294967295"),
            (Recorded { uid: 0, gid: 6, device: Some(device) }, "0 6 b 8 1"),
            (Recorded { uid: 0, gid: 0, device: Some(Device { block: false, ..device }) }, "0 0 c 8 1"),
        ] {
            assert_eq!(recorded.text(), text);
            assert_eq!(Recorded::parse(text.as_bytes()), Some(recorded));
        }
        for text in ["", "1", "1 2 3", "1 2 x 3 4", "a b", "-1 0", "1 2 b 3", "4294967296 0", "\u{e9}"] {
            assert_eq!(Recorded::parse(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn files_and_links_keep_what_is_recorded_until_they_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let layer = dir.path().join("fs");
        std::fs::create_dir(&layer).unwrap();
        let (file, link) = (layer.join("f"), layer.join("l"));
        std::fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink("f", &link).unwrap();
        let meant = Recorded { uid: 5, gid: 6, device: None };
        let mut records = Records::default();
        for path in [&file, &layer, &link] {
            assert_eq!(records.get(path_only(path)).unwrap(), None);
            records.put(path_only(path), meant).unwrap();
            assert_eq!(records.get(path_only(path)).unwrap(), Some(meant), "{}", path.display());
        }
        records.write(&layer).unwrap();
        let mut read = Records::default();
        read.read(&layer).unwrap();
        std::fs::rename(&link, layer.join("m")).unwrap();
        assert_eq!(read.get(path_only(&layer.join("m"))).unwrap(), Some(meant), "renamed");
        assert!(records.is_any_put() && !read.is_any_put());
        records.put(path_only(&file), Recorded::default()).unwrap();
        assert_eq!(records.get(path_only(&file)).unwrap(), None);
    }
}
