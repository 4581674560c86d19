//! The isolation level `root`, for real: every promise checked from inside a sandbox. Needs root; Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::print_stdout, reason = "a test")]

#[path = "support/executor.rs"]
mod executor;
use executor::executor;
use kiln::sandbox::probe::{Way, probe};
use kiln::sandbox::{Error, Exit, Mount, MountKind, Network, Part, Spec, Stdio, Stream, User};
use kiln::sys::{Cancel, RootMount};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A root filesystem of busybox in one layer, and a folder for what changes.
struct Place {
    dir: tempfile::TempDir,
    executor: Box<dyn kiln::sandbox::Executor>,
}

/// What a run gave.
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the root filesystem can run.
const APPLETS: &str = "sh cat ls echo id grep mount sleep stat readlink hostname touch mkdir rm wc dd head chmod ip \
    kill ps test true false umask pwd chroot mknod env tail rmdir ulimit seq tty unshare su ln \
    setsid find cut";

/// The place for a test; `None`, with a word about it, where tests like this can't run.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() && std::env::var_os("KILN_TEST_NOBODY").is_none() {
        eprintln!("skipped: the isolation level root needs root");
        return None;
    }
    let Ok(busybox) = fs::read("/bin/busybox") else {
        eprintln!("skipped: /bin/busybox isn't there (Debian: busybox-static)");
        return None;
    };
    let dir = tempfile::Builder::new().prefix("kiln-sandbox-").tempdir().unwrap();
    let base = dir.path().join("base");
    for folder in ["bin", "etc", "tmp", "work", "upper"] {
        let at = if folder == "work" || folder == "upper" { dir.path().join(folder) } else { base.join(folder) };
        fs::create_dir_all(&at).unwrap();
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fs::write(base.join("bin/busybox"), busybox).unwrap();
    fs::set_permissions(base.join("bin/busybox"), fs::Permissions::from_mode(0o755)).unwrap();
    for name in APPLETS.split_whitespace() {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let executor = executor("nameserver 10.9.8.7\n".into());
    Some(Place { dir, executor })
}

impl Place {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn root(&self) -> RootMount {
        RootMount::Overlay { lowers: vec![self.path("base")], upper: self.path("upper"), work: self.path("work") }
    }

    fn spec(&self, args: &[&str]) -> Spec {
        let mut spec = Spec::new(self.root(), args.iter().map(|a| (*a).to_owned()).collect());
        spec.env = vec![("PATH".into(), PATH.into())];
        spec
    }

    fn script(&self, text: &str) -> Spec {
        self.spec(&["/bin/sh", "-c", text])
    }

    fn try_run(&self, spec: &Spec) -> Result<Ran, Error> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let mut output = |stream, bytes: &[u8]| match stream {
            Stream::Stdout => stdout.extend_from_slice(bytes),
            Stream::Stderr => stderr.extend_from_slice(bytes),
        };
        // These tests use the folders again, which is overlayfs's to forbid and theirs to allow.
        let _ = fs::remove_dir_all(self.path("work/work"));
        let exit = self.executor.run(spec, &mut output, &Cancel::new().unwrap())?;
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ok(Ran { exit, stdout: text(stdout), stderr: text(stderr) })
    }

    fn run(&self, spec: &Spec) -> Ran {
        self.try_run(spec).unwrap_or_else(|e| panic!("{e}: {:?}", std::error::Error::source(&e)))
    }

    /// What a script that succeeds prints.
    fn prints(&self, text: &str) -> String {
        let ran = self.run(&self.script(text));
        assert_eq!((ran.exit.code, ran.stderr.as_str()), (0, ""), "{text}: {}", ran.stdout);
        ran.stdout
    }

    /// Everything in the upper folder, sorted, but for folders that were copied up to make a stub in them: the one that
    /// compares layers sees that those are the same.
    fn written(&self) -> Vec<String> {
        fn walk(dir: &Path, prefix: &str, out: &mut Vec<String>) {
            for entry in fs::read_dir(dir).unwrap() {
                let entry = entry.unwrap();
                let name = format!("{prefix}/{}", entry.file_name().to_string_lossy());
                if entry.file_type().unwrap().is_dir() {
                    walk(&entry.path(), &name, out);
                }
                out.push(name);
            }
        }
        let mut out = Vec::new();
        walk(&self.path("upper"), "", &mut out);
        out.sort();
        out.retain(|path| path != "/etc" && path != "/tmp");
        out
    }
}

macro_rules! place {
    () => {
        match place() {
            Some(place) => place,
            None => return,
        }
    };
}

/// Lines of `/proc/self/status` from inside.
fn status(place: &Place, spec: &Spec) -> String {
    let mut spec = spec.clone();
    spec.args = ["/bin/cat", "/proc/self/status"].map(String::from).to_vec();
    place.run(&spec).stdout
}

fn field(status: &str, name: &str) -> String {
    let line = status.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{name} in {status}")).trim().to_owned()
}

#[test]
fn runs_and_streams() {
    let place = place!();
    let ran = place.run(&place.script("echo out; echo err >&2; echo $$; exit 3"));
    assert_eq!(ran.exit, Exit { code: 3, signal: None, out_of_memory: false });
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n1\n", "err\n"));
}

#[test]
fn output_comes_while_the_process_runs() {
    let place = place!();
    fs::create_dir(place.path("tree")).unwrap();
    // It ends only once its output has been seen.
    let mut spec = place.script("echo a; until test -e /tree/go; do sleep 0.01; done; echo b");
    let kind = MountKind::Tree { root: RootMount::Dir(place.path("tree")), path: "".into(), readonly: true };
    spec.mounts = vec![Mount { target: "/tree".into(), kind }];
    let mut seen = Vec::new();
    let mut output = |_, bytes: &[u8]| {
        seen.extend_from_slice(bytes);
        fs::write(place.path("tree/go"), "").unwrap();
    };
    place.executor.run(&spec, &mut output, &Cancel::new().unwrap()).unwrap();
    assert_eq!(seen, b"a\nb\n");
}

#[test]
fn much_output_is_whole() {
    let place = place!();
    let ran = place.run(&place.script("seq 1 200000; seq 1 1000 >&2"));
    assert_eq!(ran.stdout.lines().count(), 200_000);
    assert_eq!(ran.stderr.lines().count(), 1000);
    assert!(ran.stdout.ends_with("\n200000\n"));
}

#[test]
fn only_what_the_command_did_is_written() {
    let place = place!();
    let base = fs::metadata(place.path("base/etc")).unwrap();
    place.prints("mkdir /made; echo x > /made/f; ls /proc /sys /dev > /dev/null; cat /etc/resolv.conf > /dev/null");
    assert_eq!(place.written(), ["/made", "/made/f"]);
    let upper = fs::metadata(place.path("upper/etc")).unwrap();
    assert_eq!((upper.mtime(), upper.mtime_nsec()), (base.mtime(), base.mtime_nsec()));
    assert_eq!((upper.mode(), upper.uid()), (base.mode(), base.uid()));
}

#[test]
fn a_stub_that_was_filled_stays() {
    let place = place!();
    let mut spec = place.script("true");
    let tmpfs = |at: &str| Mount { target: at.into(), kind: MountKind::Tmpfs { size: None } };
    spec.mounts = vec![tmpfs("/a/b/c"), tmpfs("/a/d")];
    spec.args[2] = "touch /a/kept /a/d/lost; test -d /a/b/c".into();
    assert_eq!(place.run(&spec).exit.code, 0);
    let written = place.written();
    assert_eq!(written, ["/a", "/a/kept"]);
}

#[test]
fn exit_codes_and_signals() {
    let place = place!();
    let code = |text: &str| place.run(&place.script(text)).exit;
    assert_eq!(code("exit 255").code, 255);
    assert_eq!(code("nosuchthing 2>/dev/null").code, 127);
    // pid 1 is spared signals from inside, as in Docker; a child of it isn't.
    assert_eq!(code("sh -c 'kill -9 $$'; exit $?").code, 137);
    let crash = code("ulimit -t 1; while :; do :; done");
    assert_eq!((crash.code, crash.signal), (137, Some(9)), "the hard limit of processor time kills even pid 1");
}

#[test]
fn programs_that_cannot_be_executed_say_why() {
    let place = place!();
    let base = place.path("base/bin");
    fs::write(base.join("text"), "no program").unwrap();
    fs::write(base.join("orphan"), "#!/no/such/interpreter\n").unwrap();
    for name in ["text", "orphan"] {
        fs::set_permissions(base.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(base.join("plain"), "#!/bin/sh\n").unwrap();
    for (program, code, text) in [
        ("nosuch", 127, "not found in $PATH"),
        ("/nosuch", 127, "no such file"),
        ("orphan", 127, "/bin/orphan is there"),
        ("/bin/orphan", 127, "interpreter"),
        ("plain", 126, "permission denied"),
        ("/etc", 126, "permission denied"),
        ("text", 126, "exec format error"),
    ] {
        match place.try_run(&place.spec(&[program])) {
            Err(Error::Command { why, code: got, .. }) => {
                assert!(got == code && why.contains(text), "{program}: {got} {why}");
            }
            other => panic!("{program}: {:?}", other.map(|r| r.exit)),
        }
    }
    // In the root, not on the host: /usr/bin/env is there on every Debian.
    assert!(matches!(place.try_run(&place.spec(&["/usr/bin/env"])), Err(Error::Command { code: 127, .. })));
    let mut spec = place.spec(&["true"]);
    spec.env = vec![("PATH".into(), "/nosuch:bin:/bin".into())];
    assert_eq!(place.run(&spec).exit.code, 0);
    spec.env.clear();
    assert!(matches!(place.try_run(&spec), Err(Error::Command { code: 127, .. })));
}

#[test]
fn namespaces_are_its_own() {
    let place = place!();
    for name in ["mnt", "pid", "ipc", "uts", "cgroup"] {
        let inside = place.prints(&format!("readlink /proc/self/ns/{name}"));
        let outside = fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        assert_ne!(inside.trim(), outside.to_str().unwrap(), "{name}");
    }
    let inside = place.prints("readlink /proc/self/ns/net");
    assert_eq!(inside.trim(), fs::read_link("/proc/self/ns/net").unwrap().to_str().unwrap());
    assert_eq!(place.prints("hostname"), "buildkitsandbox\n");
    // Its own processes alone.
    assert_eq!(place.prints("echo /proc/[0-9]*"), "/proc/1\n");
}

#[test]
fn no_network_is_a_loopback_device_that_is_up() {
    let place = place!();
    let mut spec = place.script("ls /sys/class/net; cat /sys/class/net/lo/flags; ip addr show lo");
    spec.network = Network::None;
    let out = place.run(&spec).stdout;
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..2], ["lo", "0x9"], "{out}");
    assert!(out.contains("127.0.0.1"), "{out}");
}

#[test]
fn capabilities_are_dockers() {
    let place = place!();
    let status = status(&place, &place.spec(&[]));
    // chown dac_override fowner fsetid kill setgid setuid setpcap net_bind_service net_raw sys_chroot mknod audit_write setfcap
    for name in ["CapPrm", "CapEff", "CapBnd"] {
        assert_eq!(field(&status, name), "00000000a80425fb", "{name}");
    }
    for name in ["CapInh", "CapAmb"] {
        assert_eq!(field(&status, name), "0000000000000000", "{name}");
    }
    assert_eq!(field(&status, "NoNewPrivs"), "0");
    assert_eq!(field(&status, "Seccomp"), "2");
    assert_eq!(field(&status, "Umask"), "0022");
    assert_eq!(field(&status, "SigIgn"), "0000000000000000");
    assert_eq!(field(&status, "SigBlk"), "0000000000000000");
}

#[test]
fn a_user_has_no_capabilities() {
    let place = place!();
    let mut spec = place.spec(&[]);
    spec.user = User { uid: 1234, gid: 77, groups: vec![5, 600] };
    let status = status(&place, &spec);
    assert_eq!(field(&status, "Uid"), "1234\t1234\t1234\t1234");
    assert_eq!(field(&status, "Gid"), "77\t77\t77\t77");
    assert_eq!(field(&status, "Groups"), "5 600");
    assert_eq!(field(&status, "CapEff"), "0000000000000000");
    assert_eq!(field(&status, "CapBnd"), "00000000a80425fb");
}

#[test]
fn insecure_has_everything() {
    let place = place!();
    let mut spec = place.spec(&[]);
    spec.insecure = true;
    let status = status(&place, &spec);
    let own = fs::read_to_string("/proc/self/status").unwrap();
    assert_eq!(field(&status, "CapEff"), field(&own, "CapEff"));
    assert_eq!(field(&status, "CapAmb"), field(&own, "CapEff"));
    assert_eq!(field(&status, "Seccomp"), "0");
    let mut spec =
        place.script("mkdir /m && mount -t tmpfs none /m && test -c /dev/kmsg && test -w /proc/sys/kernel/hostname");
    spec.insecure = true;
    assert_eq!(place.run(&spec).exit.code, 0);
}

#[test]
fn forbidden_calls_fail() {
    let place = place!();
    for text in [
        "mount -t tmpfs none /tmp",
        "unshare -U true",
        "unshare -n true",
        "hostname other",
        "echo 1 > /proc/sys/kernel/hostname",
        "echo c > /proc/sysrq-trigger",
        "touch /sys/x",
        "touch /sys/fs/cgroup/x",
        "touch /proc/bus/x",
        "echo x > /etc/resolv.conf",
        "rm /etc/hosts",
    ] {
        let ran = place.run(&place.script(text));
        assert_ne!(ran.exit.code, 0, "{text}");
    }
}

/// CAP_MKNOD is in Docker's set; a node of the machine's disk must be of no use all the same.
#[test]
fn devices_that_a_process_makes_or_an_image_has_cannot_be_opened() {
    let place = place!();
    let loopback = rustix::fs::makedev(7, 0);
    let mode = rustix::fs::Mode::RWXU | rustix::fs::Mode::RWXO;
    let kind = rustix::fs::FileType::BlockDevice;
    rustix::fs::mknodat(rustix::fs::CWD, place.path("base/disk"), kind, mode, loopback).unwrap();
    fs::create_dir(place.path("tree")).unwrap();
    let mut spec = place.script(
        "for at in /made /dev/made /dev/shm/made /mem/made /tree/made /dev/mqueue/made /dev/pts/made; do \
         mknod $at c 1 3 2>/dev/null; ! cat $at 2>/dev/null && ! echo x 2>/dev/null > $at || echo $at; done; \
         ! head -c 1 /disk 2>/dev/null || echo disk; test -c /made && echo x > /dev/null && echo fine",
    );
    let tree = MountKind::Tree { root: RootMount::Dir(place.path("tree")), path: "".into(), readonly: false };
    spec.mounts = vec![
        Mount { target: "/mem".into(), kind: MountKind::Tmpfs { size: None } },
        Mount { target: "/tree".into(), kind: tree },
    ];
    let ran = place.run(&spec);
    assert_eq!((ran.stdout.as_str(), ran.exit.code), ("fine\n", 0));
    assert!(
        fs::symlink_metadata(place.path("upper/made")).unwrap().rdev() == rustix::fs::makedev(1, 3),
        "it is in the layer"
    );
}

#[test]
fn kernel_files_are_hidden() {
    let place = place!();
    let text = "for f in kcore keys timer_list sched_debug latency_stats interrupts; do \
                test ! -e /proc/$f || cat /proc/$f; done; \
                for d in /proc/acpi /proc/scsi /proc/asound /sys/firmware /sys/devices/virtual/powercap; do \
                test ! -e $d || ls $d; done";
    assert_eq!(place.prints(text), "");
    let mounts = place.prints("cat /proc/self/mountinfo");
    let flags = |at: &str| {
        let line = mounts.lines().rev().find(|l| l.split(' ').nth(4) == Some(at));
        line.unwrap_or_else(|| panic!("{at} in {mounts}")).split(' ').nth(5).unwrap().to_owned()
    };
    for at in
        ["/sys", "/sys/fs/cgroup", "/proc/sys", "/proc/bus", "/proc/irq", "/proc/fs", "/etc/resolv.conf", "/etc/hosts"]
    {
        assert!(flags(at).starts_with("ro,"), "{at}: {}", flags(at));
    }
    assert_eq!(flags("/proc"), "rw,nosuid,nodev,noexec,relatime");
    assert_eq!(flags("/dev/shm"), "rw,nosuid,nodev,noexec,relatime");
    // No mount of the host's can be seen.
    assert!(!mounts.contains(" /mnt") && !mounts.contains(" /boot"), "{mounts}");
    assert!(place.prints("cat /proc/self/cgroup").lines().all(|l| l.ends_with(":/")));
}

#[test]
fn devices_are_a_containers() {
    let place = place!();
    let text = "cd /dev; ls; for f in null zero full random urandom tty; do stat -c '%n %F %a %t:%T' $f; done; \
                for f in fd stdin stdout stderr ptmx; do readlink $f; done; echo x > null; head -c 4 zero | wc -c; \
                stat -c %a shm; echo x > shm/f; mount | grep ' /dev/shm ' | grep -o size=[0-9]*k";
    let out = place.prints(text);
    for expected in [
        "core\nfd\nfull\nmqueue\nnull\nptmx\npts\nrandom\nshm\nstderr\nstdin\nstdout\ntty\nurandom\nzero\n",
        "null character special file 666 1:3\n",
        "tty character special file 666 5:0\n",
        "/proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n4\n1777\nsize=65536k\n",
    ] {
        assert!(out.contains(expected), "{expected} in {out}");
    }
}

#[test]
fn no_descriptor_of_the_hosts_leaks() {
    let place = place!();
    // One that isn't closed on exec, as a caller of kiln's may leave open.
    let leaked = fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&leaked, rustix::io::FdFlags::empty()).unwrap();
    // ls itself has the folder open while it reads it.
    let out = place.prints("ls -l /proc/self/fd 2>/dev/null | grep -o '[0-9]* -> .*'");
    let open: Vec<&str> = out.lines().filter(|l| !l.contains("/proc/")).collect();
    assert_eq!(open.len(), 3, "{out}");
    assert!(open[0].ends_with("/dev/null"), "{out}");
}

#[test]
fn network_files_are_written() {
    let place = place!();
    let mut spec = place.script("cat /etc/resolv.conf /etc/hosts");
    spec.extra_hosts = vec![("db".into(), "10.0.0.2".into())];
    let expected = "nameserver 10.9.8.7\n127.0.0.1\tlocalhost buildkitsandbox\n\
                    ::1\tlocalhost ip6-localhost ip6-loopback\n10.0.0.2\tdb\n";
    assert_eq!(place.run(&spec).stdout, expected);
}

#[test]
fn the_working_directory_is_made_and_confined() {
    let place = place!();
    let mut spec = place.script("pwd; stat -c '%u:%g %a' .");
    spec.cwd = "/new/deep".into();
    spec.user = User { uid: 5, gid: 6, groups: vec![] };
    assert_eq!(place.run(&spec).stdout, "/new/deep\n5:6 755\n");
    assert!(place.path("upper/new/deep").is_dir(), "it stays");

    let place = self::place().unwrap();
    symlink("/../../../../../../etc", place.path("base/link")).unwrap();
    symlink("/proc/self/fd", place.path("base/magic")).unwrap();
    let mut spec = place.script("ls");
    spec.cwd = "/link".into();
    assert_eq!(place.run(&spec).stdout, "hosts\npasswd\nresolv.conf\n");
    for cwd in ["/etc/passwd", "/magic/7", "/magic/1"] {
        spec.cwd = cwd.into();
        match place.try_run(&spec) {
            Err(Error::Part { part: Part::WorkingDirectory(at), .. }) => assert_eq!(at, Path::new(cwd)),
            other => panic!("{cwd}: {:?}", other.map(|r| r.stdout)),
        }
    }
}

#[test]
fn mounts_of_every_kind() {
    let place = place!();
    for folder in ["tree/in", "lower1", "lower2"] {
        fs::create_dir_all(place.path(folder)).unwrap();
    }
    fs::write(place.path("tree/in/f"), "tree\n").unwrap();
    fs::write(place.path("lower1/f"), "one\n").unwrap();
    fs::write(place.path("lower2/f"), "two\n").unwrap();
    fs::write(place.path("lower2/g"), "two\n").unwrap();
    for folder in ["up", "wk"] {
        fs::create_dir(place.path(folder)).unwrap();
    }
    let lowers = vec![place.path("lower1"), place.path("lower2")];
    let tree = |path: &str, readonly| MountKind::Tree {
        root: RootMount::Dir(place.path("tree")),
        path: path.into(),
        readonly,
    };
    let discarded = RootMount::Overlay { lowers: lowers.clone(), upper: place.path("up"), work: place.path("wk") };
    let kinds = [
        ("/ro", tree("", true)),
        ("/rw", tree("/in", false)),
        ("/deep/file", tree("in/f", true)),
        ("/layers", MountKind::Layers { lowers: lowers.clone(), path: "".into() }),
        ("/layer-file", MountKind::Layers { lowers, path: "/g".into() }),
        ("/discarded", MountKind::Tree { root: discarded, path: "/".into(), readonly: false }),
        ("/mem", MountKind::Tmpfs { size: Some(1 << 20) }),
        ("/secret", MountKind::File { content: b"hush".to_vec(), mode: 0o400, uid: 7, gid: 8 }),
        ("/mem/nested", MountKind::Tmpfs { size: None }),
    ];
    let mut spec = place.script(
        "cat /ro/in/f /deep/file /layers/f /layers/g /layer-file /secret; echo; stat -c '%a %u:%g' /secret; \
         ! touch /ro/x && ! touch /layers/x && ! touch /secret && touch /rw/new && echo x > /discarded/f && \
         ! dd if=/dev/zero of=/mem/big bs=1M count=2 2>/dev/null; touch /mem/nested/x && stat -c %a /mem",
    );
    spec.mounts = kinds.map(|(target, kind)| Mount { target: target.into(), kind }).to_vec();
    let ran = place.run(&spec);
    assert_eq!(ran.stdout, "tree\ntree\none\ntwo\ntwo\nhush\n400 7:8\n1777\n", "{}", ran.stderr);
    assert!(place.path("tree/in/new").exists());
    assert_eq!(fs::read_to_string(place.path("up/f")).unwrap(), "x\n");
    let written = place.written();
    assert!(written.is_empty(), "{written:?}");
}

#[test]
fn a_tmpfs_has_the_mode_of_the_folder_under_it() {
    let place = place!();
    fs::create_dir(place.path("base/private")).unwrap();
    fs::set_permissions(place.path("base/private"), fs::Permissions::from_mode(0o700)).unwrap();
    let mut spec = place.script("stat -c %a /private");
    spec.mounts = vec![Mount { target: "/private".into(), kind: MountKind::Tmpfs { size: None } }];
    assert_eq!(place.run(&spec).stdout, "700\n");
}

#[test]
fn links_of_the_image_lead_mounts_nowhere_outside() {
    let place = place!();
    let outside = place.path("outside");
    fs::create_dir(&outside).unwrap();
    let base = place.path("base");
    let up = format!("{}{}", "../".repeat(20), outside.strip_prefix("/").unwrap().display());
    symlink(&up, base.join("up")).unwrap();
    symlink(&outside, base.join("absolute")).unwrap();
    symlink(outside.join("new"), base.join("dangling")).unwrap();
    symlink("loop", base.join("loop")).unwrap();
    symlink("/proc/1/root", base.join("magic")).unwrap();
    symlink("/proc/self/fd", base.join("fds")).unwrap();
    let with = |target: &str| {
        let mut spec = place.script("test -e $0/x/mark || ls -d $0");
        spec.args = ["/bin/sh", "-c", "ls -d /*"].map(String::from).to_vec();
        let content = b"x".to_vec();
        spec.mounts =
            vec![Mount { target: target.into(), kind: MountKind::File { content, mode: 0o644, uid: 0, gid: 0 } }];
        place.try_run(&spec)
    };
    for target in ["/up/x", "/absolute/x", "/dangling/x", "/dangling", "/../../x", "/up/../x"] {
        with(target).unwrap_or_else(|e| panic!("{target}: {e:?}"));
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0, "{target}");
    }
    for target in
        ["/loop", "/loop/x", "/magic/x", "/fds/9/x", "/proc/sys/x", "/proc/version", "/proc/self/attr/exec", "/etc"]
    {
        match with(target) {
            Err(Error::Part { part: Part::Mount(at), .. }) => assert_eq!(at, Path::new(target)),
            other => panic!("{target}: {:?}", other.map(|r| r.stdout)),
        }
    }
    let written = place.written();
    assert!(written.is_empty(), "{written:?}");
}

#[test]
fn a_source_that_is_a_link_stays_in_its_tree() {
    let place = place!();
    fs::create_dir(place.path("tree")).unwrap();
    symlink("/etc/passwd", place.path("tree/passwd")).unwrap();
    fs::create_dir(place.path("tree/etc")).unwrap();
    fs::write(place.path("tree/etc/passwd"), "the tree's\n").unwrap();
    let mut spec = place.script("cat /x");
    let root = RootMount::Dir(place.path("tree"));
    spec.mounts =
        vec![Mount { target: "/x".into(), kind: MountKind::Tree { root, path: "passwd".into(), readonly: true } }];
    assert_eq!(place.run(&spec).stdout, "the tree's\n");
}

#[test]
fn what_stands_in_for_proc_is_refused() {
    for name in ["proc", "sys", "dev"] {
        let place = place!();
        symlink("/tmp", place.path("base").join(name)).unwrap();
        match place.try_run(&place.spec(&["true"])) {
            Err(Error::Call(call)) => assert_eq!(call.path.as_deref(), Some(Path::new("/").join(name).as_path())),
            other => panic!("{name}: {:?}", other.map(|r| r.exit)),
        }
    }
}

#[test]
fn resolv_conf_may_be_a_link_to_nowhere() {
    let place = place!();
    symlink("../run/systemd/resolve/stub-resolv.conf", place.path("base/etc/resolv.conf")).unwrap();
    assert_eq!(place.prints("cat /etc/resolv.conf"), "nameserver 10.9.8.7\n");
    let written = place.written();
    assert!(written.is_empty(), "{written:?}");
}

#[test]
fn limits_are_set() {
    let place = place!();
    let mut spec = place.script("ulimit -n; ulimit -c; mount | grep ' /dev/shm ' | grep -o size=[0-9]*k");
    spec.limits.ulimits = vec![("nofile".into(), 64, 64), ("core".into(), 0, 0)];
    spec.limits.shm_size = Some(1 << 20);
    assert_eq!(place.run(&spec).stdout, "64\n0\nsize=1024k\n");
    spec.limits.ulimits = vec![("nosuch".into(), 1, 1)];
    assert!(matches!(place.try_run(&spec), Err(Error::Spec(_))));
    spec.limits.ulimits = vec![("nofile".into(), 2, 1)];
    assert!(matches!(place.try_run(&spec), Err(Error::Part { part: Part::Limit(_), .. })));
}

/// The control groups of kiln's own that are there.
fn groups() -> Vec<PathBuf> {
    fn walk(dir: &Path, depth: u32, out: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&format!("kiln-{}-", std::process::id())) {
                out.push(entry.path());
            } else if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
                walk(&entry.path(), depth - 1, out);
            }
        }
    }
    let mut out = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), 4, &mut out);
    out
}

#[test]
fn memory_and_processor_time_are_limited() {
    let place = place!();
    let mut spec =
        place.script("cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/memory.max 2>/dev/null");
    spec.limits.memory = Some(64 << 20);
    spec.limits.milli_cpus = Some(500);
    spec.limits.cpu_shares = Some(512);
    match place.try_run(&spec) {
        Err(Error::Limit { why, .. }) => eprintln!("skipped: no control groups here: {why}"),
        other => {
            assert_eq!(other.unwrap().stdout, "67108864\n");
            // tail holds a line that never ends in memory.
            spec.args[2] = "tail -n 1 /dev/zero; exit 1".into();
            let exit = place.run(&spec).exit;
            assert!(exit.out_of_memory && !exit.success(), "{exit:?}");
        }
    }
    assert!(groups().is_empty(), "{:?}", groups());
}

/// Processes of this machine whose command line has this text.
fn processes(text: &str) -> usize {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter(|e| fs::read(e.path().join("cmdline")).is_ok_and(|c| String::from_utf8_lossy(&c).contains(text)))
        .count()
}

#[test]
fn cancelling_kills_everything() {
    let place = place!();
    let mark = format!("5{}", std::process::id());
    let spec = place.script(&format!("setsid sleep {mark} & sleep {mark} & echo up; sleep {mark}"));
    let cancel = Cancel::new().unwrap();
    let start = Instant::now();
    let mut alive = 0;
    let result = place.executor.run(
        &spec,
        &mut |_, _| {
            std::thread::sleep(Duration::from_millis(50));
            alive = processes(&mark);
            cancel.cancel();
        },
        &cancel,
    );
    assert!(matches!(result, Err(Error::Cancelled)));
    assert!(start.elapsed() < Duration::from_secs(60));
    assert!(alive >= 3, "{alive}");
    assert_eq!(processes(&mark), 0);
    assert!(matches!(place.executor.run(&spec, &mut |_, _| {}, &cancel), Err(Error::Cancelled)));
}

#[test]
fn daemons_end_with_the_command() {
    let place = place!();
    let mark = format!("6{}", std::process::id());
    let start = Instant::now();
    let ran = place.run(&place.script(&format!("setsid sleep {mark} & echo done")));
    assert_eq!(ran.stdout, "done\n");
    assert!(start.elapsed() < Duration::from_secs(60));
    assert_eq!(processes(&mark), 0);
}

/// Runs itself as somebody else, who may not make namespaces.
#[test]
fn without_rights_it_says_which_call_was_refused() {
    let place = place!();
    if std::env::var_os("KILN_TEST_NOBODY").is_some() {
        let error = place_of_nobody(&place).unwrap_err();
        println!("{error}; {}", std::error::Error::source(&error).unwrap());
        println!("{:?}", probe(&std::env::temp_dir(), Way { pivot: true, overlay: true }));
        return;
    }
    let out = place.path("out");
    fs::create_dir(&out).unwrap();
    fs::set_permissions(&out, fs::Permissions::from_mode(0o1777)).unwrap();
    let program = place.path("test");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let ran = std::process::Command::new(program)
        .args(["--exact", "without_rights_it_says_which_call_was_refused", "--nocapture"])
        .env("KILN_TEST_NOBODY", "1")
        .env("TMPDIR", &out)
        .uid(65534)
        .gid(65534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(text.contains("can't make the sandbox; clone: Operation not permitted"), "{text}");
    assert!(text.contains("Err(") && text.contains("CAP_SYS_ADMIN"), "{text}");
}

fn place_of_nobody(place: &Place) -> Result<Exit, Error> {
    place.executor.run(&place.script("true"), &mut |_, _| (), &Cancel::new().unwrap())
}

/// Runs itself as another process that has a terminal, as a person's shell gives it one.
#[test]
fn a_terminal_is_connected() {
    let place = place!();
    if std::env::var_os("KILN_TEST_TERMINAL").is_some() {
        let mut spec = place.script(
            "tty; test -t 0 && test -t 1 && test -t 2 && test -c /dev/console && stat -c %u /dev/pts/0; \
             set -- $(stat -c %t:%T /dev/console); echo console $1; read line; echo \"got $line\"; exit 7",
        );
        spec.stdio = Stdio::Terminal;
        spec.user = User { uid: 4, gid: 4, groups: vec![] };
        let ran = place.run(&spec);
        println!("code {}", ran.exit.code);
        return;
    }
    let main = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY).unwrap();
    rustix::pty::grantpt(&main).unwrap();
    rustix::pty::unlockpt(&main).unwrap();
    let name = rustix::pty::ptsname(&main, Vec::new()).unwrap();
    let user = || fs::File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_terminal_is_connected", "--nocapture"])
        .env("KILN_TEST_TERMINAL", "1")
        .stdin(user())
        .stdout(user())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut main = fs::File::from(main);
    let mut answered = false;
    while !seen.contains("code 7") {
        let mut buffer = [0; 1024];
        let length = std::io::Read::read(&mut main, &mut buffer).unwrap_or_else(|e| panic!("{e} after {seen}"));
        seen.push_str(&String::from_utf8_lossy(&buffer[..length]));
        if seen.contains("console") && !answered {
            std::io::Write::write_all(&mut main, b"hello\r").unwrap();
            answered = true;
        }
    }
    child.wait().unwrap();
    for text in ["/dev/pts/0\r\n4\r\n", "got hello"] {
        assert!(seen.contains(text), "{text:?} in {seen:?}");
    }
}

/// Runs itself as another process, which is killed while its sandbox is at work.
#[test]
fn a_killed_kiln_leaves_no_process() {
    let place = place!();
    if let Ok(mark) = std::env::var("KILN_TEST_MARK") {
        let mut spec = place.script(&format!("setsid sleep {mark} & echo up; sleep {mark}"));
        spec.user = User { uid: 4, gid: 4, groups: vec![] };
        let ran = place.executor.run(&spec, &mut |_, _| println!("up"), &Cancel::new().unwrap());
        panic!("it was to be killed: {ran:?}");
    }
    let mark = format!("8{}", std::process::id());
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_killed_kiln_leaves_no_process", "--nocapture"])
        .env("KILN_TEST_MARK", &mark)
        .env("TMPDIR", place.dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    while !lines.next().unwrap().unwrap().contains("up") {}
    let soon = |what: &str, holds: &dyn Fn() -> bool| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    soon("both sleep", &|| processes(&format!("sleep\0{mark}")) >= 2);
    child.kill().unwrap();
    child.wait().unwrap();
    // The kernel needs a moment to end a pid namespace.
    soon("all are gone", &|| processes(&mark) == 0);
}

#[test]
fn a_panic_of_the_caller_leaves_no_process() {
    let place = place!();
    let mark = format!("7{}", std::process::id());
    let spec = place.script(&format!("echo up; sleep {mark}"));
    let cancel = Cancel::new().unwrap();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        place.executor.run(&spec, &mut |_, _| panic!("of the caller"), &cancel)
    }));
    assert!(result.is_err());
    assert_eq!(processes(&mark), 0);
}

#[test]
fn nothing_is_left() {
    let place = place!();
    let descriptors = || fs::read_dir("/proc/self/fd").unwrap().count();
    let mut spec = place.script("true");
    spec.mounts = vec![Mount { target: "/a/b".into(), kind: MountKind::Tmpfs { size: None } }];
    place.run(&spec);
    let before = descriptors();
    for number in 0..20 {
        spec.root = RootMount::Overlay {
            lowers: vec![place.path("base")],
            upper: place.path(&format!("u{number}")),
            work: place.path(&format!("w{number}")),
        };
        for folder in ["u", "w"] {
            fs::create_dir(place.path(&format!("{folder}{number}"))).unwrap();
        }
        spec.args[0] = if number % 2 == 0 { "/bin/sh" } else { "/nosuch" }.into();
        let ran = place.try_run(&spec);
        assert_eq!(ran.is_ok(), number % 2 == 0);
        let left: Vec<_> =
            fs::read_dir(place.path(&format!("u{number}"))).unwrap().flatten().map(|e| e.file_name()).collect();
        assert!(left.iter().all(|name| name == "etc"), "{left:?}");
    }
    // Other tests of this process run at the same time and have a few open.
    assert!(descriptors() < before + 100, "{} {before}", descriptors());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("kiln-sandbox-"), "{mounts}");
}

#[test]
fn many_layers() {
    let place = place!();
    let mut lowers = Vec::new();
    for number in 0..200 {
        let layer = place.path(&format!("layers-with-a-long-name-as-those-in-a-store-{number}"));
        fs::create_dir(&layer).unwrap();
        fs::write(layer.join(format!("f{number}")), "").unwrap();
        fs::write(layer.join("top"), number.to_string()).unwrap();
        lowers.insert(0, layer);
    }
    lowers.push(place.path("base"));
    let mut spec = place.script("ls /f* | wc -l; cat /top");
    spec.root = RootMount::Overlay { lowers, upper: place.path("upper"), work: place.path("work") };
    assert_eq!(place.run(&spec).stdout, "200\n199");
}

#[test]
fn a_folder_can_be_the_root() {
    let place = place!();
    let mut spec = place.script("echo x > /written; cat /etc/resolv.conf");
    spec.root = RootMount::Dir(place.path("base"));
    assert_eq!(place.run(&spec).stdout, "nameserver 10.9.8.7\n");
    assert!(place.path("base/written").exists());
    assert!(!place.path("base/proc").exists() && !place.path("base/etc/resolv.conf").exists());
    // No layers at all: the upper folder is the root.
    spec.root = RootMount::Overlay { lowers: vec![], upper: place.path("base"), work: place.path("work") };
    assert_eq!(place.run(&spec).exit.code, 0);
}

#[test]
fn many_at_once() {
    let place = place!();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let place = &place;
            scope.spawn(move || {
                for number in 0..5 {
                    let name = |kind: &str| place.path(&format!("{kind}{thread}-{number}"));
                    fs::create_dir(name("up")).unwrap();
                    fs::create_dir(name("wk")).unwrap();
                    let mut spec = place.script(&format!("echo {thread}-{number}"));
                    spec.root =
                        RootMount::Overlay { lowers: vec![place.path("base")], upper: name("up"), work: name("wk") };
                    assert_eq!(place.run(&spec).stdout, format!("{thread}-{number}\n"));
                }
            });
        }
    });
}

#[test]
fn environment_is_what_the_spec_says() {
    let place = place!();
    let mut spec = place.spec(&["env"]);
    spec.env.push(("A".into(), "1".into()));
    spec.env.push(("A".into(), "2 3".into()));
    let ran = place.run(&spec);
    let mut lines: Vec<&str> = ran.stdout.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["A=2 3", &format!("PATH={PATH}")]);
}
