//! How much there is, and making it less.
//!
//! Images with a name keep their blobs. Everything else goes in the order of its last use, but for what was used
//! since the oldest running session began.

use super::error::{At as _, Result};
use super::session::{Moment, abandoned, entries, last_used};
use super::snapshots::{LAYERS, Meta};
use super::{Key, Store, files, tree};
use crate::oci::{Digest, ImageIndex, ImageManifest};
use serde_json::Value;
use std::collections::HashSet;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// What to take away. The default takes everything that no named image and no running build needs.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Only what was last used before this.
    pub unused_since: Option<SystemTime>,
    /// Only as much as leaves this many bytes, the longest unused first.
    pub keep_bytes: Option<u64>,
    /// The records of these kinds keep what they speak of by digest or key; where there are any, all records stay.
    pub needed_by: &'static [&'static str],
    /// Only things of this sort.
    pub only: Option<Sort>,
    /// Only count.
    pub dry_run: bool,
}

/// Sorts of things, by BuildKit's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// What RUN's cache mounts keep.
    CacheMounts,
    /// Everything else.
    Regular,
}

/// A number of things and their bytes on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Amount {
    /// How many.
    pub count: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Amount {
    fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What takes the space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// Blobs: layers, manifests, configurations.
    pub blobs: Amount,
    /// Those of them that named images need.
    pub named: Amount,
    /// Unpacked layers.
    pub snapshots: Amount,
    /// Cache records and stat indexes.
    pub records: Amount,
    /// What RUN's cache mounts keep.
    pub cache_mounts: Amount,
    /// Accounts of past builds.
    pub builds: Amount,
    /// What running builds are writing, and dead ones left.
    pub temporary: Amount,
}

/// What a pruner did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pruned {
    /// What was taken away.
    pub removed: Amount,
    /// What was left because a running build uses it.
    pub held: Amount,
}

/// Something that can be taken away.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) path: PathBuf,
    pub(super) kind: Kind,
    pub(super) used: Moment,
    pub(super) bytes: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Blob,
    Snapshot,
    Record,
    CacheMount,
}

/// What isn't taken away.
#[derive(Default)]
pub(super) struct Needed {
    pub(super) blobs: HashSet<PathBuf>,
    /// Snapshots.
    keys: HashSet<Key>,
    /// Whether the cache stays, as far as it is good for anything.
    cache: bool,
}

impl Needed {
    fn has(&self, item: &Item) -> bool {
        match item.kind {
            Kind::Blob => self.blobs.contains(&item.path),
            Kind::Record | Kind::CacheMount => self.cache,
            Kind::Snapshot => self.cache && self.has_snapshot(item),
        }
    }

    /// A snapshot that a record speaks of; the layer of an image, whose note is its blob; and what isn't a layer.
    fn has_snapshot(&self, item: &Item) -> bool {
        let meta = files::open(&item.marker()).ok().flatten();
        let meta = meta.and_then(|file| files::read_json::<Meta>(&file, &item.marker()).ok().flatten());
        meta.is_some_and(|meta| {
            let layer_of = |blob: Digest| {
                self.blobs.iter().any(|path| path.ends_with(Path::new(blob.algorithm()).join(blob.hex())))
            };
            self.keys.contains(&meta.key)
                || meta.info.driver != LAYERS
                || meta.info.note.parse::<Digest>().is_ok_and(layer_of)
        })
    }
}

impl Item {
    fn sort(&self) -> Sort {
        if self.kind == Kind::CacheMount { Sort::CacheMounts } else { Sort::Regular }
    }

    /// The lock that whoever uses it has, where one is needed; `None` where somebody uses it.
    fn lock(&self) -> Result<Option<Option<File>>> {
        if self.kind != Kind::CacheMount {
            return Ok(Some(None));
        }
        abandoned(&self.path).map(|lock| lock.map(Some))
    }

    /// The file whose time is that of the last use.
    pub(super) fn marker(&self) -> PathBuf {
        if self.kind == Kind::Snapshot { self.path.join("meta.json") } else { self.path.clone() }
    }
}

/// The largest manifest that is read to find an image's blobs, in bytes: the distribution specification's limit.
const MANIFEST: u64 = 4 << 20;

impl Store {
    /// What takes the space.
    pub fn usage(&self) -> Result<Usage> {
        let named = self.named_blobs()?;
        let mut usage = Usage::default();
        for item in self.items()? {
            match item.kind {
                Kind::Blob => {
                    usage.blobs.add(item.bytes);
                    if named.contains(&item.path) {
                        usage.named.add(item.bytes);
                    }
                }
                Kind::Snapshot => usage.snapshots.add(item.bytes),
                Kind::Record => usage.records.add(item.bytes),
                Kind::CacheMount => usage.cache_mounts.add(item.bytes),
            }
        }
        usage.builds = self.builds_usage()?;
        for folder in entries(&self.root().join("tmp"))? {
            usage.temporary.add(tree::disk_usage(&folder));
        }
        Ok(usage)
    }

    /// Removes what dead processes left under `tmp/` and `locks/`.
    pub fn sweep(&self) -> Result<()> {
        self.inner.sweep()
    }

    /// Takes away what the policy says. Builds may run meanwhile, in this process or others.
    pub fn prune(&self, policy: &Policy) -> Result<Pruned> {
        self.sweep()?;
        let mut items = self.items()?;
        items.retain(|i| policy.only.is_none_or(|sort| sort == i.sort()));
        let needed = self.needed(policy)?;
        let mut total = items.iter().fold(0u64, |sum, i| sum.saturating_add(i.bytes));
        items.sort_by_key(|i| i.used);
        let limit = policy.unused_since.map_or(Moment::MAX, moment_of);
        let mut pruned = Pruned::default();
        for item in items.iter().filter(|i| i.used < limit && !needed.has(i)) {
            if policy.keep_bytes.is_some_and(|keep| total <= keep) {
                break;
            }
            if self.take_away(item, policy.dry_run)? {
                total = total.saturating_sub(item.bytes);
                pruned.removed.add(item.bytes);
            } else {
                pruned.held.add(item.bytes);
            }
        }
        Ok(pruned)
    }

    /// What the policy leaves: what named images are made of, and what the records speak of that it names.
    fn needed(&self, policy: &Policy) -> Result<Needed> {
        let mut needed =
            Needed { blobs: self.named_blobs()?, keys: HashSet::new(), cache: !policy.needed_by.is_empty() };
        for kind in policy.needed_by {
            for path in entries(&self.root().join("records").join(kind))? {
                let Some(file) = files::open(&path)? else { continue };
                if let Some(record) = files::read_json::<Value>(&file, &path)? {
                    self.add_spoken_of(&record["value"], &mut needed)?;
                }
            }
        }
        Ok(needed)
    }

    pub(super) fn add_spoken_of(&self, value: &Value, needed: &mut Needed) -> Result<()> {
        match value {
            Value::String(text) => {
                if let Ok(digest) = text.parse::<Digest>() {
                    self.add_image(text, &mut needed.blobs)?;
                    needed.blobs.insert(self.blob_path(&digest));
                }
                needed.keys.extend(text.parse::<Key>());
            }
            Value::Array(values) => values.iter().try_for_each(|v| self.add_spoken_of(v, needed))?,
            Value::Object(fields) => fields.values().try_for_each(|v| self.add_spoken_of(v, needed))?,
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
        Ok(())
    }

    /// Removes one thing, unless a running build has used it. Only the renaming keeps builds waiting.
    fn take_away(&self, item: &Item, dry_run: bool) -> Result<bool> {
        // Before the gate is closed: a session's beginning passes it.
        let aside = self.inner.temp_path()?;
        let marker = item.marker();
        let taken = self.inner.gate.alone(self.root(), || {
            let used = rustix::fs::lstat(&marker).map_or(item.used, |stat| last_used(&stat));
            if used >= self.inner.oldest_start()? {
                return Ok(false);
            }
            if dry_run {
                return Ok(true);
            }
            // Until it has gone, so that whoever waits finds that it isn't there any more.
            let Some(_lock) = item.lock()? else { return Ok(false) };
            match std::fs::rename(&item.path, &aside) {
                Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
                other => other.at("remove", &item.path).map(|()| true),
            }
        })?;
        if taken {
            tree::remove(&aside)?;
        }
        Ok(taken)
    }

    /// Everything that can be taken away. What vanishes meanwhile isn't there.
    pub(super) fn items(&self) -> Result<Vec<Item>> {
        let root = self.root();
        let mut items = Vec::new();
        for (folder, kind) in [("blobs", Kind::Blob), ("records", Kind::Record), ("caches", Kind::CacheMount)] {
            for inner in entries(&root.join(folder))? {
                add_all(&mut items, &inner, kind)?;
            }
        }
        add_all(&mut items, &root.join("stat"), Kind::Record)?;
        add_all(&mut items, &root.join("snapshots"), Kind::Snapshot)?;
        Ok(items)
    }

    /// The paths of the blobs that named images are made of: index, manifests, configurations, layers.
    fn named_blobs(&self) -> Result<HashSet<PathBuf>> {
        let mut found = HashSet::new();
        for name in self.names()? {
            self.add_image(name.descriptor.digest().as_ref(), &mut found)?;
        }
        Ok(found)
    }

    pub(super) fn add_image(&self, digest: &str, found: &mut HashSet<PathBuf>) -> Result<()> {
        let Ok(digest) = digest.parse::<Digest>() else { return Ok(()) };
        let path = self.blob_path(&digest);
        // Read as it is: a damaged one keeps nothing alive, and isn't marked as used by looking.
        let bytes = match std::fs::metadata(&path) {
            Ok(m) if m.len() <= MANIFEST && !found.contains(&path) => std::fs::read(&path).unwrap_or_default(),
            _ => return Ok(()),
        };
        found.insert(path);
        if let Ok(manifest) = serde_json::from_slice::<ImageManifest>(&bytes) {
            let parts = std::iter::once(manifest.config()).chain(manifest.layers());
            let parts = parts.filter_map(|d| Digest::try_from(d.digest()).ok());
            found.extend(parts.map(|d| self.blob_path(&d)));
        } else if let Ok(index) = serde_json::from_slice::<ImageIndex>(&bytes) {
            for inner in index.manifests() {
                self.add_image(inner.digest().as_ref(), found)?;
            }
        }
        Ok(())
    }
}

fn add_all(items: &mut Vec<Item>, folder: &Path, kind: Kind) -> Result<()> {
    for path in entries(folder)? {
        let mut item = Item { bytes: tree::disk_usage(&path), path, kind, used: Moment::MIN };
        match rustix::fs::lstat(item.marker()) {
            Ok(stat) => item.used = last_used(&stat),
            // A snapshot without its description is of no use; anything else has just gone.
            Err(_) if kind == Kind::Snapshot => {}
            Err(_) => continue,
        }
        items.push(item);
    }
    Ok(())
}

fn moment_of(time: SystemTime) -> Moment {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    Moment::try_from(since.as_nanos()).unwrap_or(Moment::MAX)
}
