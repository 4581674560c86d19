//! Every isolation level gives the images that `root` gives, bit for bit, and says which of them work here. With root, Debian's
//! uidmap and busybox-static, runc and crun; what is forbidden is forbidden by a seccomp filter and an overlay of the test's.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use kiln::sys::child::step::{Exec, FileSystem, OverlayByMount, Pointers, Stdio, Stream};
use kiln::sys::child::{Ended, Namespaces, Program, Step};
use rustix::mount::MountAttrFlags;
use std::ffi::CString;
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Output};
use user::{BASE, Place, run, text};

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 15] = [
    (
        "stages",
        "FROM base AS one\nRUN echo a > /a && chown 3:4 /a\nFROM base\nCOPY --from=one /a /b\nCOPY --from=one --chown=me /a /c\n",
    ),
    ("users", "FROM base\nUSER me\nRUN id > /tmp/id && test $(id -u) = 1000 && ! touch /bin/x\n"),
    (
        "owners",
        "FROM base\nRUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65000:33 /d && chown -h 1:2 /d/e/l\nRUN echo more >> /d/e/f\n",
    ),
    (
        "set-id bits",
        "FROM base\nRUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g\nCOPY --chmod=4711 --chown=5:6 busybox /t\n",
    ),
    (
        "capabilities and attributes",
        "FROM base\nADD files.tar /\nRUN cp -a /marked/. /copied && mv /marked/ping /moved\n",
    ),
    ("hardlinks and pipes", "FROM base\nRUN echo a > /a && ln /a /b && ln /a /c && mkfifo /p\nRUN rm /a && mv /p /q\n"),
    // As copies, several names of a lower layer's file stay one file; on an overlay a change through one parts them.
    ("one of a file's names", "FROM base\nRUN echo a > /a && ln /a /b\nRUN chmod 600 /b\n"),
    (
        "removals",
        "FROM base\nRUN mkdir -p /d/e && touch /d/1 /d/e/2\nRUN rm -r /d && mkdir /d && touch /d/3\nRUN rm /d/3\nFROM base\nCOPY --from=1 / /all\n",
    ),
    (
        "mounts",
        "FROM base\nRUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=700 --mount=type=tmpfs,target=/t \\\n --mount=type=bind,source=busybox,target=/bb --network=none stat -c '%n %u %g %a %F' / /bin /c /t /bb > /list; test -s /bb && touch /c/x /t/y\n",
    ),
    (
        "devices",
        "FROM base\nRUN mknod /null c 1 3 && mknod -m 640 /disk b 8 1 && chown 0:6 /disk && mkfifo /pipe\nRUN rm /null && mv /disk /d\n",
    ),
    (
        "secrets and variables",
        "FROM base\nARG V=1\nRUN --mount=type=secret,id=s,env=S --mount=type=secret,id=s,mode=0440,gid=1000 \\\n test \"$S\" = hidden && \
         cmp -s /run/secrets/s - < /run/secrets/s && stat -c '%a %u %g' /run/secrets/s > /seen && env | grep -v ^S= | sort > /env\n",
    ),
    (
        "heredocs",
        "FROM base\nCOPY --chmod=640 --chown=me <<one <<\"two\" /in/\na $PATH\none\nb $PATH\ntwo\nRUN <<EOF\nset -e\ncat /in/* > /out\nEOF\n",
    ),
    (
        "bind mounts",
        "FROM base AS other\nRUN mkdir /d && echo a > /d/a && echo b > /d/b && rm /bin/vi\nFROM base\nRUN --mount=type=bind,from=other,source=d,target=/r \\\n \
         --mount=type=bind,from=other,target=/w,rw --mount=type=cache,from=other,source=/d,target=/c \\\n \
         cat /r/* /c/* > /all && ! touch /r/x && touch /w/bin/x && rm /w/d/a && ! test -e /w/bin/vi && ls -R /w/d /c > /list\n",
    ),
    (
        "folders in place of files, and files in place of folders",
        "FROM base\nRUN mkdir -p /x/y && echo 1 > /x/y/z && echo 2 > /f && ln -s f /l\nRUN rm -r /x && echo 3 > /x && rm /f && mkdir /f && touch /f/g\n\
         RUN ln -sfn x /l && touch -d @1000 /x && chmod 1750 /f && mv /f /moved\n",
    ),
    (
        "the network's files and a working directory",
        "FROM base\nWORKDIR /made/here\nRUN echo a > /etc/motd && cat /etc/hosts > hosts && hostname > name && pwd > where\n\
         USER 1000:33\nWORKDIR /tmp/own\nRUN stat -c '%u %g %a' . > list; rmdir /tmp/own 2>/dev/null; umask >> list\n",
    ),
];

/// Debian's programs: a package with scripts and a setuid program is installed as a stage of its own uses it; sockets, which no
/// layer holds; and the usual way out of a changed root, which leads nowhere.
const DEBIAN: &str = "FROM scratch AS base
ADD debian.tar /
ENV DEBIAN_FRONTEND=noninteractive
FROM base AS package
RUN mkdir -p /p/DEBIAN /p/usr/bin /p/etc && cp /bin/true /p/usr/bin/our-su && chmod 4755 /p/usr/bin/our-su && echo 1 > /p/etc/our.conf
COPY --chmod=644 <<control /p/DEBIAN/control
Package: our
Version: 1
Architecture: all
Maintainer: nobody <nobody@example.org>
Description: ours
control
RUN printf '#!/bin/sh\\nset -e\\nuseradd --system --no-create-home our\\ninstall -d -o our -g adm -m 2750 /var/lib/our\\n' > /p/DEBIAN/postinst \\
 && chmod 755 /p/DEBIAN/postinst && dpkg-deb --build --root-owner-group /p /our.deb
FROM base
RUN --mount=from=package,source=/our.deb,target=/tmp/our.deb apt-get install -y /tmp/our.deb \\
 && rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/apt /var/cache/debconf/*-old /var/lib/dpkg/*-old /etc/*- \\
 && rm -f /var/cache/ldconfig/aux-cache && su our -s /bin/sh -c 'id -un' | grep -x our
RUN perl -MSocket -e 'socket(S, PF_UNIX, SOCK_STREAM, 0) and bind(S, sockaddr_un(\"/socket\")) or die' && test -S /socket
RUN perl -e 'mkdir \"/x\"; chroot \"/x\" or die; chdir \"..\" for 1..50; chroot \".\" or die; exit(-e \"@HOST@\" ? 1 : 0)' && rmdir /x
";

/// How a level is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// With all rights.
    Root,
    /// As an ordinary user.
    User,
    /// By this runtime.
    Runtime(&'static str),
    /// Where `pivot_root` is forbidden, and overlays too if there are to be copies.
    Confined { copies: bool },
}

impl How {
    fn level(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::User => "rootless",
            Self::Runtime(_) => "oci",
            Self::Confined { .. } => "chroot",
        }
    }

    /// Builds; the output is the image's digest.
    fn build(self, place: &Place) -> Output {
        let mut args =
            vec!["build", "-q", "--compression=uncompressed", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "x"];
        args.extend(["--secret", "id=s,src=secret", "--isolation", self.level()]);
        if let Self::Runtime(name) = self {
            args.extend(["--oci-runtime", name]);
        }
        args.push("context");
        match self {
            Self::User => place.as_user(args),
            Self::Confined { copies } => confined(place, &args, copies),
            Self::Root => place.as_root(args),
            Self::Runtime(_) => place.finish(Command::new(place.path("kiln")).args(args), "runtimes-home"),
        }
    }

    /// Whether a Dockerfile can be built here at all.
    fn can(self, about: &str) -> bool {
        match self {
            Self::User => about != "devices",
            Self::Confined { copies: true } => about != "one of a file's names",
            _ => true,
        }
    }
}

/// The binary as root in a mount namespace where `pivot_root` is refused; the store lies on an overlay, on which the kernel
/// makes no other, if there are to be `copies`.
fn confined(place: &Place, args: &[&str], copies: bool) -> Output {
    let (out, err) = (place.path("out"), place.path("err"));
    let text = |path: &Path| CString::new(path.as_os_str().as_bytes()).unwrap();
    let file = |path: &Path| Stream::Fd(File::create(path).unwrap().into());
    let home = place.path("confined");
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
    program.push(Step::Stdio(Stdio { streams: [null, file(&out), file(&err)], terminal: false }));
    program.push(Step::Seccomp(without_pivot_root()));
    let kiln = text(&place.path("kiln"));
    let folder = place.path("");
    let absolute = |arg: &&str| {
        if place.path(arg).exists() && !arg.is_empty() { folder.join(arg).display().to_string() } else { (*arg).into() }
    };
    let args = ["kiln".to_owned()]
        .into_iter()
        .chain(args.iter().map(absolute))
        .map(|a| CString::new(a.replace("src=secret", &format!("src={}", place.path("secret").display()))).unwrap());
    let store = home.join("home/store").display().to_string();
    let env =
        [format!("KILN_ROOT={store}"), format!("HOME={}", home.display()), "PATH=/usr/sbin:/usr/bin:/sbin:/bin".into()];
    let env = env.map(|e| CString::new(e).unwrap()).to_vec();
    program.push(Step::Exec(Exec {
        candidates: vec![kiln],
        args: Pointers::new(args.collect()),
        env: Pointers::new(env),
    }));
    let ended = program.spawn(Namespaces::default()).unwrap().wait().unwrap();
    let status = match ended {
        Ended::Exited(code) => code << 8,
        Ended::Killed(signal) => signal,
    };
    Output { status: ExitStatus::from_raw(status), stdout: fs::read(out).unwrap(), stderr: fs::read(err).unwrap() }
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

/// An archive with a file's capabilities and an attribute of a user's, neither of which a build can set with busybox.
fn marked(place: &Place) {
    let folder = place.path("files");
    fs::create_dir_all(folder.join("marked")).unwrap();
    let file = folder.join("marked/ping");
    fs::copy("/bin/busybox", &file).unwrap();
    run("setcap", &["cap_net_raw+ep", file.to_str().unwrap()]);
    rustix::fs::setxattr(&file, "user.kiln", b"yes", rustix::fs::XattrFlags::empty()).unwrap();
    let (archive, folder) = (place.path("context/files.tar"), folder.display().to_string());
    let archive = archive.display().to_string();
    run("tar", &["--xattrs", "--xattrs-include=*", "--format=pax", "-C", &folder, "-cf", &archive, "marked"]);
}

/// The Debian that `scripts/make-bases` leaves, without what nobody's build can unpack as an ordinary user (devices) and without
/// documentation.
fn debian(place: &Place) -> bool {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bases/debian-bookworm.tar");
    if !made.exists() {
        println!("skipped: {} is missing (scripts/make-bases makes it)", made.display());
        return false;
    }
    let (to, from) = (place.path("context/debian.tar"), format!("@{}", made.display()));
    let without =
        ["./dev/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*", "./usr/share/zoneinfo/*"];
    let mut args = vec!["-cf", to.to_str().unwrap()];
    args.extend(without.iter().flat_map(|path| ["--exclude", path]));
    args.push(&from);
    run("bsdtar", &args);
    true
}

/// Builds every Dockerfile as root and at another level.
fn same_as_root(how: How) {
    let Some(place) = Place::new(how.level()) else { return };
    if let How::Runtime(name) = how
        && Command::new(name).arg("--version").output().is_err()
    {
        println!("skipped: {name} isn't installed");
        return;
    }
    marked(&place);
    fs::write(place.path("secret"), "hidden").unwrap();
    for (about, dockerfile) in CASES.into_iter().filter(|(about, _)| how.can(about)) {
        place.dockerfile(&format!("{BASE}{dockerfile}"));
        compare(&place, how, about);
    }
    if debian(&place) {
        place.dockerfile(&DEBIAN.replace("@HOST@", place.path("kiln").to_str().unwrap()));
        compare(&place, how, "debian");
    }
}

fn compare(place: &Place, how: How, about: &str) {
    let (expected, got) = (How::Root.build(place), how.build(place));
    assert!(expected.status.success(), "{about}, as root: {}", text(&expected));
    assert!(got.status.success(), "{about}, {how:?}: {}", text(&got));
    assert!(text(&expected).contains("sha256:"), "{about}: {}", text(&expected));
    assert_eq!(text(&expected), text(&got), "{about}, {how:?}");
}

#[test]
fn an_ordinary_user() {
    same_as_root(How::User);
}

#[test]
fn chroot_on_overlays() {
    same_as_root(How::Confined { copies: false });
}

#[test]
fn chroot_on_copies() {
    same_as_root(How::Confined { copies: true });
}

#[test]
fn by_runc() {
    same_as_root(How::Runtime("runc"));
}

#[test]
fn by_crun() {
    same_as_root(How::Runtime("crun"));
}

#[test]
fn without_pivot_root_the_level_is_chroot_and_that_is_told() {
    let Some(place) = Place::new("told") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    for copies in [false, true] {
        let built = confined(&place, &["build", "--progress=plain", "--no-cache", "context"], copies);
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
        let asked = confined(&place, &["build", "--isolation=root", "context"], copies);
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
