//! What processes of images do to kiln's own program file, which they reach as `/proc/self/exe` until kiln's child has executed their
//! command. With root, Debian's uidmap, busybox-static, libcap2-bin and crun.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs;
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use user::{BASE, Place, text};

/// A command of an image that executes kiln itself, which executes a program of the image's, which changes the file that pid 1 executes.
const ATTACK: &str = r#"
COPY --chmod=755 <<"FILE" /bin/docker-credential-attack
#!/bin/sh
for change in "chmod 4777" "chown 1:1" "setfattr -n user.kiln -v attack" "touch -d 1970-01-01"; do
  $change /proc/1/exe && echo "attack succeeded: $change" >&2
done
readlink /proc/1/exe >&2
exit 1
FILE
COPY <<"FILE" /home/config.json
{"credsStore":"attack"}
FILE
ENV DOCKER_CONFIG=/home HOME=/home
RUN ["/proc/self/exe", "logout", "--root", "/tmp/store", "registry.example"]
"#;

/// How images are built: by whom, and with which flags.
fn levels() -> Vec<(&'static str, bool, &'static [&'static str])> {
    let mut levels: Vec<(&str, bool, &[&str])> = vec![
        ("root", true, &["--isolation=root"]),
        ("chroot", true, &["--isolation=chroot"]),
        ("rootless", false, &["--isolation=rootless"]),
    ];
    match Path::new("/usr/bin/crun").exists() {
        true => levels.push(("oci", true, &["--isolation=oci", "--oci-runtime=crun"])),
        false => println!("skipped: the level oci, as /usr/bin/crun is missing"),
    }
    levels
}

fn build(place: &Place, as_root: bool, flags: &[&str]) -> Output {
    let args = [&["build", "--progress=plain", "--no-cache"][..], flags, &["context"]].concat();
    if as_root { place.as_root(args) } else { place.as_user(args) }
}

/// All that can be changed of a file.
fn state(file: &Path) -> String {
    let meta = fs::metadata(file).unwrap();
    let attributes = Command::new("getfattr").args(["-d", "-m", "-"]).arg(file).output().map(|o| o.stdout);
    format!("{:o} {}:{} {} {attributes:?}", meta.mode(), meta.uid(), meta.gid(), meta.mtime())
}

/// Builds at each level; the user owns kiln's file at the level of users.
fn at_each_level(place: &Place, check: impl Fn(&str, &Output)) {
    for (level, as_root, flags) in levels() {
        let [uid, gid] = place.ids().map(|id| id.parse().unwrap());
        let owner = if as_root { (0, 0) } else { (uid, gid) };
        chown(place.path("kiln"), Some(owner.0), Some(owner.1)).unwrap();
        let before = state(&place.path("kiln"));
        let built = build(place, as_root, flags);
        assert_eq!(state(&place.path("kiln")), before, "{level}: {}", text(&built));
        check(level, &built);
    }
}

/// A user with ranges of numbers, and one without.
fn places(name: &str) -> Vec<Place> {
    [Place::new(name), Place::with_one_number()].into_iter().flatten().collect()
}

#[test]
fn a_command_that_is_kiln_itself_changes_nothing_of_its_file() {
    for place in places("exe") {
        place.dockerfile(&format!("{BASE}{ATTACK}"));
        at_each_level(&place, |level, built| {
            assert_eq!(built.status.code(), Some(1), "{level}: {}", text(built));
            assert!(!text(built).contains("attack succeeded"), "{level}: {}", text(built));
            // The runtime is the program there.
            assert!(level == "oci" || text(built).contains("docker-credential-attack"), "{level}: {}", text(built));
            let name = place.path("").display().to_string();
            assert!(!text(built).contains(&name), "{level} tells where kiln is: {}", text(built));
        });
    }
}

#[test]
fn an_interpreter_that_is_kiln_itself_ends_as_any_other() {
    let Some(place) = Place::new("interpreter") else { return };
    let script = "COPY --chmod=755 <<\"FILE\" /script\n#!/proc/self/exe\nFILE\nRUN [\"/script\"]\n";
    place.dockerfile(&format!("{BASE}{script}"));
    at_each_level(&place, |level, built| assert_eq!(built.status.code(), Some(1), "{level}: {}", text(built)));
}

#[test]
fn processes_find_their_own_programs() {
    for place in places("links") {
        let check = "RUN ls -l /proc/self/exe && test $(readlink /proc/1/exe) = /bin/busybox\n";
        place.dockerfile(&format!("{BASE}{check}"));
        at_each_level(&place, |level, built| assert!(built.status.success(), "{level}: {}", text(built)));
    }
}

/// The process that all children are made by executes its file by a mount that nobody can write to, under its own name.
#[test]
fn kiln_itself_executes_a_file_that_cannot_be_changed() {
    let Some(place) = Place::new("itself") else { return };
    place.dockerfile(&format!("{BASE}RUN sleep 1\n"));
    let mut kiln = Command::new(place.path("kiln"))
        .args(["build", "--no-cache", "context"])
        .current_dir(place.path(""))
        .env("KILN_ROOT", place.path("roots-home/store"))
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let exe = format!("/proc/{}/exe", kiln.id());
    let name = format!("/proc/{}/comm", kiln.id());
    let end = Instant::now() + Duration::from_secs(10);
    let read_only = || {
        let flags = rustix::fs::statvfs(&exe).map(|s| s.f_flag);
        flags.is_ok_and(|flags| flags.contains(rustix::fs::StatVfsMountFlags::RDONLY))
    };
    while !read_only() || fs::read_to_string(&name).is_ok_and(|name| name != "kiln\n") {
        assert!(Instant::now() < end && kiln.try_wait().unwrap().is_none(), "its file can be written to");
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(kiln.wait().unwrap().success());
}
