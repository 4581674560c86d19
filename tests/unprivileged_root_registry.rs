//! Builds without a RUN, by somebody without any privilege: with root, to drop all of it and to compare, and Debian's
//! docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::process::{Command, Stdio};
use world::{Bases, KILN, Run, World};

/// A user that owns nothing and has no ranges.
const NOBODY: u32 = 65534;

/// The binary as nobody: no capability, not even one to gain.
fn as_nobody(world: &World, args: &[&str]) -> Run {
    // In a root of its own: there the kernel makes no user namespaces.
    let enter = "root=$0 folder=$1; shift; mount --rbind / \"$root\" && exec /usr/sbin/chroot \"$root\" env -C \"$folder\" \"$@\"";
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--propagation", "private", "sh", "-c", enter])
        .args([world.path("root"), world.path("")])
        .args(["setpriv", "--bounding-set=-all", "--inh-caps=-all", "--reuid=65534", "--regid=65534", "--clear-groups"])
        .arg(world.path("bin/kiln"))
        .args(args)
        .current_dir(world.path(""))
        .env_clear()
        .env("PATH", "/usr/bin:/bin")
        .env("KILN_ROOT", world.path("nobodys/store"))
        .env("HOME", world.path("nobodys"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    Run::of(command.spawn().unwrap())
}

/// A world that nobody can read, with a folder of nobody's own.
fn world() -> World {
    let world = World::new();
    for folder in ["nobodys", "bin", "root"] {
        fs::create_dir(world.path(folder)).unwrap();
    }
    fs::copy(KILN, world.path("bin/kiln")).unwrap();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    chown(world.path("nobodys"), Some(NOBODY), Some(NOBODY)).unwrap();
    world.file("context/dir/f", "f\n").file("context/dir/sub/g", "g\n").file("context/a", "a\n");
    symlink("f", world.path("context/dir/link")).unwrap();
    fs::hard_link(world.path("context/dir/f"), world.path("context/dir/same")).unwrap();
    world
}

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 7] = [
    ("scratch", "FROM scratch\nCOPY --chown=5:6 dir /d/\nCOPY --chmod=4755 a /d/b\nCOPY a /d/f\n"),
    (
        "stages",
        "FROM scratch AS x\nCOPY --chown=5:6 --chmod=700 dir /d/\nWORKDIR /w\nFROM scratch\nCOPY --from=x /d /e\nCOPY --from=x / /all\n",
    ),
    ("unreadable", "FROM scratch AS x\nCOPY --chown=5:6 --chmod=000 dir /d/\nFROM scratch\nCOPY --from=x /d /e\n"),
    (
        "a base",
        "FROM busybox\nCOPY dir /d/\nCOPY --chown=root:root a /etc/new\nCOPY --chown=1000 a /bin/a\nWORKDIR /home/x\n",
    ),
    (
        "a base's files",
        "FROM busybox AS x\nCOPY a /a\nFROM scratch\nCOPY --from=x / /\nCOPY --from=busybox --chown=7:8 /etc /e\n",
    ),
    (
        "a stage on a stage",
        "FROM busybox AS x\nCOPY --chown=3:4 dir /d\nFROM x AS y\nCOPY a /d/sub/\nFROM y\nCOPY --link a /l/a\n",
    ),
    (
        "links",
        "FROM busybox AS x\nCOPY --chown=3:4 dir /d\nFROM x\nCOPY --from=x --chown=9:9 /d/link /d/same /\nCOPY dir/link /d/sub/\n",
    ),
];

#[test]
fn the_same_images_as_roots() {
    let Some(bases) = Bases::find() else { return };
    let world = world();
    for (about, dockerfile) in CASES {
        world.dockerfile(dockerfile);
        let mirror = bases.mirror();
        let args = ["build", "-q", "--build-arg=SOURCE_DATE_EPOCH=1700000000", &mirror, "-t", "x", "context"];
        let (root, nobody) = (world.kiln(args), as_nobody(&world, &args));
        assert_eq!(root.code, Some(0), "{about}, as root: {}", root.stderr);
        assert_eq!(nobody.code, Some(0), "{about}, as nobody: {}", nobody.stderr);
        assert_eq!(root.stdout, nobody.stdout, "{about}");
        assert!(root.stdout.starts_with("sha256:"), "{about}: {}", root.stdout);
    }
}

#[test]
fn a_stage_that_was_only_read_becomes_an_image() {
    let Some(bases) = Bases::find() else { return };
    let world = world();
    world.dockerfile(
        "FROM busybox AS x\nCOPY --chown=3:4 --chmod=2510 dir /d\nCOPY --chown=5 a /d/a\nFROM scratch\nCOPY --from=x /d /d\n",
    );
    let mirror = bases.mirror();
    let args = ["build", "-q", "--build-arg=SOURCE_DATE_EPOCH=1700000000", &mirror, "context"];
    let stage = [&args[..], &["--target=x"]].concat();
    world.kiln(args).ok();
    as_nobody(&world, &args).ok();
    assert_eq!(world.kiln(&stage).ok().stdout, as_nobody(&world, &stage).ok().stdout, "packed from the snapshots");
}

#[test]
fn a_run_is_refused_with_the_reasons() {
    let Some(bases) = Bases::find() else { return };
    let world = world();
    world.dockerfile("FROM busybox\nRUN true\n");
    let built = as_nobody(&world, &["build", &bases.mirror(), "context"]);
    built.fails(4).points_at("RUN true").says("root:").says("rootless: unshare(CLONE_NEWUSER)");
}
