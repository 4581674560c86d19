//! What builds leave in a store, share there, and lose again: with root, Debian's docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::Child;
use std::time::{Duration, Instant};
use world::{Bases, Run, World};

/// A world with a Dockerfile, and the bases.
fn given(dockerfile: &str) -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(dockerfile);
    Some((world, bases))
}

/// Waits until something is so, which an event brings about; gives up after some seconds.
#[track_caller]
fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn build(world: &World, bases: &Bases, more: &[&str]) -> Child {
    let mirror = bases.mirror();
    let args = ["build", "--progress=plain", &mirror].into_iter().chain(more.iter().copied()).chain(["context"]);
    world.command(args).spawn().unwrap()
}

/// A file of the one cache mount, as the host sees it.
fn in_cache(world: &World, name: &str) -> Option<PathBuf> {
    let mount = fs::read_dir(world.path("store/caches")).ok()?.flatten().next()?.path();
    Some(mount.join("0").join(name)).filter(|p| p.parent().is_some_and(|p| p.exists()))
}

/// Waits until a step has written a file into the cache mount.
fn reached(world: &World, name: &str) {
    until(name, || in_cache(world, name).filter(|p| p.exists()));
}

/// Lets the steps go on that wait for a file in the cache mount.
fn go(world: &World) {
    fs::write(in_cache(world, "go").unwrap(), "").unwrap();
}

/// A RUN that says that it is there, and waits until it may go on.
fn waiting(name: &str, then: &str) -> String {
    let wait = format!("echo x >> /c/{name}; until [ -e /c/go ]; do sleep 0.05; done; {then}");
    format!("RUN --mount=type=cache,id=c,target=/c {wait}\n")
}

fn lines(world: &World, name: &str) -> usize {
    fs::read_to_string(in_cache(world, name).unwrap()).unwrap().lines().count()
}

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|e| panic!("{e}: {}", run.stdout))
}

#[test]
fn of_several_builds_at_once_each_step_runs_in_one() {
    let again = "RUN --mount=type=cache,id=c,target=/c echo x >> /c/second; cat /proc/sys/kernel/random/uuid > /id\n";
    let text = format!("FROM busybox\n{}{again}CMD [\"cat\", \"/id\"]\n", waiting("first", "true"));
    let Some((world, bases)) = given(&text) else { return };
    let tags = ["a", "b", "c"];
    let running: Vec<Child> = tags.iter().map(|tag| build(&world, &bases, &["-t", tag])).collect();
    reached(&world, "first");
    let sessions = || fs::read_dir(world.path("store/tmp")).unwrap().count();
    until("all three at work", || (sessions() >= 3).then_some(()));
    go(&world);
    running.into_iter().for_each(|child| drop(Run::of(child).ok()));
    assert_eq!((lines(&world, "first"), lines(&world, "second")), (1, 1));
    let ids = tags.map(|tag| world.kiln(["run", tag]).ok().stdout);
    assert!(ids[0].len() > 30 && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    world.nothing_is_left();
}

#[test]
fn a_running_build_loses_nothing_to_pruners() {
    let text =
        format!("FROM busybox\nRUN echo made > /made\nCOPY file /\n{}RUN cat /made /file\n", waiting("here", "true"));
    let Some((world, bases)) = given(&text) else { return };
    world.file("context/file", "copied\n");
    let child = build(&world, &bases, &["-t", "app"]);
    reached(&world, "here");
    let held = world.kiln(["prune", "--all"]).ok().prints("in use by running builds");
    assert!(held.stdout.contains("Total reclaimed space: 0B"), "{}", held.stdout);
    world.kiln(["prune", "--filter", "until=0s"]).ok();
    world.kiln(["prune", "--keep-storage", "1"]).ok();
    world.file("other/Dockerfile", "FROM busybox\nRUN echo other > /other\n");
    world.kiln(["build", &bases.mirror(), "--store-limit", "1", "other"]).ok();
    go(&world);
    Run::of(child).ok().says("copied");
    assert_eq!(world.kiln(["run", "app", "cat", "/made", "/file"]).ok().stdout, "made\ncopied\n");
    world.nothing_is_left();
}

#[test]
fn what_is_pruned_is_what_was_asked_for() {
    let text = "FROM busybox\nRUN --mount=type=cache,id=c,target=/c head -c 300000 /dev/urandom > /c/kept\nRUN head -c 200000 /dev/urandom > /big\n";
    let Some((world, bases)) = given(text) else { return };
    Run::of(build(&world, &bases, &[])).ok();
    let usage = || json(&world.kiln(["du", "--format", "json"]).ok());
    let bytes = |usage: &Value, sort: &str| usage["sorts"][sort]["bytes"].as_u64().unwrap();
    let full = usage();
    assert!(bytes(&full, "cache_mounts") >= 300_000 && bytes(&full, "blobs") >= 200_000, "{full}");
    assert!(bytes(&full, "snapshots") >= 200_000 && full["sorts"]["records"]["count"].as_u64().unwrap() > 2, "{full}");
    let table = world.kiln(["du"]).ok().stdout;
    for word in ["TYPE", "blobs", "of images", "snapshots", "cache mounts", "records", "Total: ", "Reclaimable: "] {
        assert!(table.contains(word), "{word}: {table}");
    }
    let each = world.kiln(["du", "--verbose"]).ok().stdout;
    let made = each.lines().filter(|l| l.ends_with("] RUN head -c 200000 /dev/urandom > /big")).count();
    assert!(made == 2 && each.lines().any(|l| l.starts_with("cache mount ") && l.contains("/0 ")), "{each}");
    world.kiln(["prune", "--filter", "until=1h"]).ok().prints("Total reclaimed space: 0B\n");
    world.kiln(["prune", "--filter", "type=cachemount", "--filter", "until=1h"]).ok();
    assert_eq!(usage()["total_bytes"], full["total_bytes"]);
    world.kiln(["prune", "--filter", "type=cachemount"]).ok();
    let without = usage();
    assert_eq!((bytes(&without, "cache_mounts"), bytes(&without, "blobs")), (0, bytes(&full, "blobs")));
    let keep = without["total_bytes"].as_u64().unwrap() - 50_000;
    world.kiln(["prune", "--keep-storage", &keep.to_string()]).ok();
    let less = usage()["total_bytes"].as_u64().unwrap();
    assert!(less <= keep + 50_000 && less > 0, "{less} of {keep}");
    world.kiln(["prune", "--filter", "type=regular"]).ok();
    assert_eq!((bytes(&usage(), "snapshots"), bytes(&usage(), "blobs")), (0, 0));
    world.kiln(["prune", "--filter", "colour=red"]).fails(2).says("until=AGE");
    Run::of(build(&world, &bases, &[])).ok().doesnt_say("CACHED");
    world.nothing_is_left();
}

#[test]
fn a_store_is_kept_within_its_limit() {
    let Some((world, bases)) = given("FROM busybox\nARG N\nRUN head -c 1000000 /dev/urandom > /big$N\n") else {
        return;
    };
    let total = || json(&world.kiln(["du", "--format", "json"]).ok())["total_bytes"].as_u64().unwrap();
    let made = |n: u32, limit: &str| {
        Run::of(build(&world, &bases, &["--build-arg", &format!("N={n}"), "--store-limit", limit])).ok()
    };
    (0..4).for_each(|n| drop(made(n, "none").doesnt_say("the store took")));
    assert!(total() > 8_000_000);
    made(4, "3m").says("the store took").says("its limit is 3.15MB");
    assert!(total() < 6_300_000, "{}", total());
    // What was used last is what stays.
    made(4, "3m").says("CACHED");
    made(0, "none").doesnt_say("CACHED");
    world.nothing_is_left();
}

#[test]
fn two_steps_that_fail_at_once_are_both_told() {
    let stage = |name: &str, code: u32| format!("FROM busybox AS {name}\n{}", waiting(name, &format!("exit {code}")));
    let text = format!(
        "{}{}FROM busybox\nCOPY --from=one /bin/sh /1\nCOPY --from=two /bin/sh /2\n",
        stage("one", 3),
        stage("two", 4)
    );
    let Some((world, bases)) = given(&text) else { return };
    let child = build(&world, &bases, &["--jobs", "2"]);
    reached(&world, "one");
    reached(&world, "two");
    // Both are over before kiln can see that one is.
    let kiln = Pid::from_child(&child);
    kill_process(kiln, Signal::STOP).unwrap();
    go(&world);
    until("both have ended", || (states(kiln) == ['Z', 'Z']).then_some(()));
    kill_process(kiln, Signal::CONT).unwrap();
    Run::of(child).fails(1).says("exit code: 3").says("exit code: 4");
    world.nothing_is_left();
}

/// The states of a process's children.
fn states(parent: Pid) -> Vec<char> {
    let parent = parent.as_raw_nonzero();
    let tasks = fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
    let children = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    let pids: Vec<String> =
        children.flat_map(|c| c.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect();
    let state =
        |pid: &String| fs::read_to_string(format!("/proc/{pid}/stat")).ok()?.rsplit_once(") ")?.1.chars().next();
    pids.iter().filter_map(state).collect()
}

#[test]
fn a_second_ctrl_c_ends_at_once() {
    let Some((world, bases)) = given(&format!("FROM busybox\n{}", waiting("here", "true"))) else { return };
    let child = build(&world, &bases, &[]);
    reached(&world, "here");
    let kiln = Pid::from_child(&child);
    // Both are there before kiln does anything about the first.
    kill_process(kiln, Signal::STOP).unwrap();
    kill_process(kiln, Signal::INT).unwrap();
    kill_process(kiln, Signal::TERM).unwrap();
    kill_process(kiln, Signal::CONT).unwrap();
    assert_eq!(Run::of(child).code, Some(130));
    // What it had no time to remove, the next run does; mounts and processes have gone with it.
    world.kiln(["prune"]).ok();
    world.nothing_is_left();
}

#[test]
fn a_killed_build_is_taken_up_again_where_it_was() {
    let first = "RUN --mount=type=cache,id=c,target=/c echo x >> /c/first\n";
    let Some((world, bases)) = given(&format!("FROM busybox\n{first}{}", waiting("second", "true"))) else { return };
    let mut child = build(&world, &bases, &[]);
    reached(&world, "second");
    child.kill().unwrap();
    child.wait().unwrap();
    go(&world);
    Run::of(build(&world, &bases, &["-t", "app"])).ok();
    assert_eq!((lines(&world, "first"), lines(&world, "second")), (1, 2));
    world.nothing_is_left();
}

#[test]
fn an_explanation_names_the_cause_and_what_follows_from_it() {
    let text = "FROM busybox AS build\nARG VERSION=1\nCOPY src/ /src/\nRUN cat /src/* > /out\nFROM busybox\nCOPY --from=build /out /\nRUN wc -l /out\n";
    let Some((world, bases)) = given(text) else { return };
    world.file("context/src/a", "1\n").file("context/src/b", "1\n");
    world.kiln(["explain"]).fails(2).says("no build is remembered");
    let build = |more: &[&str]| Run::of(self::build(&world, &bases, more)).ok();
    let explained = || world.kiln(["explain"]).ok().stdout;
    build(&[]);
    assert!(explained().contains("every step was new"), "{}", explained());
    build(&[]);
    assert!(
        explained().contains("none of its 4 steps ran") && explained().contains("kiln explain 1"),
        "{}",
        explained()
    );
    world.file("context/src/a", "2\n").file("context/src/c", "3\n");
    build(&[]);
    let text = explained();
    for part in [
        "Build 3 of context/Dockerfile",
        "4 of 4 steps ran",
        "What is new since build 2",
        "2 of 3 files of the context changed",
        "~ src/a  ",
        "+ src/c  ",
        "stands on [build 2/3], which ran",
        "1 of 1 file of [build 3/3] changed",
        "stands on [stage-1 2/3], which ran",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    build(&["--build-arg", "VERSION=hunter2"]);
    let run = world.kiln(["explain", "--format", "json"]).ok();
    let told = json(&run);
    let cause = &told["ran"][0]["causes"][0];
    assert_eq!((cause["cause"].as_str(), cause["name"].as_str()), (Some("part"), Some("VERSION")), "{told}");
    assert!(told["ran"][0]["since"]["build"] == 3 && told["ran"].as_array().unwrap().len() == 1, "{told}");
    let values = std::process::Command::new("grep").args(["-rq", "hunter2"]).arg(world.path("store/builds")).status();
    assert!(!run.stdout.contains("hunter2") && !values.unwrap().success());
    build(&["--no-cache"]);
    assert_eq!(explained().matches("  --no-cache\n").count(), 4, "{}", explained());
    world.kiln(["prune", "--all"]).ok();
    build(&[]);
    assert!(explained().contains("the store hasn't its result any more"), "{}", explained());
    let list = world.kiln(["explain", "--list"]).ok().stdout;
    assert!(list.lines().count() == 7 && list.lines().nth(1).unwrap().starts_with("6 "), "{list}");
    world.kiln(["explain", "99"]).fails(2).says("--list");
}

#[test]
fn a_failed_build_is_explained_too() {
    let Some((world, bases)) = given("FROM busybox\nRUN true\nRUN exit 1\n") else { return };
    Run::of(build(&world, &bases, &[])).fails(1);
    world.kiln(["explain"]).ok().prints("It failed.").prints("[3/3] RUN exit 1");
    Run::of(build(&world, &bases, &[])).fails(1);
    world.kiln(["explain"]).ok().prints("1 of 2 steps ran").prints("nothing is new: it failed in build 1");
    // Another base is told by the first step on it.
    world.dockerfile("FROM alpine\nRUN true\n");
    Run::of(build(&world, &bases, &[])).ok();
    world.kiln(["explain"]).ok().prints("the base image: busybox@sha256:").prints(" → alpine@sha256:");
}

/// The one file of this name in the store's unpacked layers.
fn unpacked(world: &World, name: &str) -> PathBuf {
    let snapshots = fs::read_dir(world.path("store/snapshots")).unwrap().map(|e| e.unwrap().path());
    let mut found = snapshots.map(|snapshot| snapshot.join("fs").join(name)).filter(|path| path.exists());
    found.next().unwrap_or_else(|| panic!("{name} is in no layer"))
}

#[test]
fn an_unpacked_layer_that_lost_a_file_becomes_no_image() {
    let Some((world, bases)) =
        given("FROM busybox\nCOPY dir /dir\nRUN mkdir /made && echo 1 > /made/a && echo 2 > /made/b\n")
    else {
        return;
    };
    world.file("context/dir/a", "1").file("context/dir/b", "2");
    let build = |tag: &str| world.kiln(["build", "--progress=plain", &bases.mirror(), "-t", tag, "context"]);
    let whole = || {
        world.kiln(["build", "--progress=plain", &bases.mirror(), "-otype=tar,dest=out.tar", "context"]).ok();
        let mut archive = tar::Archive::new(fs::File::open(world.path("out.tar")).unwrap());
        let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().display().to_string());
        let names: Vec<_> = names.filter(|n| n.starts_with("dir/") || n.starts_with("made/")).collect();
        assert_eq!(names, ["dir/", "dir/a", "dir/b", "made/", "made/a", "made/b"]);
    };
    // Nothing is packed yet.
    whole();
    fs::remove_file(unpacked(&world, "dir/b")).unwrap();
    build("one").fails(4).says("is damaged").says("run the build again").points_at("COPY dir");
    build("one").ok().doesnt_say("[2/3] COPY dir /dir\n#2 CACHED");
    whole();
    // What a process made is counted when it is packed. The blobs are gone, so that it is packed again.
    for digest in fs::read_dir(world.path("store/blobs/sha256")).unwrap() {
        fs::remove_file(digest.unwrap().path()).unwrap();
    }
    fs::remove_file(unpacked(&world, "made/b")).unwrap();
    build("two").fails(4).says("is damaged").points_at("RUN mkdir /made");
    build("two").ok();
    whole();
    // Without its files, a layer is not there.
    fs::remove_dir_all(unpacked(&world, "made").parent().unwrap()).unwrap();
    whole();
}
