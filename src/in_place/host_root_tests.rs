//! Switching a directory's entries, and restoring them.
#![allow(clippy::unwrap_used, reason = "for tests")]

use super::*;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

/// A root directory with kiln's own in `/kiln`, `/proc` as a system directory, and a stage.
struct Fixture(tempfile::TempDir);

impl Fixture {
    fn new(dirs: &[&str], files: &[&str]) -> Self {
        let fixture = Self(tempfile::tempdir().unwrap());
        for path in dirs {
            fs::create_dir_all(fixture.path(path)).unwrap();
        }
        for path in files {
            fs::write(fixture.path(path), *path).unwrap();
        }
        fixture
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn list(&self, path: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path(path)).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// With these paths as kiln's own.
    fn host(&self, own: &[&str]) -> Arc<HostRoot> {
        let own: Vec<PathBuf> = own.iter().map(PathBuf::from).collect();
        let layout = Layout::new("", &own, |_| true);
        Arc::new(HostRoot::new(&self.path("root"), &self.path("root/kiln/work"), layout).unwrap())
    }

    /// With volumes on `/tmp` and, read-only, on `/srv`, and a file mounted on `/etc/hostname`.
    fn host_with_volumes(&self) -> Arc<HostRoot> {
        let mounts = "1 1 0:1 / /tmp rw - x x rw\n1 1 0:1 / /srv ro - x x ro\n1 1 0:1 / /etc/hostname rw - x x rw\n";
        let layout =
            Layout::new(mounts, &["/kiln".into(), "/etc/kept".into()], |path| path != Path::new("/etc/hostname"));
        Arc::new(HostRoot::new(&self.path("root"), &self.path("root/kiln/work"), layout).unwrap())
    }

    fn finish(stage: SwitchedRoot) -> Result<(), Error> {
        let counted = stage.count().unwrap();
        stage.finish(&|dir| counted.get(dir).copied().unwrap_or(0))
    }
}

fn fixture() -> Fixture {
    Fixture::new(
        &["root/etc", "root/kiln", "root/proc", "stage/bin", "stage/etc", "stage/proc"],
        &["root/etc/own", "root/etc/hosts", "stage/etc/theirs"],
    )
}

fn entry(path: &str) -> EntryPath {
    EntryPath::parse(path.as_bytes()).unwrap()
}

#[test]
fn a_stage_is_switched_in_and_out() {
    let fixture = fixture();
    let stage = fixture.host(&["/kiln"]).switch_in(&fixture.path("stage")).unwrap();
    assert_eq!(fixture.list("root"), ["bin", "etc", "kiln", "proc"]);
    assert_eq!(fixture.list("root/etc"), ["theirs"]);
    assert_eq!(fixture.list("stage"), ["proc"]);
    let excluded = stage.excluded().unwrap();
    assert!(excluded.contains(&EntryPath::root(), b"kiln") && !excluded.contains(&EntryPath::root(), b"etc"));
    fs::write(fixture.path("root/new"), "").unwrap();
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("root"), ["etc", "kiln", "proc"]);
    assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
    assert_eq!(fixture.list("stage"), ["bin", "etc", "new", "proc"]);
    assert_eq!(fixture.list("root/kiln/work"), ["own"]);
}

#[test]
fn a_stage_with_kilns_own_name_is_refused() {
    let fixture = fixture();
    fs::create_dir(fixture.path("stage/kiln")).unwrap();
    let refused = fixture.host(&["/kiln"]).switch_in(&fixture.path("stage")).unwrap_err();
    assert!(matches!(refused, Error::Held(_)), "{refused}");
    assert_eq!(fixture.list("root"), ["etc", "kiln", "proc"]);
    assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
    assert_eq!(fixture.list("stage"), ["bin", "etc", "kiln", "proc"]);
}

#[test]
fn entries_of_a_directory_that_stays_move_one_by_one() {
    let fixture = fixture();
    fs::set_permissions(fixture.path("stage/etc"), fs::Permissions::from_mode(0o711)).unwrap();
    let before = fs::metadata(fixture.path("root/etc")).unwrap();
    // As a file of kiln's own does, a file in it keeps a directory where it is.
    let stage = fixture.host(&["/kiln", "/etc/hosts"]).switch_in(&fixture.path("stage")).unwrap();
    assert_eq!(fixture.list("root/etc"), ["hosts", "theirs"]);
    assert_eq!(fs::metadata(fixture.path("root/etc")).unwrap().mode() & 0o777, 0o711);
    let split: Vec<_> = stage.host.split_directories().into_iter().map(|split| split.path).collect();
    assert_eq!(split, [fixture.path("root"), fixture.path("root/etc")]);
    fs::write(fixture.path("root/etc/new"), "").unwrap();
    fs::set_permissions(fixture.path("root/etc"), fs::Permissions::from_mode(0o750)).unwrap();
    assert!(stage.excluded().unwrap().contains(&entry("etc"), b"hosts"));
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
    assert_eq!(fixture.list("stage/etc"), ["new", "theirs"]);
    assert_eq!(fs::metadata(fixture.path("stage/etc")).unwrap().mode() & 0o777, 0o750);
    let after = fs::metadata(fixture.path("root/etc")).unwrap();
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
}

#[test]
fn a_directory_that_only_the_container_has_is_no_part_of_the_stage() {
    let fixture = fixture();
    fs::remove_dir_all(fixture.path("stage/etc")).unwrap();
    let host = fixture.host(&["/kiln", "/etc/hosts"]);
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    assert!(stage.excluded().unwrap().contains(&EntryPath::root(), b"etc"));
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("stage"), ["bin", "proc"]);
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    fs::write(fixture.path("root/etc/new"), "").unwrap();
    assert!(!stage.excluded().unwrap().contains(&EntryPath::root(), b"etc"));
    let counted = BTreeMap::from([(EntryPath::root(), 2), (entry("etc"), 1)]);
    stage.finish(&|dir| counted.get(dir).copied().unwrap_or(0)).unwrap();
    assert_eq!(
        (fixture.list("stage"), fixture.list("stage/etc")),
        (vec!["bin".into(), "etc".into(), "proc".into()], vec!["new".to_owned()])
    );
}

#[test]
fn a_directory_that_a_process_replaced_comes_back() {
    let fixture = fixture();
    let stage = fixture.host(&["/kiln", "/etc/x/hosts"]).switch_in(&fixture.path("stage")).unwrap();
    fs::remove_dir_all(fixture.path("root/etc")).unwrap();
    fs::write(fixture.path("root/etc"), "a file").unwrap();
    stage.finish(&|dir| if dir.is_root() { 2 } else { 0 }).unwrap();
    assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
    assert_eq!(fs::read(fixture.path("stage/etc")).unwrap(), b"a file");
}

#[test]
fn files_that_vanish_between_walk_and_move_are_an_error() {
    let fixture = fixture();
    let stage = fixture.host(&["/kiln"]).switch_in(&fixture.path("stage")).unwrap();
    let counted = stage.count().unwrap();
    fs::remove_dir(fixture.path("root/bin")).unwrap();
    let lost = stage.finish(&|dir| counted.get(dir).copied().unwrap_or(0)).unwrap_err();
    assert!(matches!(lost, Error::Lost { expected: 2, found: 1, .. }), "{lost}");
    assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
}

#[test]
fn what_a_killed_process_left_is_restored() {
    let fixture = fixture();
    for own in [&["/kiln"][..], &["/kiln", "/etc/hosts"]] {
        let stage = fixture.host(own).switch_in(&fixture.path("stage")).unwrap();
        // As if killed: the lock goes with the descriptor, and the journal stays.
        rustix::fs::flock(&stage.root, rustix::fs::FlockOperation::Unlock).unwrap();
        std::mem::forget(stage);
        if own.len() == 1 {
            // Half of it was undone.
            fs::rename(fixture.path("root/etc"), fixture.path("stage/etc")).unwrap();
            fs::rename(fixture.path("root/kiln/work/own/etc"), fixture.path("root/etc")).unwrap();
        }
        // By somebody who knows nothing of the layout.
        HostRoot::restore(&fixture.path("root"), &fixture.path("root/kiln/work")).unwrap();
        assert_eq!(fixture.list("root"), ["etc", "kiln", "proc"]);
        assert_eq!(fixture.list("root/etc"), ["hosts", "own"]);
        assert_eq!(fixture.list("root/kiln/work"), ["own"]);
        fs::create_dir_all(fixture.path("stage/etc")).unwrap();
    }
}

#[test]
fn the_probe_changes_nothing() {
    let fixture = fixture();
    fixture.host(&["/kiln"]).probe(|| Ok::<_, Error>(())).unwrap();
    assert!(fixture.host(&["/kiln"]).probe(|| Err(Error::NoUser("x".into()))).is_err());
    assert_eq!(fixture.list("root"), ["etc", "kiln", "proc"]);
    assert_eq!(fixture.list("root/kiln/work"), ["own", "probe"], "a stage that failed is removed by the next build");
}

fn volumes() -> Fixture {
    Fixture::new(
        &["root/etc", "root/kiln", "root/tmp/sub", "root/srv", "stage/tmp/theirs", "stage/etc"],
        &["root/etc/hostname", "root/etc/kept", "root/tmp/own", "stage/tmp/theirs/file", "stage/etc/hostname"],
    )
}

#[test]
fn a_volume_has_the_stages_files_and_gets_its_own_back() {
    let fixture = volumes();
    let before = fs::metadata(fixture.path("root/tmp")).unwrap();
    fs::set_permissions(fixture.path("stage/tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    let stage = fixture.host_with_volumes().switch_in(&fixture.path("stage")).unwrap();
    let aside = fixture.list("root/tmp").into_iter().find(|name| name.starts_with(".kiln-")).unwrap();
    assert_eq!(fixture.list("root/tmp"), [aside.as_str(), "theirs"]);
    assert_eq!(fs::metadata(fixture.path("root/tmp")).unwrap().mode() & 0o7777, 0o1777);
    let excluded = stage.excluded().unwrap();
    assert!(excluded.contains(&entry("tmp"), aside.as_bytes()) && !excluded.contains(&EntryPath::root(), b"tmp"));
    let hidden = stage.host.split_directories().into_iter().find(|split| split.path == fixture.path("root/tmp"));
    assert!(hidden.unwrap().hidden.contains(aside.as_bytes()));
    fs::write(fixture.path("root/tmp/new"), "").unwrap();
    fs::remove_file(fixture.path("root/tmp/theirs/file")).unwrap();
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("root/tmp"), ["own", "sub"]);
    assert_eq!(
        (fixture.list("stage/tmp"), fixture.list("stage/tmp/theirs")),
        (vec!["new".into(), "theirs".into()], vec![])
    );
    let after = fs::metadata(fixture.path("root/tmp")).unwrap();
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
}

#[test]
fn a_volume_gets_its_own_files_back_after_a_kill() {
    let fixture = volumes();
    let stage = fixture.host_with_volumes().switch_in(&fixture.path("stage")).unwrap();
    rustix::fs::flock(&stage.root, rustix::fs::FlockOperation::Unlock).unwrap();
    std::mem::forget(stage);
    fs::write(fixture.path("root/tmp/new"), "").unwrap();
    HostRoot::restore(&fixture.path("root"), &fixture.path("root/kiln/work")).unwrap();
    assert_eq!(fixture.list("root/tmp"), ["own", "sub"]);
    assert_eq!(fs::read(fixture.path("root/etc/hostname")).unwrap(), b"root/etc/hostname");
}

#[test]
fn a_kill_while_a_volume_is_restored_loses_nothing() {
    let fixture = volumes();
    let stage = fixture.host_with_volumes().switch_in(&fixture.path("stage")).unwrap();
    rustix::fs::flock(&stage.root, rustix::fs::FlockOperation::Unlock).unwrap();
    // The stage's files are gone, and half of the volume's own are back.
    fs::remove_dir_all(fixture.path("root/tmp/theirs")).unwrap();
    stage.host.record(Record::VolumeCleared { path: b"tmp".to_vec() }).unwrap();
    let aside = fixture.list("root/tmp").into_iter().find(|name| name.starts_with(".kiln-")).unwrap();
    fs::rename(fixture.path("root/tmp").join(aside).join("own/own"), fixture.path("root/tmp/own")).unwrap();
    std::mem::forget(stage);
    HostRoot::restore(&fixture.path("root"), &fixture.path("root/kiln/work")).unwrap();
    assert_eq!(fixture.list("root/tmp"), ["own", "sub"]);
}

#[test]
fn a_stage_with_files_on_a_read_only_volume_is_refused() {
    let fixture = volumes();
    fs::create_dir(fixture.path("stage/srv")).unwrap();
    let refused = fixture.host_with_volumes().switch_in(&fixture.path("stage")).unwrap_err();
    assert!(refused.to_string().contains("read-only"), "{refused}");
    fs::remove_dir(fixture.path("stage/srv")).unwrap();
    fs::remove_dir_all(fixture.path("stage/tmp")).unwrap();
    fs::write(fixture.path("stage/tmp"), "").unwrap();
    let refused = fixture.host_with_volumes().switch_in(&fixture.path("stage")).unwrap_err();
    assert!(matches!(refused, Error::Occupied { .. }), "{refused}");
    assert_eq!(fixture.list("root/tmp"), ["own", "sub"]);
}

#[test]
fn a_mounted_hostname_has_the_stages_content() {
    let fixture = volumes();
    let host = fixture.host_with_volumes();
    let hostname = || fs::read_to_string(fixture.path("root/etc/hostname")).unwrap();
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    assert_eq!(hostname(), "stage/etc/hostname");
    assert!(stage.excluded().unwrap().contains(&entry("etc"), b"hostname"), "nobody changed it");
    Fixture::finish(stage).unwrap();
    assert_eq!(hostname(), "root/etc/hostname");
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    fs::write(fixture.path("root/etc/hostname"), "changed").unwrap();
    assert!(!stage.excluded().unwrap().contains(&entry("etc"), b"hostname"));
    Fixture::finish(stage).unwrap();
    assert_eq!(hostname(), "root/etc/hostname");
    assert_eq!(fs::read_to_string(fixture.path("stage/etc/hostname")).unwrap(), "changed");
}

#[test]
fn a_volume_that_the_stage_lacks_is_the_stages_if_a_process_uses_it() {
    let fixture = volumes();
    fs::remove_dir_all(fixture.path("stage/tmp")).unwrap();
    let host = fixture.host_with_volumes();
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    assert!(stage.excluded().unwrap().contains(&EntryPath::root(), b"tmp"));
    assert_eq!(fixture.list("root/tmp").len(), 1, "its own files are set aside");
    Fixture::finish(stage).unwrap();
    assert_eq!(
        (fixture.list("stage"), fixture.list("root/tmp")),
        (vec!["etc".into()], vec!["own".into(), "sub".to_owned()])
    );
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    fs::write(fixture.path("root/tmp/new"), "").unwrap();
    assert!(!stage.excluded().unwrap().contains(&EntryPath::root(), b"tmp"));
    Fixture::finish(stage).unwrap();
    assert_eq!(
        (fixture.list("stage/tmp"), fixture.list("root/tmp")),
        (vec!["new".into()], vec!["own".into(), "sub".to_owned()])
    );
}

#[test]
fn attributes_of_the_root_directory_do_not_reach_the_next_stage() {
    let fixture = fixture();
    let set = |path: &str, name: &str| {
        rustix::fs::setxattr(fixture.path(path), name, b"1", rustix::fs::XattrFlags::empty()).is_ok()
    };
    if !set("root", "user.own") {
        eprintln!("skipped: no extended attributes of users here");
        return;
    }
    let list = |path: &str| crate::sys::xattr::list(&fixture.path(path)).unwrap();
    let host = fixture.host(&["/kiln"]);
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    assert_eq!(list("root"), Vec::<Vec<u8>>::new(), "the stage has none");
    assert!(set("root", "user.theirs"));
    Fixture::finish(stage).unwrap();
    assert_eq!((list("root"), list("stage")), (vec![b"user.own".to_vec()], vec![b"user.theirs".to_vec()]));
    fs::create_dir(fixture.path("other")).unwrap();
    let stage = host.switch_in(&fixture.path("other")).unwrap();
    assert_eq!(list("root"), Vec::<Vec<u8>>::new());
    drop(stage);
    assert_eq!(list("root"), [b"user.own".to_vec()]);
}

#[test]
fn a_directory_that_a_process_claims_is_the_stages_even_if_it_is_empty() {
    let fixture = volumes();
    fs::remove_dir_all(fixture.path("stage/tmp")).unwrap();
    fs::remove_dir_all(fixture.path("stage/etc")).unwrap();
    let host = fixture.host_with_volumes();
    // By mkdir, which finds no directory.
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    assert!(host.claim(&fixture.path("root/tmp")) && !host.claim(&fixture.path("root/tmp")));
    assert!(!stage.excluded().unwrap().contains(&EntryPath::root(), b"tmp"));
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("stage"), ["tmp"]);
    // By a change of metadata.
    let stage = host.switch_in(&fixture.path("stage")).unwrap();
    fs::set_permissions(fixture.path("root/etc"), fs::Permissions::from_mode(0o700)).unwrap();
    Fixture::finish(stage).unwrap();
    assert_eq!(fixture.list("stage"), ["etc", "tmp"]);
    assert_eq!(fs::metadata(fixture.path("stage/etc")).unwrap().mode() & 0o777, 0o700);
}
