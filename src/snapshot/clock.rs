//! The clock that files are dated with.

use crate::sys::file;
use rustix::fs::{Mode, OFlags, fchmod, fstat, open};
use rustix::io::Errno;
use std::path::Path;

/// More tries than are needed to be done between two ticks.
const TRIES: usize = 20;

/// Whether a change to a file that somebody looked at gets another time than it has, however soon it comes: since Linux 6.13
/// on most file systems. Elsewhere it does so with the next tick of the kernel's clock, milliseconds later.
///
/// That of the file system of `folder` is tried, in a file that is removed again; where it can't be, no is the answer.
pub(super) fn is_fine(folder: &Path) -> bool {
    let path = folder.join("clock");
    let Ok(file) = open(&path, OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC, Mode::RUSR) else { return false };
    let change = |mode| {
        fchmod(&file, mode)?;
        let stat = fstat(&file)?;
        Ok::<_, Errno>((stat.st_ctime, stat.st_ctime_nsec))
    };
    let mut is_fine = false;
    for _ in 0..TRIES {
        let before = file::clock();
        let (Ok(first), Ok(second)) = (change(Mode::WUSR), change(Mode::RUSR)) else { break };
        if file::clock() == before {
            is_fine = first != second;
            break;
        }
    }
    // Left behind, it goes with the folder.
    let _ = std::fs::remove_file(&path);
    is_fine
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_fine_clock_misses_no_change() {
        let dir = tempfile::tempdir().unwrap();
        if !is_fine(dir.path()) {
            eprintln!("skipped: files are dated by ticks here");
            return;
        }
        let path = dir.path().join("file");
        let mut seen = std::collections::BTreeSet::new();
        for round in 0..100 {
            std::fs::write(&path, [round]).unwrap();
            let meta = path.metadata().unwrap();
            assert!(seen.insert((meta.ctime(), meta.ctime_nsec())), "round {round}");
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
