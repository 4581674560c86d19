//! What the files of a folder hashed to when they were last read, so that unchanged ones needn't be read again.
//!
//! One file for each folder, `stat/<hash of its path>`, loaded once and rewritten only when something is new:
//!
//! ```text
//! "kilnstat1\n"            10 bytes
//! for each file:           age u8, path length u16, path, inode u64, size u64, mtime i64, ctime i64, hash 32 bytes
//! BLAKE3 of all above      32 bytes
//! ```
//! Numbers are little-endian, times nanoseconds since 1970. A file that isn't so is as good as empty.
//!
//! **What is trusted.** Same path, inode, size, mtime and ctime, as in git's index. A file that changed after it was
//! hashed, but in the same tick of the clock, keeps its ctime: so what is no older than the index that was loaded
//! before it was hashed is never written down, and will be read again. Nobody can set a ctime, so that a tool which
//! restores mtimes misleads nobody.

use super::session::{Moment, locked, now};
use super::{Result, Store, files};
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// A BLAKE3 hash of a file's content.
pub type ContentHash = [u8; 32];

/// What tells a file's versions apart without reading it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its inode.
    pub inode: u64,
    /// Its size in bytes.
    pub size: u64,
    /// Its modification time, nanoseconds since 1970.
    pub mtime: i64,
    /// Its change time, nanoseconds since 1970.
    pub ctime: i64,
}

const MAGIC: &[u8] = b"kilnstat1\n";
const CHECK: usize = 32;
/// After so many rewrites without being asked for, a path is forgotten.
const OLD: u8 = 8;
/// The clock's tick, with room to spare: 100 Hz is the slowest kernel.
const TICK: Moment = 20_000_000;
/// The tick of file systems that keep whole seconds (or FAT's two).
const COARSE_TICK: Moment = 2_000_000_000;

#[derive(Debug)]
struct Known {
    stamp: Stamp,
    hash: ContentHash,
    age: u8,
    asked: AtomicBool,
}

/// A path and what its file hashed to.
type Told = (Box<[u8]>, Stamp, ContentHash);

/// The index of one folder; any thread may ask and tell.
#[derive(Debug)]
pub struct StatIndex {
    path: PathBuf,
    began: Moment,
    known: HashMap<Box<[u8]>, Known>,
    told: Mutex<Vec<Told>>,
}

impl Store {
    /// The index of the folder `root` (an absolute path, without links), as the last build left it. To be loaded
    /// before the first file is hashed, since its time counts as the time of that.
    pub fn stat_index(&self, root: &Path) -> Result<StatIndex> {
        let name = super::Key::of(root.as_os_str().as_encoded_bytes()).short();
        let path = self.inner.root.join("stat").join(name);
        let began = now();
        let mut bytes = Vec::new();
        if let Some(mut file) = files::open(&path)? {
            use super::error::At as _;
            file.read_to_end(&mut bytes).at("read", &path)?;
        }
        let known = parse(&bytes).unwrap_or_default();
        Ok(StatIndex { path, began, known, told: Mutex::default() })
    }

    /// Writes an index where something was told that it didn't know.
    pub fn save_stat_index(&self, index: &StatIndex) -> Result<()> {
        let told = locked(&index.told);
        if told.is_empty() {
            return Ok(());
        }
        self.inner.write(&index.path, &render(&index.known, &told))
    }
}

impl StatIndex {
    /// The hash of the file at `path` (relative to the folder), if it is the one that was hashed.
    pub fn get(&self, path: &[u8], stamp: &Stamp) -> Option<ContentHash> {
        let known = self.known.get(path)?;
        known.asked.store(true, Ordering::Relaxed);
        (known.stamp == *stamp).then_some(known.hash)
    }

    /// Says what a file hashed to. `stamp` was taken before it was read, and again afterwards with the same result.
    pub fn put(&self, path: &[u8], stamp: Stamp, hash: ContentHash) {
        if path.len() <= usize::from(u16::MAX) && !is_racy(&stamp, self.began) {
            locked(&self.told).push((path.into(), stamp, hash));
        }
    }
}

/// Whether a file may have changed again since `began` without its times showing it.
fn is_racy(stamp: &Stamp, began: Moment) -> bool {
    let whole_seconds = stamp.ctime % 1_000_000_000 == 0;
    let tick = if whole_seconds { COARSE_TICK } else { TICK };
    stamp.ctime.saturating_add(tick) >= began
}

fn parse(bytes: &[u8]) -> Option<HashMap<Box<[u8]>, Known>> {
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK)?)?;
    if blake3::hash(body).as_bytes() != check {
        return None;
    }
    let mut rest = body.strip_prefix(MAGIC)?;
    // 67 bytes is an entry without its path.
    let mut known = HashMap::with_capacity(rest.len() / 100);
    while !rest.is_empty() {
        let [age] = take(&mut rest)?;
        let length = u16::from_le_bytes(take(&mut rest)?);
        let (path, after) = rest.split_at_checked(length.into())?;
        rest = after;
        let stamp = Stamp {
            inode: u64::from_le_bytes(take(&mut rest)?),
            size: u64::from_le_bytes(take(&mut rest)?),
            mtime: i64::from_le_bytes(take(&mut rest)?),
            ctime: i64::from_le_bytes(take(&mut rest)?),
        };
        let hash = take(&mut rest)?;
        known.insert(path.into(), Known { stamp, hash, age, asked: AtomicBool::new(false) });
    }
    Some(known)
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (head, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*head)
}

/// The file: what was told, and what was known about other paths and isn't too old.
fn render(known: &HashMap<Box<[u8]>, Known>, told: &[Told]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    let new: HashMap<&[u8], (&Stamp, &ContentHash)> = told.iter().map(|(p, s, h)| (&**p, (s, h))).collect();
    for (path, (stamp, hash)) in &new {
        render_entry(&mut bytes, 0, path, stamp, hash);
    }
    for (path, k) in known.iter().filter(|(path, _)| !new.contains_key(&***path)) {
        let age = if k.asked.load(Ordering::Relaxed) { 0 } else { k.age.saturating_add(1) };
        if age < OLD {
            render_entry(&mut bytes, age, path, &k.stamp, &k.hash);
        }
    }
    let check = blake3::hash(&bytes);
    bytes.extend(check.as_bytes());
    bytes
}

fn render_entry(bytes: &mut Vec<u8>, age: u8, path: &[u8], stamp: &Stamp, hash: &ContentHash) {
    // Longer paths were never taken.
    let Ok(length) = u16::try_from(path.len()) else { return };
    bytes.push(age);
    bytes.extend(length.to_le_bytes());
    bytes.extend(path);
    bytes.extend(stamp.inode.to_le_bytes());
    bytes.extend(stamp.size.to_le_bytes());
    bytes.extend(stamp.mtime.to_le_bytes());
    bytes.extend(stamp.ctime.to_le_bytes());
    bytes.extend(hash);
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD_FILE: Stamp = Stamp { inode: 1, size: 2, mtime: -3, ctime: 4 };

    fn store() -> (tempfile::TempDir, Store) {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        (temp, store)
    }

    fn index(store: &Store) -> StatIndex {
        store.stat_index(Path::new("/context")).unwrap()
    }

    #[test]
    fn remembers_exactly_what_it_was_told() {
        let (_temp, store) = store();
        let first = index(&store);
        first.put(b"a", OLD_FILE, [7; 32]);
        first.put(b"a\xff\n", OLD_FILE, [8; 32]);
        store.save_stat_index(&first).unwrap();
        let second = index(&store);
        assert_eq!(second.get(b"a", &OLD_FILE), Some([7; 32]));
        assert_eq!(second.get(b"a\xff\n", &OLD_FILE), Some([8; 32]));
        assert_eq!(second.get(b"b", &OLD_FILE), None);
        for changed in [
            Stamp { inode: 0, ..OLD_FILE },
            Stamp { size: 0, ..OLD_FILE },
            Stamp { mtime: 0, ..OLD_FILE },
            Stamp { ctime: 0, ..OLD_FILE },
        ] {
            assert_eq!(second.get(b"a", &changed), None);
        }
        assert_eq!(store.stat_index(Path::new("/other")).unwrap().get(b"a", &OLD_FILE), None);
    }

    #[test]
    fn an_unchanged_index_is_not_written() {
        let (_temp, store) = store();
        let idle = index(&store);
        let path = idle.path.clone();
        store.save_stat_index(&idle).unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_as_young_as_the_walk_is_not_trusted() {
        let began = 1_000_000_000_000_000_007;
        for (age, racy) in [(TICK + 1, false), (TICK, true), (0, true), (-1_000_000_000, true)] {
            assert_eq!(is_racy(&Stamp { ctime: began - age, ..OLD_FILE }, began), racy, "{age}");
        }
        let second = 1_000_000_000;
        assert!(is_racy(&Stamp { ctime: began / second * second, ..OLD_FILE }, began));
        assert!(!is_racy(&Stamp { ctime: (began / second - 3) * second, ..OLD_FILE }, began));
    }

    #[test]
    fn damage_is_a_miss() {
        let (_temp, store) = store();
        let first = index(&store);
        first.put(b"some/path", OLD_FILE, [7; 32]);
        let path = first.path.clone();
        store.save_stat_index(&first).unwrap();
        let whole = std::fs::read(&path).unwrap();
        for at in 0..whole.len() {
            let mut torn = whole.clone();
            torn[at] ^= 1;
            assert!(parse(&torn).is_none(), "{at}");
            assert!(parse(&whole[..at]).is_none(), "{at}");
        }
    }

    #[test]
    fn forgets_what_nobody_asks_for() {
        let (_temp, store) = store();
        for round in 0..=OLD {
            let i = index(&store);
            if round == 0 {
                i.put(b"deleted", OLD_FILE, [0; 32]);
                i.put(b"kept", OLD_FILE, [0; 32]);
            }
            assert_eq!(i.get(b"kept", &OLD_FILE).is_some(), round > 0);
            i.put(b"new", OLD_FILE, [round; 32]);
            store.save_stat_index(&i).unwrap();
        }
        let last = index(&store);
        assert!(last.get(b"kept", &OLD_FILE).is_some());
        assert!(last.get(b"deleted", &OLD_FILE).is_none());
    }
}
