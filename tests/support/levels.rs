//! The table of the isolation levels' Dockerfiles, `tests/levels/*.Dockerfile`: what they are built with, and at which level
//! which of them can't give root's image.

use super::user::run;
use super::world::World;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A level, and what it is had by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Level {
    /// With all rights.
    Root,
    /// The same with an empty store and one step at a time.
    RootAgain,
    /// An ordinary user with ranges of numbers.
    Ranges,
    /// An ordinary user with nothing but a number.
    OneNumber,
    /// Where `pivot_root` is forbidden.
    Chroot,
    /// Where overlays don't work either.
    Copies,
    /// In an ordinary container.
    InPlace,
    /// By this runtime.
    Runtime(&'static str),
}

use Level::{Copies, InPlace, OneNumber, Ranges};

impl Level {
    /// What `--isolation` calls it.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Root | Self::RootAgain => "root",
            Self::Ranges | Self::OneNumber => "rootless",
            Self::Chroot | Self::Copies => "chroot",
            Self::InPlace => "in-place",
            Self::Runtime(_) => "oci",
        }
    }
}

/// What a level makes of a Dockerfile whose image it can't give.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Instead {
    /// The build fails with this text in its message.
    Fails(&'static str),
    /// The image is another one.
    Differs,
}

use Instead::{Differs, Fails};

/// Dockerfiles, where they don't give root's image, what happens there, and why it can't be otherwise.
pub(crate) const EXCEPTIONS: &[(&str, Level, Instead, &str)] = &[
    ("devices", Ranges, Fails("Operation not permitted"), "the kernel lets nobody make a device in a user namespace"),
    ("large-numbers", Ranges, Fails("Invalid argument"), "a range has 65,536 numbers"),
    (
        "rights",
        OneNumber,
        Fails("exit code: 1"),
        "all of an image's users are one for the kernel, which asks no file's mode of them",
    ),
    ("owners-of-mounts", OneNumber, Differs, "what is mounted is root's"),
    (
        "names-of-one-file",
        Copies,
        Differs,
        "a change through one name of a lower layer's file is one of all; on overlays it parts them",
    ),
    ("names-of-one-file", InPlace, Differs, "as copies"),
    ("read-only-mounts", InPlace, Fails("exit code: 1"), "what is mounted is a copy, which the process may write to"),
    ("heredoc-programs", InPlace, Fails("cross-device link"), "a container's /dev is a file system of its own"),
    (
        "into-the-root",
        InPlace,
        Fails("cross-device link"),
        "no right that Landlock gives makes a link to a file of another folder in /",
    ),
];

/// A Dockerfile of the table.
#[derive(Debug)]
pub(crate) struct Case {
    /// The file's name without `.Dockerfile`.
    pub(crate) name: String,
    instead: Option<Instead>,
}

/// What a build printed, or why it failed.
pub(crate) type Built = Result<String, String>;

impl Case {
    /// The Dockerfile's path below a bench's world.
    pub(crate) fn file(&self) -> String {
        format!("cases/{}", self.name)
    }

    /// What is wrong with what a level gave.
    pub(crate) fn fault(&self, root: &Built, got: &Built) -> Option<String> {
        let fault = match (root, got, self.instead) {
            (Err(why), _, _) => format!("fails as root: {why}"),
            (Ok(root), _, _) if !root.starts_with("sha256:") => format!("no digest: {root}"),
            (_, Err(why), Some(Fails(part))) if why.contains(part) => return None,
            (_, Err(why), _) => format!("fails: {why}"),
            (_, Ok(_), Some(Fails(_))) => "is built, though the table says it can't be".to_owned(),
            (Ok(root), Ok(got), Some(Differs)) if root != got => return None,
            (Ok(_), Ok(_), Some(Differs)) => "is root's, though the table says it can't be".to_owned(),
            (Ok(root), Ok(got), None) if root == got => return None,
            (Ok(root), Ok(got), None) => format!("is another image: {got}, as root {root}"),
        };
        Some(format!("{}: {fault}", self.name))
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The names of all Dockerfiles that stand below `base`.
pub(crate) fn names() -> Vec<String> {
    let files = fs::read_dir(repository("tests/levels")).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> =
        files.filter_map(|name| name.to_str().unwrap().strip_suffix(".Dockerfile").map(str::to_owned)).collect();
    names.retain(|name| name != "base");
    names.sort();
    names
}

/// The table for a level: its Dockerfiles, written below the world's `cases`, and everything that they need.
pub(crate) fn cases(world: &World, level: Level) -> Vec<Case> {
    let debian = debian(world);
    let mut cases = Vec::new();
    for name in names().into_iter().filter(|name| name != "debian" || debian) {
        let text = |name: &str| fs::read_to_string(repository(&format!("tests/levels/{name}.Dockerfile"))).unwrap();
        let base = if name == "debian" { String::new() } else { text("base") };
        world.file(&format!("cases/{name}"), base + &text(&name));
        let instead = EXCEPTIONS.iter().find(|e| e.0 == name && e.1 == level).map(|e| e.2);
        cases.push(Case { name, instead });
    }
    world.file("context/tree/f", "f\n").file("context/tree/sub/g", "g\n").file("context/tree/sub/h.txt", "h\n");
    world.file("context/tree/ignored", "").file("context/.dockerignore", "tree/ignored\n");
    std::os::unix::fs::symlink("sub/g", world.path("context/tree/link")).unwrap();
    fs::hard_link(world.path("context/tree/f"), world.path("context/tree/same")).unwrap();
    archives(world);
    world.file("secret", "hidden").file("outside", world.path("secret").to_str().unwrap());
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", world.path("key").to_str().unwrap()]);
    run("chmod", &["644", world.path("key").to_str().unwrap()]);
    cases
}

/// An archive of a file with capabilities, an attribute of a user's and an owner, none of which a build can set with busybox;
/// and one of a device.
fn archives(world: &World) {
    let (file, device) = (world.path("files/marked/ping"), world.path("files/device"));
    world.file("files/marked/ping", fs::read("/bin/true").unwrap());
    std::os::unix::fs::chown(&file, Some(12), Some(34)).unwrap();
    run("setcap", &["cap_net_raw+ep", file.to_str().unwrap()]);
    run("setfattr", &["-n", "user.kiln", "-v", "yes", file.to_str().unwrap()]);
    run("mknod", &[device.to_str().unwrap(), "b", "8", "1"]);
    for (archive, what) in [("marked", "marked"), ("devices", "device")] {
        let archive = world.path(&format!("context/{archive}.tar"));
        let flags = ["--xattrs", "--xattrs-include=*", "--format=pax", "--numeric-owner", "-C"];
        let places = [world.path("files").display().to_string(), "-cf".into(), archive.display().to_string()];
        run("tar", &flags.into_iter().chain(places.iter().map(String::as_str)).chain([what]).collect::<Vec<_>>());
    }
}

/// The Debian that `scripts/make-bases` leaves, without devices, which an ordinary user can't unpack, and documentation.
fn debian(world: &World) -> bool {
    let made = repository("target/bases/debian-bookworm.tar");
    if !made.exists() {
        println!("skipped: {} is missing (scripts/make-bases makes it)", made.display());
        return false;
    }
    let (to, from) = (world.path("context/debian.tar"), format!("@{}", made.display()));
    let without =
        ["./dev/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*", "./usr/share/zoneinfo/*"];
    let without = without.iter().flat_map(|path| ["--exclude", path]);
    run("bsdtar", &["-cf", to.to_str().unwrap()].into_iter().chain(without).chain([from.as_str()]).collect::<Vec<_>>());
    true
}
