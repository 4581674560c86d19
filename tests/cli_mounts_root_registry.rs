//! What the mounts of RUN get of the host, and what of it is seen. With root, docker-registry and busybox.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
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
    world.build(&bases, &["--ssh=default=key"], &[]).fails(2).says("ssh-add");
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
