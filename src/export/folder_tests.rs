use super::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::PathBuf;

fn entry(path: &str, kind: EntryKind, mode: u32) -> Entry {
    let path = EntryPath::parse(path.as_bytes()).unwrap();
    Entry { mode, uid: 77, gid: 88, mtime: Timestamp { secs: 1000, nanos: 5 }, ..Entry::new(path, kind) }
}

fn file(path: &str, mode: u32) -> Entry {
    entry(path, EntryKind::File { size: 3 }, mode)
}

fn write(folder: &Path, entries: &[Entry]) -> Result<(), Error> {
    let mut sink = Folder::create(folder)?;
    for entry in entries {
        sink.add(entry, &mut &b"abc"[..])?;
    }
    sink.finish()
}

fn temporary() -> (tempfile::TempDir, PathBuf) {
    let outer = tempfile::tempdir().unwrap();
    let inner = outer.path().join("a/out");
    (outer, inner)
}

fn link(target: &str) -> EntryKind {
    EntryKind::Symlink(target.as_bytes().to_vec())
}

#[test]
fn files_of_every_kind() {
    let (_outer, out) = temporary();
    let hard = EntryKind::Hardlink(EntryPath::parse(b"d/f").unwrap());
    let mut with_xattr = file("d/x", 0o600);
    with_xattr.xattrs = BTreeMap::from([(b"user.k".to_vec(), b"v".to_vec()), (b"odd.k".to_vec(), b"v".to_vec())]);
    let entries = [
        entry("", EntryKind::Dir, 0o700),
        entry("d", EntryKind::Dir, 0o555),
        file("d/f", 0o4751),
        entry("d/h", hard, 0o4751),
        entry("d/l", link("/etc/passwd"), 0o777),
        entry("d/p", EntryKind::Fifo, 0o640),
        with_xattr,
    ];
    write(&out, &entries).unwrap();
    let meta = |name: &str| out.join(name).symlink_metadata().unwrap();
    assert_eq!(meta("d/f").permissions().mode() & 0o7777, 0o4751);
    assert_eq!(
        (meta("d/f").uid(), meta("d/f").mtime(), meta("d/f").mtime_nsec()),
        (rustix::process::geteuid().as_raw(), 1000, 5)
    );
    assert_eq!(meta("d/h").ino(), meta("d/f").ino());
    assert_eq!(std::fs::read_link(out.join("d/l")).unwrap(), Path::new("/etc/passwd"));
    assert_eq!((meta("d").permissions().mode() & 0o7777, meta("d").mtime()), (0o555, 1000));
    assert_eq!(meta("d/p").permissions().mode() & 0o7777, 0o640);
    assert_eq!(std::fs::read(out.join("d/x")).unwrap(), b"abc");
}

#[test]
fn what_was_there_is_merged_or_replaced() {
    let (_outer, out) = temporary();
    std::fs::create_dir_all(out.join("stays/in")).unwrap();
    std::fs::create_dir_all(out.join("becomes-file/in")).unwrap();
    std::fs::write(out.join("stays/mine"), "mine").unwrap();
    std::fs::write(out.join("becomes-dir"), "old").unwrap();
    std::fs::write(out.join("replaced"), "old").unwrap();
    let entries = [
        entry("stays", EntryKind::Dir, 0o755),
        file("becomes-file", 0o644),
        entry("becomes-dir", EntryKind::Dir, 0o755),
        file("becomes-dir/f", 0o644),
        file("replaced", 0o644),
    ];
    write(&out, &entries).unwrap();
    write(&out, &entries).unwrap();
    assert_eq!(std::fs::read(out.join("stays/mine")).unwrap(), b"mine");
    for name in ["becomes-file", "becomes-dir/f", "replaced"] {
        assert_eq!(std::fs::read(out.join(name)).unwrap(), b"abc", "{name}");
    }
    let names: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names.len(), 4, "{names:?}");
}

#[test]
fn links_lead_nowhere() {
    let (outer, out) = temporary();
    let elsewhere = outer.path().join("elsewhere");
    std::fs::create_dir_all(&elsewhere).unwrap();
    std::fs::create_dir_all(&out).unwrap();
    std::fs::write(elsewhere.join("f"), "theirs").unwrap();
    symlink(&elsewhere, out.join("old")).unwrap();
    symlink(elsewhere.join("f"), out.join("file")).unwrap();
    // A link that stood there before is replaced by the image's folder or file.
    write(&out, &[entry("old", EntryKind::Dir, 0o755), file("old/f", 0o644), file("file", 0o644)]).unwrap();
    // One of the image's own is an error for what would go through it, and for what would link to it.
    let target = elsewhere.to_str().unwrap();
    assert!(write(&out, &[entry("new", link(target), 0o777), file("new/g", 0o644)]).is_err());
    let hard = EntryKind::Hardlink(EntryPath::parse(b"new/f").unwrap());
    assert!(write(&out, &[entry("hard", hard, 0o644)]).is_err());
    assert_eq!(std::fs::read(elsewhere.join("f")).unwrap(), b"theirs");
    assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 1);
}

#[test]
fn what_is_no_file_is_refused() {
    let (_outer, out) = temporary();
    assert!(write(&out, &[entry("w", EntryKind::Whiteout, 0)]).is_err());
    assert!(write(&out, &[entry("short", EntryKind::File { size: 4 }, 0o644)]).is_err());
    std::fs::write(out.join("f"), "").unwrap();
    assert!(Folder::create(&out.join("f")).is_err());
}
