use super::contents::{look, pack, unpack};
use crate::layer::{Compression, EntryKind, EntryPath, EntrySink as _, LayerReader, Packer};
use crate::oci::Digest;
use std::fs;
use std::num::NonZeroUsize;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

const ONE: NonZeroUsize = NonZeroUsize::MIN;

/// A folder as a tool's cache may be.
fn cache(folder: &Path) {
    fs::create_dir_all(folder.join("a/b")).unwrap();
    fs::write(folder.join("a/one"), "one").unwrap();
    fs::hard_link(folder.join("a/one"), folder.join("a/b/same")).unwrap();
    symlink("../one", folder.join("a/b/link")).unwrap();
    fs::set_permissions(folder.join("a/one"), fs::Permissions::from_mode(0o4751)).unwrap();
    let old = SystemTime::UNIX_EPOCH + Duration::new(1_000_000_000, 123_456_789);
    fs::File::open(folder.join("a/one")).unwrap().set_modified(old).unwrap();
    fs::File::open(folder.join("a/b")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(folder, fs::Permissions::from_mode(0o1777)).unwrap();
}

fn packed(folder: &Path) -> (Vec<u8>, Digest, Digest) {
    let (contents, packed, blob) = pack(folder, Vec::new(), Compression::ZSTD, ONE).unwrap();
    assert_eq!(contents, look(folder).unwrap());
    (blob, packed.digest, packed.diff_id)
}

#[test]
fn a_folder_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    cache(from.path());
    let (blob, digest, diff_id) = packed(from.path());
    unpack(LayerReader::new(&blob[..], &digest, blob.len() as u64, Some(&diff_id)).unwrap(), to.path(), 3).unwrap();
    assert_eq!(look(to.path()).unwrap(), look(from.path()).unwrap());
    let one = fs::metadata(to.path().join("a/one")).unwrap();
    assert_eq!(
        (one.mode() & 0o7777, one.mtime(), one.mtime_nsec(), one.nlink()),
        (0o4751, 1_000_000_000, 123_456_789, 2)
    );
    assert_eq!(fs::metadata(to.path().join("a/b")).unwrap().mtime_nsec(), 123_456_789);
    assert_eq!(fs::metadata(to.path()).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_link(to.path().join("a/b/link")).unwrap(), Path::new("../one"));
}

#[test]
fn names_that_are_reserved_in_layers_come_back_in_caches() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::create_dir(from.path().join(".wh.a")).unwrap();
    fs::write(from.path().join(".wh.a/.wh..wh..opq"), "x").unwrap();
    fs::write(from.path().join("a"), "x").unwrap();
    let (blob, digest, diff_id) = packed(from.path());
    unpack(LayerReader::new(&blob[..], &digest, blob.len() as u64, Some(&diff_id)).unwrap(), to.path(), 9).unwrap();
    assert_eq!(look(to.path()).unwrap(), look(from.path()).unwrap());
}

#[test]
fn what_changes_a_fingerprint() {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    cache(folder.path());
    let mut before = look(folder.path()).unwrap();
    // When it was used is no content of it.
    fs::File::open(folder.path()).unwrap().set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(look(folder.path()).unwrap(), before);
    let changes: [(&str, &dyn Fn()); 6] = [
        ("content", &|| fs::write(at("a/one"), "two").unwrap()),
        ("mode", &|| fs::set_permissions(at("a/one"), fs::Permissions::from_mode(0o600)).unwrap()),
        ("time", &|| fs::File::open(at("a/b")).unwrap().set_modified(SystemTime::now()).unwrap()),
        ("no hard link", &|| {
            fs::remove_file(at("a/b/same")).unwrap();
            fs::copy(at("a/one"), at("a/b/same")).unwrap();
        }),
        ("name", &|| fs::rename(at("a/b/link"), at("a/b/other")).unwrap()),
        ("the folder's mode", &|| fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap()),
    ];
    for (what, change) in changes {
        change();
        let after = look(folder.path()).unwrap();
        assert_ne!(after, before, "{what}");
        before = after;
    }
}

#[test]
fn sockets_are_left_out_and_pipes_are_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("socket")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        folder.path().join("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RUSR,
        0,
    )
    .unwrap();
    let to = tempfile::tempdir().unwrap();
    let (blob, digest, diff_id) = packed(folder.path());
    unpack(LayerReader::new(&blob[..], &digest, blob.len() as u64, Some(&diff_id)).unwrap(), to.path(), 0).unwrap();
    assert!(!to.path().join("socket").exists());
    assert!(fs::symlink_metadata(to.path().join("pipe")).unwrap().file_type().is_fifo());
}

/// Entries as a blob, with the root in front.
fn blob(entries: &[(&str, EntryKind, &str)]) -> (Vec<u8>, Digest, Digest) {
    let mut packer = Packer::archive(Vec::new(), Compression::None, ONE);
    let entry = |path: &str, kind| crate::layer::Entry::new(EntryPath::parse(path.as_bytes()).unwrap(), kind);
    packer.add(&entry("", EntryKind::Dir), &mut std::io::empty()).unwrap();
    for (path, kind, content) in entries {
        packer.add(&entry(path, kind.clone()), &mut content.as_bytes()).unwrap();
    }
    let (packed, blob) = packer.finish().unwrap();
    (blob, packed.digest, packed.diff_id)
}

#[test]
fn hostile_tars_stay_in_the_folder() {
    let outside = tempfile::tempdir().unwrap();
    let target = outside.path().to_str().unwrap();
    let (absolute, climbing) =
        (target.as_bytes().to_vec(), format!("{}{target}", "../".repeat(20).trim_end_matches('/')));
    let file = || EntryKind::File { size: 1 };
    let device = || EntryKind::BlockDevice(crate::layer::Device { major: 8, minor: 0 });
    for entries in [
        vec![("out", EntryKind::Symlink(absolute), ""), ("out/x", file(), "x")],
        vec![("out", EntryKind::Symlink(climbing.into_bytes()), ""), ("out/x", file(), "x")],
        vec![("h", EntryKind::Hardlink(EntryPath::parse(b"etc/passwd").unwrap()), "")],
        vec![("disk", device(), ""), ("ok", file(), "x")],
    ] {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("cache");
        fs::create_dir(&folder).unwrap();
        let (blob, digest, diff_id) = blob(&entries);
        let tar = LayerReader::new(&blob[..], &digest, blob.len() as u64, Some(&diff_id)).unwrap();
        let _ = unpack(tar, &folder, 10);
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{entries:?}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "{entries:?}");
        assert!(!folder.join("disk").exists(), "{entries:?}");
    }
}

#[test]
fn names_that_lead_out_are_refused() {
    for name in ["../x", "a/../../x"] {
        let mut header = tar::Header::new_ustar();
        header.as_ustar_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(tar::EntryType::Regular);
        header.set_size(0);
        header.set_mode(0o644);
        header.set_cksum();
        let blob = [header.as_bytes().as_slice(), &[0; 1024]].concat();
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("cache");
        fs::create_dir(&folder).unwrap();
        let digest = Digest::of(&blob);
        let tar = LayerReader::new(&blob[..], &digest, blob.len() as u64, Some(&digest)).unwrap();
        let said = unpack(tar, &folder, 10).unwrap_err().to_string();
        assert!(said.contains(".."), "{name}: {said}");
        assert_eq!(fs::read_dir(temp.path()).unwrap().count(), 1, "{name}");
    }
}

#[test]
fn what_is_not_what_it_should_be_is_an_error() {
    let (good, digest, diff_id) = blob(&[("f", EntryKind::File { size: 3 }, "abc")]);
    let other = Digest::of(b"other");
    let cut = &good[..good.len() - 600];
    let rootless = {
        let mut packer = Packer::archive(Vec::new(), Compression::None, ONE);
        let entry = crate::layer::Entry::new(EntryPath::parse(b"f").unwrap(), EntryKind::Dir);
        packer.add(&entry, &mut std::io::empty()).unwrap();
        packer.finish().unwrap()
    };
    for (what, blob, digest, diff_id, most) in [
        ("another digest", &good[..], &other, &diff_id, 3),
        ("another diff id", &good[..], &digest, &other, 3),
        ("cut off", cut, &Digest::of(cut), &Digest::of(cut), 3),
        ("more than it said", &good[..], &digest, &diff_id, 2),
        ("no root", &rootless.1[..], &rootless.0.digest, &rootless.0.diff_id, 0),
        ("no tar", b"hello, world", &Digest::of(b"hello, world"), &Digest::of(b"hello, world"), 0),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let tar = LayerReader::new(blob, digest, blob.len() as u64, Some(diff_id)).unwrap();
        assert!(unpack(tar, folder.path(), most).is_err(), "{what}");
    }
}
