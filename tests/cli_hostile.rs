//! Contexts, layouts and surroundings that somebody else made to read a file, to hang a build, or to run a program. Each attack
//! stands beside a harmless variant that must keep working.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/server.rs"]
mod server;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use kiln::oci::{Digest, MediaType, describe};
use rustix::fs::{CWD, FileType, Mode, mknodat};
use server::{Answer, Server};
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use world::{KILN, Run, World};

const COPY_ALL: &str = "FROM scratch\nCOPY . /\n";
/// Where a build's files go.
const OUT: &str = "-otype=local,dest=out";

/// Runs a command that must not hang.
fn in_time(mut command: Command) -> Run {
    let mut child = command.spawn().unwrap();
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > end {
            let _ = child.kill();
            panic!("{command:?} hangs: {}", Run::of(child).stderr);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Run::of(child)
}

/// A world whose environment and home hold a secret.
fn with_secret() -> World {
    let world = World::new();
    world.file("docker/config.json", r#"{"auths": {"r.io": {"auth": "aHVzaDpodXNo"}}, "hush": "#);
    world.file("context/a", "A").dockerfile(COPY_ALL);
    world
}

fn run(world: &World, args: &[&str]) -> Run {
    let mut command = world.command(args);
    command.env("TOKEN", "hush");
    in_time(command)
}

fn fifo(path: &Path) {
    let _ = fs::remove_file(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).unwrap();
}

#[test]
fn links_of_a_context_show_no_file_outside_of_it() {
    let world = with_secret();
    let config = world.path("docker/config.json");
    let targets = [config.as_path(), Path::new("/proc/self/environ"), Path::new("../docker/config.json")];
    for target in targets {
        for (name, args) in [
            ("Dockerfile", &["build", "context"][..]),
            ("Dockerfile", &["build", "--call=targets", "context"]),
            ("Dockerfile", &["check", "context"]),
            ("Dockerfile", &["check", "--fix", "context"]),
            ("Dockerfile", &["plan", "context"]),
            ("Dockerfile", &["build", "-f", "context/Dockerfile", "context"]),
            ("dockerfile", &["build", "context"]),
            ("sub/D", &["build", "-f", "context/sub/D", "context"]),
            ("sub/D", &["build", "-f", "context/sub/../sub/D", "context"]),
            (".dockerignore", &["build", "context"]),
            (".dockerignore", &["check", "context"]),
            ("Dockerfile.dockerignore", &["build", "context"]),
            ("Dockerfile.dockerignore", &["build", "-f", "context/Dockerfile", "context"]),
        ] {
            let dockerfile = world.path("context/Dockerfile");
            fs::remove_file(&dockerfile).unwrap();
            if name.contains(".dockerignore") {
                world.dockerfile(COPY_ALL);
            }
            let link = world.path("context").join(name);
            fs::create_dir_all(link.parent().unwrap()).unwrap();
            symlink(target, &link).unwrap();
            let told = run(&world, args).fails(2);
            told.says("leads out of the context").doesnt_say("hush").doesnt_say("auths").doesnt_say("TOKEN");
            fs::remove_file(&link).unwrap();
            world.dockerfile(COPY_ALL);
        }
    }
    world.nothing_is_left();
}

#[test]
fn links_of_named_contexts_and_layouts_show_no_file_outside_of_them() {
    let world = with_secret();
    world.dockerfile("FROM scratch\nCOPY --from=other . /\n").file("other/f", "F").file("layout/oci-layout", "");
    for target in [world.path("docker/config.json").as_path(), Path::new("/proc/self/environ")] {
        symlink(target, world.path("other/.dockerignore")).unwrap();
        let told = run(&world, &["build", "--build-context", "other=other", OUT, "context"]).fails(2);
        told.says("leads out of the context").doesnt_say("hush");
        fs::remove_file(world.path("other/.dockerignore")).unwrap();
        symlink(target, world.path("layout/index.json")).unwrap();
        let told = run(&world, &["build", "--build-context", "other=oci-layout://layout", OUT, "context"]).fails(2);
        told.says("index.json").doesnt_say("hush").doesnt_say("auths").doesnt_say("TOKEN");
        fs::remove_file(world.path("layout/index.json")).unwrap();
    }
    // What a step copies is the link, and never what it leads to.
    symlink("/proc/self/environ", world.path("other/link")).unwrap();
    run(&world, &["build", "--build-context", "other=other", OUT, "context"]).ok();
    assert!(fs::symlink_metadata(world.path("out/link")).unwrap().is_symlink());
    world.nothing_is_left();
}

#[test]
fn links_inside_a_context_are_followed() {
    let world = with_secret();
    let context = world.path("context");
    fs::remove_file(context.join("Dockerfile")).unwrap();
    world.file("context/docker/real", COPY_ALL).file("context/docker/rules", "docker\n.docker*\nDocker*\n");
    for (link, target) in [
        ("Dockerfile", "docker/real"),
        (".dockerignore", "/docker/rules"),
        ("docker/up", "../docker/real"),
        ("docker/up.dockerignore", "rules"),
    ] {
        symlink(target, context.join(link)).unwrap();
    }
    for args in [
        &["build", OUT, "context"][..],
        &["build", "-f", "context/Dockerfile", OUT, "context"],
        &["build", "-f", "context/docker/up", OUT, "context"],
    ] {
        run(&world, args).ok();
        let names: Vec<_> = fs::read_dir(world.path("out")).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(names, ["a"], "{args:?}");
        fs::remove_dir_all(world.path("out")).unwrap();
    }
    // What is mended is the file that was read, whatever the link says outside of the context.
    world.file("context/lower", "from scratch\nCOPY a /\n").file("lower", "from scratch\n");
    symlink(format!("..{}/../lower", "/..".repeat(20)), context.join("D")).unwrap();
    run(&world, &["check", "--fix", "-f", "context/D", "context"]).ok();
    assert_eq!(fs::read_to_string(world.path("context/lower")).unwrap(), "FROM scratch\nCOPY a /\n");
    assert!(fs::symlink_metadata(context.join("D")).unwrap().is_symlink());
    world.nothing_is_left();
}

#[test]
fn a_dockerfile_outside_of_the_context_is_the_users_own() {
    let world = with_secret();
    world.file("elsewhere/real", "FROM scratch\nCOPY a /by-link\n");
    symlink("real", world.path("elsewhere/D")).unwrap();
    run(&world, &["build", "-f", "elsewhere/D", OUT, "context"]).ok();
    assert!(world.path("out/by-link").exists());
    let script =
        format!("exec '{KILN}' build -f <(sleep 0.2; printf 'FROM scratch\\nCOPY a /by-pipe\\n') {OUT} context");
    let mut shell = world.command(["-c", &script]);
    let envs: Vec<_> = shell.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    shell = Command::new("bash");
    shell.args(["-c", &script]).env_clear().envs(envs).current_dir(world.path("")).stdin(Stdio::null());
    shell.stdout(Stdio::piped()).stderr(Stdio::piped());
    in_time(shell).ok();
    assert!(world.path("out/by-pipe").exists());
    let mut stdin = world.command(["build", "-f", "/dev/stdin", OUT, "context"]);
    stdin.stdin(fs::File::open(world.path("elsewhere/real")).unwrap());
    in_time(stdin).ok();
    world.nothing_is_left();
}

#[test]
fn a_named_pipe_is_refused_and_not_waited_for() {
    let world = with_secret();
    world.file("docker/config.json", "{}");
    let secret = ["build", "--secret", "id=s,src=pipe", OUT, "context"];
    let layout = ["build", "--build-context", "other=oci-layout://layout", "-f", "D", OUT, "context"];
    world.file("D", "FROM other\nCOPY a /\n").file("K", "FROM scratch\nCOPY a /\n");
    world.file("layout/oci-layout", "");
    let network = ["build", "-f", "N", OUT, "context"];
    world.file("N", "FROM 127.0.0.1:1/nothing\n");
    for (pipe, args) in [
        ("context/Dockerfile", &["build", "context"][..]),
        ("context/Dockerfile", &["check", "context"]),
        ("context/dockerfile", &["build", "context"]),
        ("context/.dockerignore", &["build", OUT, "context"]),
        ("context/Dockerfile.dockerignore", &["build", OUT, "context"]),
        ("pipe", &["build", "-f", "pipe", "context"]),
        ("pipe", &secret),
        ("pipe", &["load", "-i", "pipe"]),
        ("pipe", &["build", "pipe"]),
        ("layout/index.json", &layout),
        ("docker/config.json", &["login", "-u", "u", "-p", "p", "127.0.0.1:1"]),
        ("docker/config.json", &network),
    ] {
        if pipe == "context/dockerfile" {
            fs::remove_file(world.path("context/Dockerfile")).unwrap();
        }
        let path = world.path(pipe);
        fifo(&path);
        let told = run(&world, args);
        assert!(matches!(told.code, Some(2..=5)), "{args:?}: {:?} {}", told.code, told.stderr);
        assert!(
            args == network || args == ["build", "pipe"] || told.stderr.contains("a named pipe"),
            "{}",
            told.stderr
        );
        fs::remove_file(&path).unwrap();
        world.dockerfile(COPY_ALL);
    }
    world.nothing_is_left();
}

/// A program of this name in each directory, which leaves a file `ran` if it is ever started.
fn trap(world: &World, directories: &[&str], names: &[&str]) {
    for (dir, name) in directories.iter().flat_map(|dir| names.iter().map(move |name| (dir, name))) {
        let path = format!("{dir}/{name}");
        let ran = world.path("ran");
        world.file(&path, format!("#!/bin/sh\necho {name} >> '{}'\nexit 1\n", ran.display()));
        fs::set_permissions(world.path(&path), fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn helper_programs_are_looked_for_in_absolute_directories_alone() {
    let world = World::new();
    world.file("docker/config.json", r#"{"credsStore": "evil"}"#);
    world.dockerfile("FROM scratch\nADD git@127.0.0.1:x/y.git /\n");
    let names =
        ["git", "ssh", "docker-credential-evil", "newuidmap", "newgidmap", "pasta", "slirp4netns", "crun", "runc"];
    trap(&world, &["context", "context/sub", "context/bin"], &names);
    world.file("N", "FROM 127.0.0.1:1/private\n");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let private = |_: &server::Asked| Answer::new(401).header("WWW-Authenticate", "Basic realm=\"x\"");
    let server = runtime.block_on(Server::start(private));
    let private = format!("FROM {}/private\n", server.host);
    world.file("context/P", private);
    for path in ["", ":", ".", "bin", "./bin:sub", "/nowhere:", ":/nowhere"] {
        for (args, says) in [
            (&["build", "."][..], "git is not installed"),
            (&["build", "-f", "P", "."], "no absolute directory"),
            (&["build", "--isolation=in-place", "--force-in-place", "."], "git is not installed"),
            (&["build", "git@127.0.0.1:x/y.git"], "git is not installed"),
            (&["login", "-u", "u", "-p", "p", &server.host], ""),
            (&["logout", "r.io"], "no absolute directory"),
            (&["run", "--network=pasta", "nothing"], ""),
            (&["run", "--network=slirp4netns", "nothing"], ""),
            (&["run", "--isolation=oci", "nothing"], ""),
            (&["info"], ""),
        ] {
            let mut command = world.command(args);
            command.env("PATH", path).current_dir(world.path("context"));
            let run = in_time(command);
            assert!(run.stderr.contains(says), "PATH={path:?} {args:?}: {}", run.stderr);
            let ran = fs::read_to_string(world.path("ran")).unwrap_or_default();
            assert_eq!(ran, "", "PATH={path:?} {args:?} started a program of the context");
        }
    }
    // The same programs in an absolute directory are the user's own.
    let bin = world.path("context/bin");
    for args in [&["build", "."][..], &["build", "-f", "P", "."]] {
        let mut command = world.command(args);
        command.env("PATH", format!(".:{}", bin.display())).current_dir(world.path("context"));
        in_time(command).fails(3);
    }
    assert_eq!(fs::read_to_string(world.path("ran")).unwrap(), "git\ndocker-credential-evil\n");
}

#[test]
fn programs_that_git_starts_are_looked_for_in_absolute_directories_alone() {
    let world = World::new();
    let Some(git) = ["/usr/bin/git", "/bin/git"].iter().find(|path| Path::new(path).exists()) else {
        println!("skipped: git is not installed");
        return;
    };
    trap(&world, &["context"], &["ssh", "true"]);
    symlink(git, world.file("bin/x", "").path("bin/git")).unwrap();
    for path in [format!("{}:", world.path("bin").display()), format!(".:{}", world.path("bin").display())] {
        let mut command = world.command(["build", "git@127.0.0.1:x/y.git"]);
        command.env("PATH", path).current_dir(world.path("context"));
        in_time(command).fails(3).says("ssh");
        assert!(!world.path("ran").exists());
    }
}

/// Runs the binary with a gigabyte of address space, of which it takes half without doing anything.
fn in_little_memory(world: &World, args: &[&str]) -> Run {
    let script = format!("ulimit -v 1000000; exec '{KILN}' \"$@\"");
    let envs: Vec<_> =
        world.command(args).get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
    let mut shell = Command::new("bash");
    shell.args(["-c", &script, "kiln"]).args(args).env_clear().envs(envs).current_dir(world.path(""));
    shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    in_time(shell)
}

#[test]
fn dockerfiles_that_would_fill_the_memory_are_refused() {
    let world = World::new();
    let doubled = |name: &str| format!("FROM scratch\n{name} A=xxxxxxxx\n{}", format!("{name} A=$A$A\n").repeat(40));
    let megabyte = format!("FROM scratch\nENV A=xxxxxxxx\n{}", "ENV A=$A$A\n".repeat(16));
    for (dockerfile, says, place) in [
        (doubled("ENV"), "variables add more than 1 MiB", ":20:7"),
        (doubled("ARG"), "variables add more than 1 MiB", ":20:7"),
        (format!("{megabyte}ENV B=${{A//x/{}}}\n", "y".repeat(100_000)), "variables add more than 1 MiB", ":19:7"),
        (format!("{megabyte}{}", "RUN make\n".repeat(10_000)), "grows to more than 128 MiB", ":1"),
        (format!("FROM scratch\nEXPOSE {}\n", "1-65535 ".repeat(1_000)), "grows to more than 128 MiB", ":2:"),
        (format!("FROM scratch\n{}", "RUN a\n".repeat(1_000_000)), "at most 50000 instructions", ":50001:1"),
        (format!("FROM scratch\nCOPY {}b\n", "a ".repeat(4_000_000)), "at most 1000000 words", ":2:1"),
    ] {
        world.dockerfile(&dockerfile);
        in_little_memory(&world, &["plan", "context"]).fails(2).says(says).says(place);
    }
    let harmless = format!("{}RUN make\n", megabyte.replace("$A$A", "$A-x"));
    in_little_memory(&world, &["plan", world.dockerfile(&harmless).path("context").to_str().unwrap()]).ok();
}

/// Writes an OCI layout of one image with this layer, and with its configuration as it is given.
fn layout(world: &World, layer: &[u8], config: &str) {
    let config = config.replace("DIFF_ID", Digest::of(layer).as_str());
    let manifest = serde_json::json!({
        "schemaVersion": 2, "mediaType": MediaType::ImageManifest.to_string(),
        "config": describe(MediaType::ImageConfig, config.as_bytes()),
        "layers": [describe(MediaType::ImageLayer, layer)],
    });
    let manifest = manifest.to_string();
    for blob in [layer, config.as_bytes(), manifest.as_bytes()] {
        world.file(&format!("layout/blobs/sha256/{}", Digest::of(blob).hex()), blob);
    }
    let index =
        serde_json::json!({"schemaVersion": 2, "manifests": [describe(MediaType::ImageManifest, manifest.as_bytes())]});
    world.file("layout/index.json", index.to_string());
}

#[test]
fn images_that_would_fill_the_memory_are_refused() {
    let world = World::new();
    world.dockerfile("FROM scratch\nCOPY --from=base . /\n");
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":["DIFF_ID"]}"#;
    let build = ["build", "--platform=linux/amd64", "--build-context", "base=oci-layout://layout", OUT, "context"];
    let long = |path: &str| {
        let record = format!(" path={path}\n");
        let length = (record.len()..).find(|n| n.to_string().len() + record.len() == *n).unwrap();
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::XHeader);
        header.set_size(length as u64);
        tar.append_data(&mut header, "pax", format!("{length}{record}").as_bytes()).unwrap();
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(1);
        tar.append_data(&mut header, "short", &b"x"[..]).unwrap();
        tar.into_inner().unwrap()
    };
    layout(&world, &long(&"d/".repeat(500_000)), &format!("{config}}}"));
    in_little_memory(&world, &build).fails(1).says("longer than 4095 bytes");
    layout(&world, &long(&("d/".repeat(500) + "f")), &format!("{config}}}"));
    in_little_memory(&world, &build).ok();
    assert!(world.path("out").join("d/".repeat(500)).join("f").exists());
    for more in [r#""history":["#, r#""other":["#] {
        layout(&world, &long("f"), &format!("{config},{more}{}{{}}]}}", "{},".repeat(2_000_000)));
        let refused = in_little_memory(&world, &build);
        assert!(refused.code != Some(0), "{}", refused.stderr);
        refused.says("more than 100000 values");
    }
}
