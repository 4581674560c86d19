//! Containers by Debian's podman and runc, with their default seccomp profile (no mount, unshare, pivot_root), from an image
//! that holds nothing but kiln.
#![allow(dead_code, reason = "each test uses a part of it")]

use super::user::{can, run};
use super::world::{KILN, Run, World};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// What a container of these tests needs on this machine.
pub(crate) const NEEDED: [&str; 4] = ["/usr/bin/podman", "/usr/sbin/runc", "/bin/busybox", "/usr/bin/tar"];

/// How podman starts containers on a machine without CAP_SYS_RESOURCE and with control groups of version 1.
pub(crate) const ENGINE: [&str; 3] = ["--runtime", "runc", "--cgroup-manager=cgroupfs"];

/// The flags of `podman run` that all have.
pub(crate) const FLAGS: [&str; 7] =
    ["--rm", "--network", "host", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000"];

/// What Docker gives and Debian's podman doesn't.
pub(crate) const AS_DOCKER: &str = "--cap-add=MKNOD,NET_RAW,AUDIT_WRITE";

/// An image with kiln and busybox in `/kiln`, gone when dropped.
pub(crate) struct Image(String);

impl Image {
    /// Made of a folder of the world. The image has the password of a registry in its home, and a token in its environment.
    pub(crate) fn new(world: &World, name: &str) -> Self {
        world
            .file("image/kiln/.in-place", "")
            .file("image/kiln/home/.docker/config.json", "{\"auths\":{\"r.example\":{\"auth\":\"dTpzM2NyM3Q=\"}}}");
        fs::copy("/bin/busybox", world.path("image/kiln/busybox")).unwrap();
        fs::copy(KILN, world.path("image/kiln/kiln")).unwrap();
        let (archive, folder) = (world.path("image.tar"), world.path("image"));
        let (archive, folder) = (archive.to_str().unwrap(), folder.to_str().unwrap());
        run("tar", &["-C", folder, "-cf", archive, "kiln"]);
        let image = Self(format!("localhost/kiln-{name}:{}", std::process::id()));
        let variables = ["ENV KILN_ROOT=/kiln/store", "ENV HOME=/kiln/home", "ENV PATH=/kiln", "ENV TOKEN=s3cr3t"];
        let changes = variables.iter().flat_map(|variable| ["--change", variable]);
        run("podman", &["import", "-q"].into_iter().chain(changes).chain([archive, &image.0]).collect::<Vec<_>>());
        fs::remove_dir_all(folder).unwrap();
        fs::remove_file(archive).unwrap();
        image
    }

    /// A script of busybox's shell in a new container, which has a folder of the machine's in `/workspace`. Its own programs
    /// are in `/kiln`: `b` runs those of busybox.
    pub(crate) fn container(&self, workspace: &Path, flags: &[&str], script: &str) -> Output {
        Command::new("podman")
            .args(ENGINE)
            .arg("run")
            .args(FLAGS)
            .args(["-v", &format!("{}:/workspace", workspace.display())])
            .args(flags)
            .args([&self.0, "/kiln/busybox", "sh", "-c"])
            .arg(format!("b() {{ /kiln/busybox \"$@\"; }}\nkiln() {{ /kiln/kiln \"$@\"; }}\n{script}"))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = Command::new("podman").args(["rmi", "-f", &self.0]).output();
    }
}

/// A world that its containers have in `/workspace`, and their image.
pub(crate) struct Place {
    pub(crate) world: World,
    image: Image,
}

impl Place {
    /// `None`, and a line that says why, where there can't be one.
    pub(crate) fn new(name: &str) -> Option<Self> {
        if !can(&NEEDED) {
            return None;
        }
        let world = World::new();
        fs::copy("/bin/busybox", world.path("context/busybox")).unwrap();
        let image = Image::new(&world, name);
        Some(Self { world, image })
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> &Self {
        self.world.file(name, text);
        self
    }

    pub(crate) fn container(&self, flags: &[&str], script: &str) -> Output {
        self.image.container(&self.world.path(""), flags, script)
    }

    /// The binary on this machine, as root.
    pub(crate) fn as_root<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Run {
        self.world.kiln(args)
    }
}

/// All that a program said.
pub(crate) fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}
