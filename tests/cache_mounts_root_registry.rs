//! Cache mounts from machine to machine: builds on an empty disk, with root, docker-registry and busybox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/actions.rs"]
mod actions;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use actions::{ActionsCache, Fault};
use docker_registry::{DockerRegistry, Options};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use world::{Bases, Run, World};

/// A step that says what its cache holds, and adds a line.
const ADDS: &str = "FROM busybox\nRUN --mount=type=cache,target=/c,id=work \
    echo \"found [$(cat /c/f 2>/dev/null)]\" && echo line >> /c/f && touch -d '2001-02-03 04:05:06' /c/f && \
    ln -f /c/f /c/g && chown 7:8 /c/f && chmod 640 /c/f\n";
/// One that only looks.
const LOOKS: &str = "FROM busybox\nRUN --mount=type=cache,target=/c,id=work \
    echo \"found [$(cat /c/f 2>/dev/null)]\" && ls -ln --full-time /c/f | tr -s ' ' || true\n";

fn world(dockerfile: &str) -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(dockerfile);
    Some((world, bases))
}

fn build(world: &World, bases: &Bases, args: &[&str]) -> Run {
    let mirror = bases.mirror();
    let mut all = vec!["build", "--progress=plain", "-t", "a", &mirror];
    all.extend(args);
    all.push("context");
    let run = world.kiln(all);
    world.nothing_is_left();
    run
}

fn empty_disk(world: &World) {
    fs::remove_dir_all(world.path("store")).unwrap();
}

/// Both flags for a place that is a repository.
fn registry(bases: &Bases) -> (String, String) {
    let place = format!("type=registry,ref={}", bases.fresh("m"));
    (format!("--cache-mounts-to={place}"), format!("--cache-mounts-from={place}"))
}

const TO: &str = "--cache-mounts-to=type=local,dest=cache";
const FROM: &str = "--cache-mounts-from=type=local,src=cache";

/// The manifest in a folder of cache mounts.
fn manifest(world: &World) -> PathBuf {
    let mut found = fs::read_dir(world.path("cache/keys")).unwrap();
    found.next().unwrap().unwrap().path()
}

/// The blob in a folder of cache mounts, which isn't `{}`.
fn blob(world: &World) -> PathBuf {
    let found = fs::read_dir(world.path("cache/blobs/sha256")).unwrap().map(|e| e.unwrap().path());
    found.max_by_key(|path| fs::metadata(path).unwrap().len()).unwrap()
}

/// The bytes of all blobs in the store.
fn blobs(store: &Path) -> u64 {
    let found = fs::read_dir(store.join("blobs/sha256")).unwrap();
    found.map(|e| e.unwrap().metadata().unwrap().len()).sum()
}

#[test]
fn a_mount_goes_through_a_registry_as_it_was() {
    let Some((world, bases)) = world(ADDS) else { return };
    let (to, from) = registry(&bases);
    build(&world, &bases, &[&to, &from]).ok().says("found []").says("wrote the cache mount \"work\" to");
    empty_disk(&world);
    world.dockerfile(LOOKS);
    let run = build(&world, &bases, &[&to, &from]).ok().says("the cache mount \"work\" comes from");
    run.says("found [line]").says("-rw-r----- 2 7 8 5 2001-02-03 04:05:06").says("is up to date");
    // And again by one who changes it.
    empty_disk(&world);
    world.dockerfile(ADDS);
    build(&world, &bases, &[&to, &from]).ok().says("found [line]").says("wrote the cache mount");
    empty_disk(&world);
    world.dockerfile(LOOKS);
    build(&world, &bases, &[&from]).ok().says("found [line\n");
}

#[test]
fn a_mount_goes_through_githubs_cache_which_never_changes_a_file() {
    let Some((world, bases)) = world(ADDS) else { return };
    let service = ActionsCache::start();
    let build = || {
        let mirror = bases.mirror();
        let gha = ["--cache-mounts-to=type=gha", "--cache-mounts-from=type=gha", "context"];
        let mut command = world.command([&["build", "--progress=plain", &mirror][..], &gha].concat());
        let run = Run::of(command.envs(service.variables()).spawn().unwrap());
        empty_disk(&world);
        run.ok()
    };
    build().says("found []").says("wrote the cache mount");
    build().says("found [line]").says("wrote the cache mount");
    world.dockerfile(LOOKS);
    build().says("found [line\n").says("is up to date");
    service.fault(Fault::OtherBytes);
    build().says("warning: the cache mount \"work\" can't be had").says("found []");
}

#[test]
fn what_is_here_already_is_not_fetched() {
    let Some((world, bases)) = world(ADDS) else { return };
    build(&world, &bases, &[TO]).ok().says("wrote");
    world.dockerfile(&format!("{ADDS}RUN echo more\n"));
    // The step is cached, and then its folder is there.
    build(&world, &bases, &[FROM, TO]).ok().says("CACHED").doesnt_say("comes from").doesnt_say("the cache mount");
    world.dockerfile(LOOKS);
    build(&world, &bases, &[FROM, TO]).ok().says("found [line]").doesnt_say("comes from").says("is up to date");
}

#[test]
fn nothing_is_asked_for_a_step_that_is_cached_elsewhere() {
    let Some((world, bases)) = world(ADDS) else { return };
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    build(&world, &bases, &[TO, "--cache-to", &cache]).ok();
    empty_disk(&world);
    let run = build(&world, &bases, &["--output=type=oci,dest=image.tar", FROM, TO, "--cache-from", &cache]).ok();
    run.says("CACHED").doesnt_say("cache mount");
    assert!(!world.path("store/caches").exists());
}

#[test]
fn a_folder_that_is_empty_or_pruned_is_filled() {
    let Some((world, bases)) = world(ADDS) else { return };
    build(&world, &bases, &[TO]).ok();
    world.kiln(["prune", "--filter", "type=cachemount"]).ok();
    world.dockerfile(LOOKS);
    build(&world, &bases, &[FROM]).ok().says("found [line]");
    world.dockerfile("FROM busybox\nRUN --mount=type=cache,target=/c,id=work rm /c/*\n");
    build(&world, &bases, &[]).ok();
    world.dockerfile(LOOKS);
    build(&world, &bases, &["--no-cache", FROM]).ok().says("comes from").says("found [line]");
    // What was fetched isn't kept a second time.
    let kept = blobs(&world.path("store"));
    world.kiln(["prune", "--filter", "type=cachemount"]).ok();
    build(&world, &bases, &["--no-cache", FROM]).ok().says("comes from");
    assert!(blobs(&world.path("store")) <= kept + 4096, "layers and documents alone");
}

#[test]
fn a_failed_build_writes_nothing() {
    let Some((world, bases)) = world(&format!("{ADDS}RUN false\n")) else { return };
    build(&world, &bases, &[TO]).fails(1).doesnt_say("cache mount");
    assert!(!world.path("cache").exists());
}

#[test]
fn what_is_broken_is_a_warning_and_an_empty_cache() {
    let Some((world, bases)) = world(ADDS) else { return };
    let rewrite = |path: PathBuf, change: &dyn Fn(Vec<u8>) -> Vec<u8>| {
        let bytes = fs::read(&path).unwrap();
        fs::write(path, change(bytes)).unwrap();
    };
    let damages: [(&str, &dyn Fn()); 6] = [
        ("no manifest", &|| rewrite(manifest(&world), &|_| b"hello".to_vec())),
        ("kiln.mount.key is missing", &|| {
            rewrite(manifest(&world), &|b| String::from_utf8(b).unwrap().replace("mount.key", "mount.k").into_bytes());
        }),
        ("sha256:", &|| rewrite(blob(&world), &|b| b.iter().map(|b| b ^ 1).collect())),
        ("sha256:", &|| rewrite(blob(&world), &|b| b[..b.len() / 2].to_vec())),
        ("warning", &|| fs::remove_file(blob(&world)).unwrap()),
        ("more than", &|| {
            rewrite(manifest(&world), &|b| {
                let text = String::from_utf8(b).unwrap();
                let at = text.find("\"kiln.mount.size\":\"").unwrap() + 19;
                format!("{}1{}", &text[..at], &text[at + text[at..].find('"').unwrap()..]).into_bytes()
            });
        }),
    ];
    for (says, damage) in damages {
        world.dockerfile(ADDS);
        build(&world, &bases, &["--no-cache", TO]).ok().says("wrote");
        damage();
        empty_disk(&world);
        world.dockerfile(LOOKS);
        build(&world, &bases, &[FROM])
            .ok()
            .says("warning: the cache mount \"work\" can't be had")
            .says(says)
            .says("found []");
        empty_disk(&world);
        fs::remove_dir_all(world.path("cache")).unwrap();
    }
}

#[test]
fn what_a_registry_has_changed_is_a_warning() {
    let Some((world, bases)) = world(ADDS) else { return };
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    let (to, from) =
        (format!("--cache-mounts-to={}/m", registry.host), format!("--cache-mounts-from={}/m", registry.host));
    build(&world, &bases, &[&to]).ok().says("wrote");
    // The manifest's type says which of its files is the tar; another tar of as many bytes takes its place.
    let files = String::from_utf8(
        Command::new("find").arg(registry.folder()).args(["-name", "data", "-type", "f"]).output().unwrap().stdout,
    );
    let tar =
        files.unwrap().lines().map(PathBuf::from).find(|f| fs::read(f).unwrap().starts_with(&[0x28, 0xb5, 0x2f, 0xfd]));
    let tar = tar.unwrap();
    let other: Vec<u8> = fs::read(&tar).unwrap().iter().rev().copied().collect();
    fs::write(&tar, other).unwrap();
    empty_disk(&world);
    world.dockerfile(LOOKS);
    build(&world, &bases, &[&from])
        .ok()
        .says("warning: the cache mount \"work\" can't be had")
        .says("sha256:")
        .says("found []");
}

#[test]
fn a_registry_that_is_not_there_is_a_warning_and_asked_once() {
    let text =
        "FROM busybox\nRUN --mount=type=cache,target=/a touch /a/x\nRUN --mount=type=cache,target=/b touch /b/x\n";
    let Some((world, bases)) = world(text) else { return };
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (to, from) = (format!("--cache-mounts-to={free}/m"), format!("--cache-mounts-from={free}/m"));
    let run = build(&world, &bases, &[&to, &from]).ok().says("isn't asked any more").says("isn't written");
    for once in ["can't be had from", "isn't written"] {
        assert_eq!(run.stderr.matches(once).count(), 1, "{once}: {}", run.stderr);
    }
}

#[test]
fn only_mounts_that_were_named_and_are_small_enough() {
    let text = "FROM busybox\nRUN --mount=type=cache,target=/a,id=a --mount=type=cache,target=/b,id=b \
        echo \"[$(cat /a/x /b/x 2>/dev/null | tr '\\n' ' ')]\"; head -c 100 /dev/zero | tr '\\0' a > /a/x; echo b > /b/x\n";
    let Some((world, bases)) = world(text) else { return };
    build(&world, &bases, &[&format!("{TO},ids=b|c")]).ok().says("\"b\"").doesnt_say("\"a\"");
    build(&world, &bases, &["--no-cache", &format!("{TO},max-size=50")]).ok().says("100 bytes are more than max-size");
    build(&world, &bases, &["--no-cache", TO]).ok().says("wrote the cache mount \"a\"");
    for (flag, says) in [(format!("{FROM},ids=b"), "[b ]"), (format!("{FROM},max-size=50"), "max-size")] {
        empty_disk(&world);
        build(&world, &bases, &[&flag]).ok().says("\"b\" comes from").says("[b ]").says(says);
    }
}

#[test]
fn steps_and_builds_at_the_same_time_fetch_once() {
    let step =
        |n: u32| format!("FROM busybox AS s{n}\nRUN --mount=type=cache,target=/c,id=work cat /c/f && echo {n} > /n\n");
    let text = format!("{}{}FROM busybox\nCOPY --from=s1 /n /1\nCOPY --from=s2 /n /2\n", step(1), step(2));
    let Some((world, bases)) = world(ADDS) else { return };
    build(&world, &bases, &[TO]).ok();
    empty_disk(&world);
    world.dockerfile(&text);
    let start = |tag: &str| {
        let args = ["build", "--progress=plain", "--no-cache", "--jobs=2", "-t", tag, &bases.mirror(), FROM, "context"];
        world.command(args).spawn().unwrap()
    };
    let both = ["x", "y"].map(start).map(Run::of).map(Run::ok);
    let fetched: usize = both.iter().map(|r| r.stderr.matches("comes from").count()).sum();
    assert_eq!(fetched, 1, "{}\n{}", both[0].stderr, both[1].stderr);
    world.nothing_is_left();
}

#[test]
fn what_a_mount_starts_with_is_part_of_its_name_on_every_machine() {
    // The seed is made by a RUN, whose layer each machine has under another name.
    let text = |seed: &str| {
        format!(
            "FROM busybox AS seed\nRUN mkdir /s && echo {seed} > /s/f\nFROM busybox\n\
             RUN --mount=type=cache,target=/c,id=work,from=seed,source=/s \
             echo \"found [$(cat /c/* | tr '\\n' ' ')]\" && echo mine > /c/mine\n"
        )
    };
    let Some((world, bases)) = world(&text("one")) else { return };
    build(&world, &bases, &[TO]).ok().says("found [one ]");
    for (seed, says) in [("one", "found [one mine ]"), ("two", "found [two ]")] {
        empty_disk(&world);
        world.dockerfile(&text(seed));
        build(&world, &bases, &[FROM]).ok().says(says);
    }
}
