//! Keeping a store within a size, without walking through it after every build.
//!
//! `size.json` says what the store took when it was last measured, how much of its disk was free then, and what was
//! written since. What it takes now is at most that and whatever the disk has lost meanwhile; as others may have given
//! room back, it is at least that and what was written. Only when the greater of the two passes the limit, or after
//! [`STALE`], is it measured anew, which takes a stat of every file. Whoever finds the lock taken leaves it to the other.

use super::error::{At as _, Result};
use super::{Amount, Key, Policy, Store, Usage, files};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How much a store may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// Three quarters of its disk; less where less than a tenth of the disk is free, but no less than a tenth.
    #[default]
    Disk,
    /// So many bytes.
    Bytes(u64),
    /// Anything.
    None,
}

const SIZE: &str = "size.json";

/// A measurement is done again after this, whatever was counted since.
const STALE: Duration = Duration::from_secs(7 * 24 * 3600);

/// What was taken away because a store had grown too large.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shrunk {
    /// What the store took, in bytes.
    pub was: u64,
    /// What it may take, in bytes.
    pub limit: u64,
    /// What was taken away.
    pub removed: Amount,
}

/// `size.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Measured {
    /// When, in seconds since 1970.
    at: u64,
    /// Bytes that the store took.
    used: u64,
    /// Bytes that its disk had free.
    free: u64,
    /// Bytes of blobs written since.
    written: u64,
}

/// A disk's size and what is free of it, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Disk {
    size: u64,
    free: u64,
}

impl Limit {
    /// In bytes, for a store that takes `used`.
    fn bytes(self, disk: Option<Disk>, used: u64) -> Option<u64> {
        match (self, disk) {
            (Self::None, _) | (Self::Disk, None) => None,
            (Self::Bytes(bytes), _) => Some(bytes),
            (Self::Disk, Some(Disk { size, free })) => {
                let missing = (size / 10).saturating_sub(free);
                let wanted = if missing > 0 { used.saturating_sub(missing) } else { u64::MAX };
                Some(wanted.max(size / 10).min(size / 4 * 3))
            }
        }
    }
}

impl Measured {
    /// What the store takes at most now.
    fn estimate(&self, disk: Option<Disk>, written: u64) -> u64 {
        let lost = disk.map_or(0, |disk| self.free.saturating_sub(disk.free));
        self.used.saturating_add(lost.max(self.written.saturating_add(written)))
    }
}

impl Store {
    /// Takes the longest unused away where the store takes more than `limit`, until a tenth of that is free again: of
    /// what no image needs and no running build uses, this one included. `None` where nothing was to be done.
    pub fn keep_within(&self, limit: Limit) -> Result<Option<Shrunk>> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (disk, written) = (self.disk(), self.inner.written.swap(0, Ordering::AcqRel));
        let known = self.measured()?.filter(|m| now.saturating_sub(m.at) < STALE.as_secs() && m.at <= now);
        if let Some(known) = known {
            let estimate = known.estimate(disk, written);
            let allowed = limit.bytes(disk, estimate).unwrap_or(u64::MAX);
            // What couldn't be taken away then, can't now either, for the most part.
            if estimate <= allowed.max(known.used.saturating_add(allowed / 20)) {
                let written = known.written.saturating_add(written);
                return if written == known.written { Ok(None) } else { self.note(&Measured { written, ..known }) };
            }
        }
        // What is written without a limit has been counted, for those who set one.
        if limit == Limit::None {
            return Ok(None);
        }
        let Some(_lock) = self.try_lock(&Key::of(b"kiln's store is measured"))? else { return Ok(None) };
        self.shrink(limit, now)
    }

    /// Measures the store, and prunes it where it is too large.
    fn shrink(&self, limit: Limit, now: u64) -> Result<Option<Shrunk>> {
        let was = total(&self.usage()?);
        let disk = self.disk();
        let mut measured = Measured { at: now, used: was, free: disk.map_or(0, |d| d.free), written: 0 };
        let Some(limit) = limit.bytes(disk, was).filter(|limit| was > *limit) else { return self.note(&measured) };
        let pruned = self.prune(&Policy { keep_bytes: Some(limit - limit / 10), ..Policy::default() })?;
        measured.used = was.saturating_sub(pruned.removed.bytes);
        measured.free = self.disk().map_or(0, |d| d.free);
        self.note(&measured)?;
        Ok((pruned.removed.count > 0).then_some(Shrunk { was, limit, removed: pruned.removed }))
    }

    fn measured(&self) -> Result<Option<Measured>> {
        let path = self.size_path();
        match files::open(&path)? {
            Some(file) => files::read_json(&file, &path),
            None => Ok(None),
        }
    }

    fn note(&self, measured: &Measured) -> Result<Option<Shrunk>> {
        let path = self.size_path();
        let text = serde_json::to_vec(measured).map_err(std::io::Error::from).at("write", &path)?;
        self.inner.write(&path, &text).map(|()| None)
    }

    fn disk(&self) -> Option<Disk> {
        disk(self.root())
    }

    fn size_path(&self) -> PathBuf {
        self.root().join(SIZE)
    }
}

/// Says of a store that is being made in `root` that it is empty, so that its first build needn't measure it.
pub(super) fn begin(root: &Path) -> Result<()> {
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let measured = Measured { at, used: 0, free: disk(root).map_or(0, |d| d.free), written: 0 };
    let path = root.join(SIZE);
    let text = serde_json::to_vec(&measured).map_err(std::io::Error::from).at("write", &path)?;
    // Torn, it is as good as none.
    std::fs::write(&path, text).at("write", &path)
}

fn disk(root: &Path) -> Option<Disk> {
    let stat = rustix::fs::statvfs(root).ok()?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Some(Disk { size: bytes(stat.f_blocks), free: bytes(stat.f_bavail) })
}

fn total(usage: &Usage) -> u64 {
    // Not the blobs of images, which are among the blobs.
    let Usage { blobs, named: _, snapshots, records, cache_mounts, builds, temporary } = usage;
    [blobs, snapshots, records, cache_mounts, builds, temporary]
        .iter()
        .fold(0, |sum, amount| amount.bytes.saturating_add(sum))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn limits_follow_the_disk() {
        let disk = |free| Some(Disk { size: 1000, free });
        for (limit, disk, used, want) in [
            (Limit::None, disk(0), 900, None),
            (Limit::Disk, None, 900, None),
            (Limit::Bytes(5), disk(0), 900, Some(5)),
            (Limit::Disk, disk(500), 400, Some(750)),
            (Limit::Disk, disk(40), 400, Some(340)),
            (Limit::Disk, disk(0), 50, Some(100)),
        ] {
            assert_eq!(limit.bytes(disk, used), want, "{limit:?} {disk:?} {used}");
        }
    }

    #[test]
    fn an_estimate_takes_the_worse_of_what_is_known() {
        let measured = Measured { at: 0, used: 100, free: 1000, written: 7 };
        let with_free = |free| Some(Disk { size: 2000, free });
        assert_eq!(measured.estimate(with_free(900), 3), 200, "the disk has lost 100");
        assert_eq!(measured.estimate(with_free(1500), 3), 110, "others gave room back");
        assert_eq!(measured.estimate(None, 0), 107);
    }

    fn blob(store: &Store, fill: u8, bytes: usize) -> crate::oci::Digest {
        let mut blob = store.ingest().unwrap();
        blob.write_all(&vec![fill; bytes]).unwrap();
        blob.commit(None).unwrap()
    }

    #[test]
    fn a_store_that_grows_too_large_loses_its_oldest() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Store::open(&dir.path().join("s")).unwrap();
        let limit = Limit::Bytes(100_000);
        let digests: Vec<_> = (0..8u8)
            .map(|n| {
                let store = open();
                let digest = blob(&store, n, 20_000);
                let shrunk = store.keep_within(limit).unwrap();
                // What this session wrote is never taken; the loop's older ones have times of long ago.
                let hours = Duration::from_secs(3600 * u64::from(20 - n));
                let file = std::fs::File::open(store.blob_path(&digest)).unwrap();
                file.set_modified(SystemTime::now() - hours).unwrap();
                (digest, shrunk)
            })
            .collect();
        assert!(digests[0].1.is_none() && digests.iter().any(|(_, shrunk)| shrunk.is_some()), "{digests:?}");
        let there = |n: usize| open().blob(&digests[n].0, None).unwrap().is_some();
        assert!(!there(0) && there(7));
        let shrunk = digests.iter().find_map(|(_, s)| *s).unwrap();
        assert!(shrunk.was > 100_000 && shrunk.removed.bytes >= 20_000 && shrunk.limit == 100_000, "{shrunk:?}");
        assert!(total(&open().usage().unwrap()) <= 125_000);
        assert_eq!(open().keep_within(Limit::None).unwrap(), None);
    }

    #[test]
    fn it_is_measured_by_one_at_a_time_and_only_when_needed() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let big = Limit::Bytes(1 << 40);
        store.keep_within(big).unwrap();
        let first = store.measured().unwrap().unwrap();
        let older = Measured { at: first.at - 60, ..first };
        store.note(&older).unwrap();
        blob(&store, 1, 5000);
        store.keep_within(big).unwrap();
        assert_eq!(store.measured().unwrap(), Some(Measured { written: 5000, ..older }), "counted, not measured");
        blob(&store, 2, 700);
        store.keep_within(Limit::None).unwrap();
        assert_eq!(store.measured().unwrap(), Some(Measured { written: 5700, ..older }), "without a limit, too");
        store.note(&Measured { at: first.at - STALE.as_secs() - 1, ..first }).unwrap();
        let held = store.try_lock(&Key::of(b"kiln's store is measured")).unwrap();
        store.keep_within(big).unwrap();
        assert!(store.measured().unwrap().unwrap().at < first.at, "somebody else measures it");
        drop(held);
        store.keep_within(big).unwrap();
        assert!(store.measured().unwrap().unwrap().at >= first.at);
    }
}
