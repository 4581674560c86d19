//! Whose a store is. Its files have the owners that one user gave them, and in a user namespace those that its numbers stand
//! for: another user would find files that can't be read or removed, and make more of them.
//!
//! ```text
//! ROOT/kiln-store    its owner is the store's
//! ROOT/users         the numbers of the user namespace that layers were made in, where they aren't the same outside
//! ```

use super::error::{At as _, Error, Result};
use super::{Inner, session};
use crate::sys::userns::{self, Numbers};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// The note of a namespace's numbers.
const USERS: &str = "users";

/// Refuses a store whose mark is another user's. Where files get an owner whoever makes them (NFS, some shared folders), it is
/// a file made now that tells.
pub(super) fn check(root: &Path, mark: &File) -> Result<()> {
    let owner = mark.metadata().at("look at", root)?.uid();
    if owner == rustix::process::geteuid().as_raw() {
        return Ok(());
    }
    let path = root.join(format!(".owner-{}", session::random_name()));
    let made = File::create_new(&path).and_then(|file| file.metadata());
    let _ = std::fs::remove_file(&path);
    match made {
        Ok(made) if made.uid() == owner => Ok(()),
        _ => Err(Error::Foreign { root: root.to_owned(), owner: Some(owner).filter(|o| *o != NOBODY) }),
    }
}

/// The number that stands for all that a namespace doesn't know.
const NOBODY: u32 = 65534;

/// Says whose a store is that can't be opened for want of rights.
pub(super) fn explained(root: &Path, error: io::Error) -> Error {
    let owner = root.metadata().map(|m| m.uid()).ok().filter(|o| *o != rustix::process::geteuid().as_raw());
    match owner {
        Some(owner) if error.kind() == ErrorKind::PermissionDenied => {
            Error::Foreign { root: root.to_owned(), owner: Some(owner).filter(|o| *o != NOBODY) }
        }
        _ => Error::Io { what: "open the store", path: root.to_owned(), source: error },
    }
}

impl Inner {
    /// Refuses a store with layers that were made where the numbers of users stood for others.
    pub(super) fn check_numbers(&self) -> Result<()> {
        let numbers = userns::numbers().map_err(io::Error::from).at("read the map of users for", &self.root)?;
        if numbers.are_the_same_outside() || numbers.is_single() {
            return Ok(());
        }
        let path = self.root.join(USERS);
        let now = noted(&numbers);
        let was = match std::fs::read_to_string(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return self.write(&path, now.as_bytes()),
            other => other.at("read", &path)?,
        };
        if was == now { Ok(()) } else { Err(Error::Numbers { root: self.root.clone(), was, now }) }
    }
}

/// One line for users, one for groups.
fn noted(numbers: &Numbers) -> String {
    let line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    format!("users {}\ngroups {}\n", line(&numbers.uids), line(&numbers.gids))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_makers_store_is_open_to_its_maker() {
        let dir = tempfile::tempdir().unwrap();
        let mark = File::create(dir.path().join("mark")).unwrap();
        check(dir.path(), &mark).unwrap();
    }

    #[test]
    fn anothers_store_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let mark = File::create(dir.path().join("mark")).unwrap();
        if std::os::unix::fs::fchown(&mark, Some(4321), None).is_err() {
            eprintln!("skipped: it needs root, to give a file away");
            return;
        }
        let said = check(dir.path(), &mark).unwrap_err().to_string();
        assert!(said.contains("belongs to user 4321"), "{said}");
        let left = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(left, 1);
    }

    #[test]
    fn numbers_are_noted_in_two_lines() {
        let numbers = Numbers { uids: "  0  1000 1\n 1 100000  65536\n".into(), gids: "0 1000 1\n".into() };
        assert_eq!(noted(&numbers), "users 0 1000 1 1 100000 65536\ngroups 0 1000 1\n");
        assert!(!numbers.are_the_same_outside());
    }
}
