//! The isolation level `root`, for real: every promise checked from inside a sandbox. Needs root; Debian's busybox-static.

use kiln::sandbox::{Error, Executor as _, Exit, Mount, MountKind, Network, Part, RootExecutor, Spec, Stream, User};
use kiln::sys::{Cancel, RootMount};
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A root filesystem of busybox in one layer, and a folder for what changes.
struct Place {
    dir: tempfile::TempDir,
    executor: RootExecutor,
}

/// What a run gave.
struct Ran {
    exit: Exit,
    stdout: String,
    stderr: String,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The place for a test; `None`, with a word about it, where tests like this can't run.
fn place() -> Option<Place> {
    if !rustix::process::geteuid().is_root() {
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
    for name in [
        "sh", "cat", "ls", "echo", "id", "grep", "mount", "sleep", "stat", "readlink", "hostname", "touch", "mkdir",
        "rm", "wc", "dd", "head", "chmod", "ip", "kill", "ps", "test", "true", "false", "umask", "pwd", "chroot",
        "mknod", "env", "tail", "rmdir", "ulimit", "seq", "unshare", "su", "ln", "setsid", "find", "cut",
    ] {
        symlink("busybox", base.join("bin").join(name)).unwrap();
    }
    fs::write(base.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    let executor = RootExecutor::new("nameserver 10.9.8.7\n".into()).unwrap();
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

    /// Everything in the upper folder, sorted.
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

#[test]
fn runs_and_streams() {
    let place = place!();
    let ran = place.run(&place.script("echo out; echo err >&2; echo $$; exit 3"));
    assert_eq!(ran.exit, Exit { code: 3, signal: None, out_of_memory: false });
    assert_eq!((ran.stdout.as_str(), ran.stderr.as_str()), ("out\n1\n", "err\n"));
}
