//! Ordinary containers by Debian's podman and runc, from an image that holds nothing but kiln.
#![allow(dead_code, reason = "each test uses a part of it")]

use kiln::sandbox::seccomp;
use rustix::thread::CapabilitySet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program that must go well.
pub(crate) fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", text(&output));
    output
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// An image with kiln, and a folder that its containers have in `/workspace`. Both are gone when dropped.
pub(crate) struct Place {
    folder: tempfile::TempDir,
    image: String,
}

/// What Docker gives and Debian's podman doesn't.
pub(crate) const AS_DOCKER: &str = "--cap-add=MKNOD,NET_RAW,AUDIT_WRITE";

impl Place {
    /// `None`, and a line that says why, where there can't be one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it needs root, to start containers");
            return None;
        }
        let needs = ["/usr/bin/podman", "/usr/sbin/runc", "/bin/busybox", "/usr/sbin/setcap", "/usr/bin/tar"];
        if let Some(file) = needs.into_iter().find(|file| !Path::new(file).exists()) {
            println!("skipped: {file} is missing (packages podman, runc, busybox-static, libcap2-bin)");
            return None;
        }
        let place = Self {
            folder: tempfile::tempdir().unwrap(),
            image: format!("localhost/kiln-in-place-{name}:{}", std::process::id()),
        };
        for folder in ["context", "image/kiln/home/.docker", "home"] {
            fs::create_dir_all(place.path(folder)).unwrap();
        }
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        fs::copy("/bin/busybox", place.path("image/kiln/busybox")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_kiln"), place.path("image/kiln/kiln")).unwrap();
        fs::write(place.path("image/kiln/.in-place"), "").unwrap();
        fs::write(
            place.path("image/kiln/home/.docker/config.json"),
            "{\"auths\":{\"r.example\":{\"auth\":\"dTpzM2NyM3Q=\"}}}",
        )
        .unwrap();
        let (archive, folder) = (place.path("image.tar"), place.path("image"));
        run("tar", &["-C", folder.to_str().unwrap(), "-cf", archive.to_str().unwrap(), "kiln"]);
        let variables = ["KILN_ROOT=/kiln/store", "HOME=/kiln/home", "PATH=/kiln", "TOKEN=s3cr3t"];
        let mut args = vec!["import".to_owned(), "-q".to_owned()];
        args.extend(variables.iter().flat_map(|v| ["--change".to_owned(), format!("ENV {v}")]));
        args.extend([archive.to_str().unwrap().to_owned(), place.image.clone()]);
        run("podman", &args.iter().map(String::as_str).collect::<Vec<_>>());
        Some(place)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    /// A script of busybox's shell in a new container, whose own programs are in /kiln. Its seccomp profile is Docker's unless
    /// the flags name another: Debian's podman has one that allows user namespaces.
    pub(crate) fn container(&self, flags: &[&str], script: &str) -> Output {
        self.command(flags, script).output().unwrap()
    }

    /// The command that runs such a script.
    pub(crate) fn command(&self, flags: &[&str], script: &str) -> Command {
        let workspace = format!("{}:/workspace", self.folder.path().display());
        let profile = self.path("docker.json");
        fs::write(&profile, seccomp::oci::profile(CapabilitySet::SYS_CHROOT).to_string()).unwrap();
        let profile = format!("--security-opt=seccomp={}", profile.display());
        let own = (!flags.iter().any(|flag| flag.contains("seccomp="))).then_some(profile);
        // conmon writes to its working directory when memory runs out.
        let mut command = Command::new("podman");
        command
            .current_dir(self.folder.path())
            .args(["run", "--rm", "--runtime", "runc", "--cgroup-manager=cgroupfs", "--network", "host"])
            .args(["--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000", "-v", &workspace])
            .args(own)
            .args(flags)
            .args([&self.image, "/kiln/busybox", "sh", "-c"])
            .arg(format!("b() {{ /kiln/busybox \"$@\"; }}\nkiln() {{ /kiln/kiln \"$@\"; }}\n{script}"));
        command
    }

    /// The binary on this machine, as root.
    pub(crate) fn as_root(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_kiln"))
            .args(args)
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KILN_ROOT", self.path("home/store"))
            .env("HOME", self.path("home"))
            .output()
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(["rmi", "-f", &self.image]).output();
    }
}

/// What all the Dockerfiles start with.
pub(crate) const BASE: &str = include_str!("../levels/base.Dockerfile");
