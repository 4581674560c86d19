//! What is in a store, one by one.

use super::error::Result;
use super::gc::{Item, Kind, Needed};
use super::session::{Moment, entries};
use super::snapshots::Meta;
use super::{Store, files};
use serde_json::Value;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Something that takes space: a blob, an unpacked layer, the folder of a cache mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// What: `blob`, `snapshot`, `cache mount`.
    pub sort: &'static str,
    /// Its name in the store, in digits enough to tell it by.
    pub id: String,
    /// Its bytes on the disk.
    pub bytes: u64,
    /// When it was last used, to a build's precision.
    pub used: SystemTime,
    /// The named images that need it: those that no pruner takes.
    pub images: Vec<String>,
    /// The step that made it, or what else is known of it; may be empty.
    pub note: String,
}

/// Digits of a name that are shown.
const DIGITS: usize = 12;

impl Store {
    /// What takes the space but for small things, the largest first. Records of the kinds `described_by` that have a `name`
    /// describe the blobs that they speak of.
    pub fn contents(&self, described_by: &[&str]) -> Result<Vec<Content>> {
        let images = self.images_by_blob()?;
        let notes = self.notes_by_blob(described_by)?;
        let content = |item: Item| {
            let sort = match item.kind {
                Kind::Blob => "blob",
                Kind::Snapshot => "snapshot",
                Kind::CacheMount => "cache mount",
                Kind::Record => return None,
            };
            let note = match item.kind {
                Kind::Snapshot => snapshot_note(&item),
                _ => notes.get(&item.path).cloned(),
            };
            Some(Content {
                sort,
                id: id(&item),
                bytes: item.bytes,
                used: time(item.used),
                images: images.get(&item.path).cloned().unwrap_or_default(),
                note: note.unwrap_or_default(),
            })
        };
        let mut contents: Vec<Content> = self.items()?.into_iter().filter_map(content).collect();
        contents.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.id.cmp(&b.id)));
        Ok(contents)
    }

    fn images_by_blob(&self) -> Result<HashMap<PathBuf, Vec<String>>> {
        let mut images: HashMap<PathBuf, Vec<String>> = HashMap::new();
        for name in self.names()? {
            let mut blobs = HashSet::new();
            self.add_image(name.descriptor.digest().as_ref(), &mut blobs)?;
            blobs.into_iter().for_each(|path| images.entry(path).or_default().push(name.reference.clone()));
        }
        Ok(images)
    }

    fn notes_by_blob(&self, kinds: &[&str]) -> Result<HashMap<PathBuf, String>> {
        let mut notes = HashMap::new();
        for kind in kinds {
            for path in entries(&self.root().join("records").join(kind))? {
                let Some(file) = files::open(&path)? else { continue };
                let Some(record) = files::read_json::<Value>(&file, &path)? else { continue };
                let Some(name) = record["value"]["name"].as_str() else { continue };
                let mut spoken_of = Needed::default();
                self.add_spoken_of(&record["value"], &mut spoken_of)?;
                notes.extend(spoken_of.blobs.into_iter().map(|blob| (blob, name.to_owned())));
            }
        }
        Ok(notes)
    }
}

fn snapshot_note(item: &Item) -> Option<String> {
    let marker = item.marker();
    let file = files::open(&marker).ok().flatten()?;
    Some(files::read_json::<Meta>(&file, &marker).ok().flatten()?.info.note)
}

fn id(item: &Item) -> String {
    let name = |path: &Path| path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
    let short = |name: String| name.chars().take(DIGITS).collect::<String>();
    match (item.kind, item.path.parent()) {
        // The folders of one mount differ by their last number.
        (Kind::CacheMount, Some(mount)) => format!("{}/{}", short(name(mount)), name(&item.path)),
        _ => short(name(&item.path)),
    }
}

fn time(moment: Moment) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(u64::try_from(moment).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::super::{Key, SnapshotInfo, Use};
    use super::*;
    use crate::sys::Cancel;
    use serde_json::json;
    use std::io::Write as _;

    #[test]
    fn the_largest_comes_first_with_what_is_known_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("s")).unwrap();
        let mut blob = store.ingest().unwrap();
        blob.write_all(&[1; 50_000]).unwrap();
        let digest = blob.commit(None).unwrap();
        let record = json!({ "name": "RUN make", "stored": { "digest": digest.to_string() } });
        store.put_record("steps", &Key::of(b"k"), &record).unwrap();
        let temp = store.new_snapshot().unwrap();
        std::fs::write(temp.fs().join("f"), [2; 100_000]).unwrap();
        let info = SnapshotInfo { driver: "overlay".into(), size: None, note: "RUN fetch".into() };
        store.commit_snapshot(temp, &Key::of(b"s"), info).unwrap();
        let write = |path: &Path| -> Result<()> {
            std::fs::write(path.join("f"), [3; 9000]).unwrap();
            Ok(())
        };
        store.cache_mount(&Key::of(b"c"), Use::Shared, &Cancel::new().unwrap(), &write).unwrap();
        let seen = store.contents(&["steps"]).unwrap();
        let shown: Vec<_> = seen.iter().map(|c| (c.sort, c.note.as_str(), c.images.len())).collect();
        assert_eq!(shown, [("snapshot", "RUN fetch", 0), ("blob", "RUN make", 0), ("cache mount", "", 0)]);
        assert!(digest.hex().starts_with(&seen[1].id) && seen[2].id.ends_with("/0"), "{seen:?}");
        assert!(seen.iter().all(|c| c.used.elapsed().unwrap_or_default() < Duration::from_secs(3600)));
    }
}
