//! A world with an ordinary user in it, whom everything but a home is closed to: with ranges of numbers or without.
#![allow(dead_code, reason = "each test uses a part of it")]

use super::world::{KILN, Run, World};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// A number that has no user, and so no ranges.
pub(crate) const NOBODYS: u32 = 54321;

/// What programs find in `$PATH`: those of root's, too.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Runs a program that must go well.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Whether this is root on a machine that has these files; if not, a line says what is missing.
pub(crate) fn can(needs: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: it needs root, to become another user or to start containers");
        return false;
    }
    let missing = needs.iter().find(|file| !Path::new(file).exists());
    if let Some(file) = missing {
        println!("skipped: {file} is missing (scripts/setup installs what tests need)");
    }
    missing.is_none()
}

/// A world, and an ordinary user, who is gone when dropped.
pub(crate) struct Place {
    pub(crate) world: World,
    /// The name, where there is one.
    pub(crate) user: Option<String>,
    uid: u32,
    gid: u32,
}

impl Place {
    /// A user with ranges. `None`, and a line that says why, where there can't be one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !can(&["/usr/bin/newuidmap", "/usr/sbin/useradd", "/usr/bin/setpriv", "/bin/busybox"]) {
            return None;
        }
        let user = format!("kiln-{name}-{}", std::process::id());
        run("useradd", &["--no-create-home", "--home-dir", "/nonexistent", &user]);
        let number = |flag| {
            let text = String::from_utf8(run("id", &[flag, &user]).stdout).unwrap();
            text.trim().parse::<u32>().unwrap()
        };
        let place = Self::of(number("-u"), number("-g"), Some(user.clone()));
        if !fs::read_to_string("/etc/subuid").unwrap_or_default().contains(&format!("{user}:")) {
            let range = "400000000-400065535";
            run("usermod", &["--add-subuids", range, "--add-subgids", range, &user]);
        }
        Some(place)
    }

    /// A user that has nothing but a number. `None`, and a line that says why, where there can't be one.
    pub(crate) fn with_one_number() -> Option<Self> {
        can(&["/usr/bin/setpriv", "/bin/busybox"]).then(|| Self::of(NOBODYS, NOBODYS, None))
    }

    fn of(uid: u32, gid: u32, user: Option<String>) -> Self {
        let world = World::new();
        for folder in ["users", "bin"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        fs::copy(KILN, world.path("bin/kiln")).unwrap();
        fs::copy("/bin/busybox", world.path("context/busybox")).unwrap();
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        chown(world.path("users"), Some(uid), Some(gid)).unwrap();
        Self { world, user, uid, gid }
    }

    /// The binary as the user, whose own folder is the home. It knows no other environment.
    pub(crate) fn as_user<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        let [uid, gid] = [self.uid, self.gid].map(|n| n.to_string());
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &uid, "--regid", &gid, "--clear-groups"])
            .arg(self.world.path("bin/kiln"))
            .args(args)
            .current_dir(self.world.path(""))
            .env_clear()
            .env("PATH", PATH)
            .env("KILN_ROOT", self.world.path("users/store"))
            .env("HOME", self.world.path("users"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run::of(command.spawn().unwrap())
    }

    /// The binary as root.
    pub(crate) fn as_root<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.world.kiln(args)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(user) = &self.user {
            let _ = Command::new("userdel").arg(user).output();
        }
    }
}

/// What all the Dockerfiles start with.
pub(crate) const BASE: &str = include_str!("../levels/base.Dockerfile");
