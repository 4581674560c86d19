//! What the mounts of RUN get of the host, and what of it is seen. With root, docker-registry and busybox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use world::{Bases, Run, World};

/// A world with a Dockerfile, and the bases.
fn given(dockerfile: &str) -> Option<(World, Bases)> {
    let bases = Bases::find()?;
    let world = World::new();
    world.dockerfile(dockerfile);
    Some((world, bases))
}

impl World {
    fn build(&self, bases: &Bases, flags: &[&str], vars: &[(&str, &Path)]) -> Run {
        let mirror = bases.mirror();
        let args = ["build", "--progress=plain", "-t", "app", &mirror].into_iter().chain(flags.iter().copied());
        let mut command = self.command(args.chain(["context"]));
        command.envs(vars.iter().copied());
        let run = Run::of(command.spawn().unwrap());
        self.nothing_is_left();
        run
    }

    /// Fails where a file of the store, or its compressed content, has this text.
    fn is_nowhere(&self, secret: &str) {
        let found = std::process::Command::new("sh")
            .args(["-c", r#"grep -rlaF "$1" store; find store/blobs -type f | while read -r f; do gzip -dc "$f" 2>/dev/null | grep -aqF "$1" && echo "$f"; done; :"#, "-"])
            .arg(secret)
            .current_dir(self.path("."))
            .output()
            .unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "files with {secret}");
    }
}

/// A socket on which somebody listens.
fn agent(path: PathBuf) -> PathBuf {
    let listener = UnixListener::bind(&path).unwrap();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    path
}

#[test]
fn an_agent_is_forwarded_with_the_mounts_mode_and_owner() {
    let Some((world, bases)) = given(
        "FROM busybox\nRUN --mount=type=ssh,required echo sock=$SSH_AUTH_SOCK; stat -c 'is %a %u %g %F' $SSH_AUTH_SOCK\n\
         RUN --mount=type=ssh,id=work,target=/a/s,mode=0640,uid=7,gid=8 echo sock=$SSH_AUTH_SOCK; stat -c 'is %a %u %g %F' /a/s\n\
         RUN [ ! -e /a/s ] && [ ! -e /run/buildkit/ssh_agent.0 ] && echo no=$SSH_AUTH_SOCK\n",
    ) else {
        return;
    };
    let socket = agent(world.path("agent.sock"));
    let work = format!("--ssh=work={}", socket.display());
    world
        .build(&bases, &["--ssh", "default", &work], &[("SSH_AUTH_SOCK", &socket)])
        .ok()
        .says("sock=/run/buildkit/ssh_agent.0")
        .says("is 600 0 0 socket")
        .says("sock=/a/s")
        .says("is 640 7 8 socket")
        .says(" no=\n");
}

#[test]
fn an_agent_that_is_not_there() {
    let Some((world, bases)) = given("FROM busybox\nRUN --mount=type=ssh echo sock=$SSH_AUTH_SOCK\n") else { return };
    world.build(&bases, &[], &[]).ok().says("sock=/run/buildkit/ssh_agent.0");
    world.dockerfile("FROM busybox\nRUN --mount=type=ssh,required true\n");
    world.build(&bases, &[], &[]).fails(1).says("--ssh default").points_at("RUN");
    world.build(&bases, &["--ssh=default"], &[]).fails(2).says("SSH_AUTH_SOCK");
    world.build(&bases, &["--ssh=default=/no/agent"], &[]).fails(4).says("/no/agent").points_at("RUN");
    world.file("key", "-----BEGIN OPENSSH PRIVATE KEY-----\n");
    world.build(&bases, &["--ssh=default=key"], &[]).fails(2).says("there is no private key in it");
    world.build(&bases, &["--ssh=default=key,nowhere"], &[]).fails(2).says("key");
    world.build(&bases, &["--ssh=default=nowhere,key"], &[]).fails(4).says("nowhere");
    world.file("key", vec![b'x'; (100 << 10) + 1]);
    world.build(&bases, &["--ssh=default=key"], &[]).fails(2).says("100 KiB");
}

/// Puts OpenSSH's own programs and what they load into the context, as `openssh`; `false`, and a line that says why, where
/// there are none.
fn openssh(world: &World) -> bool {
    // Run by their own loader, so that nothing must lie where the image may have links.
    let script = r#"mkdir -p openssh/ssh/bin openssh/etc && echo root:x:0:0::/:/bin/sh > openssh/etc/passwd
        for name in ssh-add ssh-keygen; do
            program=$(command -v $name) || exit 1
            cp -L $program $(ldd $program | grep -o '/[^ ]*') openssh/ssh/ || exit 2
            printf '#!/bin/sh\nexec /ssh/ld-*.so* --library-path /ssh /ssh/%s "$@"\n' $name > openssh/ssh/bin/$name
            chmod 755 openssh/ssh/bin/$name
        done"#;
    let copied = Command::new("sh").args(["-c", script]).current_dir(world.path("context")).output().unwrap();
    if copied.status.code() == Some(1) {
        println!("skipped: ssh-keygen is not installed (apt-get install openssh-client)");
    }
    copied.status.success()
}

fn key(world: &World, name: &str, args: &[&str]) -> PathBuf {
    let path = world.path(name);
    let made =
        Command::new("ssh-keygen").args(["-q", "-C", &format!("{name}@test"), "-f"]).arg(&path).args(args).output();
    assert!(made.as_ref().unwrap().status.success(), "{made:?}");
    path
}

/// Lists the keys of the agent, tries to take them away, signs with the first and has that verified.
const USE_AGENT: &str = "FROM busybox AS base\nCOPY openssh /\nENV PATH=/ssh/bin:/bin:/usr/bin\nFROM base\n\
    RUN --mount=type=ssh ssh-add -l; ssh-add -L | head -n 1 > /k.pub; echo text > /t; ! ssh-add -D && ! ssh-add -d /k.pub && \
    ssh-keygen -q -Y sign -n t -f /k.pub /t && (printf 'me ' && cat /k.pub) > /s && \
    ssh-keygen -Y verify -n t -f /s -I me -s /t.sig < /t && ssh-add -L | wc -l | sed s/^/keys=/\n";

#[test]
fn key_files_sign_inside_a_run() {
    let Some((world, bases)) = given(USE_AGENT) else { return };
    if !openssh(&world) {
        return;
    }
    let (one, two) = (key(&world, "one", &["-t", "ed25519", "-N", ""]), key(&world, "two", &["-t", "rsa", "-N", ""]));
    let flag = format!("--ssh=default={},{}", one.display(), two.display());
    let run = world.build(&bases, &[&flag], &[]).ok().says("one@test").says("two@test").says("keys=2");
    run.says("Good \"t\" signature for me").doesnt_say("PRIVATE KEY");
    let secret = std::fs::read_to_string(one).unwrap();
    world.is_nowhere(secret.lines().nth(2).unwrap());
    key(&world, "locked", &["-t", "ed25519", "-N", "passphrase"]);
    let run = world.build(&bases, &["--no-cache", "--ssh=default=locked"], &[]).fails(2);
    run.says("encrypted with a passphrase").says("ssh-add");
}

#[test]
fn a_real_agent_signs_inside_a_run() {
    let Some((world, bases)) = given(USE_AGENT) else { return };
    if !openssh(&world) {
        return;
    }
    let (key, socket) = (key(&world, "one", &["-t", "ed25519", "-N", ""]), world.path("agent.sock"));
    let agent = Command::new("ssh-agent").args(["-D", "-a"]).arg(&socket).stdout(Stdio::null()).spawn().unwrap();
    let _agent = Killed(agent);
    let add = || Command::new("ssh-add").arg("-q").arg(&key).env("SSH_AUTH_SOCK", &socket).output().unwrap();
    while !add().status.success() {
        std::thread::yield_now();
    }
    let run = world.build(&bases, &["--ssh=default"], &[("SSH_AUTH_SOCK", &socket)]).ok();
    run.says("one@test").says("Good \"t\" signature for me").says("keys=1");
}

/// A process that doesn't outlive its test.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_secret_is_given_and_never_shown() {
    let Some((world, bases)) = given(
        "FROM busybox\n\
         RUN --mount=type=secret,id=token --mount=type=secret,id=key,env=KEY \
         cat /run/secrets/token; echo \"[$KEY]\"; printf hunt; sleep 0.2; printf er2-; sleep 0.2; echo xyz; \
         cat /run/secrets/token >&2; wc -c < /run/secrets/token; echo the end; exit $CODE\n",
    ) else {
        return;
    };
    let (token, key) = ("hunter2-xyz", "line one of it\nline two of it");
    world.file("token", token).file("key", key);
    let flags = ["--secret=id=token,src=token", "--secret=id=key,src=key"];
    let run = world.build(&bases, &flags, &[]).ok().says("***").says("[***").says("***]").says(" 11\n").says("the end");
    let shown = format!("{}{}", run.stdout, run.stderr);
    for hidden in [token, "hunter2", "-xyz", "line one", "line two"] {
        assert!(!shown.contains(hidden), "{hidden} is shown:\n{shown}");
    }
    for hidden in [token, "line one of it"] {
        world.is_nowhere(hidden);
    }
    world.file("token", vec![b'x'; 512_001]);
    world.build(&bases, &flags, &[]).fails(2).says("500 KiB");
}

#[test]
fn a_process_that_wants_too_much_memory() {
    let Some((world, bases)) = given("FROM busybox\nRUN x=y; while :; do x=$x$x; done\n") else { return };
    let run = world.build(&bases, &["-m", "32m"], &[]);
    if run.stderr.contains("can't limit memory") {
        println!("skipped: {}", run.stderr);
        return;
    }
    run.fails(1).says("it ran out of memory").says("--memory").points_at("RUN");
}
