//! What the binary says to wrong command lines and wrong Dockerfiles. Needs no privilege, registry or network.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::process::Stdio;
use world::{Run, World};

#[test]
fn help_and_version_go_to_standard_output() {
    let world = World::new();
    world.kiln(["--help"]).ok().prints("build").doesnt_say("error");
    world.kiln(["build", "--help"]).ok().prints("--build-arg");
    world.kiln(["--version"]).ok().prints(env!("CARGO_PKG_VERSION"));
}

#[test]
fn wrong_command_lines_are_exit_code_2() {
    let world = World::new();
    world.dockerfile("FROM scratch\n");
    world.kiln([] as [&str; 0]).fails(2).says("--help");
    world.kiln(["biuld", "context"]).fails(2).says("build");
    world.kiln(["build"]).fails(2).says("CONTEXT");
    world.kiln(["build", "--buildarg", "A=1", "context"]).fails(2).says("--build-arg");
    world.kiln(["build", "--ulimit", "files=1", "context"]).fails(2).says("nofile");
    world.kiln(["build", "--push", "context"]).fails(2).says("--tag");
    world.kiln(["build", "-o", "type=floppy", "context"]).fails(2).says("floppy");
}

#[test]
fn what_is_not_supported_yet_is_never_accepted() {
    let world = World::new();
    world.dockerfile("FROM scratch\n");
    for flag in ["--cache-from=type=s3,bucket=b", "--annotation=a=b", "--sbom=true"] {
        world.kiln(["build", flag, "context"]).fails(2).says("not supported yet");
    }
}

#[test]
fn a_context_or_dockerfile_that_is_not_there() {
    let world = World::new();
    world.kiln(["build", "nowhere"]).fails(2).says("nowhere");
    world.kiln(["build", "context"]).fails(2).says("Dockerfile");
    world.kiln(["build", "-f", "other", "context"]).fails(2).says("other");
    world.file("context/Dockerfile/x", "a folder");
    world.kiln(["build", "context"]).fails(2).says("Dockerfile");
}

#[test]
fn an_empty_dockerfile() {
    let world = World::new();
    for text in ["", "\n\n", "# only a comment\n"] {
        world.dockerfile(text).kiln(["build", "context"]).fails(2);
    }
}

#[test]
fn wrong_dockerfiles_are_pointed_at() {
    let world = World::new();
    for (text, place, hint) in [
        ("FROM scratch\nCOPPY a b\n", "COPPY", "COPY"),
        ("FROM scratch\nCOPY --chwon=1 a b\n", "--chwon", "--chown"),
        ("FROM scratch\nCOPY a\n", "a", ""),
        ("COPY a b\n", "COPY", "FROM"),
        ("FROM scratch AS one\nCOPY --from=tow a b\n", "", "tow"),
    ] {
        let run = world.dockerfile(text).kiln(["build", "context"]);
        if place.is_empty() {
            // A stage that isn't there is taken for an image.
            run.fails(3).says(hint);
        } else {
            run.fails(2).says("Dockerfile:").points_at(place).says(hint);
        }
    }
}

#[test]
fn all_errors_of_a_file_come_at_once() {
    let world = World::new();
    world.dockerfile("FROM scratch\nCOPPY a b\nRUNN c\nLABLE d=e\n");
    world.kiln(["build", "context"]).fails(2).points_at("COPPY").points_at("RUNN").points_at("LABLE");
}

#[test]
fn a_target_that_is_no_stage() {
    let world = World::new();
    world.dockerfile("FROM scratch AS builder\n");
    world.kiln(["build", "--target", "bulider", "context"]).fails(2).says("bulider").says("builder");
}

#[test]
fn a_dockerfile_on_standard_input() {
    let world = World::new();
    let dockerfile = std::fs::File::open(world.file("df", "FROM scratch\nCOPPY a b\n").path("df")).unwrap();
    let child = world.command(["build", "-f", "-", "context"]).stdin(Stdio::from(dockerfile)).spawn().unwrap();
    Run::of(child).fails(2).points_at("COPPY");
}

#[test]
fn hostile_dockerfiles_write_no_control_characters_to_the_terminal() {
    let world = World::new();
    world.dockerfile("FROM scratch\n\u{1b}[2JCOPPY \u{1b}]0;title\u{7} b\n");
    world.kiln(["build", "context"]).fails(2).doesnt_say("\u{1b}").doesnt_say("\u{7}");
}

#[test]
fn the_syntax_tree_is_printed_as_buildkits() {
    let world = World::new();
    world.dockerfile("FROM busybox AS a\nRUN echo hi\n");
    world
        .kiln(["debug", "ast", "context/Dockerfile"])
        .ok()
        .prints("(from \"busybox\" \"AS\" \"a\")\n(run \"echo hi\")");
}

#[test]
fn an_unknown_image_of_the_store() {
    let world = World::new();
    for args in
        [["run", "nope"], ["inspect", "nope"], ["history", "nope"], ["rmi", "nope"], ["push", "127.0.0.1:1/nope"]]
    {
        let run = world.kiln(args);
        assert!(run.code.is_some_and(|c| (1..=3).contains(&c)), "{args:?}: {:?}\n{}", run.code, run.stderr);
        run.says("nope");
    }
    world.kiln(["images"]).ok();
    world.kiln(["images", "-q"]).ok();
}
