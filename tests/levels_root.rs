//! Every isolation level gives the images that `root` gives, bit for bit, and says which of them work here. With root, Debian's
//! uidmap, busybox-static, podman, runc and crun; what is forbidden is forbidden by a seccomp filter and an overlay of the test's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;
#[path = "support/levels.rs"]
mod levels;
#[path = "support/user.rs"]
mod user;

use kiln::sys::child::step::{Exec, FileSystem, OverlayByMount, Pointers, Stdio, Stream};
use kiln::sys::child::{Ended, Namespaces, Program, Step};
use levels::{Built, Case, EXCEPTIONS, Level, NEEDS, arguments, built, cases, names, results, same, script};
use rustix::mount::MountAttrFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use user::{BASE, Place, can, text};

/// Builds all at a level that can be had on the machine itself.
fn build_all(place: &Place, level: Level, cases: &[Case]) -> Vec<Built> {
    let folder = place.path("context");
    let folder = folder.parent().unwrap().to_str().unwrap();
    let one = |case: &Case| {
        let args = arguments(level, case, folder);
        built(&match level {
            Level::Ranges | Level::OneNumber => place.as_user(args),
            Level::Chroot => confined(place, &args, false),
            Level::Copies => confined(place, &args, true),
            Level::OneNumberCopies => confined_as_user(place, &args),
            Level::RootAgain => place.finish(Command::new(place.path("kiln")).args(args), "another-home"),
            _ => place.as_root(args),
        })
    };
    cases.iter().map(one).collect()
}

/// Builds all as root, and in one container, one after the other.
fn build_all_in_place(place: &container::Place, cases: &[Case]) -> [Vec<Built>; 2] {
    let ran = place.container(&[container::AS_DOCKER], &script(Level::InPlace, cases, "/workspace"));
    let here = |case: &Case| {
        let args = arguments(Level::Root, case, ".");
        built(&place.as_root(&args.iter().map(String::as_str).collect::<Vec<_>>()))
    };
    [cases.iter().map(here).collect(), results(cases, &place.path(""), &ran)]
}

/// Builds every Dockerfile of the table as root and at another level.
fn same_as_root(level: Level) {
    let runtime: &[&str] = match level {
        Level::Runtime("crun") => &["/usr/bin/crun"],
        Level::Runtime(_) => &["/usr/sbin/runc"],
        _ => &[],
    };
    if !can(runtime) || !can(NEEDS) {
        return;
    }
    let (table, [root, got]) = match level {
        Level::InPlace => {
            let Some(place) = container::Place::new("levels") else { return };
            let table = cases(&place.path(""), level);
            let built = build_all_in_place(&place, &table);
            (table, built)
        }
        _ => {
            let place = match level {
                Level::OneNumber | Level::OneNumberCopies => Place::with_one_number(),
                _ => Place::new(level.flag()),
            };
            let Some(place) = place else { return };
            let table = cases(&place.path(""), level);
            let built = [Level::Root, level].map(|level| build_all(&place, level, &table));
            (table, built)
        }
    };
    same(level, &table, &root, &got);
}

#[test]
fn root_again() {
    same_as_root(Level::RootAgain);
}

#[test]
fn an_ordinary_user_with_ranges() {
    same_as_root(Level::Ranges);
}

#[test]
fn an_ordinary_user_with_one_number() {
    same_as_root(Level::OneNumber);
}

#[test]
fn chroot_on_overlays() {
    same_as_root(Level::Chroot);
}

#[test]
fn chroot_on_copies() {
    same_as_root(Level::Copies);
}

#[test]
fn chroot_on_copies_for_a_user_with_one_number() {
    same_as_root(Level::OneNumberCopies);
}

#[test]
fn in_place_in_a_container() {
    same_as_root(Level::InPlace);
}

#[test]
fn by_runc() {
    same_as_root(Level::Runtime("runc"));
}

#[test]
fn by_crun() {
    same_as_root(Level::Runtime("crun"));
}

#[test]
fn an_exception_is_of_a_dockerfile_and_says_why() {
    let names = names();
    assert!(names.len() > 20, "{names:?}");
    for (index, (name, level, _, why)) in EXCEPTIONS.iter().enumerate() {
        assert!(names.iter().any(|n| n == name) && !why.is_empty(), "{name}");
        assert!(EXCEPTIONS[..index].iter().all(|e| (e.0, e.1) != (*name, *level)), "{name} twice at {level:?}");
    }
}

/// The binary as root in a mount namespace where `pivot_root` is refused; the store lies on an overlay, on which the kernel
/// makes no other, if there are to be `copies`.
fn confined(place: &Place, args: &[impl AsRef<str>], copies: bool) -> Output {
    let kiln = place.path("kiln").display().to_string();
    let command = [kiln].into_iter().chain(args.iter().map(|arg| arg.as_ref().to_owned()));
    in_confinement(place, command.collect(), copies)
}

/// The same as the place's user, on copies.
fn confined_as_user(place: &Place, args: &[String]) -> Output {
    let [uid, gid] = place.ids();
    let kiln = place.path("kiln").display().to_string();
    let mut command: Vec<String> =
        ["/usr/bin/setpriv", "--reuid", &uid, "--regid", &gid, "--clear-groups", "--", &kiln].map(String::from).into();
    command.extend_from_slice(args);
    in_confinement(place, command, true)
}

fn in_confinement(place: &Place, command: Vec<String>, copies: bool) -> Output {
    let path = |name: &str| place.path(name);
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let file = |name: &str| Stream::Fd(File::create(path(name)).unwrap().into());
    let home = path("confined");
    for folder in ["lower", "upper", "work", "home"] {
        fs::create_dir_all(home.join(folder)).unwrap();
        let [uid, gid] = place.ids().map(|id| id.parse().ok());
        std::os::unix::fs::chown(home.join(folder), uid, gid).unwrap();
    }
    let mut program = Program::default();
    let (overlay, proc) = (program.slot(), program.slot());
    program.push(Step::DieWithMaker);
    program.push(Step::PrivateMounts);
    if copies {
        let options = c"lowerdir=lower,upperdir=upper,workdir=work".to_owned();
        let (base, at) = (text(&home), text(&home.join("home")));
        program.push(Step::OverlayByMount(OverlayByMount { base, options, at, out: overlay }));
    }
    let (kind, flags) = (c"proc", MountAttrFlags::empty());
    program.push(Step::FileSystem(FileSystem { kind, options: vec![], flags, otherwise: None, out: proc }));
    program.push(Step::MountOnHost { mount: proc, path: c"/proc".to_owned() });
    program.push(Step::LookFrom(proc));
    program.push(Step::WorkIn { path: c"/".to_owned(), uid: 0, gid: 0 });
    let null = Stream::Fd(File::open("/dev/null").unwrap().into());
    program.push(Step::Stdio(Stdio { streams: [null, file("out.txt"), file("err.txt")], terminal: false }));
    program.push(Step::Seccomp(without_pivot_root()));
    let args: Vec<CString> = command.into_iter().map(|arg| CString::new(arg).unwrap()).collect();
    let (store, home) = (home.join("home/store"), home.display());
    let env = [
        format!("KILN_ROOT={}", store.display()),
        format!("HOME={home}"),
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    let env = env.map(|e| CString::new(e).unwrap()).to_vec();
    program.push(Step::Exec(Exec {
        candidates: args.first().cloned().into_iter().collect(),
        args: Pointers::new(args),
        env: Pointers::new(env),
    }));
    let status = match program.spawn(Namespaces::default()).unwrap().wait().unwrap() {
        Ended::Exited(code) => code << 8,
        Ended::Killed(signal) => signal,
    };
    let read = |name: &str| fs::read(path(name)).unwrap();
    Output { status: ExitStatus::from_raw(status), stdout: read("out.txt"), stderr: read("err.txt") }
}

/// A filter that refuses one call with `EPERM`.
fn without_pivot_root() -> Vec<libc::sock_filter> {
    let refuse = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    vec![
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_pivot_root as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, refuse),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[test]
fn without_pivot_root_the_level_is_chroot_and_that_is_told() {
    let Some(place) = Place::new("told") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    let context = place.path("context").display().to_string();
    for copies in [false, true] {
        let built = confined(&place, &["build", "--progress=plain", "--no-cache", &context], copies);
        assert!(built.status.success(), "{}", text(&built));
        let refused = if copies { "overlayfs" } else { "pivot_root: Operation not permitted" };
        let told = "isolation level chroot, since root doesn't work here";
        assert!(text(&built).lines().any(|l| l.contains(told) && l.contains(refused)), "{}", text(&built));
        let info = text(&confined(&place, &["info"], copies));
        let level =
            |name: &str| info.lines().map(str::trim).find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        assert!(level("root:").contains(refused), "{info}");
        assert!(level("chroot:").ends_with("works"), "{info}");
        assert!(level("oci:").contains("pivot_root"), "{info}");
        let asked = confined(&place, &["build", "--isolation=root", &context], copies);
        assert_eq!(asked.status.code(), Some(4), "{}", text(&asked));
        assert!(text(&asked).contains(refused), "{}", text(&asked));
    }
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let Some(place) = Place::new("named") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    for (runtime, said) in
        [("/nonexistent", "/nonexistent"), ("no-such", "isn't in $PATH"), ("/bin/true", "neither crun nor runc")]
    {
        let built = place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, "context"]);
        assert_eq!(built.status.code(), Some(4), "{}", text(&built));
        assert!(text(&built).contains(said) && text(&built).contains("Dockerfile:"), "{}", text(&built));
    }
}

/// The runtime finds the file, and only fails when it executes it: what it says of that is no output of the step.
#[test]
fn programs_that_runtimes_cannot_execute_are_told_as_elsewhere() {
    let Some(place) = Place::new("execute") else { return };
    let files = "COPY --chmod=755 <<script <<text /\n#!/no/such/interpreter\nscript\nwords\ntext\n";
    for (program, said, code) in [
        ("/script", "/script is there: the interpreter or loader that it names isn't", 127),
        ("no-such-program", "executable file not found in $PATH", 127),
        ("/no-such-program", "no such file or directory", 127),
        ("/etc/passwd", "/etc/passwd: permission denied", 126),
        ("/text", "/text: exec format error", 126),
    ] {
        place.dockerfile(&format!("{BASE}{files}RUN [\"{program}\"]\n"));
        let mut told = Vec::new();
        for flags in [
            &["--isolation=root"][..],
            &["--isolation=oci", "--oci-runtime=crun"],
            &["--isolation=oci", "--oci-runtime=runc"],
        ] {
            let metadata = place.path("metadata").display().to_string();
            let args = [&["build", "--progress=plain", "--metadata-file", &metadata][..], flags, &["context"]].concat();
            let built = place.as_root(&args);
            assert_eq!(built.status.code(), Some(1), "{flags:?}, {program}: {}", text(&built));
            let metadata = fs::read_to_string(metadata).unwrap();
            assert!(metadata.contains(&format!(": {code}")), "{flags:?}, {program}: {metadata}");
            assert!(text(&built).contains(said), "{flags:?}, {program}: {}", text(&built));
            let error = text(&built);
            told.push(
                error
                    .lines()
                    .filter(|l| l.starts_with("error: ") || l.starts_with("#6 0."))
                    .collect::<Vec<_>>()
                    .join("\n"),
            );
        }
        assert!(told.iter().all(|one| *one == told[0]), "{program}: {told:#?}");
    }
}

#[test]
fn what_runtimes_run_fails_and_ends_as_elsewhere() {
    let Some(place) = Place::new("ends") else { return };
    let commands = [
        ("RUN echo said; exit 7", "exit code: 7"),
        ("RUN [\"no-such-program\"]", "executable file not found in $PATH"),
        ("RUN [\"/etc/passwd\"]", "permission denied"),
        (
            "RUN touch /dev/x && ! chmod 777 /proc/sys/kernel/core_pattern && ! mount -t tmpfs x /tmp && exit 3",
            "exit code: 3",
        ),
    ];
    for runtime in ["crun", "runc"] {
        for (command, said) in commands {
            place.dockerfile(&format!("{BASE}{command}\n"));
            let built = place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, "context"]);
            assert_eq!(built.status.code(), Some(1), "{runtime}, {command}: {}", text(&built));
            assert!(text(&built).contains(said), "{runtime}, {command}: {}", text(&built));
        }
        place.dockerfile(&format!("{BASE}RUN tail /dev/zero\n"));
        let built = place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, "-m", "32m", "context"]);
        let limits = !text(&built).contains("can't limit");
        assert!(!limits || text(&built).contains("memory"), "{}", text(&built));
        for folder in ["/run/crun", "/run/runc", "/run/user/0/crun"] {
            assert!(!Path::new(folder).join("kiln").exists(), "state in {folder}");
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(place.path("").to_str().unwrap()), "{mounts}");
        assert_eq!(fs::read_dir(place.path("roots-home/store/tmp")).unwrap().count(), 0);
    }
}
