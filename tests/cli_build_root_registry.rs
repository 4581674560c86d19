//! Builds that go well: with root, Debian's docker-registry and busybox as the base.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker_registry::{DockerRegistry, Options};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};
use world::{Bases, Run, World};

const HELLO: &str =
    "FROM busybox\nCOPY greeting.txt /\nRUN sed -i s/NAME/$(whoami)/ /greeting.txt\nCMD [\"cat\", \"/greeting.txt\"]\n";

/// A world with the hello context, and the bases.
fn hello() -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(HELLO).file("context/greeting.txt", "Hello, NAME\n");
    Some((world, bases))
}

/// Whether a program is here; says so where it isn't.
fn has(program: &str) -> bool {
    let here = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !here {
        println!("skipped: {program} is not installed");
    }
    here
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

#[test]
fn built_listed_run_and_removed() {
    let Some((world, bases)) = hello() else { return };
    let built = world.kiln(["build", &bases.mirror(), "-t", "hello", "context"]).ok();
    assert_eq!(built.stdout, "", "only what was asked for goes to standard output");
    world.kiln(["images"]).ok().prints("hello");
    assert_eq!(world.kiln(["run", "hello"]).ok().stdout, "Hello, root\n");
    assert_eq!(world.kiln(["run", "hello", "echo", "-n", "other"]).ok().stdout, "other");
    world.kiln(["inspect", "hello"]).ok().prints("greeting.txt");
    world.kiln(["history", "hello"]).ok().prints("sed -i");
    world.kiln(["tag", "hello", "again:2"]).ok();
    world.kiln(["rmi", "hello"]).ok();
    world.kiln(["run", "hello"]).says("hello");
    assert_eq!(world.kiln(["run", "again:2"]).ok().stdout, "Hello, root\n");
    world.nothing_is_left();
}

#[test]
fn an_image_of_a_registry_as_a_named_context() {
    let Some((world, bases)) = hello() else { return };
    let name = bases.fresh("1.0");
    world.kiln(["build", &bases.mirror(), "-t", &name, "--push", "context"]).ok();
    let named = format!("lib=docker-image://{name}");
    let out = ["-otype=local,dest=out", "--build-context", &named, "other"];
    world.file("other/Dockerfile", "FROM scratch\nCOPY --from=lib /greeting.txt /copied\n");
    world.kiln([&["build"], &out[..]].concat()).ok();
    assert_eq!(fs::read_to_string(world.path("out/copied")).unwrap(), "Hello, root\n");
    // In the place of a base, and of one that no registry has.
    world.file(
        "other/Dockerfile",
        "FROM lib\nRUN --mount=from=lib,target=/m cat /m/greeting.txt /greeting.txt > /both\n",
    );
    world.kiln(["build", "-t", "both", "--build-context", &named, "other"]).ok();
    assert_eq!(world.kiln(["run", "both", "cat", "/both"]).ok().stdout, "Hello, root\nHello, root\n");
    world.nothing_is_left();
}

#[test]
fn the_second_build_is_all_cache() {
    let Some((world, bases)) = hello() else { return };
    let args = ["build", "--progress=plain", &bases.mirror(), "--iidfile=id", "-t", "hello", "context"];
    world.kiln(args).ok().says("RUN sed");
    let first = fs::read_to_string(world.path("id")).unwrap();
    let second = world.kiln(args).ok();
    let headings = second.stderr.lines().filter(|l| l.contains("] RUN ") || l.contains("] COPY ")).count();
    let cached = second.stderr.lines().filter(|l| l.ends_with(" CACHED")).count();
    assert!(headings >= 2 && cached >= 2, "{}", second.stderr);
    assert_eq!(fs::read_to_string(world.path("id")).unwrap(), first, "the same image, bit for bit");
    world.file("context/greeting.txt", "Goodbye, NAME\n");
    world.kiln(args).ok();
    assert_eq!(world.kiln(["run", "hello"]).ok().stdout, "Goodbye, root\n");
    let anew = world.kiln(["build", "--no-cache", "--progress=plain", &bases.mirror(), "context"]).ok();
    assert!(!anew.stderr.lines().any(|l| l.ends_with(" CACHED")), "{}", anew.stderr);
}

#[test]
fn pushed_and_read_by_skopeo() {
    let Some((world, bases)) = hello() else { return };
    if !has("skopeo") {
        return;
    }
    let name = bases.fresh("1.0");
    world.kiln(["build", &bases.mirror(), "-t", &name, "--label", "a=b", "--push", "context"]).ok().says(&name);
    let remote = format!("docker://{name}");
    let copied = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--src-tls-verify=false", &remote])
        .arg(format!("oci:{}:x", world.path("layout").display()))
        .output()
        .unwrap();
    assert!(copied.status.success(), "{copied:?}");
    let seen = Command::new("skopeo").args(["inspect", "--config", "--tls-verify=false", &remote]).output().unwrap();
    let config = json(&String::from_utf8(seen.stdout).unwrap());
    assert_eq!(config["config"]["Labels"]["a"], "b");
    assert_eq!(config["config"]["Cmd"], serde_json::json!(["cat", "/greeting.txt"]));
    assert_eq!(config["rootfs"]["diff_ids"].as_array().unwrap().len(), 3);
    let again = World::new();
    again.kiln(["pull", &name]).ok();
    assert_eq!(again.kiln(["run", &name]).ok().stdout, "Hello, root\n");
    again.kiln(["push", &name]).ok();
    world.nothing_is_left();
}

#[test]
fn pushed_with_a_password() {
    let Some((world, bases)) = hello() else { return };
    if !has("htpasswd") {
        return;
    }
    let Some(closed) = DockerRegistry::start(&Options { user: Some(("me", "secret")), ..Options::default() }) else {
        return;
    };
    let name = format!("{}/hello:1", closed.host);
    let build = ["build", &bases.mirror(), "-t", &name, "--push", "context"];
    world.kiln(build).fails(3).says(&closed.host);
    let login = |password: &str| {
        let typed = fs::File::open(world.file("password", password).path("password")).unwrap();
        let child =
            world.command(["login", "-u", "me", "--password-stdin", &closed.host]).stdin(typed).spawn().unwrap();
        Run::of(child)
    };
    login("wrong").fails(3).doesnt_say("wrong");
    login("secret\n").ok();
    world.kiln(build).ok().doesnt_say("secret");
    world.kiln(["logout", &closed.host]).ok();
    world.kiln(["build", &bases.mirror(), "-t", &format!("{}/hello:2", closed.host), "--push", "context"]).fails(3);
}

#[test]
fn written_in_every_form() {
    let Some((world, bases)) = hello() else { return };
    let outputs =
        ["type=oci,dest=oci.tar", "type=docker,dest=docker.tar", "type=local,dest=tree", "type=tar,dest=tree.tar"];
    let mut args = vec!["build".to_owned(), bases.mirror(), "-t".into(), "hello:1".into()];
    args.extend(outputs.iter().flat_map(|o| ["-o".to_owned(), (*o).to_owned()]));
    args.push("context".into());
    world.kiln(&args).ok();
    assert_eq!(fs::read_to_string(world.path("tree/greeting.txt")).unwrap(), "Hello, root\n");
    assert!(world.path("tree/bin/busybox").exists());
    let listed = Command::new("tar").args(["-tf", "tree.tar"]).current_dir(world.path("")).output().unwrap();
    assert!(String::from_utf8_lossy(&listed.stdout).lines().any(|l| l.ends_with("greeting.txt")));
    if has("skopeo") {
        for archive in ["oci-archive:oci.tar", "docker-archive:docker.tar"] {
            let seen = Command::new("skopeo")
                .args(["inspect", "--config", archive])
                .current_dir(world.path(""))
                .output()
                .unwrap();
            assert!(seen.status.success(), "{archive}: {seen:?}");
        }
    }
    let streamed = world.kiln(["build", &bases.mirror(), "-o", "type=tar,dest=-", "context"]);
    assert_eq!(streamed.code, Some(0), "{}", streamed.stderr);
    assert!(streamed.stdout.contains("Hello, root"));
    world.nothing_is_left();
}

#[test]
fn ids_and_accounts() {
    let Some((world, bases)) = hello() else { return };
    let run = world
        .kiln(["build", "-q", &bases.mirror(), "--iidfile=id", "--metadata-file=meta.json", "-t", "hello", "context"])
        .ok();
    let id = fs::read_to_string(world.path("id")).unwrap();
    assert!(id.starts_with("sha256:") && id.len() == 71, "{id:?}");
    assert_eq!(run.stdout.trim_end(), id);
    assert_eq!(run.stderr, "");
    let meta = json(&fs::read_to_string(world.path("meta.json")).unwrap());
    assert!(meta["containerimage.digest"].as_str().is_some_and(|d| d.starts_with("sha256:")), "{meta}");
}

#[test]
fn rawjson_is_json_in_every_line() {
    let Some((world, bases)) = hello() else { return };
    let run = world.kiln(["build", "--progress=rawjson", &bases.mirror(), "context"]).ok();
    let lines: Vec<Value> = run.stderr.lines().map(json).collect();
    assert!(lines.iter().any(|l| l["vertexes"][0]["name"].as_str().is_some_and(|n| n.contains("RUN sed"))));
}

#[test]
fn ignored_files_stay_outside() {
    let Some((world, bases)) = hello() else { return };
    world.file("context/.dockerignore", "*.log\n!keep.log\n").file("context/a.log", "a").file("context/keep.log", "k");
    world.dockerfile("FROM busybox\nCOPY . /all\nRUN ls /all > /list\nCMD [\"cat\", \"/list\"]\n");
    world.kiln(["build", &bases.mirror(), "-t", "ignored", "context"]).ok();
    let listed = world.kiln(["run", "ignored"]).ok().stdout;
    assert!(listed.contains("keep.log") && listed.contains("greeting.txt") && !listed.contains("a.log"), "{listed}");
}

#[test]
fn only_the_stages_that_the_target_needs() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile(
        "FROM busybox AS broken\nRUN exit 7\nFROM busybox AS one\nRUN echo one > /f\nFROM busybox AS two\nCOPY --from=one /f /g\nFROM broken\n",
    );
    let run =
        world.kiln(["build", "--progress=plain", &bases.mirror(), "--target", "two", "-t", "two", "context"]).ok();
    assert!(!run.stderr.contains("exit 7"), "{}", run.stderr);
    assert_eq!(world.kiln(["run", "two", "cat", "/g"]).ok().stdout, "one\n");
}

#[test]
fn a_process_sees_what_a_container_sees() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile(
        "FROM busybox\nARG WHO\nENV A=1\nWORKDIR /srv\nUSER www-data\n\
         RUN echo \"$WHO $A $(pwd) $(id -u) $$\" > /tmp/seen && test -e /proc/self && test -c /dev/null && grep -q added /etc/hosts\n\
         RUN --network=none test \"$(ls /sys/class/net)\" = lo\n\
         RUN --mount=type=secret,id=s,mode=0444 sha256sum /run/secrets/s | grep -q ^a6aa99521a76\n\
         CMD cat /tmp/seen; id -un; pwd\n",
    );
    // A word that neither the command nor the base has.
    world.file("hush", "k1ln-s3cr3t");
    let args = [
        "build",
        &bases.mirror(),
        "--build-arg",
        "WHO=me",
        "--add-host",
        "added:10.0.0.1",
        "--secret",
        "id=s,src=hush",
        "-t",
        "p",
        "context",
    ];
    world.kiln(args).ok();
    assert_eq!(world.kiln(["run", "p"]).ok().stdout, "me 1 /srv 33 1\nwww-data\n/srv\n");
    let env =
        world.kiln(["run", "-e", "B=2", "-u", "0", "-w", "/", "p", "sh", "-c", "echo $A $B $(id -u) $(pwd)"]).ok();
    assert_eq!(env.stdout, "1 2 0 /\n");
    assert_eq!(world.kiln(["run", "p", "sh", "-c", "exit 42"]).code, Some(42));
    let found = Command::new("grep").args(["-rl", "k1ln-s3cr3t"]).arg(world.path("store")).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "", "the secret is in the store");
}

#[test]
fn the_machine_has_the_name_that_was_asked_for() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile("FROM busybox\nRUN hostname > /name && grep -qw $(hostname) /etc/hosts\n");
    let mirror = bases.mirror();
    for (flags, name) in [
        (&[][..], "buildkitsandbox"),
        (&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME=mine"], "mine"),
        (&["--build-arg", "BUILDKIT_SANDBOX_HOSTNAME="], "buildkitsandbox"),
    ] {
        world.kiln([&["build", &mirror, "-t", "n", "context"], flags].concat()).ok();
        assert_eq!(world.kiln(["run", "n", "cat", "/name"]).ok().stdout, format!("{name}\n"));
    }
}

#[test]
fn layers_carry_what_a_step_changed_and_nothing_else() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile(
        "FROM busybox\nRUN mkdir /d && echo 1 > /d/a && ln /d/a /d/b && ln -s a /d/c && chmod 4711 /d/a && touch -d @1000000000 /d/a\n\
         RUN rm -r /etc/network && mkdir /etc/network && echo new > /etc/network/only && rm /d/c\n",
    );
    world.kiln(["build", &bases.mirror(), "-o", "tree", "-t", "l", "context"]).ok();
    use std::os::unix::fs::MetadataExt as _;
    let a = fs::metadata(world.path("tree/d/a")).unwrap();
    assert_eq!((a.mode() & 0o7777, a.mtime(), a.nlink()), (0o4711, 1_000_000_000, 2));
    assert_eq!(a.ino(), fs::metadata(world.path("tree/d/b")).unwrap().ino());
    assert!(!world.path("tree/d/c").exists());
    let network: Vec<_> =
        fs::read_dir(world.path("tree/etc/network")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(network, ["only"]);
}

#[test]
fn a_dockerfile_on_standard_input_builds() {
    let Some((world, bases)) = hello() else { return };
    fs::remove_file(world.path("context/Dockerfile")).unwrap();
    let dockerfile = fs::File::open(world.file("df", HELLO).path("df")).unwrap();
    let child =
        world.command(["build", "-f", "-", &bases.mirror(), "-t", "h", "context"]).stdin(dockerfile).spawn().unwrap();
    Run::of(child).ok();
    assert_eq!(world.kiln(["run", "h"]).ok().stdout, "Hello, root\n");
}

#[test]
fn what_a_process_writes_is_text_to_the_terminal() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile("FROM busybox\nRUN printf 'a\\033[2Jb\\033]0;title\\007c\\n'\n");
    let run = world.kiln(["build", "--progress=plain", &bases.mirror(), "context"]).ok().says("abc");
    assert!(!run.stderr.chars().any(|c| c.is_control() && c != '\n' && c != '\t'), "{:?}", run.stderr);
}

#[test]
fn two_builds_share_a_store() {
    let Some((world, bases)) = hello() else { return };
    world.dockerfile("FROM busybox\nRUN sleep 1; cat /proc/sys/kernel/random/uuid > /once\nCMD [\"cat\", \"/once\"]\n");
    let start = |tag| world.command(["build", &bases.mirror(), "-t", tag, "context"]).spawn().unwrap();
    let both = [start("a"), start("b")];
    both.into_iter().for_each(|child| drop(Run::of(child).ok()));
    let seen = ["a", "b"].map(|tag| world.kiln(["run", tag]).ok().stdout);
    assert_eq!(seen[0], seen[1], "the step ran once");
    world.kiln(["prune", "--all"]).ok();
    world.nothing_is_left();
}
