//! A folder with everything that a run of the binary touches, and what the run said and left.
//!
//! ```ignore
//! let world = World::new();
//! world.dockerfile("FROM scratch\nCOPPY a b\n");
//! world.kiln(["build", "context"]).fails(2).points_at("COPPY");
//! ```

use super::docker_registry::{DockerRegistry, Options};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The binary under test.
pub(crate) const KILN: &str = env!("CARGO_BIN_EXE_kiln");

/// A context, a store, a home, a folder for temporary files; all gone when dropped.
pub(crate) struct World {
    folder: tempfile::TempDir,
    mounts: BTreeSet<String>,
}

/// What a run of the binary said.
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap(), mounts: host_mounts() };
        for folder in ["context", "tmp", "home", "docker"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        world
    }

    /// A path in this world.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file, and the folders above it.
    pub(crate) fn file(&self, name: &str, text: impl AsRef<[u8]>) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// Writes the context's Dockerfile.
    pub(crate) fn dockerfile(&self, text: &str) -> &Self {
        self.file("context/Dockerfile", text)
    }

    /// The binary with this world's folders for everything, not started yet. It knows no other environment.
    pub(crate) fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(KILN);
        command
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("KILN_ROOT", self.path("store"))
            .env("HOME", self.path("home"))
            .env("DOCKER_CONFIG", self.path("docker"))
            .env("TMPDIR", self.path("tmp"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the binary.
    pub(crate) fn kiln<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        Run::of(self.command(args).spawn().unwrap())
    }

    /// Fails where a run left a mount, a process in a namespace of its own, a control group or a temporary file.
    pub(crate) fn nothing_is_left(&self) {
        let none: Vec<String> = Vec::new();
        assert_eq!(settled(|| self.new_mounts()), none, "mounts");
        assert_eq!(settled(|| self.processes()), none, "processes that see this world's folders mounted");
        assert_eq!(settled(empty_groups), none, "control groups");
        assert_eq!(names_in(&self.path("tmp")), none, "files in $TMPDIR");
        assert_eq!(settled(|| names_in(&self.path("store/tmp"))), none, "temporary files in the store");
    }

    fn new_mounts(&self) -> Vec<String> {
        let mark = self.folder.path().to_str().unwrap();
        host_mounts().into_iter().filter(|m| m.contains(mark) && !self.mounts.contains(m)).collect()
    }

    /// Processes in whose mount namespace something of this world is mounted.
    fn processes(&self) -> Vec<String> {
        let mark = self.folder.path().to_str().unwrap();
        let own = std::process::id().to_string();
        names_in(Path::new("/proc"))
            .into_iter()
            .filter(|name| name.bytes().all(|b| b.is_ascii_digit()) && *name != own)
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/mountinfo")).is_ok_and(|m| m.contains(mark)))
            .collect()
    }
}

impl Run {
    /// Waits for a process.
    pub(crate) fn of(child: Child) -> Self {
        let output = child.wait_with_output().unwrap();
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn shown(&self) -> String {
        format!("code {:?}\n--- stdout\n{}--- stderr\n{}", self.code, self.stdout, self.stderr)
    }

    /// It went well.
    #[track_caller]
    pub(crate) fn ok(self) -> Self {
        assert_eq!(self.code, Some(0), "{}", self.shown());
        self
    }

    /// It failed with this exit code, with a message of ours, and wrote nothing to standard output.
    #[track_caller]
    pub(crate) fn fails(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}", self.shown());
        assert!(self.stderr.lines().any(|l| l.starts_with("error")), "no message: {}", self.shown());
        assert!(!self.stderr.contains("panicked"), "{}", self.shown());
        assert_eq!(self.stdout, "", "{}", self.shown());
        self
    }

    /// Standard error has this text.
    #[track_caller]
    pub(crate) fn says(self, part: &str) -> Self {
        assert!(self.stderr.contains(part), "{part:?} is missing: {}", self.shown());
        self
    }

    /// Standard error hasn't this text.
    #[track_caller]
    pub(crate) fn doesnt_say(self, part: &str) -> Self {
        assert!(!self.stderr.contains(part), "{part:?} is there: {}", self.shown());
        self
    }

    /// Standard output has this text.
    #[track_caller]
    pub(crate) fn prints(self, part: &str) -> Self {
        assert!(self.stdout.contains(part), "{part:?} is missing: {}", self.shown());
        self
    }

    /// The message shows a line of the Dockerfile with carets under the beginning of this text.
    #[track_caller]
    pub(crate) fn points_at(self, text: &str) -> Self {
        let lines: Vec<&str> = self.stderr.lines().collect();
        let pointed = lines.windows(2).any(|pair| {
            let (Some(at), Some(caret)) = (pair[0].find(text), pair[1].find('^')) else { return false };
            pair[0].contains(" | ") && pair[0][..at].chars().count() == caret
        });
        assert!(pointed, "no caret under {text:?}: {}", self.shown());
        self
    }
}

/// Asks until the answer is empty, for some seconds: what a killed process held goes a moment after it.
fn settled(ask: impl Fn() -> Vec<String>) -> Vec<String> {
    let end = Instant::now() + Duration::from_secs(5);
    loop {
        let answer = ask();
        if answer.is_empty() || Instant::now() > end {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn host_mounts() -> BTreeSet<String> {
    fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines().map(str::to_owned).collect()
}

/// kiln's control groups without a process. Those of builds that run at the same time have one, or soon go.
fn empty_groups() -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(folder) = folders.pop() {
        let kiln = folder.file_name().is_some_and(|n| n.to_string_lossy().contains("kiln"));
        if kiln && fs::read_to_string(folder.join("cgroup.procs")).is_ok_and(|p| p.trim().is_empty()) {
            found.push(folder.display().to_string());
        }
        let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
        folders.extend(entries.filter(|e| e.file_type().is_ok_and(|t| t.is_dir())).map(|e| e.path()));
    }
    found
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect()
}

/// A registry on loopback with busybox in it: that of `scripts/test`, or one of this test's own.
pub(crate) struct Bases {
    pub(crate) host: String,
    _own: Option<DockerRegistry>,
}

impl Bases {
    /// `None`, and a line that says why, where builds can't run here.
    pub(crate) fn find() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: a build's processes need root");
            return None;
        }
        if let Ok(host) = std::env::var("KILN_TEST_REGISTRY") {
            return Some(Self { host, _own: None });
        }
        let own = DockerRegistry::start(&Options::default())?;
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/make-bases");
        let made = Command::new(script).args(["--no-debian", "--registry", &own.host]).output();
        if made.as_ref().is_ok_and(|m| m.status.success()) {
            return Some(Self { host: own.host.clone(), _own: Some(own) });
        }
        println!("skipped: no base images: {made:?}");
        None
    }

    /// The flag that makes docker.io mean this registry.
    pub(crate) fn mirror(&self) -> String {
        format!("--registry-mirror=docker.io=http://{}", self.host)
    }

    /// A name in this registry that no other test has.
    pub(crate) fn fresh(&self, tag: &str) -> String {
        let unique = tempfile::Builder::new().prefix("t").tempdir().unwrap();
        let name = unique.path().file_name().unwrap().to_string_lossy().to_lowercase();
        format!("{}/{}-{}:{tag}", self.host, name, std::process::id())
    }
}
