//! Accounts of past builds, numbered, and the parts that several of them share.
//!
//! ```text
//! builds/<number>.json     an account: the keys of its parts, and what its user says
//! builds/parts/<key>       what accounts speak of, compressed; named by what it is, so written once
//! ```
//! They are no cache: only [`Store::forget_builds`] takes them away, the oldest first. What doesn't parse isn't there.

use super::error::{At as _, Result};
use super::session::{entries, last_used};
use super::{Amount, Key, Store, files};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::io::{ErrorKind, Read as _};
use std::path::PathBuf;

/// The number of a build.
pub type BuildNumber = u64;

/// An account's file.
#[derive(Debug, Serialize, Deserialize)]
struct Account<T> {
    parts: Vec<Key>,
    value: T,
}

/// The largest part that is read, in bytes: the list of some million files.
const PART: u64 = 512 << 20;
/// How hard parts are compressed: writing them must cost a build next to nothing.
const LEVEL: i32 = 1;

impl Store {
    /// Keeps an account under the next number. `parts` are the keys of all parts that it speaks of.
    pub fn add_build<T: Serialize>(&self, parts: Vec<Key>, value: &T) -> Result<BuildNumber> {
        let folder = self.builds_path();
        let mut number = self.builds()?.last().map_or(1, |n| n.saturating_add(1));
        let text = serde_json::to_vec(&Account { parts, value }).map_err(std::io::Error::from).at("write", &folder)?;
        let beside = self.inner.temp_path()?;
        std::fs::write(&beside, text).at("write", &beside)?;
        let linked = loop {
            let path = self.build_path(number);
            match std::fs::hard_link(&beside, &path) {
                // Another build ended at the same time.
                Err(e) if e.kind() == ErrorKind::AlreadyExists => number = number.saturating_add(1),
                Err(e) if e.kind() == ErrorKind::NotFound && !folder.exists() => {
                    std::fs::create_dir_all(&folder).at("make the folder", &folder)?;
                }
                other => break other.at("make", &path),
            }
        };
        let _ = std::fs::remove_file(&beside);
        linked.map(|()| number)
    }

    /// The numbers of the accounts that there are, ascending.
    pub fn builds(&self) -> Result<Vec<BuildNumber>> {
        let number = |path: PathBuf| path.file_name()?.to_str()?.strip_suffix(".json")?.parse().ok();
        let mut numbers: Vec<BuildNumber> = entries(&self.builds_path())?.into_iter().filter_map(number).collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    /// An account; `None` where there is none of that number, or one of another form.
    pub fn build<T: DeserializeOwned>(&self, number: BuildNumber) -> Result<Option<T>> {
        self.account(number).map(|account| account.map(|a| a.value))
    }

    fn account<T: DeserializeOwned>(&self, number: BuildNumber) -> Result<Option<Account<T>>> {
        let path = self.build_path(number);
        match files::open(&path)? {
            Some(file) => files::read_json(&file, &path),
            None => Ok(None),
        }
    }

    /// Whether a part is there; it is kept until this process ends.
    pub fn has_build_part(&self, key: &Key) -> Result<bool> {
        let path = self.part_path(key);
        Ok(self.inner.hold(&path, || files::open(&path))?.is_some())
    }

    /// Keeps a part.
    pub fn put_build_part(&self, key: &Key, bytes: &[u8]) -> Result<()> {
        let path = self.part_path(key);
        let packed = zstd::bulk::compress(bytes, LEVEL).at("compress", &path)?;
        self.inner.write(&path, &packed)
    }

    /// A part; `None` where it isn't there or is damaged.
    pub fn build_part(&self, key: &Key) -> Result<Option<Vec<u8>>> {
        let Some(file) = files::open(&self.part_path(key))? else { return Ok(None) };
        let mut bytes = Vec::new();
        let read = zstd::Decoder::new(file).and_then(|unpacked| unpacked.take(PART).read_to_end(&mut bytes));
        Ok(read.is_ok().then_some(bytes))
    }

    /// Takes away all but the newest accounts: `keep` of them at most, and no more than have `bytes` of parts together;
    /// then the parts that none of them speaks of, unless a running build may be about to.
    pub fn forget_builds(&self, keep: usize, bytes: u64) -> Result<()> {
        let mut spoken_of: HashSet<Key> = HashSet::new();
        let (mut kept, mut used) = (0, 0u64);
        for number in self.builds()?.into_iter().rev() {
            let account = self.account::<serde::de::IgnoredAny>(number)?;
            let parts = account.map(|a| a.parts).unwrap_or_default();
            let new: Vec<Key> = parts.into_iter().filter(|key| !spoken_of.contains(key)).collect();
            let size = |key: &Key| std::fs::metadata(self.part_path(key)).map_or(0, |m| m.len());
            let more = new.iter().map(size).fold(used, u64::saturating_add);
            // The newest stays whatever it takes.
            if kept > 0 && (kept >= keep || more > bytes) {
                super::tree::remove(&self.build_path(number))?;
                used = u64::MAX;
            } else {
                (kept, used) = (kept + 1, more);
                spoken_of.extend(new);
            }
        }
        self.forget_parts(&spoken_of)
    }

    fn forget_parts(&self, spoken_of: &HashSet<Key>) -> Result<()> {
        let names: HashSet<String> = spoken_of.iter().map(Key::to_string).collect();
        let parts = entries(&self.builds_path().join("parts"))?;
        let named = |path: &PathBuf| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| names.contains(n));
        let stale: Vec<PathBuf> = parts.into_iter().filter(|path| !named(path)).collect();
        if stale.is_empty() {
            return Ok(());
        }
        self.inner.gate.alone(self.root(), || {
            let oldest = self.inner.oldest_start()?;
            for path in stale {
                if rustix::fs::lstat(&path).is_ok_and(|stat| last_used(&stat) < oldest) {
                    super::tree::remove(&path)?;
                }
            }
            Ok(())
        })
    }

    /// How many accounts there are, and what they take with their parts.
    pub(super) fn builds_usage(&self) -> Result<Amount> {
        let count = u64::try_from(self.builds()?.len()).unwrap_or(u64::MAX);
        Ok(Amount { count, bytes: super::tree::disk_usage(&self.builds_path()) })
    }

    fn builds_path(&self) -> PathBuf {
        self.root().join("builds")
    }

    fn build_path(&self, number: BuildNumber) -> PathBuf {
        self.builds_path().join(format!("{number}.json"))
    }

    fn part_path(&self, key: &Key) -> PathBuf {
        self.builds_path().join("parts").join(key.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        (dir, store)
    }

    #[test]
    fn accounts_are_numbered_and_read_back() {
        let (_dir, store) = store();
        assert!(store.builds().unwrap().is_empty());
        let numbers: Vec<u64> = std::thread::scope(|scope| {
            let each: Vec<_> = (0..8u32)
                .map(|i| {
                    scope.spawn({
                        let store = store.clone();
                        move || store.add_build(Vec::new(), &i).unwrap()
                    })
                })
                .collect();
            each.into_iter().map(|t| t.join().unwrap()).collect()
        });
        assert_eq!(store.builds().unwrap(), [1, 2, 3, 4, 5, 6, 7, 8], "{numbers:?}");
        let mut said: Vec<u32> = numbers.iter().filter_map(|n| store.build(*n).unwrap()).collect();
        said.sort_unstable();
        assert_eq!(said, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(store.build::<u32>(9).unwrap(), None);
        assert_eq!(store.build::<String>(1).unwrap(), None, "of another form");
        assert_eq!(store.builds_usage().unwrap().count, 8);
    }

    #[test]
    fn parts_are_shared_and_go_with_the_last_account_that_speaks_of_them() {
        let (dir, store) = store();
        let [old, shared, new] = ["old", "shared", "new"].map(|name| {
            let key = Key::of(name.as_bytes());
            assert!(!store.has_build_part(&key).unwrap());
            store.put_build_part(&key, name.as_bytes()).unwrap();
            key
        });
        store.add_build(vec![old, shared], &1).unwrap();
        store.add_build(vec![shared, new], &2).unwrap();
        assert_eq!(store.build_part(&shared).unwrap().as_deref(), Some(&b"shared"[..]));
        store.forget_builds(1, u64::MAX).unwrap();
        assert_eq!(store.builds().unwrap(), [2]);
        assert!(store.has_build_part(&old).unwrap(), "this session may be about to speak of it");
        drop(store);
        let store = Store::open(&dir.path().join("s")).unwrap();
        let hour = std::time::Duration::from_secs(3600);
        let part = std::fs::File::open(store.part_path(&old)).unwrap();
        part.set_modified(std::time::SystemTime::now() - hour).unwrap();
        store.forget_builds(1, 0).unwrap();
        assert_eq!(store.builds().unwrap(), [2], "the newest stays");
        assert_eq!(store.build_part(&old).unwrap(), None);
        assert!(store.build_part(&shared).unwrap().is_some() && store.build_part(&new).unwrap().is_some());
    }

    #[test]
    fn a_damaged_part_is_none() {
        let (dir, store) = store();
        let key = Key::of(b"k");
        store.put_build_part(&key, &[7; 5000]).unwrap();
        let path = dir.path().join("s/builds/parts").join(key.to_string());
        std::fs::write(&path, "no zstd").unwrap();
        assert_eq!(store.build_part(&key).unwrap(), None);
    }
}
