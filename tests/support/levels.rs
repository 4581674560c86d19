//! The table of the isolation levels' Dockerfiles, `tests/levels/*.Dockerfile`: what they are built with, and at which level
//! which of them can't give root's image.

use super::user::run;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Output;

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
    /// The same for an ordinary user with nothing but a number.
    OneNumberCopies,
    /// In an ordinary container.
    InPlace,
    /// The same, where root of the container has no rights outside of its user namespace.
    InPlaceRemapped,
    /// By this runtime.
    Runtime(&'static str),
}

use Level::{Copies, InPlace, InPlaceRemapped, OneNumber, OneNumberCopies, Ranges};

impl Level {
    /// What `--isolation` calls it.
    pub(crate) fn flag(self) -> &'static str {
        match self {
            Self::Root | Self::RootAgain => "root",
            Self::Ranges | Self::OneNumber => "rootless",
            Self::Chroot | Self::Copies | Self::OneNumberCopies => "chroot",
            Self::InPlace | Self::InPlaceRemapped => "in-place",
            Self::Runtime(_) => "oci",
        }
    }

    /// Whether a row about another level is about this one, too.
    fn is(self, other: Self) -> bool {
        self == other || (self, other) == (Self::InPlaceRemapped, InPlace)
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
    ("devices", InPlaceRemapped, Fails("Operation not permitted"), "as with ranges"),
    ("large-numbers", Ranges, Fails("Invalid argument"), "a range has 65,536 numbers"),
    ("large-numbers", InPlaceRemapped, Fails("Invalid argument"), "as with ranges"),
    (
        "rights",
        OneNumber,
        Fails("exit code: 1"),
        "all of an image's users are one for the kernel, which asks no file's mode of them",
    ),
    ("root-for-all", OneNumber, Fails("exit code: 1"), "as rights"),
    ("owners-of-mounts", OneNumber, Differs, "what is mounted is root's"),
    ("rights", OneNumberCopies, Fails("exit code: 1"), "as with one number"),
    ("root-for-all", OneNumberCopies, Fails("exit code: 1"), "as with one number"),
    ("owners-of-mounts", OneNumberCopies, Differs, "as with one number"),
    ("names-of-one-file", OneNumberCopies, Differs, "as copies"),
    (
        "names-of-one-file",
        Copies,
        Differs,
        "a change through one name of a lower layer's file is one of all; on overlays it parts them",
    ),
    ("names-of-one-file", InPlace, Differs, "as copies"),
    ("read-only-mounts", InPlace, Fails("exit code: 1"), "what is mounted is a copy, which the process may write to"),
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
    /// The Dockerfile's path below the folder that has the table.
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

/// What `cases` needs beside busybox.
pub(crate) const NEEDS: &[&str] = &["/usr/sbin/setcap", "/usr/bin/setfattr", "/usr/bin/ssh-keygen", "/usr/bin/bsdtar"];

/// kiln's arguments for a build that gives the same image each time, in a directory that holds what `cases` made.
pub(crate) fn arguments(level: Level, case: &Case, folder: &str) -> Vec<String> {
    let mut args: Vec<String> =
        ["build", "-q", "--compression=uncompressed", "--build-arg=SOURCE_DATE_EPOCH=1700000000", "-t", "x"]
            .map(String::from)
            .to_vec();
    args.extend(["--isolation".to_owned(), level.flag().to_owned()]);
    for secret in ["s,src=@/secret", "outside,src=@/outside"] {
        args.extend(["--secret".to_owned(), format!("id={}", secret.replace('@', folder))]);
    }
    match level {
        Level::Runtime(name) => args.extend(["--oci-runtime".to_owned(), name.to_owned()]),
        Level::RootAgain => args.extend(["--jobs".to_owned(), "1".to_owned()]),
        _ => {}
    }
    args.extend(["--ssh".to_owned(), format!("default={folder}/key"), "-f".to_owned()]);
    args.extend([format!("{folder}/{}", case.file()), format!("{folder}/context")]);
    args
}

/// What a build printed.
pub(crate) fn built(output: &Output) -> Built {
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(said(&output.stdout)) } else { Err(said(&output.stderr)) }
}

/// A shell script that builds all cases, one after the other, in a container that has the directory of `cases` as `folder`.
pub(crate) fn script(level: Level, cases: &[Case], folder: &str) -> String {
    let words = |args: &[String]| args.iter().map(|arg| format!("'{arg}'")).collect::<Vec<_>>().join(" ");
    let one = |case: &Case| {
        let (args, name) = (words(&arguments(level, case, folder)), &case.name);
        format!("kiln {args} > {folder}/{name}.out 2> {folder}/{name}.err || : > {folder}/{name}.failed\n")
    };
    cases.iter().map(one).collect()
}

/// What the builds of the script left in the directory; `ran` is what the container said.
pub(crate) fn results(cases: &[Case], folder: &Path, ran: &Output) -> Vec<Built> {
    let read = |case: &Case, kind: &str| fs::read_to_string(folder.join(format!("{}.{kind}", case.name)));
    let one = |case: &Case| match read(case, "out") {
        Ok(digest) if !folder.join(format!("{}.failed", case.name)).exists() => Ok(digest.trim().to_owned()),
        Ok(_) => Err(read(case, "err").unwrap_or_default().trim().to_owned()),
        Err(_) => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
    };
    cases.iter().map(one).collect()
}

/// Fails unless each image is the one that root gives, or what the table says of the level.
#[track_caller]
pub(crate) fn same(level: Level, cases: &[Case], root: &[Built], got: &[Built]) {
    let both = root.iter().zip(got);
    let faults: Vec<String> = cases.iter().zip(both).filter_map(|(case, (root, got))| case.fault(root, got)).collect();
    assert!(faults.is_empty(), "{level:?}, {} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
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

/// The table for a level: its Dockerfiles, written below the folder's `cases`, and everything that they need.
pub(crate) fn cases(folder: &Path, level: Level) -> Vec<Case> {
    let debian = debian(folder);
    let mut cases = Vec::new();
    for name in names().into_iter().filter(|name| name != "debian" || debian) {
        let text = |name: &str| fs::read_to_string(repository(&format!("tests/levels/{name}.Dockerfile"))).unwrap();
        let base = if name == "debian" { String::new() } else { text("base") };
        file(folder, &format!("cases/{name}"), base + &text(&name));
        let instead = EXCEPTIONS.iter().find(|e| e.0 == name && level.is(e.1)).map(|e| e.2);
        cases.push(Case { name, instead });
    }
    for (name, text) in [
        ("context/tree/f", "f\n"),
        ("context/tree/sub/g", "g\n"),
        ("context/tree/sub/h.txt", "h\n"),
        ("context/tree/ignored", ""),
        ("context/.dockerignore", "tree/ignored\n"),
        ("secret", "hidden"),
    ] {
        file(folder, name, text);
    }
    symlink("sub/g", folder.join("context/tree/link")).unwrap();
    fs::hard_link(folder.join("context/tree/f"), folder.join("context/tree/same")).unwrap();
    archives(folder);
    // What the processes of images mustn't reach: a file of the machine's, or of the container's.
    let outside = if level.is(InPlace) { Path::new("/kiln/.in-place").into() } else { folder.join("secret") };
    file(folder, "outside", outside.to_str().unwrap());
    let key = folder.join("key");
    run("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", key.to_str().unwrap()]);
    // An ordinary user reads it, too.
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    cases
}

/// Writes a file, and the folders above it.
fn file(folder: &Path, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, text).unwrap();
    path
}

/// An archive of a file with capabilities, an attribute of a user's and an owner, none of which a build can set with busybox;
/// and one of a device.
fn archives(folder: &Path) {
    let marked = file(folder, "files/marked/ping", fs::read("/bin/true").unwrap());
    let [marked, device] = [marked, folder.join("files/device")].map(|path| path.to_str().unwrap().to_owned());
    run("chown", &["12:34", &marked]);
    run("setcap", &["cap_net_raw+ep", &marked]);
    run("setfattr", &["-n", "user.kiln", "-v", "yes", &marked]);
    run("mknod", &[&device, "b", "8", "1"]);
    for (archive, what) in [("marked", "marked"), ("devices", "device")] {
        let (archive, files) = (folder.join(format!("context/{archive}.tar")), folder.join("files"));
        let flags = ["--xattrs", "--xattrs-include=*", "--format=pax", "--numeric-owner", "-C"];
        let places = [files.to_str().unwrap(), "-cf", archive.to_str().unwrap(), what];
        run("tar", &[&flags[..], &places].concat());
    }
}

/// The Debian that `scripts/make-bases` leaves, without devices, which an ordinary user can't unpack, and documentation.
fn debian(folder: &Path) -> bool {
    let made = repository("target/bases/debian-bookworm.tar");
    if !made.exists() {
        println!("skipped: {} is missing (scripts/make-bases makes it)", made.display());
        return false;
    }
    let (to, from) = (folder.join("context/debian.tar"), format!("@{}", made.display()));
    let without =
        ["./dev/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*", "./usr/share/zoneinfo/*"];
    let without: Vec<&str> = without.into_iter().flat_map(|path| ["--exclude", path]).collect();
    run("bsdtar", &[&["-cf", to.to_str().unwrap()][..], &without, &[from.as_str()]].concat());
    true
}
