//! `kiln login` and `logout` against Debian's docker-registry with passwords, and credential helpers.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker_registry::{DockerRegistry, Options};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::process::Stdio;
use world::{Run, World};

/// A registry that wants the user `me` with the password `secret`.
fn registry() -> Option<DockerRegistry> {
    if std::process::Command::new("htpasswd").stderr(Stdio::null()).status().is_err() {
        println!("SKIPPED: htpasswd is not installed (apt-get install apache2-utils)");
        return None;
    }
    DockerRegistry::start(&Options { user: Some(("me", "secret")), ..Options::default() })
}

fn login(world: &World, host: &str, password: &str) -> Run {
    let mut command = world.command(["login", "-u", "me", "--password-stdin", host]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let written = child.stdin.take().unwrap().write_all(password.as_bytes());
    // Where the command line is wrong, it ends without reading.
    if let Err(e) = written {
        assert_eq!(e.kind(), std::io::ErrorKind::BrokenPipe);
    }
    Run::of(child)
}

fn config(world: &World) -> Value {
    serde_json::from_slice(&fs::read(world.path("docker/config.json")).unwrap()).unwrap()
}

#[test]
fn only_what_the_registry_takes_is_kept() {
    let Some(registry) = registry() else { return };
    let world = World::new();
    world.file("docker/config.json", r#"{"HttpHeaders":{"a":"b"}}"#);
    login(&world, &registry.host, "wrong\n").fails(3).doesnt_say("wrong\n");
    assert_eq!(config(&world), json!({ "HttpHeaders": { "a": "b" } }));
    login(&world, &registry.host, "secret\n").ok().prints("Login Succeeded").says("unencrypted");
    let auths = json!({ registry.host.clone(): { "auth": "bWU6c2VjcmV0" } });
    assert_eq!(config(&world), json!({ "HttpHeaders": { "a": "b" }, "auths": auths }));
    let mode = fs::metadata(world.path("docker/config.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    world.dockerfile("FROM scratch\nCOPY f /\n").file("context/f", "x");
    let name = format!("{}/app:1", registry.host);
    world.kiln(["build", "-t", &name, "--push", "context"]).ok();
    world.kiln(["logout", &registry.host]).ok().prints("Removing login credentials");
    assert_eq!(config(&world)["auths"], json!({}));
    world.kiln(["logout", &registry.host]).ok().prints("Not logged in");
    world.kiln(["pull", &name]).fails(3).says("login");
}

#[test]
fn a_helper_keeps_what_the_file_shall_not() {
    let Some(registry) = registry() else { return };
    let world = World::new();
    let script = format!("#!/bin/sh\necho $1 >>{0}/log\ncat >>{0}/log\n", world.path("tmp").display());
    world.file("bin/docker-credential-test", script);
    fs::set_permissions(world.path("bin/docker-credential-test"), fs::Permissions::from_mode(0o755)).unwrap();
    world.file("docker/config.json", r#"{"credsStore":"test"}"#);
    let path = format!("{}:{}", world.path("bin").display(), std::env::var("PATH").unwrap());
    let run = |args: &[&str]| {
        let mut child = world.command(args).env("PATH", &path).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(b"secret");
        Run::of(child).ok()
    };
    run(&["login", "-u", "me", "--password-stdin", &registry.host]).doesnt_say("unencrypted");
    assert_eq!(config(&world), json!({ "credsStore": "test", "auths": { registry.host.clone(): {} } }));
    run(&["logout", &registry.host]);
    let log = fs::read_to_string(world.path("tmp/log")).unwrap();
    let (stored, erased) = log.strip_prefix("store\n").unwrap().split_once("erase\n").unwrap();
    let want = json!({ "ServerURL": registry.host, "Username": "me", "Secret": "secret" });
    assert_eq!((serde_json::from_str::<Value>(stored).unwrap(), erased), (want, registry.host.as_str()));
}

#[test]
fn a_password_that_is_typed_is_not_shown() {
    let Some(registry) = registry() else { return };
    let world = World::new();
    let main = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&main).unwrap();
    unlockpt(&main).unwrap();
    let name = ptsname(&main, Vec::new()).unwrap().into_string().unwrap();
    let user = fs::File::options().read(true).write(true).open(name).unwrap();
    let mut child = world
        .command(["login", &registry.host])
        .stdin(user.try_clone().unwrap())
        .stderr(user.try_clone().unwrap())
        .spawn()
        .unwrap();
    let mut main = fs::File::from(main);
    let mut shown = String::new();
    for (question, answer) in [("Username: ", "me\n"), ("Password: ", "secreX\u{7f}t\n")] {
        let mut buffer = [0; 4096];
        while !shown.contains(question) {
            let read = main.read(&mut buffer).unwrap();
            shown.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
        main.write_all(answer.as_bytes()).unwrap();
    }
    assert!(child.wait().unwrap().success());
    let state = rustix::termios::tcgetattr(&user).unwrap();
    assert!(state.local_modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON));
    assert!(!shown.contains("secre"), "{shown:?}");
    assert_eq!(config(&world)["auths"][&registry.host]["auth"], "bWU6c2VjcmV0");
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let world = World::new();
    world.kiln(["login", "127.0.0.1:1"]).fails(2).says("--password-stdin");
    login(&world, "127.0.0.1:1", "x").fails(3).says("127.0.0.1:1");
    world.file("docker/config.json", "[]");
    login(&world, "127.0.0.1:1", "x").fails(4).says("config.json");
}
