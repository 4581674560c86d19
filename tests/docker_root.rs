//! kiln in containers of Docker's, as users start them: the overlay2 driver, Docker's own seccomp profile and its default capabilities.
//! With root, Debian's docker.io, busybox-static and ca-certificates.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker.rs"]
mod docker;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/levels.rs"]
mod levels;
#[path = "support/user.rs"]
mod user;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker::{Docker, Users, WORKSPACE};
use levels::{Level, NEEDS, arguments, built, cases, results, same, script};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use user::{BASE, can, text};
use world::World;

/// A world whose directory every user may pass, with busybox in its context, and a daemon. `None`, and a line that says why, where there
/// cannot be one.
fn with_docker(users: Users) -> Option<(World, Arc<Docker>)> {
    let docker = Docker::with_image(users)?;
    let world = World::new();
    fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
    fs::copy("/bin/busybox", world.path("context/busybox")).unwrap();
    Some((world, docker))
}

/// The flag that mounts a directory of the world in a container.
fn volume(world: &World, name: &str, at: &str) -> String {
    format!("-v={}:{at}", world.path(name).display())
}

#[track_caller]
fn succeeds(output: &Output) {
    assert!(output.status.success(), "{:?}: {}", output.status, text(output));
}

/// Builds every Dockerfile of the table of levels in one container, and as root.
fn same_as_root(users: Users, level: Level) {
    if !can(NEEDS) {
        return;
    }
    let Some((world, docker)) = with_docker(users) else { return };
    let folder = world.path("levels");
    world.file("levels/context/busybox", fs::read("/bin/busybox").unwrap());
    let table = cases(&folder, level);
    let root: Vec<_> = table
        .iter()
        .map(|case| arguments(Level::Root, case, folder.to_str().unwrap()))
        .map(|args| built(&world.command(args).output().unwrap()))
        .collect();
    docker.hand_over(&folder);
    let ran = docker.shell(&[&volume(&world, "levels", WORKSPACE)], &script(level, &table, WORKSPACE));
    same(level, &table, &root, &results(&table, &folder, &ran));
}

#[test]
fn the_same_images_as_at_level_root() {
    same_as_root(Users::Host, Level::InPlace);
}

#[test]
fn the_same_images_with_remapped_users() {
    same_as_root(Users::Remapped, Level::InPlaceRemapped);
}

/// Without a network the base image is an OCI layout in one volume, and the result one in another.
#[test]
fn with_remapped_users_images_come_from_volumes_and_go_to_volumes() {
    let Some((world, docker)) = with_docker(Users::Remapped) else { return };
    world.dockerfile(BASE);
    let build = ["build", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    world.kiln([&build[..], &["-o", "type=oci,tar=false,dest=base", "context"]].concat()).ok();
    world.dockerfile("FROM base\nRUN mkdir /made && chown 1000:1000 /made\nUSER me\nRUN id > /made/id\n");
    let build = [&build[..], &["--build-context", "base=oci-layout://base", "-o", "type=oci,tar=false,dest=out/image"]];
    fs::create_dir(world.path("out")).unwrap();
    world.kiln([&build.concat()[..], &["context"]].concat()).ok();
    let index = fs::read(world.path("out/image/index.json")).unwrap();
    fs::remove_dir_all(world.path("out/image")).unwrap();

    docker.hand_over(&world.path("out"));
    let volumes = ["context", "base", "out"].map(|name| volume(&world, name, &format!("{WORKSPACE}/{name}")));
    let volumes: Vec<&str> = volumes.iter().map(String::as_str).collect();
    succeeds(&docker.kiln(&volumes, &[&build.concat()[..], &["context"]].concat()));
    assert_eq!(fs::read(world.path("out/image/index.json")).unwrap(), index);
}

#[test]
fn the_container_is_left_as_it_was_found() {
    let Some((world, docker)) = with_docker(Users::Host) else { return };
    let change =
        "echo x > /etc/new; echo x > /etc/hosts2; mkdir -p /etc/deep/er /dev/x; rm -rf /etc/passwd; mv /bin /bin2";
    world.file("context/good", format!("{BASE}RUN {change}; mkdir /made && echo x > /made/x\n"));
    world.file("context/bad", format!("{BASE}RUN {change}; chmod 700 / /etc; exit 7\n"));
    world.file("context/killed", format!("{BASE}RUN {change}; (sleep 1000 &); kill -9 $$\n"));
    let script = "look() { ls -lAR --full-time /etc /busybox /kaniko /run /dev; stat -c '%n %a %u %g' / /.dockerenv /*; cat /etc/hosts /etc/resolv.conf; }
        look > /kiln/before
        same() { look > /kiln/after; diff /kiln/before /kiln/after || exit $1; }
        kiln build -f good . || exit 1; same 2
        kiln build -f bad . ; test $? = 1 || exit 3; same 4
        kiln build -f killed . ; test $? = 1 || exit 5; same 6
        kiln build -f good . || exit 7; same 8
        ! ps | grep -v grep | grep 'sleep 1000' || exit 9";
    let output = docker.shell(&[&volume(&world, "context", WORKSPACE)], script);
    succeeds(&output);
    assert!(text(&output).contains("CACHED"), "{}", text(&output));
}

#[test]
fn what_a_killed_build_left_is_put_right() {
    let Some((world, docker)) = with_docker(Users::Host) else { return };
    let change = "mkdir /etc/made && mv /etc/passwd /etc/made && touch /tmp/new /var/new";
    world.file("context/slow", format!("{BASE}RUN mkdir -p /var && {change} && touch /started && sleep 1000\n"));
    world.file("context/good", format!("{BASE}RUN test ! -e /etc/made && touch /good\n"));
    world.file("var/of/volume", "kept");
    let script = "list() { ls -lAR /etc /var /tmp; stat -c '%n %a %u %g %F' / /*; }
        list > /kiln/before
        # While a RUN is at work there are only its own programs and those in /kiln.
        cp /busybox/busybox /kiln/
        for signal in TERM INT KILL; do
            /kiln/kiln build -f slow . & pid=$!
            until test -e /started; do /kiln/busybox usleep 10000; kill -0 $pid || exit 5; done
            kill -$signal $pid; wait $pid
            test $signal = KILL || { list > /kiln/after; diff /kiln/before /kiln/after || exit 1; }
            /kiln/busybox timeout 100 /kiln/kiln build --no-cache -f good . || exit 2
            list > /kiln/after; diff /kiln/before /kiln/after || exit 3
        done
        ! ps | grep -v grep | grep 'sleep 1000' || exit 4";
    let volumes = [volume(&world, "context", WORKSPACE), volume(&world, "var", "/var")];
    succeeds(&docker.shell(&[&volumes[0], &volumes[1], "--tmpfs=/tmp"], script));
}

/// What Docker gives to a container.
const CAPABILITIES: [&str; 14] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];

#[test]
fn info_says_that_in_place_works_if_and_only_if_a_run_works() {
    let Some((world, docker)) = with_docker(Users::Host) else { return };
    world.dockerfile(&format!(
        "{BASE}RUN mkdir /d /etc/d && echo a > /d/a && mv /etc/passwd /etc/d && chown -R 5:6 /d && chmod 750 /etc/d\nUSER 1000\nRUN id > /tmp/id\n"
    ));
    let dropped = CAPABILITIES.map(|capability| format!("--cap-drop={capability}"));
    let mut containers: Vec<Vec<&str>> = vec![
        vec![],
        vec!["--read-only"],
        vec!["--read-only", "--tmpfs=/kiln/store:exec"],
        vec!["--cap-drop=ALL"],
        vec!["--security-opt=no-new-privileges"],
        vec!["--security-opt=seccomp=unconfined"],
        vec!["--init"],
        vec!["--tmpfs=/tmp", "--tmpfs=/run", "--tmpfs=/var"],
        vec!["-v=kiln-info:/kiln/store"],
        vec!["--tmpfs=/etc/x"],
        vec!["--user=1234:1234"],
    ];
    containers.extend(dropped.iter().map(|flag| vec![flag.as_str()]));
    let context = volume(&world, "context", WORKSPACE);
    let script = "kiln info | grep '^ *in-place:'; kiln build --isolation in-place . 2>&1; echo code $?";
    let faults: Vec<String> = containers
        .iter()
        .filter_map(|flags| {
            let said = text(&docker.shell(&[&flags[..], &[&context]].concat(), script));
            let works = said.lines().any(|line| line.trim_start().starts_with("in-place:") && line.ends_with(" works"));
            let code = if works { "code 0" } else { "code 4" };
            (!said.lines().any(|line| line == code)).then(|| format!("{flags:?}, not {code}: {said}"))
        })
        .collect();
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), containers.len(), faults.join("\n"));
}

#[test]
fn one_run_makes_thousands_of_names_in_the_root_directory() {
    let Some((world, docker)) = with_docker(Users::Host) else { return };
    world.dockerfile(&format!(
        "{BASE}RUN n=0; while [ $n -lt 1200 ]; do echo $n > /file$n && mkdir /dir$n || exit 1; n=$((n + 1)); done\n\
         RUN n=0; while [ $n -lt 1200 ]; do test $(cat /file$n) = $n && rmdir /dir$n || exit 1; n=$((n + 2)); done\n"
    ));
    let build = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let there = docker.kiln(&[&volume(&world, "context", WORKSPACE)], &[&build[..], &["."]].concat());
    succeeds(&there);
    let here = world.kiln([&build[..], &["context"]].concat()).ok();
    assert_eq!(String::from_utf8_lossy(&there.stdout), here.stdout);
}

#[test]
fn orphans_that_ended_are_no_zombies() {
    let Some((world, docker)) = with_docker(Users::Host) else { return };
    // The first ones end before their parents, the others after them.
    let dockerfile = "RUN for n in 1 2 3 4 5 6 7 8 9 10; do (true & usleep 1000); (usleep 20000 &); (setsid sh -c 'usleep 20000 & true' &); done; usleep 200000; \\
         ! grep -l '^State:.*Z' /proc/[0-9]*/status && ! ps -o stat,args | grep ^Z\n";
    world.dockerfile(&format!("{BASE}{dockerfile}"));
    succeeds(&docker.kiln(&[&volume(&world, "context", WORKSPACE)], &["build", "--progress", "plain", "."]));
    // A shell that is the container's first process does not wait for others' children.
    let script = "kiln build --progress plain . || exit 1; ! grep -l '^State:.*Z' /proc/[0-9]*/status";
    succeeds(&docker.shell(&[&volume(&world, "context", WORKSPACE)], script));
}

#[test]
fn a_daemon_of_the_tests_leaves_nothing() {
    let Some(docker) = Docker::with_image(Users::Host) else { return };
    let own = Docker::start(Users::Host).unwrap();
    let dir = own.dir.clone();
    let archive = tempfile::NamedTempFile::new().unwrap();
    docker.client(["save", docker::IMAGE, "-o", archive.path().to_str().unwrap()]);
    own.client(["load", "-q", "-i", archive.path().to_str().unwrap()]);
    own.client([
        "run",
        "-d",
        "--network=host",
        "--entrypoint=/kiln/kiln",
        "--pids-limit=99",
        "--memory=1g",
        docker::IMAGE,
        "info",
    ]);
    let name = dir.file_name().unwrap().to_str().unwrap();
    let group = Path::new("/sys/fs/cgroup/memory").join(name);
    drop(own);
    assert!(!dir.exists() && !group.exists(), "{}", dir.display());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(name), "{mounts}");
    let processes = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().path());
    let left =
        processes.filter_map(|path| fs::read_to_string(path.join("cmdline")).ok()).find(|line| line.contains(name));
    assert_eq!(left, None);
}
