//! Containers of a real Docker daemon, Debian's package docker.io: the overlay2 driver, Docker's own seccomp profile and its default
//! capabilities. `scripts/docker` runs the daemon and removes every trace of it, even if the test is killed.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::sync::{Arc, Mutex, PoisonError, Weak};

/// Debian's client: another one may come first in `$PATH`.
const CLIENT: &str = "/usr/bin/docker";
/// kiln's own image, and its variant with a shell.
pub(crate) const IMAGE: &str = "kiln:test";
const DEBUG_IMAGE: &str = "kiln:test-debug";
/// The directory of kiln's image where a context belongs.
pub(crate) const WORKSPACE: &str = "/kiln/workspace";

/// Who root of a container is on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Users {
    /// Root, as Docker does by default. Containers share the host's network.
    Host,
    /// A user without rights, by `--userns-remap`. Docker then refuses `--network host`, so containers have no network.
    Remapped,
}

/// A daemon. When the last test that uses it drops it, it ends and so do its containers.
pub(crate) struct Docker {
    supervisor: Child,
    said: BufReader<ChildStdout>,
    /// The daemon's directory, which holds its socket.
    pub(crate) dir: PathBuf,
    users: Users,
    /// The host's number of the containers' root.
    root: u32,
}

/// The daemons that tests of this process use.
static RUNNING: Mutex<[Weak<Docker>; 2]> = Mutex::new([Weak::new(), Weak::new()]);

impl Docker {
    /// The daemon that the tests of this process share, with kiln's image. `None`, and a line that says why, where there cannot be one.
    pub(crate) fn with_image(users: Users) -> Option<Arc<Self>> {
        let mut running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = &mut running[users as usize];
        if let Some(docker) = slot.upgrade() {
            return Some(docker);
        }
        let needs = ["/bin/busybox", "/etc/ssl/certs/ca-certificates.crt"];
        if let Some(file) = needs.into_iter().find(|file| !Path::new(file).exists()) {
            println!("skipped: {file} is missing (scripts/setup installs what the tests need)");
            return None;
        }
        let docker = Self::start(users)?;
        docker.load_image();
        let docker = Arc::new(docker);
        *slot = Arc::downgrade(&docker);
        Some(docker)
    }

    /// A daemon without images. `None`, and a line that says why, where there cannot be one.
    pub(crate) fn start(users: Users) -> Option<Self> {
        let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/docker"));
        if users == Users::Remapped {
            command.arg("--userns-remap=default");
        }
        // In a process group of its own, so that it can clean up when the group of the tests is killed.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
        let mut supervisor = command.spawn().unwrap();
        let mut said = BufReader::new(supervisor.stdout.take().unwrap());
        let mut line = String::new();
        said.read_line(&mut line).unwrap();
        let Some(dir) = line.trim().strip_prefix("ready ") else {
            assert_eq!(supervisor.wait().unwrap().code(), Some(77), "scripts/docker: {line}");
            println!("skipped: {}", line.trim());
            return None;
        };
        let mut docker = Self { supervisor, said, dir: PathBuf::from(dir), users, root: 0 };
        if users == Users::Remapped {
            // DIR/root/UID.GID
            let root = docker.client(["info", "-f", "{{.DockerRootDir}}"]);
            docker.root = root.rsplit(['/', '.']).next().unwrap().parse().unwrap();
        }
        Some(docker)
    }

    /// Docker's client, not started yet.
    pub(crate) fn command<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> Command {
        let mut command = Command::new(CLIENT);
        command.arg("-H").arg(format!("unix://{}/sock", self.dir.display())).args(args);
        command.env_clear().env("DOCKER_CONFIG", self.dir.join("config")).stdin(Stdio::null());
        command
    }

    /// Runs Docker's client, which must succeed, and returns what it printed.
    #[track_caller]
    pub(crate) fn client<'a>(&self, args: impl IntoIterator<Item = &'a str>) -> String {
        let mut command = self.command(args);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8(done.stdout).unwrap().trim().to_owned()
    }

    /// Builds kiln's own image by `scripts/image` and loads it.
    fn load_image(&self) {
        let folder = tempfile::tempdir().unwrap();
        let kiln = env!("CARGO_BIN_EXE_kiln");
        let with_store = |program: &str, args: &[&str]| {
            let mut command = Command::new(program);
            command.args(args).env("KILN", kiln).env("KILN_ROOT", folder.path().join("store"));
            let done = command.output().unwrap();
            assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
        };
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/image");
        with_store(script, &[IMAGE, "--compression", "uncompressed"]);
        let archive = folder.path().join("image.tar");
        let archive = archive.to_str().unwrap();
        with_store(kiln, &["save", IMAGE, DEBUG_IMAGE, "-o", archive]);
        self.client(["load", "-q", "-i", archive]);
    }

    /// `docker run` with the flags that every container gets.
    pub(crate) fn run<'a>(&self, flags: &[&'a str], image: &'a str, args: &[&'a str]) -> Command {
        let network = if self.users == Users::Host { "host" } else { "none" };
        let run = ["run", "--rm", "--network", network, "--pids-limit", "300", "--memory", "2g"];
        self.command([&run[..], flags, &[image], args].concat())
    }

    /// kiln in a new container of its image.
    pub(crate) fn kiln(&self, flags: &[&str], args: &[&str]) -> Output {
        self.run(flags, IMAGE, args).output().unwrap()
    }

    /// A script of busybox's shell in a new container of kiln's image with a shell.
    pub(crate) fn shell(&self, flags: &[&str], script: &str) -> Output {
        let flags = [flags, &["--entrypoint", "/busybox/sh"]].concat();
        self.run(&flags, DEBUG_IMAGE, &["-c", script]).output().unwrap()
    }

    /// Gives a directory, which root of a container may then write to, and everything in it to that root.
    pub(crate) fn hand_over(&self, path: &Path) {
        if self.users == Users::Host {
            return;
        }
        chown(path, Some(self.root), Some(self.root)).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        for entry in fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                self.hand_over(&entry.path());
            } else {
                std::os::unix::fs::lchown(entry.path(), Some(self.root), Some(self.root)).unwrap();
            }
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // The end of its standard input ends it.
        drop(self.supervisor.stdin.take());
        let mut rest = String::new();
        let _ = self.said.read_to_string(&mut rest);
        let status = self.supervisor.wait();
        let clean = status.is_ok_and(|status| status.success());
        assert!(clean || std::thread::panicking(), "scripts/docker left something in {}: {rest}", self.dir.display());
    }
}
