//! Caches besides the store: builds on an empty disk, with root, Debian's docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/actions.rs"]
mod actions;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use actions::{ActionsCache, Fault};
use docker_registry::{DockerRegistry, Options};
use proxy::{Passed, Proxy};
use server::{Answer, Asked, Server};
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
    both.into_iter().for_each(|child| drop(Run::of(child).ok().doesnt_say("warning")));
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
    let service = format!("type=gha,token=t,url_v2=http://{}/", silent.local_addr().unwrap());
    for cache in [cache, service] {
        build(&world, &bases, &["-t", "a", "--cache-from", &cache]).ok().says("isn't asked any more");
        empty_disk(&world);
    }
}

/// The requests that send something, or fetch a layer.
fn heavy(passed: &[Passed]) -> Vec<String> {
    let is_heavy = |p: &&Passed| p.method != "HEAD" && p.path.contains("/blobs/");
    passed.iter().filter(is_heavy).map(|p| format!("{} {} {}", p.method, p.path, p.status)).collect()
}

#[test]
fn a_build_that_is_all_cache_moves_no_layer() {
    let Some((world, bases)) = stages() else { return };
    let proxy = Proxy::start(&bases.host);
    let through = |name: String| name.replace(&bases.host, &proxy.host);
    let (image, cache) = (through(bases.fresh("1")), through(bases.fresh("c")));
    let spec = format!("type=registry,ref={cache}");
    build(&world, &bases, &["-t", &image, "--push", "--cache-to", &spec]).ok();
    assert!(heavy(&proxy.take()).len() > 4, "the first build uploads");
    empty_disk(&world);
    let again = build(&world, &bases, &["-t", &image, "--push", "--cache-from", &spec, "--cache-to", &spec]).ok();
    assert_eq!(cached(&again), 3, "{}", again.stderr);
    let passed = proxy.take();
    assert_eq!(heavy(&passed), [""; 0], "neither a layer nor a configuration is sent or fetched: {passed:?}");
    // To another repository: mounted, but for the base's layer, which the proxy's registry doesn't know to have.
    empty_disk(&world);
    let other = through(bases.fresh("2"));
    build(&world, &bases, &["-t", &other, "--push", "--cache-from", &spec]).ok();
    let passed = proxy.take();
    let mounted = passed.iter().filter(|p| p.path.contains("mount=") && p.status == 201).count();
    assert_eq!(mounted, 3, "{passed:?}");
    assert!(!passed.iter().any(|p| p.method == "GET" && p.path.contains("/blobs/")), "{passed:?}");
}

#[test]
fn an_image_carries_its_own_records() {
    let Some((world, bases)) = stages() else { return };
    let proxy = Proxy::start(&bases.host);
    let image = bases.fresh("1").replace(&bases.host, &proxy.host);
    let digest = |world: &World| fs::read_to_string(world.path("id")).unwrap();
    let args = ["-t", &image, "--push", "--iidfile", "id", "--cache-to", "type=inline"];
    build(&world, &bases, &args).ok();
    let first = digest(&world);
    for from in [image.clone(), format!("type=registry,ref={image}")] {
        empty_disk(&world);
        proxy.take();
        let again = build(&world, &bases, &[&args[..], &["--cache-from", &from]].concat()).ok();
        assert_eq!(cached(&again), 3, "{}", again.stderr);
        assert_eq!(digest(&world), first, "what carries the same records is the same image");
        let moved = heavy(&proxy.take());
        assert!(moved.len() == 1 && moved[0].starts_with("GET"), "only the image's configuration: {moved:?}");
    }
    // Without being asked for, records are in no image, those of the base neither.
    empty_disk(&world);
    build(&world, &bases, &["-t", "plain", "--cache-from", &image]).ok();
    assert!(!world.kiln(["inspect", "plain"]).ok().stdout.contains("kiln.cache"));
    world.dockerfile(&format!("FROM {image}\nRUN true\n"));
    build(&world, &bases, &["-t", "upon"]).ok();
    let id = fs::read_dir(world.path("store/blobs/sha256")).unwrap();
    let documents = id.map(|e| fs::read_to_string(e.unwrap().path()).unwrap_or_default());
    assert_eq!(documents.filter(|d| d.contains("kiln.cache.v1")).count(), 1, "the base's configuration alone");
}

#[test]
fn an_image_without_records_or_with_wrong_ones_is_no_cache() {
    let Some((world, bases)) = stages() else { return };
    let image = bases.fresh("1");
    build(&world, &bases, &["-t", &image, "--push"]).ok();
    empty_disk(&world);
    let again = build(&world, &bases, &["-t", "a", "--cache-from", &image]).ok().doesnt_say("warning");
    assert_eq!(cached(&again), 0);
    build(&world, &bases, &["-o", "type=local,dest=out", "--cache-to", "type=inline"]).fails(2).says("none is written");
}

#[test]
fn each_platform_of_an_image_carries_its_own() {
    let world = World::new();
    let Some(registry) = DockerRegistry::start(&Options::default()) else { return };
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY $TARGETARCH /arch\n");
    world.file("context/amd64", "a").file("context/arm64", "b");
    let image = format!("{}/platforms:1", registry.host);
    let args =
        ["build", "--progress=plain", "--platform=linux/amd64,linux/arm64", "-t", &image, "--push", "--cache-to"];
    world.kiln([&args[..], &["type=inline", "context"]].concat()).ok();
    empty_disk(&world);
    let again = world.kiln([&args[..], &["type=inline", "--cache-from", &image, "context"]].concat()).ok();
    assert_eq!(cached(&again), 2, "{}", again.stderr);
}

/// A build with the variables of a runner.
fn build_with(world: &World, bases: &Bases, cache: &ActionsCache, args: &[&str]) -> Run {
    let mirror = bases.mirror();
    let mut command = world.command([&["build", "--progress=plain", &mirror], args, &["context"]].concat());
    command.envs(cache.variables());
    let run = Run::of(command.spawn().unwrap());
    assert!(!format!("{}{}", run.stdout, run.stderr).contains("nobody-may-see"), "{}", run.stderr);
    run
}

#[test]
fn githubs_cache() {
    let Some((world, bases)) = stages() else { return };
    let service = ActionsCache::start();
    let image = bases.fresh("1");
    let both = ["--cache-from", "type=gha", "--cache-to", "type=gha,mode=max", "--push", "-t"];
    let first = build_with(&world, &bases, &service, &[&both[..], &[&image]].concat()).ok();
    first.says("exported 7 records to the cache gha").doesnt_say("warning");
    let blobs = service.keys().iter().filter(|k| k.starts_with("kiln-blob-sha256:")).count();
    assert_eq!((blobs, service.keys().len()), (4, 11), "{:?}", service.keys());
    // All is there: no layer is fetched, none is sent.
    empty_disk(&world);
    let asked = service.requests();
    let again = build_with(&world, &bases, &service, &[&both[..], &[&image]].concat()).ok().says("is up to date");
    assert_eq!(cached(&again), 3, "{}", again.stderr);
    assert_eq!((service.count(asked, "GET", "kiln-blob"), service.count(asked, "PUT", "")), (0, 0));
    // Another repository lacks the layers: those are fetched, and no others.
    empty_disk(&world);
    let asked = service.requests();
    let other = bases.fresh("2");
    build_with(&world, &bases, &service, &["--cache-from", "type=gha", "--push", "-t", &other]).ok();
    assert_eq!(service.count(asked, "GET", "kiln-blob"), 3);
    world.kiln(["pull", &image]).ok();
    world.kiln(["pull", &other]).ok();
    assert_eq!(world.kiln(["run", &image]).ok().stdout, world.kiln(["run", &other]).ok().stdout);
    // Another scope is another cache, but for the blobs.
    empty_disk(&world);
    let scoped = ["--cache-from", "type=gha,scope=other", "-t", "a"];
    assert_eq!(cached(&build_with(&world, &bases, &service, &scoped).ok()), 0);
}

#[test]
fn githubs_cache_never_fails_a_build() {
    let Some((world, bases)) = stages() else { return };
    let service = ActionsCache::start();
    let to = ["--cache-to", "type=gha", "-t", "a"];
    build_with(&world, &bases, &service, &to).ok().says("exported 5 records");
    let faults = [
        Fault::Expired,
        Fault::Token,
        Fault::Status(500),
        Fault::Status(429),
        Fault::Status(302),
        Fault::HangUp,
        Fault::OtherBytes,
        Fault::NoJson,
        Fault::OtherKey,
        Fault::Redirects,
        Fault::Endless,
    ];
    for fault in faults {
        empty_disk(&world);
        service.fault(fault);
        let from = ["--cache-from", "type=gha", "--cache-to", "type=gha", "-t", "a"];
        let run = build_with(&world, &bases, &service, &from).ok().says("warning");
        assert_eq!(cached(&run), 0, "{fault:?}: {}", run.stderr);
    }
    // A connection that breaks is gone on with.
    empty_disk(&world);
    service.fault(Fault::None);
    service.forget();
    build_with(&world, &bases, &service, &to).ok();
    empty_disk(&world);
    service.fault(Fault::Cut);
    let run = build_with(&world, &bases, &service, &["--cache-from", "type=gha", "-t", "a"]).ok().doesnt_say("warning");
    assert_eq!(cached(&run), 3, "{}", run.stderr);
}

#[test]
fn githubs_cache_takes_large_layers_in_blocks_and_nothing_twice() {
    let Some(bases) = Bases::find() else { return };
    let (world, service) = (World::new(), ActionsCache::start());
    world.dockerfile("FROM scratch\nCOPY large /large\n").file("context/large", vec![7; 70 << 20]);
    let to = ["--cache-to", "type=gha,compression=uncompressed", "-t", "a"];
    build_with(&world, &bases, &service, &to).ok().says("exported 1 records");
    assert_eq!((service.count(0, "PUT", "comp=block&"), service.count(0, "PUT", "comp=blocklist")), (3, 1));
    let keys = service.keys();
    empty_disk(&world);
    let run = build_with(&world, &bases, &service, &["--cache-from", "type=gha", "-t", "a"]).ok();
    assert_eq!(cached(&run), 1, "{}", run.stderr);
    // Somebody began to write both and never finished: others go on with the next number, but not for ever.
    let numbered = |n: usize| keys.iter().map(move |k| k.replace("#1", &format!("#{n}"))).collect::<Vec<_>>();
    service.forget();
    service.reserve(&numbered(1));
    build_with(&world, &bases, &service, &to).ok().says("exported 1 records");
    assert_eq!(service.keys(), numbered(2));
    service.forget();
    (1..9).for_each(|n| service.reserve(&numbered(n)));
    build_with(&world, &bases, &service, &to).ok().says("warning").says("other jobs are writing");
    assert_eq!(service.keys(), [""; 0]);
    // Elsewhere there is no such cache.
    let args = ["build", "-o", "type=local,dest=out", "--cache-from=type=gha", "--cache-to=type=gha", "context"];
    world.kiln(args).ok().says("warning: the cache type=gha isn't used").says("$ACTIONS_CACHE_SERVICE_V2");
}

/// Lets each record in a file be of the year 1970; the time stands behind `field`.
fn age(file: &Path, field: &str) {
    let text = fs::read_to_string(file).unwrap();
    let mut parts = text.split(field);
    let first = parts.next().unwrap().to_owned();
    let aged = parts.map(|p| format!("{field}1000{}", p.trim_start_matches(|c: char| c.is_ascii_digit())));
    fs::write(file, first + &aged.collect::<String>()).unwrap();
}

#[test]
fn kanikos_habits() {
    let Some((world, bases)) = stages() else { return };
    let repository = format!("--cache-repo={}", bases.fresh("c"));
    build(&world, &bases, &["-t", "a", &repository]).ok().says("exported 7 records");
    empty_disk(&world);
    let stage = build(&world, &bases, &["-t", "m", "--target=make", &repository]).ok();
    assert_eq!(cached(&stage), 2, "all stages are there: {}", stage.stderr);
    // What is too old isn't used, wherever it is kept, and is followed by what is made then.
    empty_disk(&world);
    let folder = ["-t", "a", "--cache-from=type=local,src=cache", "--cache-to=type=local,dest=cache"];
    build(&world, &bases, &folder).ok();
    manifests(&world).iter().for_each(|file| age(file, "\\\"made\\\":"));
    let with_ttl = [&folder[..], &["--cache-ttl=336h"]].concat();
    for (args, hits) in [(&folder[..], 3), (&with_ttl, 0), (&with_ttl, 3)] {
        empty_disk(&world);
        let run = build(&world, &bases, args).ok();
        assert_eq!(cached(&run), hits, "{args:?}: {}", run.stderr);
    }
    let records: Vec<PathBuf> =
        fs::read_dir(world.path("store/records/steps")).unwrap().map(|e| e.unwrap().path()).collect();
    records.iter().for_each(|file| age(file, "\"made\":"));
    assert_eq!(cached(&build(&world, &bases, &["-t", "a"]).ok()), 3);
    assert_eq!(cached(&build(&world, &bases, &["-t", "a", "--cache-ttl=336h"]).ok()), 0);
    assert_eq!(cached(&build(&world, &bases, &["-t", "a", "--cache-ttl=336h"]).ok()), 3);
    build(&world, &bases, &["-t", "a", "--cache-ttl=soon"]).fails(2);
}

#[test]
fn required_steps_may_not_run() {
    let Some((world, bases)) = stages() else { return };
    let with = |flags: &[&str]| build(&world, &bases, &[&["-t", "a"], flags].concat());
    with(&["--require-cache"]).fails(1).says("doesn't know").says("--require-cache");
    with(&["--require-cache=COPY in *"]).fails(1).points_at("COPY in /in");
    with(&["--require-cache=mke"]).fails(2).says("names no step").says("RUN cat /in");
    with(&[]).ok();
    with(&["--require-cache", "--require-cache=make"]).ok();
    world.file("context/in", "other\n");
    with(&["--require-cache=1", "--require-cache=RUN cat /in*"]).fails(1).points_at("RUN cat /in").says("made anew");
    world.file("context/in", "in\n");
    with(&["--no-cache", "--require-cache=RUN cat /out*"]).fails(1).says("--no-cache");
    world.nothing_is_left();
}

/// A repository as a cache that answers as a test says: path to answer; other paths are not found.
fn hostile(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> (tokio::runtime::Runtime, String) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let server = runtime.block_on(Server::start(answer));
    (runtime, format!("type=registry,ref={}/cache:x", server.host))
}

#[test]
fn a_hostile_cache_is_a_warning_and_a_miss() {
    let world = World::new();
    world.dockerfile("FROM scratch\nCOPY in /in\n").file("context/in", "in\n");
    let plain = |more: &[&str]| {
        let args = [&["build", "--progress=plain", "-o", "type=oci,dest=image.tar"], more, &["context"]].concat();
        let run = world.kiln(args).ok();
        empty_disk(&world);
        run
    };
    plain(&["--cache-to", "type=local,dest=cache"]);
    let record = fs::read_to_string(&manifests(&world)[0]).unwrap();
    let manifest =
        |body: String| Answer::new(200).header("Content-Type", "application/vnd.oci.image.manifest.v1+json").body(body);
    let changed = |from: &str, to: &str| {
        assert!(record.contains(from), "{from} in {record}");
        record.replace(from, to)
    };
    let other_key = changed("\"kiln.cache.key\":\"", "\"kiln.cache.key\":\"0");
    let other_step = changed("identity", "identify");
    let other_type = changed("tar+gzip", "tar+magic");
    let config = changed("vnd.oci.image.manifest.v1+json", "vnd.oci.image.index.v1+json");
    let faults: Vec<(&str, Answer)> = vec![
        ("another key's record", manifest(other_key)),
        ("half a record", manifest(record[..record.len() / 2].to_owned())),
        ("a step that is none", manifest(other_step)),
        ("a layer of no known type", manifest(other_type)),
        ("an index", manifest(config)),
        ("no JSON", manifest("<html>".into())),
        ("deep JSON", manifest("[".repeat(100_000))),
        ("a record of 5 MB", manifest(format!("{{\"x\":\"{}\"}}", "x".repeat(5 << 20)))),
        ("a record without end", Answer::new(200).body(vec![b' '; 1 << 16]).endless()),
        ("half an answer", manifest(record[..9].to_owned()).cut(record.len())),
        ("a circle", Answer::new(302).header("Location", "/v2/cache/manifests/x")),
        ("another place", Answer::new(302).header("Location", "file:///etc/passwd")),
        ("an error", Answer::new(500)),
        ("a limit", Answer::new(429).header("Retry-After", 3600)),
        ("no entry", Answer::new(401)),
        ("no address", Answer::new(403)),
        ("nothing", Answer::hang_up()),
    ];
    for (what, answer) in faults {
        let (_runtime, spec) = hostile(move |_| answer.clone());
        let run = plain(&["--cache-from", &spec, "--cache-to", &spec]).says("warning");
        assert_eq!(cached(&run), 0, "{what}: {}", run.stderr);
    }
    // A repository that isn't there yet is to some registries one that nobody may read.
    let (_runtime, spec) = hostile(|asked| match asked.method.as_str() {
        "POST" => Answer::new(202).header("Location", "/upload"),
        "PUT" => Answer::new(201),
        "HEAD" => Answer::new(404),
        _ => Answer::new(401),
    });
    plain(&["--cache-from", &spec, "--cache-to", &spec]).says("isn't asked any more").says("exported 1 records");
    // A record that is right, of a layer that is not there or is something else.
    for layer in [Answer::new(404), Answer::new(500), Answer::new(200).body("something else"), Answer::hang_up()] {
        let record = record.clone();
        let (_runtime, spec) = hostile(move |asked| match asked.path.contains("/manifests/x-") {
            true => manifest(record.clone()),
            false if asked.path.contains("/manifests/") => Answer::new(404),
            false => layer.clone(),
        });
        let run = plain(&["--cache-from", &spec]).says("building without it");
        assert!(run.stderr.contains("CACHED"), "it was believed at first: {}", run.stderr);
    }
}

#[test]
fn a_layer_that_only_passes_through_is_the_one_that_its_record_says() {
    let Some((world, bases)) = stages() else { return };
    build(&world, &bases, &["-t", "a", "--cache-to", "type=local,dest=cache"]).ok();
    for file in manifests(&world) {
        let text = fs::read_to_string(&file).unwrap();
        // Each layer is said to be of the tar that is all zeros: its blob is right, the image's configuration wouldn't be.
        let parts: Vec<&str> = text.split("diff_id\\\":\\\"sha256:").collect();
        let zeros = format!("diff_id\\\":\\\"sha256:{}", "0".repeat(64));
        let told: String = parts[1..].iter().map(|p| format!("{zeros}{}", &p[64..])).collect();
        fs::write(&file, format!("{}{told}", parts[0])).unwrap();
    }
    let image = bases.fresh("1");
    for output in [&["-t", "a"][..], &["-t", &image, "--push"]] {
        empty_disk(&world);
        build(&world, &bases, &[output, &["--cache-from", "type=local,src=cache"]].concat())
            .ok()
            .says("building without it");
    }
    world.kiln(["pull", &image]).ok();
    assert_eq!(world.kiln(["run", &image]).ok().stdout.lines().count(), 3);
}

#[test]
fn a_cache_that_was_silent_is_not_waited_for_again() {
    let Some((world, bases)) = stages() else { return };
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let cache = format!("type=registry,ref={}/silent", silent.local_addr().unwrap());
    let run = build(&world, &bases, &["-t", "a", "--cache-from", &cache, "--cache-to", &cache]).ok();
    run.says("isn't asked any more").says("nobody answered before");
    // Where a cache must be written, the build says so in the end.
    let cache = format!("type=registry,ref={},ignore-error=false", "127.0.0.1:1/closed");
    build(&world, &bases, &["-t", "a", "--cache-to", &cache]).fails(3).says("can't be written");
}

/// A mounted stage, a copy, a variable of the environment, and one that nothing uses.
const KEYED: &str = "FROM busybox AS tool\nRUN echo tool > /tool\nFROM busybox\nCOPY in /in\n\
    RUN --mount=type=bind,from=tool,source=/tool,target=/tool cat /in /tool > /out\nARG USED\nRUN echo $USED\nARG UNUSED\n";

/// Parts of it that change together.
const TOOL: &str = "AS tool\nRUN echo tool > /tool\nFROM busybox\nCOPY in /in\nRUN --mount=type=bind,from=tool,";
const FROM_TOOL_TO_CAT: &str = "/in\nRUN --mount=type=bind,from=tool,source=/tool,target=/tool cat /in ";

/// What is changed: a text of the Dockerfile for another, flags, a file.
struct Change {
    what: &'static str,
    text: (&'static str, &'static str),
    flags: &'static [&'static str],
    file: fn(&World),
    /// How many of the three steps that the image lists are found nevertheless.
    hits: usize,
}

const fn change(what: &'static str, hits: usize) -> Change {
    Change { what, text: ("", ""), flags: &[], file: |_| (), hits }
}

impl Change {
    const fn text(self, from: &'static str, to: &'static str) -> Self {
        Self { text: (from, to), ..self }
    }

    const fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    const fn file(self, file: fn(&World)) -> Self {
        Self { file, ..self }
    }
}

fn chmod(world: &World, mode: u32) {
    let mode = std::os::unix::fs::PermissionsExt::from_mode(mode);
    fs::set_permissions(world.path("context/in"), mode).unwrap();
}

fn touch(world: &World) {
    let file = fs::File::options().append(true).open(world.path("context/in")).unwrap();
    file.set_modified(std::time::UNIX_EPOCH).unwrap();
}

const CHANGES: &[Change] = &[
    change("nothing", 3),
    change("a file touched, but not changed", 3).file(touch),
    change("a file beside those that are copied", 3).file(|w| _ = w.file("context/other", "x")),
    change("the same file written anew", 3).file(|w| _ = w.file("context/in", "in\n")),
    change("a comment and blanks", 3).text("COPY in /in", "# in\nCOPY   in   /in"),
    change("the stage's name", 3)
        .text(TOOL, "AS axe\nRUN echo tool > /tool\nFROM busybox\nCOPY in /in\nRUN --mount=type=bind,from=axe,"),
    change("an ARG that nothing uses", 3).flags(&["--build-arg=UNUSED=2"]),
    change("a proxy", 3).flags(&["--build-arg=HTTP_PROXY=http://127.0.0.1:1"]),
    change("memory and processors", 3).flags(&["--memory=1g", "--cpu-shares=512"]),
    change("how the mounted stage was made, with the same files", 3).text("RUN echo tool", "RUN true && echo tool"),
    change("where the same file comes from", 3).text(
        "FROM busybox\nCOPY in /in",
        "FROM scratch AS from\nCOPY in /x/in\nFROM busybox\nCOPY --from=from /x/in /in",
    ),
    change("a file's content", 0).file(|w| _ = w.file("context/in", "other\n")),
    change("a file's mode", 0).file(|w| chmod(w, 0o755)),
    change("an owner", 0).text("COPY in", "COPY --chown=1 in"),
    change("a mode", 0).text("COPY in", "COPY --chmod=600 in"),
    change("where a file goes", 0)
        .text(FROM_TOOL_TO_CAT, "/in2\nRUN --mount=type=bind,from=tool,source=/tool,target=/tool cat /in2 "),
    change("a link", 0).text("COPY in", "COPY --link in"),
    change("the mounted stage's files", 1).text("echo tool", "echo axe"),
    change("a mount's target", 1).text("target=/tool cat /in /tool", "target=/axe cat /in /axe"),
    change("a mount's mode", 1).text("target=/tool", "target=/tool,rw"),
    change("a command", 1).text("cat /in /tool", "cat /tool /in"),
    change("an ARG that only the environment has", 2).flags(&["--build-arg=USED=2"]),
    change("a variable", 2).text("ARG USED", "ARG USED\nENV A=1"),
    change("a user", 2).text("ARG USED", "ARG USED\nUSER 1000"),
    change("a shell", 2).text("ARG USED", "ARG USED\nSHELL [\"/bin/sh\", \"-ec\"]"),
    change("the network", 1).flags(&["--network=none"]),
    change("one step's network", 2).text("RUN echo $", "RUN --network=none echo $"),
    change("security", 2).text("RUN echo $", "RUN --security=insecure echo $").flags(&["--allow=security.insecure"]),
    change("a host's address", 1).flags(&["--add-host=h:10.0.0.1"]),
    change("/dev/shm", 1).flags(&["--shm-size=1m"]),
    change("a limit", 1).flags(&["--ulimit=nofile=100:100"]),
    change("everything, by request", 0).flags(&["--no-cache"]),
];

#[test]
fn what_must_hit_does_and_what_must_not_does_not() {
    let Some((world, bases)) = stages() else { return };
    let reset = |text: (&str, &str)| {
        chmod(world.file("context/in", "in\n"), 0o644);
        assert!(KEYED.contains(text.0), "{text:?}");
        world.dockerfile(&if text.0.is_empty() { KEYED.to_owned() } else { KEYED.replace(text.0, text.1) });
    };
    let cache = format!("type=registry,ref={}", bases.fresh("c"));
    reset(("", ""));
    build(&world, &bases, &["-t", "a", "--cache-to", &cache]).ok();
    for change in CHANGES {
        // Another machine, to which the cache's records are all there is.
        empty_disk(&world);
        reset(change.text);
        (change.file)(&world);
        let run = build(&world, &bases, &[change.flags, &["-t", "a", "--cache-from", &cache]].concat()).ok();
        assert_eq!(cached(&run), change.hits, "{}: {}", change.what, run.stderr);
        // And on this one, whose store knows what was just made.
        let again = build(&world, &bases, &[change.flags, &["-t", "a"]].concat()).ok();
        let all = if change.flags == ["--no-cache"] { 0 } else { 3 };
        assert!(cached(&again) >= all, "{}: {}", change.what, again.stderr);
    }
    // A base's new digest.
    let base = bases.fresh("base");
    world.dockerfile("FROM busybox\nRUN echo new > /new\n");
    build(&world, &bases, &["-t", &base, "--push"]).ok();
    empty_disk(&world);
    reset(("", ""));
    let named = format!("--build-context=busybox=docker-image://{base}");
    let run = build(&world, &bases, &["-t", "a", "--cache-from", &cache, &named]).ok();
    assert_eq!(cached(&run), 0, "{}", run.stderr);
    // Another checkout, at another time.
    empty_disk(&world);
    fs::rename(world.path("context"), world.path("elsewhere")).unwrap();
    let mirror = bases.mirror();
    let args = ["build", "--progress=plain", &mirror, "-t", "a", "--cache-from", &cache, "elsewhere"];
    assert_eq!(cached(&world.kiln(args).ok()), 3);
}
