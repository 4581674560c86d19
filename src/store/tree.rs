//! Folders as wholes: removing and measuring them. What is in them comes from images and processes, so it is hostile:
//! as deep as it likes, unreadable, full of links. Nothing here follows a link or leaves the folder.

use super::error::{At as _, Result};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, chmodat, openat, renameat, statat, unlinkat};
use rustix::io::Errno;
use std::ffi::CString;
use std::path::Path;

/// How deep folders are followed before the next ones are moved up: each level keeps a file open.
const DEEP: usize = 32;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file or a folder with all that is in it. That it isn't there is no error.
pub(super) fn remove(path: &Path) -> Result<()> {
    match unlinkat(CWD, path, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(other) => return Err(other).at("remove", path),
    }
    let top = open_folder(CWD, path).at("open", path)?;
    let mut moved = 0;
    empty(&top, &top, 0, &mut moved).at("empty", path)?;
    // Folders moved up are in the top one, each no deeper than before less DEEP: so this ends.
    while moved > 0 {
        moved = 0;
        empty(&top, &top, 0, &mut moved).at("empty", path)?;
    }
    unlinkat(CWD, path, AtFlags::REMOVEDIR).at("remove", path)
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

/// Removes what is in `folder`; what lies deeper than [`DEEP`] is moved into `top` and counted in `moved`.
fn empty(folder: &OwnedFd, top: &OwnedFd, depth: usize, moved: &mut u64) -> rustix::io::Result<()> {
    let mut writable = false;
    for (name, kind) in children(folder)? {
        let mut done = remove_entry(folder, &name, kind, top, depth, moved);
        if done == Err(Errno::ACCESS) && !writable {
            writable = true;
            rustix::fs::fchmod(folder, Mode::RWXU)?;
            done = remove_entry(folder, &name, kind, top, depth, moved);
        }
        done?;
    }
    Ok(())
}

fn remove_entry(
    folder: &OwnedFd,
    name: &CString,
    kind: FileType,
    top: &OwnedFd,
    depth: usize,
    moved: &mut u64,
) -> rustix::io::Result<()> {
    if kind != FileType::Directory {
        match unlinkat(folder, name, AtFlags::empty()) {
            // The file system may not say what is a folder.
            Err(Errno::ISDIR | Errno::PERM) if kind == FileType::Unknown => {}
            other => return other,
        }
    }
    if depth >= DEEP {
        *moved += 1;
        return renameat(folder, name, top, format!(".{}", super::session::random_name()));
    }
    let inner = open_folder(folder.as_fd(), name)?;
    empty(&inner, top, depth + 1, moved)?;
    unlinkat(folder, name, AtFlags::REMOVEDIR)
}

/// The bytes that a file, or a folder with all that is in it, takes on the disk. What vanishes meanwhile counts nothing.
pub(super) fn disk_usage(path: &Path) -> u64 {
    fn usage(at: BorrowedFd<'_>, name: impl rustix::path::Arg + Copy, depth: usize) -> rustix::io::Result<u64> {
        let stat = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let links = stat.st_nlink.max(1);
        let own = u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512);
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return Ok(own / links);
        }
        // Deeper levels than file descriptors may be open aren't worth an exact figure.
        if depth >= 8 * DEEP {
            return Ok(own);
        }
        let folder = openat(at, name, OPEN, Mode::empty())?;
        let inner =
            children(&folder)?.into_iter().map(|(n, _)| usage(folder.as_fd(), &n, depth + 1).unwrap_or(0)).sum::<u64>();
        Ok(own.saturating_add(inner))
    }
    usage(CWD, path, 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn removes_deep_and_locked_folders_and_no_link_target() {
        let temp = tempfile::tempdir().unwrap();
        let (doomed, kept) = (temp.path().join("doomed"), temp.path().join("kept"));
        std::fs::create_dir(&doomed).unwrap();
        std::fs::write(&kept, "x").unwrap();
        std::os::unix::fs::symlink(temp.path(), doomed.join("link")).unwrap();
        std::fs::create_dir(doomed.join("closed")).unwrap();
        std::fs::write(doomed.join("closed/file"), "x").unwrap();
        std::fs::set_permissions(doomed.join("closed"), std::fs::Permissions::from_mode(0o0)).unwrap();
        // Deeper than a path may be long, and than files may be open.
        let mut at = openat(CWD, &doomed, OPEN, Mode::empty()).unwrap();
        for _ in 0..3000 {
            rustix::fs::mkdirat(&at, "dddd", Mode::RWXU).unwrap();
            at = openat(&at, "dddd", OPEN, Mode::empty()).unwrap();
        }
        assert!(disk_usage(&doomed) > 0);
        remove(&doomed).unwrap();
        assert!(!doomed.exists() && kept.exists());
        remove(&doomed).unwrap();
        remove(&kept).unwrap();
    }
}
