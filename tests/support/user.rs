//! An ordinary user, with ranges of numbers or without, and a folder with everything that builds as this user and as root touch.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

/// Runs a program that must go well.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// A number that has no user, and so no ranges.
const NOBODYS: u32 = 54321;

/// Whether this is root on a machine that has these files; if not, a line says what is missing.
pub(crate) fn can(needs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it needs root, to become another user or to start containers");
        return false;
    }
    let missing = needs.iter().find(|file| !Path::new(file).exists());
    if let Some(file) = missing {
        println!("skipped: {file} is missing (scripts/setup installs what the tests need)");
    }
    missing.is_none()
}

/// An ordinary user, gone when dropped, and a folder that only the user can write to.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    /// The name; empty where there is none.
    pub(crate) user: String,
    uid: u32,
    gid: u32,
}

impl Place {
    /// A user with ranges of numbers. `None`, and a line that says why, where there can't be one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !can(&["/usr/bin/newuidmap", "/usr/sbin/useradd", "/usr/bin/setpriv", "/bin/busybox", "/usr/sbin/setcap"]) {
            return None;
        }
        // Tests of one program run at the same time.
        static USERS: AtomicU32 = AtomicU32::new(0);
        let user = format!("kiln-{name}-{}-{}", std::process::id(), USERS.fetch_add(1, Ordering::Relaxed));
        run("useradd", &["--no-create-home", "--home-dir", "/nonexistent", &user]);
        let number = |flag| {
            let text = String::from_utf8(run("id", &[flag, &user]).stdout).unwrap();
            text.trim().parse::<u32>().unwrap()
        };
        let place = Self::of(user.clone(), number("-u"), number("-g"));
        if !fs::read_to_string("/etc/subuid").unwrap_or_default().contains(&format!("{}:", place.user)) {
            let range = "400000000-400065535";
            run("usermod", &["--add-subuids", range, "--add-subgids", range, &place.user]);
        }
        Some(place)
    }

    /// A user that has nothing but a number. `None`, and a line that says why, where there can't be one.
    pub(crate) fn with_one_number() -> Option<Self> {
        can(&["/usr/bin/setpriv", "/bin/busybox"]).then(|| Self::of(String::new(), NOBODYS, NOBODYS))
    }

    fn of(user: String, uid: u32, gid: u32) -> Self {
        let place = Self { folder: tempfile::tempdir().unwrap(), user, uid, gid };
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_kiln"), place.path("kiln")).unwrap();
        for folder in ["home", "context"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        chown(place.path("home"), Some(uid), Some(gid)).unwrap();
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        place
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn dockerfile(&self, text: &str) {
        fs::write(self.path("context/Dockerfile"), text).unwrap();
    }

    /// The binary as the user, whose own folder is the home.
    pub(crate) fn as_user<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.as_user_with(&[], args)
    }

    /// The same, with variables.
    pub(crate) fn as_user_with<S: AsRef<OsStr>>(
        &self,
        variables: &[(&str, &str)],
        args: impl IntoIterator<Item = S>,
    ) -> Output {
        let [uid, gid] = self.ids();
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        // Behind what clears them.
        command.arg("env").args(variables.iter().map(|(name, value)| format!("{name}={value}")));
        self.finish(command.arg(self.path("kiln")).args(args), "home")
    }

    /// The user's number and group.
    pub(crate) fn ids(&self) -> [String; 2] {
        [self.uid, self.gid].map(|n| n.to_string())
    }

    /// The binary as root.
    pub(crate) fn as_root<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.finish(Command::new(self.path("kiln")).args(args), "roots-home")
    }

    /// Runs a program with a home of its own, and no other environment.
    pub(crate) fn finish(&self, command: &mut Command, home: &str) -> Output {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let home = self.path(home);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("KILN_ROOT", home.join("store"))
            .env("HOME", home)
            .output()
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.user.is_empty() {
            let _ = Command::new("userdel").arg(&self.user).output();
        }
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What all the Dockerfiles start with.
pub(crate) const BASE: &str = include_str!("../levels/base.Dockerfile");
