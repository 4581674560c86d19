//! Which repositories are known to have a blob, so that a push can have it mounted instead of sending it.

use super::error::Result;
use crate::oci::{Digest, Reference};
use crate::store::{Key, Store};

/// The records of where a blob was pulled from or pushed to.
const KIND: &str = "repository";
/// How many are kept for a blob.
const KEPT: usize = 8;

/// Notes that a blob is in a repository.
///
/// # Errors
/// What the store says.
pub fn note_repository(store: &Store, blob: &Digest, at: &Reference) -> Result<()> {
    let at = Reference { tag: None, digest: None, ..at.clone() }.to_string();
    let key = Key::from(blob);
    let mut known: Vec<String> = store.record(KIND, &key)?.unwrap_or_default();
    if known.first() == Some(&at) {
        return Ok(());
    }
    known.retain(|k| *k != at);
    known.insert(0, at);
    known.truncate(KEPT);
    Ok(store.put_record(KIND, &key, &known)?)
}

/// The repositories that have a blob or had it once, the latest first.
///
/// # Errors
/// What the store says.
pub fn repositories(store: &Store, blob: &Digest) -> Result<Vec<Reference>> {
    let known: Vec<String> = store.record(KIND, &Key::from(blob))?.unwrap_or_default();
    Ok(known.iter().filter_map(|k| k.parse().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_come_first_and_old_ones_go() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let blob = Digest::of(b"x");
        assert_eq!(repositories(&store, &blob).unwrap(), []);
        for n in (0..10).chain([7]) {
            note_repository(&store, &blob, &format!("r.example/{n}:tag").parse().unwrap()).unwrap();
        }
        let names: Vec<String> = repositories(&store, &blob).unwrap().into_iter().map(|r| r.repository).collect();
        assert_eq!(names, ["7", "9", "8", "6", "5", "4", "3", "2"]);
    }
}
