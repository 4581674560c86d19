//! The store as its users see it, in one process; `tests/store.rs` has what takes two.

use super::*;
use crate::oci::{Digest, MediaType, Reference, describe};
use crate::sys::Cancel;
use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

fn store() -> (tempfile::TempDir, Store) {
    let temp = tempfile::tempdir().unwrap();
    let store = Store::open(&temp.path().join("store")).unwrap();
    (temp, store)
}

/// Another process's view of the same store: a session of its own.
fn reopen(store: &Store) -> Store {
    Store::open(store.root()).unwrap()
}

fn info(note: &str) -> SnapshotInfo {
    SnapshotInfo { driver: "overlay".into(), size: None, note: note.into() }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Makes everything look as if last used an hour ago.
fn age(store: &Store) {
    let then = SystemTime::now() - Duration::from_secs(3600);
    let mut folders = vec![store.root().to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().map(|e| e.unwrap()) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                File::open(entry.path()).unwrap().set_modified(then).unwrap();
            }
        }
    }
}

#[test]
fn opening_makes_it_once_and_private() {
    use std::os::unix::fs::PermissionsExt as _;
    let (_temp, store) = store();
    assert_eq!(store.root().metadata().unwrap().permissions().mode() & 0o777, 0o700);
    reopen(&store);
    // And what it is, and how large.
    assert_eq!(names_in(store.root()).len(), FOLDERS.len() + 2);
    std::fs::write(store.root().join(MARK), "kiln store 99\n").unwrap();
    assert!(matches!(Store::open(store.root()), Err(Error::Format { .. })));
}

#[test]
fn a_blob_comes_back_and_leaves_nothing_else() {
    let (_temp, store) = store();
    let mut ingest = store.ingest().unwrap();
    ingest.write_all(b"hello ").unwrap();
    ingest.write_all(b"world").unwrap();
    assert_eq!(ingest.size(), 11);
    let digest = ingest.commit(Some(&Digest::of(b"hello world"))).unwrap();
    assert_eq!(store.read_blob(&digest, 11).unwrap().unwrap(), b"hello world");
    assert!(matches!(store.read_blob(&digest, 10), Err(Error::TooLarge { size: 11, .. })));
    assert!(store.read_blob(&Digest::of(b""), 10).unwrap().is_none());
    let root = store.root().to_owned();
    drop(store);
    assert!(names_in(&root.join("tmp")).is_empty());
}

#[test]
fn what_is_not_the_promised_content_is_not_stored() {
    let (_temp, store) = store();
    let promised = Digest::of(b"good");
    let mut ingest = store.ingest_expecting(&promised).unwrap();
    ingest.write_all(b"evil").unwrap();
    assert!(matches!(ingest.commit(Some(&promised)), Err(Error::Mismatch { .. })));
    for digest in [promised, Digest::of(b"evil")] {
        assert!(store.blob(&digest, None).unwrap().is_none());
    }
    let mut dropped = store.ingest().unwrap();
    dropped.write_all(b"half").unwrap();
    let path = dropped.path().to_owned();
    assert!(path.exists());
    drop(dropped);
    assert!(!path.exists());
}

#[test]
fn long_digests_are_stored_under_their_algorithm() {
    let (_temp, store) = store();
    let mut hasher = format!("sha512:{}", "0".repeat(128)).parse::<Digest>().unwrap().hasher();
    hasher.update(b"x");
    let digest = hasher.finish();
    let mut ingest = store.ingest_expecting(&digest).unwrap();
    ingest.write_all(b"x").unwrap();
    assert_eq!(ingest.commit(Some(&digest)).unwrap(), digest);
    assert!(store.root().join("blobs/sha512").join(digest.hex()).exists());
    assert_eq!(store.read_blob(&digest, 1).unwrap().unwrap(), b"x");
}

#[test]
fn a_damaged_blob_is_an_error_at_its_end_and_gone_after() {
    let (_temp, store) = store();
    for torn in [&b"12345x"[..], b"12345", b""] {
        let digest = store.write_blob(b"123456").unwrap();
        std::fs::remove_file(store.blob_path(&digest)).unwrap();
        std::fs::write(store.blob_path(&digest), torn).unwrap();
        let mut read = Vec::new();
        let error = store.blob(&digest, None).unwrap().unwrap().verified().read_to_end(&mut read).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidData);
        assert!(store.blob(&digest, None).unwrap().is_none());
    }
    let digest = store.write_blob(b"123456").unwrap();
    std::fs::remove_file(store.blob_path(&digest)).unwrap();
    std::fs::write(store.blob_path(&digest), "short").unwrap();
    assert!(store.blob(&digest, Some(6)).unwrap().is_none());
    assert!(!store.blob_path(&digest).exists());
}

#[test]
fn snapshots_are_found_by_their_whole_key() {
    let (_temp, store) = store();
    let key = Key::of(b"layer");
    assert!(store.snapshot(&key).unwrap().is_none());
    let temp = store.new_snapshot().unwrap();
    std::fs::write(temp.fs().join("file"), "x").unwrap();
    std::fs::create_dir(temp.work()).unwrap();
    let made = store.commit_snapshot(temp, &key, info("RUN make")).unwrap();
    let found = store.snapshot(&key).unwrap().unwrap();
    assert_eq!((&found.fs, &found.info), (&made.fs, &info("RUN make")));
    assert_eq!(names_in(&store.root().join("snapshots").join(key.short())), ["fs", "meta.json"]);
    let mut near = *key.as_bytes();
    near[31] ^= 1;
    assert_eq!(Key::new(near).short(), key.short());
    assert!(matches!(store.snapshot(&Key::new(near)), Err(Error::Taken(_))));
    store.remove_snapshot(&key).unwrap();
    assert!(store.snapshot(&key).unwrap().is_none());
}

#[test]
fn the_first_of_two_snapshots_stays() {
    let (_temp, store) = store();
    let key = Key::of(b"layer");
    let [one, two] = [store.new_snapshot().unwrap(), store.new_snapshot().unwrap()];
    std::fs::write(one.fs().join("one"), "").unwrap();
    std::fs::write(two.fs().join("two"), "").unwrap();
    store.commit_snapshot(one, &key, info("one")).unwrap();
    assert_eq!(store.commit_snapshot(two, &key, info("two")).unwrap().info.note, "one");
    assert_eq!(names_in(&store.snapshot(&key).unwrap().unwrap().fs), ["one"]);
}

/// Makes a snapshot look as if it came from before the machine's last start.
fn of_another_boot(store: &Store, key: &Key) {
    let path = store.root().join("snapshots").join(key.short()).join("meta.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let other = text.replace(store.inner.boot(), "another-boot");
    assert_ne!(text, other);
    std::fs::write(&path, other).unwrap();
}

#[test]
fn what_is_written_begins_where_there_is_room() {
    use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
    let (temp, store) = store();
    let probe = File::open(temp.path()).unwrap();
    let takes_hint = ioctl_getflags(&probe).and_then(|flags| ioctl_setflags(&probe, flags | IFlags::TOPDIR)).is_ok();
    if !takes_hint {
        eprintln!("skipped: the file system of temporary files takes no hint where to put folders");
        return;
    }
    let flags = ioctl_getflags(File::open(store.root().join("tmp")).unwrap()).unwrap();
    assert!(flags.contains(IFlags::TOPDIR));
}

#[test]
fn after_a_power_cut_only_settled_snapshots_are_trusted() {
    let (_temp, store) = store();
    let (settled, torn) = (Key::of(b"settled"), Key::of(b"torn"));
    store.commit_snapshot(store.new_snapshot().unwrap(), &settled, info("")).unwrap();
    store.settle().unwrap();
    store.commit_snapshot(store.new_snapshot().unwrap(), &torn, info("")).unwrap();
    assert!(reopen(&store).snapshot(&torn).unwrap().is_some(), "the same boot");
    of_another_boot(&store, &settled);
    of_another_boot(&store, &torn);
    let later = reopen(&store);
    assert!(later.snapshot(&settled).unwrap().is_some());
    assert!(later.snapshot(&torn).unwrap().is_none());
    assert_eq!(names_in(&later.root().join("snapshots")), [settled.short()]);
    // What is in the way of a new one goes, too.
    store.commit_snapshot(store.new_snapshot().unwrap(), &torn, info("old")).unwrap();
    of_another_boot(&store, &torn);
    let new = later.commit_snapshot(later.new_snapshot().unwrap(), &torn, info("new")).unwrap();
    assert_eq!(new.info.note, "new");
}

#[test]
fn a_later_build_settles_what_an_earlier_one_left() {
    let (_temp, store) = store();
    let key = Key::of(b"left");
    store.commit_snapshot(store.new_snapshot().unwrap(), &key, info("")).unwrap();
    let later = reopen(&store);
    assert!(later.snapshot(&key).unwrap().is_some());
    later.settle().unwrap();
    of_another_boot(&store, &key);
    assert!(reopen(&store).snapshot(&key).unwrap().is_some());
}

#[test]
fn a_snapshot_without_its_description_is_none() {
    let (_temp, store) = store();
    let key = Key::of(b"odd");
    for text in ["", "{}", "\0\0\0\0"] {
        let folder = store.root().join("snapshots").join(key.short());
        std::fs::create_dir_all(folder.join("fs")).unwrap();
        std::fs::write(folder.join("meta.json"), text).unwrap();
        assert!(store.snapshot(&key).unwrap().is_none());
        assert!(!folder.exists());
    }
}

#[test]
fn records_come_back_or_are_misses() {
    let (_temp, store) = store();
    let (key, other) = (Key::of(b"k"), Key::of(b"o"));
    store.put_record("step", &key, &vec![1, 2]).unwrap();
    assert_eq!(store.record::<Vec<i32>>("step", &key).unwrap(), Some(vec![1, 2]));
    assert_eq!(store.record::<Vec<i32>>("step", &other).unwrap(), None);
    assert_eq!(store.record::<Vec<i32>>("other", &key).unwrap(), None);
    assert_eq!(store.record::<String>("step", &key).unwrap(), None, "another type");
    let path = |key: &Key| store.root().join(format!("records/step/{key}.json"));
    std::fs::copy(path(&key), path(&other)).unwrap();
    assert_eq!(store.record::<Vec<i32>>("step", &other).unwrap(), None, "another key's record");
    for torn in [&b""[..], b"{\"key\":", b"\0\0\0"] {
        std::fs::write(path(&key), torn).unwrap();
        assert_eq!(store.record::<Vec<i32>>("step", &key).unwrap(), None);
    }
    store.put_record("step", &key, &vec![3]).unwrap();
    assert_eq!(store.record::<Vec<i32>>("step", &key).unwrap(), Some(vec![3]));
    store.remove_record("step", &key).unwrap();
    assert_eq!(store.record::<Vec<i32>>("step", &key).unwrap(), None);
}

#[test]
fn names_are_listed_and_removed() {
    let (_temp, store) = store();
    let settled = store.settle().unwrap();
    let manifest = describe(MediaType::ImageManifest, b"{}");
    let texts = ["127.0.0.1:5000/a/b:1", "[::1]:5/a:1", "a", "a/b/c:x.1", "docker.io/library/a:2"];
    for text in texts {
        let name: Reference = text.parse().unwrap();
        store.publish(&settled, &name, &manifest, "2026-01-01T00:00:00Z").unwrap();
        let found = store.name(&name).unwrap().unwrap();
        assert_eq!((found.reference, &found.descriptor), (name.to_string(), &manifest));
    }
    assert_eq!(store.names().unwrap().len(), texts.len());
    assert!(store.root().join("names/docker.io/library/a/:latest").is_file());
    for text in texts {
        let name: Reference = text.parse().unwrap();
        assert!(store.remove_name(&name).unwrap());
        assert!(!store.remove_name(&name).unwrap());
        assert!(store.name(&name).unwrap().is_none());
    }
    assert!(names_in(&store.root().join("names")).is_empty());
}

#[test]
fn a_reference_made_by_hand_leads_nowhere_else() {
    let (_temp, store) = store();
    let settled = store.settle().unwrap();
    let manifest = describe(MediaType::ImageManifest, b"{}");
    let good: Reference = "a".parse().unwrap();
    for bad in [
        Reference { registry: "..".into(), ..good.clone() },
        Reference { repository: "../../x".into(), ..good.clone() },
        Reference { repository: "/etc".into(), ..good.clone() },
        Reference { tag: Some("../x".into()), ..good.clone() },
        Reference { digest: Some(Digest::of(b"")), ..good.clone() },
    ] {
        assert!(matches!(store.publish(&settled, &bad, &manifest, ""), Err(Error::NoTag(_))), "{bad:?}");
        assert!(store.name(&bad).is_err());
    }
}

#[test]
fn a_key_has_one_holder_at_a_time() {
    let (_temp, store) = store();
    let key = Key::of(b"k");
    let lock = store.try_lock(&key).unwrap().unwrap();
    assert!(store.try_lock(&key).unwrap().is_none());
    assert!(store.try_lock(&Key::of(b"other")).unwrap().is_some());
    let mut waits = 0;
    let cancel = Cancel::new().unwrap();
    std::thread::scope(|scope| {
        let stopped = scope.spawn(|| store.lock(&key, &cancel, &mut || cancel.cancel()));
        assert!(matches!(stopped.join().unwrap(), Err(Error::Cancelled)));
    });
    drop(lock);
    drop(store.lock(&key, &cancel, &mut || waits += 1).unwrap());
    assert_eq!(waits, 0);
    assert!(names_in(&store.root().join("locks")).is_empty());
}

#[test]
fn many_threads_meet_at_one_lock() {
    let (_temp, store) = store();
    let cancel = Cancel::new().unwrap();
    let (key, inside) = (Key::of(b"k"), std::sync::atomic::AtomicU32::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let _lock = store.lock(&key, &cancel, &mut || ()).unwrap();
                    assert_eq!(inside.fetch_add(1, std::sync::atomic::Ordering::SeqCst), 0);
                    inside.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn the_sweep_takes_what_is_dead_and_nothing_else() {
    let (_temp, store) = store();
    let mine = store.new_snapshot().unwrap();
    let _lock = store.try_lock(&Key::of(b"held")).unwrap().unwrap();
    let dead = store.root().join("tmp/1-dead");
    std::fs::create_dir_all(dead.join("0/fs/deep")).unwrap();
    std::fs::write(store.root().join("locks").join(Key::of(b"dead").to_string()), "").unwrap();
    let other = reopen(&store);
    other.sweep().unwrap();
    assert!(!dead.exists() && mine.fs().exists());
    assert_eq!(names_in(&store.root().join("locks")), [Key::of(b"held").to_string()]);
}

#[test]
fn an_ended_session_leaves_nothing_whoever_still_writes() {
    let (_temp, store) = store();
    let mut ingest = store.ingest().unwrap();
    let snapshot = store.new_snapshot().unwrap();
    std::fs::write(snapshot.fs().join("file"), "").unwrap();
    store.end().unwrap();
    assert!(names_in(&store.root().join("tmp")).is_empty());
    ingest.write_all(b"x").unwrap();
    assert!(ingest.commit(None).is_err() && store.write_blob(b"y").is_err());
}

#[test]
fn pruning_leaves_named_images_and_what_is_in_use() {
    let (_temp, store) = store();
    let [config, layer, loose] = [&b"config"[..], b"layer", b"loose"].map(|b| store.write_blob(b).unwrap());
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "size": 6, "digest": config},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar", "size": 5, "digest": layer}],
    })
    .to_string();
    let manifest_digest = store.write_blob(manifest.as_bytes()).unwrap();
    let settled = store.settle().unwrap();
    let name = "app:1".parse().unwrap();
    store.publish(&settled, &name, &describe(MediaType::ImageManifest, manifest.as_bytes()), "").unwrap();
    let [used, unused] = [Key::of(b"used"), Key::of(b"unused")];
    for key in [&used, &unused] {
        store.commit_snapshot(store.new_snapshot().unwrap(), key, info("")).unwrap();
    }
    store.put_record("step", &unused, &1).unwrap();
    let root = store.root().to_owned();
    drop(store);

    let build = Store::open(&root).unwrap();
    age(&build);
    assert!(build.snapshot(&used).unwrap().is_some());
    let pruner = Store::open(&root).unwrap();
    let dry = pruner.prune(&Policy { dry_run: true, ..Policy::default() }).unwrap();
    let done = pruner.prune(&Policy::default()).unwrap();
    assert_eq!((dry, done.removed.count, done.held.count), (done, 3, 1));
    assert!(pruner.blob(&loose, None).unwrap().is_none());
    assert!(pruner.snapshot(&unused).unwrap().is_none());
    assert_eq!(pruner.record::<i32>("step", &unused).unwrap(), None);
    for kept in [&config, &layer, &manifest_digest] {
        assert!(pruner.blob_path(kept).exists());
    }
    assert_eq!(pruner.usage().unwrap().named.count, 3);
    assert!(build.root().join("snapshots").join(used.short()).exists());
    drop((build, pruner));

    let last = Store::open(&root).unwrap();
    // Else this session could begin in the same tick of the clock as the one that has just ended.
    age(&last);
    last.remove_name(&name).unwrap();
    assert_eq!(last.prune(&Policy::default()).unwrap().held.count, 0);
    assert_eq!(last.usage().unwrap().blobs.count, 0);
}

#[test]
fn pruning_starts_with_the_longest_unused_and_stops_where_told() {
    let (_temp, store) = store();
    let now = SystemTime::now();
    let digests: Vec<Digest> = (0u8..4).map(|i| store.write_blob(&vec![i; 100_000]).unwrap()).collect();
    for (hours, digest) in (1u64..).zip(&digests) {
        let then = now - Duration::from_secs(3600 * hours);
        File::open(store.blob_path(digest)).unwrap().set_modified(then).unwrap();
    }
    let left = |store: &Store| digests.iter().filter(|d| store.blob_path(d).exists()).count();
    let pruner = reopen(&store);
    let day = Policy { unused_since: Some(now - Duration::from_secs(86400)), ..Policy::default() };
    pruner.prune(&day).unwrap();
    assert_eq!(left(&store), 4);
    let old = Policy { unused_since: Some(now - Duration::from_secs(3600 * 7 / 2)), ..Policy::default() };
    pruner.prune(&old).unwrap();
    assert_eq!(left(&store), 3);
    pruner.prune(&Policy { keep_bytes: Some(250_000), ..Policy::default() }).unwrap();
    assert_eq!(left(&store), 2);
    assert!(store.blob_path(&digests[0]).exists() && store.blob_path(&digests[1]).exists());
}

#[test]
fn builds_and_pruners_at_once_never_lose_what_was_found() {
    let (_temp, store) = store();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let pruner = reopen(&store);
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                pruner.prune(&Policy::default()).unwrap();
            }
        });
        for round in 0..100u8 {
            let build = reopen(&store);
            let keys: Vec<Key> = (0..5u8).map(|i| Key::of(&[i, round % 2])).collect();
            for key in &keys {
                let found = build.snapshot(key).unwrap();
                let temp = || build.new_snapshot().unwrap();
                let held = found.unwrap_or_else(|| build.commit_snapshot(temp(), key, info("")).unwrap());
                assert!(held.fs.exists());
            }
            for key in &keys {
                assert!(build.root().join("snapshots").join(key.short()).join("fs").exists(), "round {round}");
            }
        }
        stop.store(true, std::sync::atomic::Ordering::SeqCst);
    });
}

#[test]
fn a_store_that_ends_is_left_by_those_who_still_write() {
    for _ in 0..50 {
        let (temp, store) = store();
        drop(store.new_snapshot().unwrap());
        let writing = store.clone();
        let writer = std::thread::spawn(move || {
            while writing.new_snapshot().is_ok_and(|s| std::fs::write(s.fs().join("f"), "").is_ok_and(|()| forget(s))) {
            }
        });
        std::thread::sleep(Duration::from_millis(1));
        store.end().unwrap();
        writer.join().unwrap();
        assert_eq!(names_in(&temp.path().join("store/tmp")), [""; 0]);
    }
}

/// Leaves a snapshot where it is.
fn forget(snapshot: TempSnapshot) -> bool {
    std::mem::forget(snapshot);
    true
}
