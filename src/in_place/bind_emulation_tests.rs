//! Tests of bind emulation.
#![allow(clippy::unwrap_used, reason = "for tests")]

use super::*;
use crate::in_place::confinement::SplitDirectory;
use crate::in_place::{Layout, Protection};
use std::fs;

struct Place(tempfile::TempDir, Confinement, HostRoot);

impl Place {
    fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        std::fs::create_dir(temp.path().join("root")).unwrap();
        let host = HostRoot::new(&temp.path().join("root"), &temp.path().join("kiln"), Layout::default()).unwrap();
        let path = temp.path().join("root");
        let split = SplitDirectory { path, hidden: [b"kiln".to_vec()].into(), pool: PathBuf::new() };
        let place = Self(temp, Confinement::new(vec![split], Protection::Landlock(1)), host);
        for dir in ["root/etc", "root/kiln/store", "cache/sub"] {
            fs::create_dir_all(place.at(dir)).unwrap();
        }
        fs::write(place.at("root/etc/hosts"), "own").unwrap();
        fs::write(place.at("cache/sub/f"), "kept").unwrap();
        std::os::unix::fs::symlink("../etc/hosts", place.at("root/etc/link")).unwrap();
        place
    }

    fn at(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn swaps(&self) -> BindEmulation<'_> {
        BindEmulation::new(&self.2, &self.1).unwrap()
    }

    fn owner(&self) -> (u32, u32) {
        (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
    }
}

#[test]
fn everything_goes_back() {
    let place = Place::new();
    let before = fs::metadata(place.at("root/etc")).unwrap().modified().unwrap();
    let mut swaps = place.swaps();
    swaps.file(Path::new("/etc/link"), b"shown", 0o600, place.owner()).unwrap();
    swaps.file(Path::new("/etc/new"), b"secret", 0o400, place.owner()).unwrap();
    swaps.tree(Path::new("/var/cache/x"), &place.at("cache"), Path::new("sub")).unwrap();
    swaps.empty(Path::new("/etc/tmp")).unwrap();
    assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"shown");
    assert_eq!(fs::read(place.at("root/etc/new")).unwrap(), b"secret");
    fs::write(place.at("root/var/cache/x/g"), "new").unwrap();
    fs::write(place.at("root/etc/tmp/left"), "").unwrap();
    swaps.end().unwrap();
    assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"own");
    assert!(!place.at("root/etc/new").exists() && !place.at("root/etc/tmp").exists());
    assert!(!place.at("root/var").exists());
    assert_eq!(fs::read_dir(place.at("kiln/binds")).unwrap().count(), 0);
    assert_eq!(fs::read(place.at("cache/sub/g")).unwrap(), b"new");
    assert_eq!(fs::read(place.at("cache/sub/f")).unwrap(), b"kept");
    assert_eq!(fs::metadata(place.at("root/etc")).unwrap().modified().unwrap(), before);
}

#[test]
fn what_a_process_did_around_stays() {
    let place = Place::new();
    let mut swaps = place.swaps();
    swaps.file(Path::new("/run/secrets/s"), b"x", 0o400, place.owner()).unwrap();
    swaps.file(Path::new("/etc/hosts"), b"x", 0o400, place.owner()).unwrap();
    fs::remove_file(place.at("root/run/secrets/s")).unwrap();
    fs::write(place.at("root/run/pid"), "1").unwrap();
    fs::rename(place.at("root/etc/hosts"), place.at("root/etc/moved")).unwrap();
    swaps.end().unwrap();
    assert!(!place.at("root/run/secrets").exists());
    assert!(place.at("root/run/pid").exists());
    assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"own");
}

#[test]
fn a_working_directory_is_made() {
    let place = Place::new();
    let mut swaps = place.swaps();
    swaps.folder(Path::new("/srv/app"), place.owner()).unwrap();
    swaps.end().unwrap();
    assert!(place.at("root/srv/app").is_dir());
}

#[test]
fn links_of_an_image_lead_to_nothing_that_is_closed() {
    let place = Place::new();
    for (link, target) in [("root/x", "/kiln"), ("root/y", "kiln/store"), ("root/etc/z", "../kiln/new")] {
        std::os::unix::fs::symlink(target, place.at(link)).unwrap();
    }
    let mut swaps = place.swaps();
    for at in ["/kiln", "/kiln/new", "/x", "/x/git", "/x/deep/er", "/y", "/y/blobs", "/etc/z/a"] {
        let errors = [
            swaps.file(Path::new(at), b"evil", 0o755, place.owner()),
            swaps.empty(Path::new(at)),
            swaps.tree(Path::new(at), &place.at("cache"), Path::new("")),
        ];
        assert!(errors.iter().all(Result::is_err), "{at}: {errors:?}");
    }
    for at in ["/x/work", "/kiln/work", "/y/a/b"] {
        assert!(swaps.folder(Path::new(at), place.owner()).is_err(), "{at}");
    }
    swaps.end().unwrap();
    assert_eq!(fs::read_dir(place.at("root/kiln")).unwrap().count(), 1);
    assert_eq!(fs::read_dir(place.at("root/kiln/store")).unwrap().count(), 0);
    assert!(place.at("cache/sub/f").exists());
}

#[test]
fn nothing_of_another_kind_comes_back() {
    let place = Place::new();
    let mut swaps = place.swaps();
    swaps.tree(Path::new("/c"), &place.at("cache"), Path::new("")).unwrap();
    fs::rename(place.at("root/c"), place.at("root/moved")).unwrap();
    std::os::unix::fs::symlink("/kiln/home", place.at("root/c")).unwrap();
    swaps.end().unwrap();
    assert!(place.at("cache").symlink_metadata().is_err() && place.at("root/c").symlink_metadata().is_err());
    assert!(place.at("root/moved/sub/f").exists());
}
