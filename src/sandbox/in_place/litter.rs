//! Folders that every process of a container shares, in which nothing of one process is to be found by the next.

use crate::sys::{Result, Said};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// They are the container's own mounts.
pub(super) const SHARED: [&str; 3] = ["/dev", "/dev/shm", "/dev/mqueue"];

/// What is in them before a process runs.
#[derive(Debug)]
pub(super) struct Clean(Vec<(PathBuf, BTreeSet<OsString>)>);

impl Clean {
    /// Looks at folders; those that aren't there are left out.
    pub(super) fn look(folders: &[&str]) -> Self {
        let list = |folder: &&str| Some((PathBuf::from(folder), names(Path::new(folder)).ok()?));
        Self(folders.iter().filter_map(list).collect())
    }

    /// Removes what is new in them.
    pub(super) fn sweep(self) -> Result<()> {
        for (folder, before) in self.0 {
            for name in names(&folder)?.difference(&before) {
                let path = folder.join(name);
                let is_dir = path.symlink_metadata().said("lstat", &path)?.is_dir();
                let removed = if is_dir { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
                removed.said("remove", &path)?;
            }
        }
        Ok(())
    }
}

fn names(folder: &Path) -> Result<BTreeSet<OsString>> {
    let entries = std::fs::read_dir(folder).said("read", folder)?;
    entries.map(|entry| Ok(entry.said("read", folder)?.file_name())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_what_is_new_goes() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("own"), "").unwrap();
        let folders = [dir.path().to_str().unwrap(), "/nonexistent"];
        let clean = Clean::look(&folders);
        fs::create_dir_all(dir.path().join("new/deep")).unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        std::os::unix::fs::symlink("/etc", dir.path().join("link")).unwrap();
        clean.sweep().unwrap();
        assert_eq!(names(dir.path()).unwrap(), ["own".into()].into());
    }
}
