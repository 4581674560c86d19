//! Caches besides the store: builds on an empty disk, with root, Debian's docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker_registry::{DockerRegistry, Options};
use std::fs;
use std::path::{Path, PathBuf};
use world::{Bases, Run, World};

/// Two stages, of which each run gives other files.
const STAGES: &str = "FROM busybox AS make\nCOPY in /in\nRUN cat /in /proc/sys/kernel/random/uuid > /out\n\
    FROM busybox\nRUN cat /proc/sys/kernel/random/uuid > /own\nCOPY --from=make /out /out\nRUN cat /out /own > /all\n\
    CMD [\"cat\", \"/all\"]\n";

fn stages() -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(STAGES).file("context/in", "in\n");
    Some((world, bases))
}

/// A build of the context with these further arguments.
fn build(world: &World, bases: &Bases, args: &[&str]) -> Run {
    let mirror = bases.mirror();
    let mut all = vec!["build", "--progress=plain", &mirror];
    all.extend(args);
    all.push("context");
    world.kiln(all)
}

/// Another machine: nothing of the store is left.
fn empty_disk(world: &World) {
    fs::remove_dir_all(world.path("store")).unwrap();
}

fn cached(run: &Run) -> usize {
    run.stderr.lines().filter(|l| l.ends_with(" CACHED")).count()
}

/// The layers' blobs in a store; documents are JSON.
fn layers(store: &Path) -> usize {
    let Ok(found) = fs::read_dir(store.join("blobs/sha256")) else { return 0 };
    found.filter(|e| !fs::read(e.as_ref().unwrap().path()).unwrap().starts_with(b"{")).count()
}

fn manifests(world: &World) -> Vec<PathBuf> {
    let found = fs::read_dir(world.path("cache/keys")).unwrap();
    found.map(|e| e.unwrap().path()).collect()
}

#[test]
fn an_empty_disk_needs_no_layer() {
    let Some((world, bases)) = stages() else { return };
    let (image, cache) = (bases.fresh("1"), bases.fresh("c"));
    let to = format!("type=registry,ref={cache}");
    build(&world, &bases, &["-t", &image, "--push", "--cache-to", &to]).ok().says("exported 5 records");
    empty_disk(&world);
    let again = build(&world, &bases, &["-t", &image, "--push", "--cache-from", &to, "--cache-to", &to]).ok();
    assert_eq!(cached(&again), 3, "{}", again.stderr);
    assert_eq!(layers(&world.path("store")), 0, "{}", again.stderr);
    again.says("is up to date");
    // Into another repository too: the registry takes the layers from the cache's.
    empty_disk(&world);
    let other = bases.fresh("2");
    build(&world, &bases, &["-t", &other, "--push", "--cache-from", &to]).ok();
    assert!(layers(&world.path("store")) <= 1, "the base's layer alone, which comes from elsewhere");
    world.kiln(["pull", &other]).ok();
    world.kiln(["pull", &image]).ok();
    let all = world.kiln(["run", &other]).ok().stdout;
    assert_eq!(all.lines().count(), 3, "{all}");
    // The image is the one that was built first.
    assert_eq!(world.kiln(["run", &image]).ok().stdout, all);
}

#[test]
fn what_changed_runs_on_what_the_cache_has() {
    let Some((world, bases)) = stages() else { return };
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    build(&world, &bases, &["-t", "a", "--cache-to", &format!("{cache},mode=max")]).ok().says("exported 7 records");
    let before = world.kiln(["run", "a"]).ok().stdout;
    empty_disk(&world);
    world.dockerfile(&STAGES.replace("/all\nCMD", "/all && echo more >> /all\nCMD"));
    let changed = build(&world, &bases, &["-t", "b", "--cache-from", &cache]).ok();
    assert_eq!(cached(&changed), 2, "{}", changed.stderr);
    assert_eq!(world.kiln(["run", "b"]).ok().stdout, format!("{before}more\n"));
    // And now the store knows what it fetched, without the cache.
    let own = build(&world, &bases, &["-t", "c"]).ok();
    assert_eq!(cached(&own), 3, "{}", own.stderr);
    world.nothing_is_left();
}

#[test]
fn min_has_the_image_and_max_the_stages_too() {
    let Some((world, bases)) = stages() else { return };
    for (mode, stage) in [("min", 0), ("max", 2)] {
        let cache = format!("type=registry,ref={}", bases.fresh(mode));
        build(&world, &bases, &["-t", "a", "--cache-to", &format!("{cache},mode={mode}")]).ok();
        empty_disk(&world);
        let made = build(&world, &bases, &["-t", "m", "--target", "make", "--cache-from", &cache]).ok();
        assert_eq!(cached(&made), stage, "{mode}: {}", made.stderr);
        empty_disk(&world);
    }
}

#[test]
fn two_jobs_with_one_cache_keep_both_results() {
    let Some((world, bases)) = stages() else { return };
    let other = World::new();
    other.dockerfile("FROM busybox\nRUN echo other > /x\n");
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    let start = |world: &World| {
        let args = ["build", &bases.mirror(), "-t", "a", "--cache-to", &cache, "context"];
        world.command(args).spawn().unwrap()
    };
    let both = [start(&world), start(&other)];
    both.into_iter().for_each(|child| drop(Run::of(child).ok()));
    for (world, steps) in [(&world, 3), (&other, 1)] {
        empty_disk(world);
        let again = build(world, &bases, &["-t", "a", "--cache-from", &cache]).ok();
        assert_eq!(cached(&again), steps, "{}", again.stderr);
    }
}

#[test]
fn the_same_built_twice_is_one_result_in_the_end() {
    let Some((world, bases)) = stages() else { return };
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    // Both ran everything: their roots are not each other's.
    for _ in 0..2 {
        build(&world, &bases, &["-t", "a", "--cache-to", &format!("{cache},mode=max")]).ok();
        empty_disk(&world);
    }
    let again = build(&world, &bases, &["-t", "a", "--cache-from", &cache]).ok();
    assert_eq!(cached(&again), 3, "{}", again.stderr);
}

#[test]
fn a_folder_is_a_cache_too() {
    let Some((world, bases)) = stages() else { return };
    build(&world, &bases, &["-t", "a", "--cache-to", "type=local,dest=cache"]).ok().says("exported 5 records");
    let before = world.kiln(["run", "a"]).ok().stdout;
    empty_disk(&world);
    let image = bases.fresh("1");
    let again = build(&world, &bases, &["-t", &image, "--push", "--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(cached(&again), 3, "{}", again.stderr);
    world.kiln(["pull", &image]).ok();
    assert_eq!(world.kiln(["run", &image]).ok().stdout, before);
}

#[test]
fn tampered_records_are_told_and_not_used() {
    let Some((world, bases)) = stages() else { return };
    build(&world, &bases, &["-t", "a", "--cache-to", "type=local,dest=cache"]).ok();
    // Each key gets the record of another.
    let mut files = manifests(&world);
    files.sort();
    let texts: Vec<Vec<u8>> = files.iter().map(|f| fs::read(f).unwrap()).collect();
    for (file, text) in files.iter().zip(texts.iter().cycle().skip(1)) {
        fs::write(file, text).unwrap();
    }
    empty_disk(&world);
    let again = build(&world, &bases, &["-t", "a", "--cache-from", "type=local,src=cache"]).ok();
    assert_eq!(cached(&again), 0, "{}", again.stderr);
    again.says("another key");
    world.kiln(["run", "a"]).ok();
}

#[test]
fn a_layer_that_is_damaged_or_gone_is_built_again() {
    let Some((world, bases)) = stages() else { return };
    for damage in ["other bytes", ""] {
        build(&world, &bases, &["-t", "a", "--cache-to", "type=local,dest=cache"]).ok();
        for blob in fs::read_dir(world.path("cache/blobs/sha256")).unwrap() {
            let path = blob.unwrap().path();
            if damage.is_empty() { fs::remove_file(path).unwrap() } else { fs::write(path, damage).unwrap() }
        }
        empty_disk(&world);
        let again = build(&world, &bases, &["-t", "a", "--cache-from", "type=local,src=cache"]).ok();
        again.says("building without it");
        assert_eq!(world.kiln(["run", "a"]).ok().stdout.lines().count(), 3);
        empty_disk(&world);
        fs::remove_dir_all(world.path("cache")).unwrap();
    }
    world.nothing_is_left();
}

#[test]
fn a_cache_that_is_not_there_is_a_warning() {
    let Some((world, bases)) = stages() else { return };
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let cache = format!("type=registry,ref={}/gone", registry.host);
    build(&world, &bases, &["-t", "a", "--cache-to", &cache]).ok().says("exported 5 records");
    drop(registry);
    empty_disk(&world);
    let gone =
        build(&world, &bases, &["-t", "a", "--cache-from", &cache, "--cache-from", "type=local,src=nowhere"]).ok();
    assert_eq!(cached(&gone), 0);
    gone.says("isn't asked any more");
    build(&world, &bases, &["-t", "a", "--cache-to", &cache]).ok().says("isn't written");
}

#[test]
fn a_stage_that_gives_the_same_files_again_leads_to_the_old_result() {
    let Some((world, bases)) = stages() else { return };
    let text = "FROM busybox AS make\nRUN echo same > /out\nFROM busybox\nCOPY --from=make /out /out\n\
        RUN cat /proc/sys/kernel/random/uuid > /own\nCMD [\"cat\", \"/own\"]\n";
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    world.dockerfile(text);
    build(&world, &bases, &["-t", "a", "--cache-to", &cache]).ok();
    let before = world.kiln(["run", "a"]).ok().stdout;
    empty_disk(&world);
    // Another command, the same file: the copy and what stands on it are known by what was copied.
    world.dockerfile(&text.replace("RUN echo same", "RUN true && echo same"));
    let again = build(&world, &bases, &["-t", "a", "--cache-from", &cache]).ok();
    assert_eq!(cached(&again), 2, "{}", again.stderr);
    assert_eq!(world.kiln(["run", "a"]).ok().stdout, before);
}

#[test]
fn a_cache_that_never_answers_is_a_warning() {
    let Some((world, bases)) = stages() else { return };
    // Connections are taken by the kernel; nobody ever reads them.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cache = format!("type=registry,ref={}/silent", silent.local_addr().unwrap());
    let built = build(&world, &bases, &["-t", "a", "--cache-from", &cache]).ok();
    built.says("isn't asked any more");
}
