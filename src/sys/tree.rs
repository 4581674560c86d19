//! Removing folders as wholes. What is in them comes from images and processes, so it is hostile: as deep as it likes,
//! unreadable, full of links. Nothing here follows a link or leaves the folder, and no depth takes more memory or open files.

use super::{Result, Said};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, chmodat, openat, renameat_with, unlinkat};
use rustix::io::Errno;
use std::ffi::{CString, OsStr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// How deep folders are followed before the next ones are moved up: each level keeps a file open.
const DEEP: usize = 32;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes the file or the folder `name` of a folder, with all that is in it. That it isn't there is no error.
///
/// # Errors
/// As `unlink(2)` and `open(2)`, of whatever couldn't be removed.
pub fn remove(at: impl AsFd, name: &Path) -> Result<()> {
    remove_counting(at, name).map(drop)
}

/// The same, and how many files and folders that were.
///
/// # Errors
/// As [`remove`].
pub fn remove_counting(at: impl AsFd, name: &Path) -> Result<u64> {
    let at = at.as_fd();
    match unlinkat(at, name, AtFlags::empty()) {
        Ok(()) => return Ok(1),
        Err(Errno::NOENT) => return Ok(0),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(other) => return Err(other).said("unlink", name),
    }
    let mut top = Top { fd: open_folder(at, name).said("open", name)?, moved: 0, removed: 0 };
    // Folders moved up are in the top one, each no deeper than before less DEEP: so this ends.
    loop {
        let before = top.moved;
        top.empty_all().said("unlink", name)?;
        if top.moved == before {
            break;
        }
    }
    unlinkat(at, name, AtFlags::REMOVEDIR).said("rmdir", name)?;
    Ok(top.removed + 1)
}

/// Opens a folder, given back its owner's rights where they were taken.
fn open_folder(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy) -> rustix::io::Result<OwnedFd> {
    match openat(at, name, OPEN, Mode::empty()) {
        Err(Errno::ACCESS) => {
            chmodat(at, name, Mode::RWXU, AtFlags::empty())?;
            openat(at, name, OPEN, Mode::empty())
        }
        other => other,
    }
}

/// The names in a folder and what they are, but for `.` and `..`.
fn children(folder: &OwnedFd) -> rustix::io::Result<Vec<(CString, FileType)>> {
    let mut found = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            found.push((entry.file_name().to_owned(), entry.file_type()));
        }
    }
    Ok(found)
}

/// The folder that is removed.
struct Top {
    fd: OwnedFd,
    /// How many folders were moved up to it.
    moved: u64,
    /// How many files and folders in it are gone.
    removed: u64,
}

impl Top {
    fn empty_all(&mut self) -> rustix::io::Result<()> {
        let fd = rustix::io::dup(&self.fd)?;
        self.empty(&fd, 0)
    }

    /// Removes what is in `folder`; what lies deeper than [`DEEP`] is moved up.
    fn empty(&mut self, folder: &OwnedFd, depth: usize) -> rustix::io::Result<()> {
        let mut writable = false;
        for (name, kind) in children(folder)? {
            let mut done = self.remove(folder, &name, kind, depth);
            if done == Err(Errno::ACCESS) && !writable {
                writable = true;
                rustix::fs::fchmod(folder, Mode::RWXU)?;
                done = self.remove(folder, &name, kind, depth);
            }
            done?;
        }
        Ok(())
    }

    fn remove(&mut self, folder: &OwnedFd, name: &CString, kind: FileType, depth: usize) -> rustix::io::Result<()> {
        if kind != FileType::Directory {
            match unlinkat(folder, name, AtFlags::empty()) {
                // The file system may not say what is a folder.
                Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
                done => return done.inspect(|()| self.removed += 1),
            }
        }
        if depth >= DEEP {
            return self.move_up(folder, name);
        }
        let inner = open_folder(folder.as_fd(), name)?;
        self.empty(&inner, depth + 1)?;
        unlinkat(folder, name, AtFlags::REMOVEDIR).inspect(|()| self.removed += 1)
    }

    /// Moves a folder to the top, under a name that nothing has there.
    fn move_up(&mut self, folder: &OwnedFd, name: &CString) -> rustix::io::Result<()> {
        loop {
            self.moved += 1;
            let new = format!(".moved-{}", self.moved);
            match renameat_with(folder, name, &self.fd, OsStr::from_bytes(new.as_bytes()), RenameFlags::NOREPLACE) {
                Err(Errno::EXIST) => {}
                other => return other,
            }
        }
    }
}

/// A folder `doomed` in `temp` to be removed: deeper than a path may be long, and than files may be open, with a folder that is
/// closed, and a link out of it.
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "for tests")]
pub(crate) fn doomed(temp: &Path) -> std::path::PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let doomed = temp.join("doomed");
    std::fs::create_dir(&doomed).unwrap();
    std::os::unix::fs::symlink(temp, doomed.join("link")).unwrap();
    std::fs::create_dir(doomed.join("closed")).unwrap();
    std::fs::write(doomed.join("closed/file"), "x").unwrap();
    std::fs::set_permissions(doomed.join("closed"), std::fs::Permissions::from_mode(0o0)).unwrap();
    let mut at = openat(rustix::fs::CWD, &doomed, OPEN, Mode::empty()).unwrap();
    for _ in 0..3000 {
        rustix::fs::mkdirat(&at, "dddd", Mode::RWXU).unwrap();
        at = openat(&at, "dddd", OPEN, Mode::empty()).unwrap();
    }
    doomed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_and_locked_folders_go_and_no_link_target() {
        let temp = tempfile::tempdir().unwrap();
        let (doomed, kept) = (doomed(temp.path()), temp.path().join("kept"));
        std::fs::write(&kept, "x").unwrap();
        let removed = remove_counting(rustix::fs::CWD, &doomed).unwrap();
        // 3000 folders in each other; the link, the closed folder and its file; the folder itself.
        assert_eq!(removed, 3000 + 3 + 1);
        assert!(!doomed.exists() && kept.exists());
        assert_eq!(remove_counting(rustix::fs::CWD, &doomed).unwrap(), 0);
        assert_eq!(remove_counting(rustix::fs::CWD, &kept).unwrap(), 1);
    }
}
