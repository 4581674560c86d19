//! What `kiln run` gives to a process as its standard streams. With root, Debian's uidmap, busybox-static and crun.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs::{self, File};
use std::path::Path;
use std::process::{Command, Stdio};
use user::{BASE, Place, text};

/// `kiln run` of the image at a level, not started yet.
fn kiln(place: &Place, level: &str, script: &str) -> Command {
    let [uid, gid] = place.ids();
    let (user, home) =
        (["--reuid", &uid, "--regid", &gid, "--clear-groups"], if level == "rootless" { "home" } else { "roots-home" });
    let mut command = Command::new("setpriv");
    command.args(if level == "rootless" { &user[..] } else { &[] });
    command.arg(place.path("kiln")).args(["run", "--isolation", level, "x", "sh", "-c", script]);
    command.current_dir(place.path("")).env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.env("HOME", place.path(home)).env("KILN_ROOT", place.path(home).join("store"));
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Does something at each level, with an image `x`.
fn at_each_level(name: &str, act: impl Fn(&Place, &str)) {
    let Some(place) = Place::new(name) else { return };
    place.dockerfile(BASE);
    for level in ["root", "chroot", "oci", "rootless"] {
        if level == "oci" && !Path::new("/usr/bin/crun").exists() {
            println!("skipped: the level oci, as /usr/bin/crun is missing");
            continue;
        }
        let args = ["build", "-t", "x", "context"];
        let built = if level == "rootless" { place.as_user(args) } else { place.as_root(args) };
        assert!(built.status.success(), "{}", text(&built));
        act(&place, level);
    }
}

/// Opened again by `/proc/self/fd`, a file of the host could be read that is only to be appended to, and written to that is only to be read.
#[test]
fn files_of_the_host_are_not_handed_on() {
    at_each_level("files", |place, level| {
        let (log, input) = (place.path("log"), place.path("input"));
        fs::write(&log, "secret\n").unwrap();
        fs::write(&input, "given\n").unwrap();
        let script = "for n in 0 1 2; do ! test -f /proc/self/fd/$n || exit 9; done; cat; echo err >&2; echo x 2> /dev/null > /proc/self/fd/0";
        let ran = kiln(place, level, script)
            .stdin(File::open(&input).unwrap())
            .stdout(File::options().append(true).open(&log).unwrap())
            .stderr(File::options().append(true).open(&log).unwrap())
            .status()
            .unwrap();
        assert_eq!(ran.code(), Some(0), "{level}: {}", fs::read_to_string(&log).unwrap());
        assert_eq!(fs::read_to_string(&log).unwrap(), "secret\ngiven\nerr\n", "{level}");
        assert_eq!(fs::read_to_string(&input).unwrap(), "given\n", "{level}");
    });
}

#[test]
fn what_goes_through_files_is_complete() {
    at_each_level("complete", |place, level| {
        let (from, to) = (place.path("from"), place.path("to"));
        let content: Vec<u8> = (0..3_000_000u32).map(|n| (n % 251) as u8).collect();
        fs::write(&from, &content).unwrap();
        let run = |script| {
            kiln(place, level, script)
                .stdin(File::open(&from).unwrap())
                .stdout(File::create(&to).unwrap())
                .output()
                .unwrap()
        };
        let ran = run("cat; exit 7");
        assert_eq!(ran.status.code(), Some(7), "{level}: {}", text(&ran));
        assert!(fs::read(&to).unwrap() == content, "{level}: {} bytes", fs::read(&to).unwrap().len());
        // Who reads no more than it needs ends all the same.
        let ran = run("head -c 3 > /dev/null; echo done");
        assert_eq!((ran.status.code(), fs::read_to_string(&to).unwrap().as_str()), (Some(0), "done\n"), "{level}");
        let ran = run("exec <&- >&-; sleep 0.1; exit 5");
        assert_eq!(ran.status.code(), Some(5), "{level}: {}", text(&ran));
    });
}

#[test]
fn a_reader_that_has_gone_ends_a_writer() {
    at_each_level("reader", |place, level| {
        let mut ran = kiln(place, level, "yes").spawn().unwrap();
        let mut first = [0; 2];
        std::io::Read::read_exact(ran.stdout.as_mut().unwrap(), &mut first).unwrap();
        drop(ran.stdout.take());
        assert_eq!(&first, b"y\n");
        assert!(!ran.wait().unwrap().success(), "{level}");
    });
}

/// By a pipe with a name, which is carried.
#[test]
fn a_named_pipe_is_carried_until_its_reader_has_gone() {
    at_each_level("fifo", |place, level| {
        let fifo = place.path("fifo");
        let _ = fs::remove_file(&fifo);
        rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        let reader = std::thread::spawn({
            let fifo = fifo.clone();
            move || {
                let mut first = [0; 2];
                std::io::Read::read_exact(&mut File::open(fifo).unwrap(), &mut first).unwrap();
                first
            }
        });
        let mut ran =
            kiln(place, level, "yes").stdout(File::options().write(true).open(&fifo).unwrap()).spawn().unwrap();
        assert_eq!(&reader.join().unwrap(), b"y\n");
        assert!(!ran.wait().unwrap().success(), "{level}");
    });
}
