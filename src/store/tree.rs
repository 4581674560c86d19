//! Folders as wholes: removing and measuring them. What is in them comes from images and processes, so it is hostile:
//! as deep as it likes, unreadable, full of links. Nothing here follows a link or leaves the folder.

use super::error::{At as _, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use std::path::Path;

/// How deep folders are measured, in levels that keep a file open each.
const DEEP: usize = 256;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes a file or a folder with all that is in it. That it isn't there is no error.
pub(super) fn remove(path: &Path) -> Result<()> {
    crate::sys::tree::remove(CWD, path).map_err(std::io::Error::from).at("remove", path)
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
        if depth >= DEEP {
            return Ok(own);
        }
        let folder = openat(at, name, OPEN, Mode::empty())?;
        let mut total = own;
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                total = total.saturating_add(usage(folder.as_fd(), entry.file_name(), depth + 1).unwrap_or(0));
            }
        }
        Ok(total)
    }
    usage(CWD, path, 0).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_deep_and_locked_folders_and_no_link_target() {
        let temp = tempfile::tempdir().unwrap();
        let (doomed, kept) = (crate::sys::tree::doomed(temp.path()), temp.path().join("kept"));
        std::fs::write(&kept, "x").unwrap();
        assert!(disk_usage(&doomed) > 0);
        remove(&doomed).unwrap();
        assert!(!doomed.exists() && kept.exists());
        remove(&doomed).unwrap();
        remove(&kept).unwrap();
    }
}
