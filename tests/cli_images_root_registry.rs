//! What is done with images that are built: run, push, pull, name, look at, save, prune. With root, Debian's
//! docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;
use std::fs;
use std::io::{Read as _, Write as _};
use std::process::{Child, Command, Stdio};
use world::{Bases, Run, World};

const APP: &str = "FROM busybox\nENV GREETING=hello\nRUN mkdir /data && echo made >/data/made\nWORKDIR /data\n\
                   COPY file /data/\nLABEL kind=test\nENTRYPOINT [\"sh\", \"-c\"]\nCMD [\"cat made file\"]\n";

/// A world with an image named app:1.0, and the bases.
fn app() -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(APP).file("context/file", "copied\n");
    world.kiln(["build", "-t", "app:1.0", &bases.mirror(), "context"]).ok();
    Some((world, bases))
}

/// A run in an image that has said something.
fn started(world: &World, script: &str) -> Child {
    let mut child = world.command(["run", "app:1.0", script]).spawn().unwrap();
    let mut first = [0; 6];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    assert_eq!(&first, b"ready\n");
    child
}

fn signal(child: &Child, signal: Signal) {
    kill_process(Pid::from_child(child), signal).unwrap();
}

fn snapshots(world: &World) -> usize {
    fs::read_dir(world.path("store/snapshots")).unwrap().count()
}

#[test]
fn a_process_is_composed_of_the_image_and_the_command_line() {
    let Some((world, _bases)) = app() else { return };
    assert_eq!(world.kiln(["run", "app:1.0"]).ok().stdout, "made\ncopied\n");
    let shown = world.kiln(["run", "-e", "GREETING=bye", "-e", "MORE=1", "app:1.0", "env; pwd; id -u"]).ok();
    let shown =
        shown.prints("GREETING=bye\n").prints("MORE=1\n").prints("HOME=/root\n").prints("PATH=/usr/local/sbin:");
    assert!(shown.stdout.ends_with("/data\n0\n"), "{}", shown.stdout);
    let args = ["run", "--entrypoint", "id", "--user", "7:8", "--workdir", "/tmp", "app:1.0", "-u"];
    assert_eq!(world.kiln(args).ok().stdout, "7\n");
    let args = ["run", "--entrypoint", "pwd", "--workdir", "/not/there", "app:1.0"];
    assert_eq!(world.kiln(args).ok().stdout, "/not/there\n");
    world.nothing_is_left();
}

#[test]
fn an_exit_code_is_the_processs() {
    let Some((world, _bases)) = app() else { return };
    assert_eq!(world.kiln(["run", "app:1.0", "exit 42"]).code, Some(42));
    assert_eq!(world.kiln(["run", "app:1.0", "kill -9 $$"]).code, Some(0), "pid 1 is not killed by itself");
    world.kiln(["run", "--entrypoint", "/nope", "app:1.0"]).fails(127).says("/nope");
    world.kiln(["run", "--entrypoint", "/data", "app:1.0"]).fails(126);
    world.kiln(["run", "--user", "nobody-knows", "app:1.0"]).fails(2).says("nobody-knows");
    world.kiln(["run", "other"]).fails(2).says("kiln pull other:latest");
    world.kiln(["run", "--entrypoint=", "app:1.0"]).fails(2).says("names no command");
    world.nothing_is_left();
}

#[test]
fn what_a_process_changes_is_thrown_away() {
    let Some((world, _bases)) = app() else { return };
    let before = snapshots(&world);
    world.kiln(["run", "app:1.0", "rm made; echo x >new; ls"]).ok().prints("new");
    assert_eq!(world.kiln(["run", "app:1.0", "ls"]).ok().stdout, "file\nmade\n");
    // The COPY was never unpacked; everything else was there from the build.
    assert_eq!(snapshots(&world), before + 1);
    world.nothing_is_left();
}

#[test]
fn standard_input_reaches_the_process() {
    let Some((world, _bases)) = app() else { return };
    let mut child = world.command(["run", "app:1.0", "tr a-z A-Z"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"typed\n").unwrap();
    assert_eq!(Run::of(child).ok().stdout, "TYPED\n");
}

/// Waits until the process that kiln runs is this program: a shell may take a signal for itself before it is.
fn becomes(kiln: &Child, name: &str) {
    let is_it = |stat: &str| {
        let (head, tail) = stat.rsplit_once(')').unwrap_or_default();
        head.ends_with(&format!("({name}")) && tail.split_whitespace().nth(1) == Some(kiln.id().to_string().as_str())
    };
    let is_there = || {
        let stats =
            fs::read_dir("/proc").unwrap().filter_map(|e| fs::read_to_string(e.unwrap().path().join("stat")).ok());
        stats.into_iter().any(|stat| is_it(&stat))
    };
    for _ in 0..1000 {
        if is_there() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    panic!("no process of kiln's is {name}");
}

#[test]
fn a_signal_ends_a_process_that_doesnt_handle_it() {
    let Some((world, _bases)) = app() else { return };
    for (number, code) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        // A shell would wait for its child whatever it is told, as it does with docker.
        let child = started(&world, "echo ready; exec sleep 1000");
        becomes(&child, "sleep");
        signal(&child, number);
        assert_eq!(Run::of(child).code, Some(code), "{number:?}");
    }
    world.nothing_is_left();
}

#[test]
fn a_signal_is_the_processs_to_handle() {
    let Some((world, _bases)) = app() else { return };
    let child = started(&world, "trap 'echo got it; exit 5' TERM; echo ready; while :; do sleep 0.05; done");
    signal(&child, Signal::TERM);
    let run = Run::of(child);
    assert_eq!((run.code, run.stdout.as_str()), (Some(5), "got it\n"));
    let child = started(&world, "trap 'echo one' USR1; echo ready; for i in 1 2 3 4 5 6; do sleep 0.1; done; exit 6");
    signal(&child, Signal::USR1);
    let run = Run::of(child);
    assert_eq!((run.code, run.stdout.as_str()), (Some(6), "one\n"));
    // Who is deaf to it is killed by the third.
    let child = started(&world, "trap '' INT; echo ready; exec sleep 1000");
    becomes(&child, "sleep");
    for _ in 0..3 {
        signal(&child, Signal::INT);
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    assert_eq!(Run::of(child).code, Some(130));
    world.nothing_is_left();
}

#[test]
fn a_terminal_is_passed_on() {
    let Some((world, _bases)) = app() else { return };
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
    let user = fs::File::options().read(true).write(true).open(name).unwrap();
    let mut child = world
        .command(["run", "app:1.0", "tty; echo term $TERM; read line; echo got $line; exit 9"])
        .stdin(user.try_clone().unwrap())
        .stdout(user)
        .spawn()
        .unwrap();
    let mut main = fs::File::from(main);
    main.write_all(b"typed\n").unwrap();
    let mut shown = String::new();
    let mut buffer = [0; 4096];
    while !shown.contains("got typed") {
        let read = main.read(&mut buffer).unwrap();
        shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
    }
    assert!(shown.contains("/dev/pts/0") && shown.contains("term xterm"), "{shown:?}");
    assert_eq!(child.wait().unwrap().code(), Some(9));
    world.nothing_is_left();
}

#[test]
fn images_are_listed_named_and_forgotten() {
    let Some((world, _bases)) = app() else { return };
    world.kiln(["tag", "app:1.0", "reg.example/team/app:2"]).ok();
    let table = world.kiln(["images"]).ok().stdout;
    let lines: Vec<Vec<&str>> = table.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
    assert_eq!((&lines[1][..2], &lines[2][..2]), (&["app", "1.0"][..], &["reg.example/team/app", "2"][..]));
    let id = world.kiln(["images", "-q"]).ok().stdout.trim().to_owned();
    assert_eq!((id.len(), id.as_str()), (12, lines[1][2]));
    let json: Vec<Value> = world
        .kiln(["images", "--format", "json"])
        .ok()
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!((json.len(), json[1]["Tag"].as_str(), json[0]["ID"].as_str()), (2, Some("2"), Some(id.as_str())));
    assert_eq!(world.kiln(["run", &id]).ok().stdout, "made\ncopied\n");
    world.kiln(["rmi", &id]).fails(2).says("several repositories");
    assert_eq!(world.kiln(["rmi", "app:1.0"]).ok().stdout, "Untagged: app:1.0\n");
    world.kiln(["rmi", "app:1.0"]).fails(2);
    assert_eq!(world.kiln(["rmi", &id]).ok().stdout, "Untagged: reg.example/team/app:2\n");
    assert_eq!(world.kiln(["images"]).ok().stdout.lines().count(), 1);
}

#[test]
fn an_image_says_what_it_is() {
    let Some((world, _bases)) = app() else { return };
    let text = world.kiln(["inspect", "app:1.0"]).ok().stdout;
    let all: Value = serde_json::from_str(&text).unwrap();
    let image = &all[0];
    assert_eq!(image["RepoTags"], serde_json::json!(["app:1.0"]));
    assert_eq!(image["Config"]["Labels"]["kind"], "test");
    assert_eq!(image["Config"]["WorkingDir"], "/data");
    assert_eq!(image["Config"]["Volumes"], Value::Null);
    assert_eq!((image["Os"].as_str(), image["RootFS"]["Layers"].as_array().map(Vec::len)), (Some("linux"), Some(4)));
    let history = world.kiln(["history", "app:1.0"]).ok().stdout;
    let lines: Vec<&str> = history.lines().collect();
    assert!(lines[0].starts_with("IMAGE ") && lines[1].contains("CMD [\"cat made file\"]"), "{history}");
    assert!(lines[1].starts_with(&image["Id"].as_str().unwrap()[7..19]), "{history}");
    assert!(lines[2].starts_with("<missing>") && lines.iter().all(|l| l.chars().count() < 120), "{history}");
    let whole = world.kiln(["history", "--no-trunc", "--format", "json", "app:1.0"]).ok().stdout;
    let first: Value = serde_json::from_str(whole.lines().next().unwrap()).unwrap();
    assert_eq!(first["ID"], image["Id"]);
}

#[test]
fn an_image_without_a_name_is_run_by_its_id() {
    let Some(bases) = Bases::find() else { return };
    let world = World::new();
    world.dockerfile("FROM busybox\nCMD [\"echo\", \"nameless\"]\n");
    let id = world.kiln(["build", "-q", &bases.mirror(), "context"]).ok().stdout;
    assert_eq!(world.kiln(["run", id.trim()]).ok().stdout, "nameless\n");
    assert_eq!(world.kiln(["images", "-q"]).ok().stdout, "");
    world.kiln(["prune"]).ok();
    world.kiln(["run", id.trim()]).fails(4).says("not complete");
}

#[test]
fn an_image_goes_to_a_registry_and_comes_back() {
    let Some((world, bases)) = app() else { return };
    let name = bases.fresh("1.0");
    world.kiln(["tag", "app:1.0", &name]).ok();
    let pushed = world.kiln(["push", &name]).ok().stdout;
    assert!(pushed.starts_with("1.0: digest: sha256:"), "{pushed}");
    let other = World::new();
    assert_eq!(other.kiln(["pull", "-q", &name]).ok().stdout, format!("{name}\n"));
    assert_eq!(other.kiln(["run", &name]).ok().stdout, "made\ncopied\n");
    let digest = pushed.split_whitespace().nth(2).unwrap();
    let pinned = format!("{}@{digest}", name.trim_end_matches(":1.0"));
    let id = other.kiln(["pull", "-q", &pinned]).ok().stdout;
    assert_eq!(other.kiln(["run", id.trim()]).ok().stdout, "made\ncopied\n");
    other.kiln(["push", &bases.fresh("none")]).fails(2).says("no image");
    other.kiln(["pull", &bases.fresh("none")]).fails(3).says("not found");
    other.nothing_is_left();
}

#[test]
fn a_layer_is_mounted_from_the_repository_that_it_came_from() {
    let Some((world, bases)) = app() else { return };
    let (first, second) = (bases.fresh("1"), bases.fresh("2"));
    for name in [&first, &second] {
        world.kiln(["tag", "app:1.0", name]).ok();
    }
    world.kiln(["push", &first]).ok().says("pushing sha256:");
    // A mounted blob is sent by nobody, so that there is no progress of it to be told.
    world.kiln(["push", &second]).ok().doesnt_say("pushing sha256:");
    let other = World::new();
    other.kiln(["pull", "-q", &second]).ok();
    assert_eq!(other.kiln(["run", &second]).ok().stdout, "made\ncopied\n");
}

#[test]
fn an_index_is_pushed_with_all_of_its_images() {
    let Some(bases) = Bases::find() else { return };
    let world = World::new();
    world.dockerfile("FROM scratch\nARG TARGETARCH\nCOPY file /$TARGETARCH\n").file("context/file", "x");
    let name = bases.fresh("all");
    world.kiln(["build", "--platform", "linux/amd64,linux/arm64", "-t", &name, "context"]).ok();
    world.kiln(["push", &name]).ok();
    let other = World::new();
    for (platform, arch) in [("linux/arm64", "arm64"), ("linux/amd64", "amd64")] {
        other.kiln(["pull", "--platform", platform, &name]).ok();
        let shown: Value = serde_json::from_str(&other.kiln(["inspect", &name]).ok().stdout).unwrap();
        assert_eq!(shown[0]["Architecture"], arch);
    }
    other.kiln(["pull", "--platform", "linux/s390x", &name]).fails(3).says("s390x");
    // An archive for docker has one platform; this one is an OCI layout only.
    world.kiln(["save", "-o", "all.tar", &name]).ok();
    other.kiln(["load", "-i", world.path("all.tar").to_str().unwrap()]).ok().prints(&name);
    let shown: Value = serde_json::from_str(&other.kiln(["inspect", &name]).ok().stdout).unwrap();
    assert!(shown[0]["Descriptor"]["mediaType"].as_str().unwrap().contains("index"), "{shown}");
}

#[test]
fn images_go_through_archives() {
    let Some((world, _bases)) = app() else { return };
    world.kiln(["save", "--output", "app.tar", "app:1.0"]).ok();
    let other = World::new();
    let archive = world.path("app.tar");
    assert_eq!(other.kiln(["load", "-i", archive.to_str().unwrap()]).ok().stdout, "Loaded image: app:1.0\n");
    assert_eq!(other.kiln(["run", "app:1.0"]).ok().stdout, "made\ncopied\n");
    let mut child = other.command(["load"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"this is no archive").unwrap();
    Run::of(child).fails(2).says("archive");
    other.kiln(["load", "-i", "not/there.tar"]).fails(4).says("not/there.tar");
    if Command::new("skopeo").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("SKIPPED: skopeo is not installed");
        return;
    }
    // What docker save wrote before it wrote layouts, by somebody else.
    let to = format!("docker-archive:{}:old:1", world.path("old.tar").display());
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", &format!("docker-archive:{}", archive.display()), &to])
        .status();
    assert!(copied.unwrap().success());
    let third = World::new();
    third.kiln(["load", "-i", world.path("old.tar").to_str().unwrap()]).ok().prints("Loaded image: old:1\n");
    assert_eq!(third.kiln(["run", "old:1"]).ok().stdout, "made\ncopied\n");
    third.nothing_is_left();
}

#[test]
fn a_pruned_store_keeps_images_and_cache_unless_all_is_to_go() {
    let Some((world, bases)) = app() else { return };
    let build = || world.kiln(["build", "--progress", "plain", "-t", "app:1.0", &bases.mirror(), "context"]).ok();
    world.kiln(["prune"]).ok().prints("Total reclaimed space: ");
    build().says("CACHED").doesnt_say("#2 0.");
    world.kiln(["rmi", "app:1.0"]).ok();
    world.kiln(["prune"]).ok();
    build().says("CACHED");
    world.kiln(["prune", "--all"]).ok();
    assert_eq!(world.kiln(["run", "app:1.0"]).ok().stdout, "made\ncopied\n");
    world.kiln(["rmi", "app:1.0"]).ok();
    world.kiln(["prune", "--all"]).ok();
    assert_eq!(snapshots(&world), 0);
    build().doesnt_say("CACHED");
    assert_eq!(world.kiln(["run", "app:1.0"]).ok().stdout, "made\ncopied\n");
}

#[test]
fn a_build_stands_on_an_image_of_the_store_without_unpacking_it() {
    let Some((world, _bases)) = app() else { return };
    world.kiln(["run", "app:1.0", "true"]).ok();
    let before = snapshots(&world);
    world.dockerfile("FROM app:1.0\nRUN [\"sh\", \"-c\", \"cat made file > both\"]\nCMD [\"cat both\"]\n");
    world.kiln(["build", "-t", "more:1.0", "context"]).ok();
    assert_eq!(snapshots(&world), before + 1);
    assert_eq!(world.kiln(["run", "more:1.0"]).ok().stdout, "made\ncopied\n");
}
