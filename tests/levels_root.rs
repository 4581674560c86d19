//! Every isolation level gives the images that `root` gives, bit for bit, and says which of them work here. With root, Debian's
//! uidmap, busybox-static, podman, runc and crun; what is forbidden is forbidden by a seccomp filter and an overlay of the test's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/levels.rs"]
mod levels;
#[path = "support/podman.rs"]
mod podman;
#[path = "support/user.rs"]
mod user;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use kiln::sys::child::step::{Exec, FileSystem, OverlayByMount, Pointers, Stdio, Stream};
use kiln::sys::child::{Ended, Namespaces, Program, Step};
use levels::{Built, Case, EXCEPTIONS, Level, cases, names};
use rustix::mount::MountAttrFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;
use user::{BASE, Place, can};
use world::Run;

/// Builds with the same result each time, in a folder that holds what `cases` made.
fn build(level: Level, case: &Case, folder: &str) -> Vec<String> {
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

fn built(run: Run) -> Built {
    if run.code == Some(0) { Ok(run.stdout.trim().to_owned()) } else { Err(run.stderr.trim().to_owned()) }
}

/// Builds all at a level, on this machine.
fn build_all(place: &Place, level: Level, cases: &[Case]) -> Vec<Built> {
    let folder = place.world.path("");
    let folder = folder.to_str().unwrap().trim_end_matches('/');
    let one = |case: &Case| {
        let args = build(level, case, folder);
        built(match level {
            Level::Ranges | Level::OneNumber => place.as_user(args),
            Level::Chroot => confined(place, &args, false),
            Level::Copies => confined(place, &args, true),
            Level::RootAgain => {
                let mut command = place.world.command(args);
                Run::of(command.env("KILN_ROOT", place.world.path("store-again")).spawn().unwrap())
            }
            _ => place.as_root(args),
        })
    };
    cases.iter().map(one).collect()
}

/// Builds all in one container, one after the other. What each printed is left in the world.
fn build_all_in_place(place: &Place, cases: &[Case]) -> Vec<Built> {
    let image = podman::Image::new(&place.world, "levels");
    fs::create_dir(place.world.path("out")).unwrap();
    let one = |case: &Case| {
        let args = build(Level::InPlace, case, "/workspace").join(" ");
        format!("kiln {args} > /workspace/out/{case} 2> /workspace/out/{case}.err || b rm /workspace/out/{case}\n")
    };
    // A path of the container's, which the images' processes mustn't reach.
    place.world.file("outside", "/kiln/home/.docker/config.json");
    let script: String = cases.iter().map(one).collect();
    let ran = image.container(&place.world.path(""), &[podman::AS_DOCKER], &script);
    let read = |name: String| fs::read_to_string(place.world.path(&format!("out/{name}")));
    let one = |case: &Case| match read(case.name.clone()) {
        Ok(digest) => Ok(digest.trim().to_owned()),
        Err(_) => Err(read(format!("{case}.err")).unwrap_or_else(|_| podman::text(&ran))),
    };
    cases.iter().map(one).collect()
}

/// Builds every Dockerfile of the table as root and at another level.
fn same_as_root(level: Level) {
    let needs: &[&str] = match level {
        Level::InPlace => &podman::NEEDED,
        Level::Runtime("crun") => &["/usr/bin/crun"],
        Level::Runtime(_) => &["/usr/sbin/runc"],
        _ => &[],
    };
    if !can(needs) || !can(&["/usr/sbin/setcap", "/usr/bin/setfattr", "/usr/bin/ssh-keygen", "/usr/bin/bsdtar"]) {
        return;
    }
    let place = if level == Level::OneNumber { Place::with_one_number() } else { Place::new(level.flag()) };
    let Some(place) = place else { return };
    let cases = cases(&place.world, level);
    let root = build_all(&place, Level::Root, &cases);
    let got = match level {
        Level::InPlace => build_all_in_place(&place, &cases),
        _ => build_all(&place, level, &cases),
    };
    let faults: Vec<String> =
        cases.iter().zip(root.iter().zip(&got)).filter_map(|(case, (root, got))| case.fault(root, got)).collect();
    assert!(faults.is_empty(), "{level:?}, {} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
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
fn confined(place: &Place, args: &[impl AsRef<str>], copies: bool) -> Run {
    let path = |name: &str| place.world.path(name);
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let file = |name: &str| Stream::Fd(File::create(path(name)).unwrap().into());
    let home = path("confined");
    for folder in ["lower", "upper", "work", "home"] {
        fs::create_dir_all(home.join(folder)).unwrap();
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
    let args = ["kiln"].into_iter().chain(args.iter().map(AsRef::as_ref)).map(|arg| CString::new(arg).unwrap());
    let (store, home) = (home.join("home/store"), home.display());
    let env = [
        format!("KILN_ROOT={}", store.display()),
        format!("HOME={home}"),
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
    ];
    let env = env.map(|e| CString::new(e).unwrap()).to_vec();
    program.push(Step::Exec(Exec {
        candidates: vec![text(&path("bin/kiln"))],
        args: Pointers::new(args.collect()),
        env: Pointers::new(env),
    }));
    let code = match program.spawn(Namespaces::default()).unwrap().wait().unwrap() {
        Ended::Exited(code) => Some(code),
        Ended::Killed(_) => None,
    };
    let read = |name: &str| fs::read_to_string(path(name)).unwrap();
    Run { code, stdout: read("out.txt"), stderr: read("err.txt") }
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

/// A place whose context has this Dockerfile below the base.
fn place(name: &str, dockerfile: &str) -> Option<(Place, String)> {
    let place = Place::new(name)?;
    place.world.dockerfile(&format!("{BASE}{dockerfile}"));
    let context = place.world.path("context").display().to_string();
    Some((place, context))
}

#[test]
fn without_pivot_root_the_level_is_chroot_and_that_is_told() {
    let Some((place, context)) = place("told", "RUN true\n") else { return };
    for copies in [false, true] {
        let told = confined(&place, &["build", "--progress=plain", "--no-cache", &context], copies).ok().stderr;
        let refused = if copies { "overlayfs" } else { "pivot_root: Operation not permitted" };
        let line = "isolation level chroot, since root doesn't work here";
        assert!(told.lines().any(|l| l.contains(line) && l.contains(refused)), "{told}");
        let info = confined(&place, &["info"], copies).ok().stdout;
        let level =
            |name: &str| info.lines().map(str::trim).find(|l| l.starts_with(name)).unwrap_or_default().to_owned();
        assert!(level("root:").contains(refused), "{info}");
        assert!(level("chroot:").ends_with("works"), "{info}");
        assert!(level("oci:").contains("pivot_root"), "{info}");
        confined(&place, &["build", "--isolation=root", &context], copies).fails(4).says(refused);
    }
}

#[test]
fn a_runtime_that_is_not_there_is_named() {
    let Some((place, context)) = place("named", "RUN true\n") else { return };
    for (runtime, said) in
        [("/nonexistent", "/nonexistent"), ("no-such", "isn't in $PATH"), ("/bin/true", "neither crun nor runc")]
    {
        let built = place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, &context]);
        built.fails(4).says(said).says("Dockerfile:");
    }
}

#[test]
fn what_runtimes_run_fails_and_ends_as_elsewhere() {
    let Some((place, context)) = place("ends", "") else { return };
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
        if Command::new(runtime).arg("--version").output().is_err() {
            println!("skipped: {runtime} isn't installed");
            continue;
        }
        for (command, said) in commands {
            place.world.dockerfile(&format!("{BASE}{command}\n"));
            place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, &context]).fails(1).says(said);
        }
        place.world.dockerfile(&format!("{BASE}RUN tail /dev/zero\n"));
        let built = place.as_root(["build", "--isolation=oci", "--oci-runtime", runtime, "-m", "32m", &context]);
        let limits = !built.stderr.contains("can't limit");
        assert!(!limits || built.stderr.contains("memory"), "{}", built.stderr);
        for folder in ["/run/crun", "/run/runc", "/run/user/0/crun"] {
            assert!(!Path::new(folder).join("kiln").exists(), "state in {folder}");
        }
        place.world.nothing_is_left();
    }
}
