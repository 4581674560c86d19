//! kiln's own image, built by kiln. With root, Debian's busybox-static and ca-certificates, and for one test podman and runc.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker_registry::{DockerRegistry, Options};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
use world::{KILN, World};

const NEEDED: &[&str] = &["/bin/busybox", "/etc/ssl/certs/ca-certificates.crt"];

/// A world whose store has `kiln:test` and `kiln:test-debug`; `None`, and a line that says why, where there can't be one.
fn with_images(needed: &[&str]) -> Option<World> {
    let missing = NEEDED.iter().chain(needed).find(|file| !Path::new(file).exists());
    if !rustix::process::geteuid().is_root() || missing.is_some() {
        println!("skipped: it needs root and {:?}", [NEEDED, needed].concat());
        return None;
    }
    let world = World::new();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/image");
    let mut command = Command::new(script);
    command.arg("kiln:test").env("KILN", KILN).env("KILN_ROOT", world.path("store")).env("TMPDIR", world.path("tmp"));
    let made = command.output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    Some(world)
}

#[test]
fn it_runs_kiln_by_both_names_and_has_nothing_else() {
    let Some(world) = with_images(&[]) else { return };
    let version = format!("kiln {}\n", env!("CARGO_PKG_VERSION"));
    world.kiln(["run", "kiln:test", "--version"]).ok().prints(&version);
    world.kiln(["run", "--entrypoint", "/kaniko/executor", "kiln:test", "--version"]).ok().prints(&version);
    let list = ["run", "--entrypoint", "/busybox/sh", "kiln:test-debug", "-c", "ls -d /*/ && kiln --version"];
    world.kiln(list).ok().prints("/busybox/\n/dev/\n/etc/\n/kaniko/\n/kiln/\n/proc/\n/sys/\nkiln ");
    world.nothing_is_left();
}

/// Podman with a storage of its own in the world.
fn podman(world: &World, args: &[&str]) -> Command {
    let mut command = Command::new("podman");
    for (flag, folder) in [("--root", "podman"), ("--runroot", "podman-run")] {
        command.arg(flag).arg(world.path(folder));
    }
    command.args(["--runtime", "runc", "--cgroup-manager=cgroupfs"]).args(args);
    command
}

#[track_caller]
fn output(command: &mut Command) -> String {
    let done = command.output().unwrap();
    assert!(done.status.success(), "{command:?}: {}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8_lossy(&done.stdout).trim().to_owned()
}

/// Docker's seccomp profile as a flag: Debian's podman has one that allows user namespaces.
fn as_docker(world: &World) -> String {
    let profile = kiln::sandbox::seccomp::oci::profile(rustix::thread::CapabilitySet::SYS_CHROOT);
    world.file("docker.json", profile.to_string());
    format!("--security-opt=seccomp={}", world.path("docker.json").display())
}

/// Builds the world's context in containers of the image, each with further flags of podman's, and by root here, and compares.
#[track_caller]
fn builds_the_same(world: &World, containers: &[&[&str]]) {
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    fs::set_permissions(world.path("."), fs::Permissions::from_mode(0o755)).unwrap();
    world.kiln(["save", "kiln:test", "-o", "kiln.tar"]).ok();
    output(podman(world, &["load", "-q", "-i"]).arg(world.path("kiln.tar")));

    let build = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1", "--push", "-t"];
    let mount = format!("{}:/kiln/workspace:ro", world.path("context").display());
    let run = ["run", "--rm", "--network", "host", "--ulimit", "nofile=20000:20000", "--ulimit", "nproc=30000:30000"];
    let profile = as_docker(world);
    let run = [&run[..], &["-v", &mount, &profile]].concat();
    let name = |tag: &str| format!("{}/made:{tag}", registry.host);
    let there: Vec<_> = containers
        .iter()
        .enumerate()
        .map(|(number, flags)| {
            let tag = name(&number.to_string());
            let there = [&build[..], &[&tag, "."]].concat();
            podman(world, &[&run[..], flags, &["docker.io/library/kiln:test"], &there].concat()).output().unwrap()
        })
        .collect();
    output(&mut podman(world, &["rmi", "--all", "--force"]));
    let here = world.kiln([&build[..], &[&name("here"), "context"]].concat()).ok();
    for (number, (there, flags)) in there.iter().zip(containers).enumerate() {
        assert!(there.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&there.stderr));
        assert_eq!(String::from_utf8_lossy(&there.stdout), here.stdout, "{flags:?}");
        world.kiln(["pull", &name(&number.to_string())]).ok();
    }
}

#[test]
fn in_containers_without_any_capability_it_copies_and_pushes() {
    let Some(world) = with_images(&["/usr/bin/podman", "/usr/sbin/runc"]) else { return };
    world.file("context/a", "text").file("context/sub/b", "b").dockerfile(
        "FROM scratch AS made\nCOPY --chown=7:8 --chmod=4750 a /d/a\nCOPY --chown=7:8 --chmod=u=rwx,go= sub /d/sub\nWORKDIR /d/w\n\
         FROM scratch\nCOPY --from=made /d /e\nCOPY --from=made --chown=1 /d/a /e/sub/\nCOPY <<f /g\ntext\nf\nLABEL made=there\n",
    );
    // As Kubernetes gives an empty folder.
    fs::create_dir(world.path("volume")).unwrap();
    fs::set_permissions(world.path("volume"), fs::Permissions::from_mode(0o777)).unwrap();
    let volume = format!("{}:/kiln/store", world.path("volume").display());
    let user = ["--cap-drop", "ALL", "--user", "1234:1234", "--security-opt", "no-new-privileges"];
    // Its "restricted" profile, and a root filesystem that nobody can write to.
    let restricted = [&user[..], &["--read-only", "--read-only-tmpfs=false", "-v", &volume]].concat();
    builds_the_same(&world, &[&["--cap-drop", "ALL"], &user, &restricted]);
}

#[test]
fn in_an_ordinary_container_it_runs_steps_and_pushes() {
    let Some(world) = with_images(&["/usr/bin/podman", "/usr/sbin/runc"]) else { return };
    fs::copy("/bin/busybox", world.path("context/sh")).unwrap();
    world.dockerfile(
        "FROM scratch AS base\nCOPY sh /bin/sh\nRUN mkdir -p /data/x && echo 1 >/data/x/f && chown -R 7:8 /data\n\
         FROM base\nRUN echo 2 >>/data/x/f && rm -r /data/x && echo 3 >/top && mkdir relative && touch relative/f && ! cat /kiln/workspace/sh >/dev/null\n\
         COPY --from=base /data /other\nWORKDIR /work\nRUN pwd >here && mkdir ../beside\n",
    );
    builds_the_same(&world, &[&[]]);
}
