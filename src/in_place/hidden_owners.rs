//! Whether a user owns a hidden file that it could reach. Only processes that kiln may not look into ask for it.

use super::confinement::Confinement;
use std::collections::HashMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;

/// So many files are looked at. In a larger tree the user is taken for an owner.
const MOST: usize = 20_000;

/// The users that were asked for in a RUN.
#[derive(Debug)]
pub(super) struct HiddenOwners<'a> {
    confinement: &'a Confinement,
    known: HashMap<u32, bool>,
}

impl<'a> HiddenOwners<'a> {
    pub(super) fn new(confinement: &'a Confinement) -> Self {
        Self { confinement, known: HashMap::new() }
    }

    /// Whether this user owns, or may own, a hidden file that it can reach. The calling thread has the user's credentials.
    pub(super) fn include(&mut self, user: u32) -> bool {
        if let Some(known) = self.known.get(&user) {
            return *known;
        }
        let hidden = self.confinement.hidden_paths().collect();
        let includes = owns(user, hidden, MOST);
        self.known.insert(user, includes);
        includes
    }
}

/// Whether a user owns one of these files, or one below them. What it can neither list nor search, such as kiln's store, does not count;
/// what it can only search does, since it may know the names.
fn owns(user: u32, mut paths: Vec<PathBuf>, most: usize) -> bool {
    let mut seen = 0;
    while let Some(path) = paths.pop() {
        let Ok(stat) = path.symlink_metadata() else { continue };
        seen += 1;
        if stat.uid() == user || seen > most {
            return true;
        }
        let is_searchable = || path.join(".").symlink_metadata().is_ok();
        if !stat.is_dir() || !is_searchable() {
            continue;
        }
        let Ok(entries) = std::fs::read_dir(&path) else { return true };
        for entry in entries {
            let Ok(entry) = entry else { return true };
            paths.push(entry.path());
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Credentials;
    use rustix::thread::CapabilitySet;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, chown};

    #[test]
    fn a_user_owns_what_it_could_reach() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let mode = |name: &str, mode| {
            fs::set_permissions(dir.path().join(name), fs::Permissions::from_mode(mode)).unwrap();
        };
        fs::create_dir_all(dir.path().join("store/snapshot")).unwrap();
        fs::create_dir_all(dir.path().join("volume/deep")).unwrap();
        for (name, owner) in [("store/snapshot/f", 1234), ("volume/deep/f", 5678)] {
            fs::write(dir.path().join(name), "").unwrap();
            chown(dir.path().join(name), Some(owner), None).unwrap();
        }
        mode("", 0o755);
        mode("store", 0o700);
        let owned = |user, most| {
            let credentials =
                Credentials { uid: user, gid: user, groups: Vec::new(), capabilities: CapabilitySet::empty() };
            let _assumed = credentials.assume().unwrap();
            owns(user, vec![dir.path().join("store"), dir.path().join("volume")], most)
        };
        assert!(!owned(1234, 100) && owned(5678, 100) && !owned(42, 100));
        assert!(owned(42, 2), "too many files");
        mode("volume/deep", 0o711);
        assert!(owned(42, 100), "who knows the names needs no listing");
        mode("volume/deep", 0o700);
        assert!(!owned(42, 100));
    }
}
