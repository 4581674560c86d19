//! Builds that fail: what is said, the exit code, and that nothing is left. With root, docker-registry and busybox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::Child;
use std::time::{Duration, Instant};
use world::{Bases, Run, World};

/// A world with a Dockerfile, and the bases.
fn broken(dockerfile: &str) -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(dockerfile);
    Some((world, bases))
}

impl World {
    /// Builds, and leaves neither a tag nor anything else.
    fn builds_to_nothing(&self, bases: &Bases, code: i32) -> Run {
        let run = self.kiln([
            "build",
            "--progress=plain",
            "--metadata-file=meta.json",
            &bases.mirror(),
            "-t",
            "broken",
            "context",
        ]);
        let run = run.fails(code);
        self.nothing_is_left();
        let images = self.kiln(["images", "-q"]).ok();
        assert_eq!(images.stdout, "", "a failed build left a tag");
        run
    }
}

#[test]
fn a_run_that_fails() {
    let Some((world, bases)) = broken("FROM busybox\nRUN echo before; exit 7\nRUN echo after\n") else { return };
    world
        .builds_to_nothing(&bases, 1)
        .says("before")
        .says("exit code: 7")
        .points_at("RUN echo before")
        .doesnt_say("after");
    let meta = fs::read_to_string(world.path("meta.json")).unwrap();
    let meta: serde_json::Value = serde_json::from_str(&meta).unwrap();
    assert!(meta.to_string().contains(":7"), "the RUN's own code is in the account: {meta}");
}

#[test]
fn a_program_that_is_not_there() {
    let Some((world, bases)) = broken("FROM busybox\nRUN [\"/no/such/program\"]\n") else { return };
    world.builds_to_nothing(&bases, 1).says("/no/such/program").points_at("RUN");
}

/// `.wh.NAME` in a layer removes NAME: a process can make such a file, but no image can hold it.
#[test]
fn a_run_that_makes_a_file_whose_name_is_that_of_a_whiteout() {
    for (run, name) in [
        ("touch /.wh.a", "/.wh.a"),
        ("mkdir -p /a/.wh.b", "/a/.wh.b"),
        ("ln -s /bin /tmp/.wh.bin", "/tmp/.wh.bin"),
        ("echo x > /x && ln /x /.wh.x", "/.wh.x"),
        ("mkdir /a && cp /bin/busybox /a/.wh..wh..opq", "/a/.wh..wh..opq"),
    ] {
        let dockerfile = format!("FROM busybox\nRUN true\nRUN {run}\nRUN true\n");
        let Some((world, bases)) = broken(&dockerfile) else { return };
        let said = format!("a layer cannot hold {name}:");
        // The second time the cache has what the process made.
        for _ in 0..2 {
            world.builds_to_nothing(&bases, 1).says(&said).says("Dockerfile:3").points_at("RUN ");
        }
    }
    let Some((world, bases)) = broken("FROM busybox\nRUN touch /.wh.a && mv /.wh.a /.wha\n") else { return };
    world.kiln(["build", &bases.mirror(), "-t", "whole", "context"]).ok();
}

#[test]
fn a_source_that_is_not_in_the_context() {
    let Some((world, bases)) = broken("FROM busybox\nCOPY nope.txt /\n") else { return };
    world.builds_to_nothing(&bases, 1).says("nope.txt").points_at("nope.txt");
}

#[test]
fn a_source_that_is_ignored() {
    let Some((world, bases)) = broken("FROM busybox\nCOPY there.txt /\n") else { return };
    world.file("context/there.txt", "x").file("context/.dockerignore", "there.*\n");
    world.builds_to_nothing(&bases, 1).points_at("there.txt").says(".dockerignore");
}

#[test]
fn a_source_that_leads_outside() {
    let Some((world, bases)) = broken("FROM busybox\nCOPY link/passwd /\n") else { return };
    std::os::unix::fs::symlink("/etc", world.path("context/link")).unwrap();
    world.builds_to_nothing(&bases, 1).points_at("link/passwd");
}

#[test]
fn a_base_that_is_not_in_the_registry() {
    let Some((world, bases)) = broken("FROM busybox:no-such-tag\n") else { return };
    world.builds_to_nothing(&bases, 3).says("no-such-tag").points_at("busybox:no-such-tag");
}

#[test]
fn a_registry_that_is_not_there() {
    let Some((world, bases)) = broken("FROM 127.0.0.1:1/app\n") else { return };
    let begin = Instant::now();
    world.builds_to_nothing(&bases, 3).says("127.0.0.1:1").points_at("127.0.0.1:1/app");
    assert!(begin.elapsed() < Duration::from_secs(60), "it took {:?} to find that out", begin.elapsed());
}

#[test]
fn a_registry_to_push_to_that_is_not_there() {
    let Some((world, bases)) = broken("FROM busybox\nRUN echo 1 > /f\n") else { return };
    let run = world.kiln(["build", &bases.mirror(), "-t", "127.0.0.1:1/app", "--push", "context"]);
    run.fails(3).says("127.0.0.1:1");
    world.nothing_is_left();
}

#[test]
fn a_failed_build_pushes_no_tag() {
    let Some((world, bases)) = broken("FROM busybox\nRUN echo 1 > /f\nRUN exit 1\n") else { return };
    let name = bases.fresh("1");
    world.kiln(["build", &bases.mirror(), "-t", &name, "--push", "context"]).fails(1);
    World::new().kiln(["pull", &name]).fails(3);
}

/// Starts a build and waits until its RUN says `ready`.
fn started(world: &World, bases: &Bases) -> Child {
    let args = ["build", "--progress=plain", &bases.mirror(), "-t", "broken", "context"];
    let mut child = world.command(args).process_group(0).spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.as_mut().unwrap()).lines();
    let ready = lines.by_ref().any(|l| l.is_ok_and(|l| l.ends_with(" ready")));
    assert!(ready, "the RUN never began");
    child
}

const ENDLESS: &str = "FROM busybox\nRUN (trap '' INT TERM; sleep 1000) & echo ready; sleep 1000\n";

#[test]
fn ctrl_c_in_a_run() {
    let Some((world, bases)) = broken(ENDLESS) else { return };
    let child = started(&world, &bases);
    let begin = Instant::now();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let run = Run::of(child);
    assert_eq!(run.code, Some(130), "{}", run.stderr);
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    world.nothing_is_left();
    assert_eq!(world.kiln(["images", "-q"]).ok().stdout, "");
}

#[test]
fn killed_in_a_run() {
    let Some((world, bases)) = broken(ENDLESS) else { return };
    let mut child = started(&world, &bases);
    child.kill().unwrap();
    child.wait().unwrap();
    // Its processes go with it; the next run sweeps what it was writing.
    world.dockerfile("FROM busybox\nRUN true\n");
    world.kiln(["build", &bases.mirror(), "context"]).ok();
    world.nothing_is_left();
}

#[test]
fn not_root_and_told_to_isolate_as_root() {
    let Some((world, bases)) = broken("FROM busybox\nRUN true\n") else { return };
    use std::os::unix::fs::PermissionsExt as _;
    // The nobody of this test must reach the binary and the context, and own what is written.
    let binary = world.path("kiln");
    fs::copy(world::KILN, &binary).unwrap();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["tmp", "home", "docker"] {
        std::os::unix::fs::chown(world.path(folder), Some(65534), Some(65534)).unwrap();
    }
    let store = world.path("home/store");
    let plain = world.command([] as [&str; 0]);
    let mut command = std::process::Command::new(&binary);
    command.envs(plain.get_envs().filter_map(|(k, v)| Some((k, v?)))).current_dir(world.path(""));
    command
        .env("KILN_ROOT", &store)
        .args(["build", "--isolation=root", &bases.mirror(), "context"])
        .uid(65534)
        .gid(65534);
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    Run::of(command.spawn().unwrap()).fails(4).says("root");
    world.nothing_is_left();
}
