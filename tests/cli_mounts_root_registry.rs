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
fn a_secret_counts_for_no_key_and_is_missed_only_where_it_is_required() {
    let text = "FROM busybox\nRUN --mount=type=secret,id=t,target=/a/t,mode=0440,uid=7,gid=8 \
        stat -c 'is %a %u %g' /a/t; wc -c < /a/t; ulimit -c; echo done\n";
    let Some((world, bases)) = given(text) else { return };
    world.file("t", "first");
    let run = world.build(&bases, &["--secret=id=t,src=t"], &[]).ok();
    run.says("is 440 7 8\n").says(" 5\n").says(" 0\n").says("done");
    world.build(&bases, &["--secret=id=t,env=T"], &[("T", Path::new("another"))]).ok().says("CACHED");
    // Nothing of the mount is left in the layer but the folders that it stood in, as with BuildKit.
    world.dockerfile(&format!("{text}RUN [ ! -e /a/t ] && echo gone\n"));
    world.build(&bases, &["--no-cache", "--secret=id=t,src=t"], &[]).ok().says("gone");
    world.build(&bases, &["--no-cache"], &[]).ok().says("can't open /a/t").says("done");
    world.dockerfile("FROM busybox\nRUN --mount=type=secret,id=t,required true\n");
    world.build(&bases, &[], &[]).fails(1).says("secret t: not found").says("--secret id=t").points_at("RUN");
}

#[test]
fn a_secret_of_a_base_images_trigger_is_told_and_can_be_refused() {
    let trigger = "FROM busybox\nONBUILD RUN --mount=type=secret,id=token wc -c < /run/secrets/token\n";
    let Some((world, bases)) = given(trigger) else { return };
    world.file("token", "hunter2");
    world.build(&bases, &["-t", "hostile:1"], &[]).ok().doesnt_say("warning");
    world.dockerfile("FROM hostile:1\nRUN --mount=type=secret,id=own cat /run/secrets/own\n").file("own", "mine");
    let own = "--secret=id=own,src=own,onbuild=false";
    let run = world.build(&bases, &["--secret=id=token,src=token", own], &[]).ok();
    run.says("base image hostile:1 is given the secret \"token\"").says("--secret id=token,onbuild=false").says(" 7\n");
    let run = world.build(&bases, &["--no-cache", "--secret=id=token,src=token,onbuild=false", own], &[]).fails(2);
    run.says("hostile:1 mounts the secret \"token\"").says("onbuild=false").points_at("FROM").doesnt_say(" 7\n");
    // As with BuildKit, a trigger of the file itself is its author's business.
    world.dockerfile(&format!("{}FROM base\n", trigger.replacen("busybox", "busybox AS base", 1)));
    let run = world.build(&bases, &["--no-cache", "--secret=id=token,src=token,onbuild=false"], &[]).ok();
    run.says(" 7\n").doesnt_say("base image");
}

#[test]
fn files_of_every_source_are_bound_and_writes_are_discarded() {
    let text = "FROM busybox AS made\nRUN mkdir /d && echo stage > /d/f\nFROM busybox\n\
        RUN --mount=target=/context --mount=source=sub,target=/sub,rw --mount=from=made,source=/d,target=rel \
            --mount=from=made,source=/d/f,target=/file,rw --mount=from=alpine:3,source=/etc,target=/image \
            --mount=from=named,target=/named --mount=from=scratch,target=/nothing \
            set -e; cat /context/sub/f /sub/f /rel/f /file /named/n; ls /nothing; grep -o -m1 Alpine /image/os-release; \
            echo new > /sub/f; echo more > /sub/g; echo new >> /file; cat /sub/f; \
            for f in /context /rel /image /named /nothing; do touch $f/x 2>/dev/null && echo \"$f can be written\"; done; echo end\n\
        RUN --mount=source=sub,target=/sub,rw --mount=from=made,source=/d,target=/d cat /sub/* /d/f; \
            ls -d /context /sub /rel /file /image /named /nothing 2>/dev/null; echo end\n";
    let Some((world, bases)) = given(text) else { return };
    world.file("context/sub/f", "context\n").file("other/n", "named\n");
    let run = world.build(&bases, &["--build-context=named=other"], &[]).ok();
    let first = "context\ncontext\nstage\nstage\nnamed\nAlpine\nnew\nend\n";
    assert_eq!(wrote(&run), format!("{first}context\nstage\n/sub\nend\n"));
    // What is in the context is as it was.
    assert_eq!(std::fs::read_to_string(world.path("context/sub/f")).unwrap(), "context\n");
    assert!(!world.path("context/sub/g").exists());
    world.dockerfile("FROM busybox\nRUN --mount=source=none,target=/x true\n");
    world.build(&bases, &[], &[]).fails(1).says("none").points_at("RUN");
}

/// What the steps of a build wrote: the lines behind a step's number and its time.
fn wrote(run: &Run) -> String {
    let text = |line: &str| {
        let mut parts = line.splitn(3, ' ');
        let is_output = parts.next()?.starts_with('#') && parts.next()?.parse::<f64>().is_ok();
        is_output.then(|| format!("{}\n", parts.next().unwrap_or_default()))
    };
    run.stderr.lines().filter_map(text).collect()
}

#[test]
fn caches_by_id_owner_seed_and_namespace() {
    let Some((world, bases)) = given("") else { return };
    world.file("context/seed/s", "seed\n");
    // The mount, what the build is given, and what it must find; each run adds a line.
    for (mount, flags, found) in [
        ("target=/c", &[][..], ""),
        ("target=/c", &[], "1 "),
        ("id=/c,target=/other", &[], "1 2 "),
        ("target=/w/../c", &[], "1 2 3 "),
        ("id=$ID,target=$AT", &["--build-arg=ID=/c", "--build-arg=AT=/arg"], "1 2 3 4 "),
        ("target=c", &[], ""),
        ("target=/c,uid=7,gid=8,mode=0750", &[], ""),
        ("target=/c,source=/seed,from=seed", &[], "seed "),
        ("target=/c,source=/seed,from=seed", &[], "1 seed "),
        ("target=/c", &["--build-arg=BUILDKIT_CACHE_MOUNT_NS=mine"], ""),
        ("target=/c", &["--build-arg=BUILDKIT_CACHE_MOUNT_NS=mine"], "1 "),
        ("target=/c,readonly", &[], "1 2 3 4 5 "),
    ] {
        let at = match mount {
            _ if mount.starts_with("id=/c") => "/other",
            _ if mount.starts_with("id=$") => "$AT",
            _ if mount.starts_with("target=c") => "/w/c",
            _ => "/c",
        };
        world.dockerfile(&format!(
            "FROM scratch AS seed\nCOPY seed /seed\nFROM busybox\nARG ID AT\nWORKDIR /w\n\
             RUN --mount=type=cache,{mount} echo \"found [$(cat {at}/* 2>/dev/null | tr '\\n' ' ')] \
             $(stat -c '%a %u %g' {at})\"; n=$(cat {at}/n 2>/dev/null | wc -l); echo $((n + 1)) >> {at}/n || echo refused\n"
        ));
        let run = world.build(&bases, &[&["--no-cache"], flags].concat(), &[]).ok();
        let owner = if mount.contains("uid") { "750 7 8" } else { "755 0 0" };
        let run = run.says(&format!("found [{found}] {owner}"));
        assert_eq!(wrote(&run).contains("refused"), mount.contains("readonly"), "{}", run.stderr);
    }
}

#[test]
fn sharing_says_who_may_use_a_cache_at_the_same_time() {
    let Some((world, bases)) = given("") else { return };
    // Each of two steps waits until the other has come, or finds that nobody comes while it has the cache.
    for (sharing, together) in [("shared", true), ("locked", false), ("private", false)] {
        let step = |name: &str, other: &str| {
            format!(
                "FROM busybox AS {name}\nRUN --mount=type=cache,id={sharing},sharing={sharing},target=/c touch /c/{name}; \
                 n=0; while [ ! -e /c/{other} ] && [ $n -lt {tries} ]; do n=$((n+1)); sleep 0.05; done; \
                 if [ -e /c/{other} ]; then echo together > /r; else echo alone > /r; fi; rm /c/{name}; cat /r\n",
                tries = if together { 600 } else { 10 },
            )
        };
        let (a, b) = (step("a", "b"), step("b", "a"));
        // Whoever shares removes nothing before the other has seen it.
        let text = if together { format!("{a}{b}").replace("; rm /c/a", "").replace("; rm /c/b", "") } else { a + &b };
        world.dockerfile(&format!("{text}FROM busybox\nCOPY --from=a /r /a\nCOPY --from=b /r /b\n"));
        let run = world.build(&bases, &["--jobs=2"], &[]).ok();
        let said = if together { "together\ntogether\n" } else { "alone\nalone\n" };
        assert_eq!(wrote(&run), said, "{sharing}");
    }
}

#[test]
fn memory_as_a_folder_with_a_size() {
    let text = "FROM busybox\nRUN mkdir -m 1777 /there && touch /there/hidden\n\
        RUN --mount=type=tmpfs,target=/t,size=1m --mount=type=tmpfs,target=/there stat -fc '%T %b*%S' /t; ls /there; \
            head -c 900k /dev/zero > /t/a && echo fits; head -c 900k /dev/zero > /t/b 2>/dev/null || echo full; touch /there/x\n\
        RUN ls /there; [ ! -e /t/a ] && echo gone\n";
    let Some((world, bases)) = given(text) else { return };
    assert_eq!(wrote(&world.build(&bases, &[], &[]).ok()), "tmpfs 256*4096\nfits\nfull\nhidden\ngone\n");
}

#[test]
fn limits_and_networks_of_the_command_line() {
    let text = "FROM busybox\nRUN --network=none ls /sys/class/net | tr '\\n' ' '; echo; df -k /dev/shm | tail -1 | tr -s ' '; \
        ulimit -n; ulimit -Hn; grep db /etc/hosts; cat /proc/sys/kernel/hostname\nRUN ping -c1 -w1 db; [ -e /sys/class/net/lo ]\n";
    let Some((world, bases)) = given(text) else { return };
    let flags = ["--shm-size=3m", "--ulimit=nofile=100:200", "--add-host=db:127.0.0.9", "--add-host=six=[fd00::1]"];
    let run = world.build(&bases, &flags, &[]).ok();
    run.says(" lo \n").says(" 3072 0 3072").says(" 100\n").says(" 200\n").says("127.0.0.9\tdb").says("127.0.0.9");
    // No network but for those steps that say otherwise themselves.
    world.dockerfile(
        "FROM busybox\nRUN ls /sys/class/net | tr '\\n' ' '; echo .\nRUN --network=default [ -e /sys/class/net/lo ]\n",
    );
    world.build(&bases, &["--network=none"], &[]).ok().says(" lo .\n");
    world.dockerfile("FROM busybox\nRUN --network=host true\n");
    world.build(&bases, &[], &[]).fails(2).says("network.host");
    world.build(&bases, &["--allow=network.host"], &[]).ok();
}

#[test]
fn processors_and_memory_by_control_groups() {
    let text = "FROM busybox\nRUN cd /sys/fs/cgroup; for f in memory.max memory/memory.limit_in_bytes cpu.max cpu/cpu.cfs_quota_us \
        cpu,cpuacct/cpu.cfs_quota_us cpu/cpu.shares cpu,cpuacct/cpu.shares cpu.weight; do [ -e $f ] && echo $f $(cat $f); done; :\n";
    let Some((world, bases)) = given(text) else { return };
    let run = world.build(&bases, &["--memory=64m", "--cpus=1.5", "--cpu-shares=512"], &[]);
    if run.stderr.contains("can't limit") {
        // A plain message that says which call failed, where neither version can be used.
        println!("skipped: {}", run.fails(4).points_at("RUN").stderr);
        return;
    }
    let run = run.ok();
    for any in [
        ["memory.max 67108864", "memory.limit_in_bytes 67108864"],
        ["cpu.max 150000 100000", "cpu.cfs_quota_us 150000"],
        ["cpu.weight 20", "cpu.shares 512"],
    ] {
        assert!(any.iter().any(|text| run.stderr.contains(text)), "{any:?} is missing: {}", run.stderr);
    }
    // Limits are no part of what a step is.
    world.build(&bases, &["--memory=65m"], &[]).ok().says("CACHED");
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

/// A control group with a limit of memory, removed when dropped.
struct Group(PathBuf);

impl Group {
    /// `None` where this test may make none.
    fn with_memory(bytes: u64) -> Option<Self> {
        let own = std::fs::read_to_string("/proc/self/cgroup").unwrap();
        let path = |line: &str| line.splitn(3, ':').nth(2).unwrap().trim_start_matches('/').to_owned();
        let first =
            own.lines().find(|l| l.contains(":memory:")).map(|l| Path::new("/sys/fs/cgroup/memory").join(path(l)));
        let unified = || own.lines().find(|l| l.starts_with("0::")).map(|l| Path::new("/sys/fs/cgroup").join(path(l)));
        let (parent, file) = match first {
            Some(parent) => (parent, "memory.limit_in_bytes"),
            None => (unified()?, "memory.max"),
        };
        let group = Self(parent.join(format!("outer-{}", std::process::id())));
        std::fs::create_dir(&group.0).ok()?;
        std::fs::write(group.0.join(file), bytes.to_string()).ok()?;
        Some(group)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

#[test]
fn a_process_that_wants_more_memory_than_the_container_has() {
    let Some((world, bases)) = given("FROM busybox\nRUN x=y; while :; do x=$x$x; done\n") else { return };
    let Some(group) = Group::with_memory(200 << 20) else {
        println!("skipped: this test can make no control group with the memory controller");
        return;
    };
    let join = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", group.0.display());
    let kiln = world.command(["build", "--progress=plain", &bases.mirror(), "context"]);
    let mut command = std::process::Command::new("sh");
    command.args(["-c", &join, "-"]).arg(kiln.get_program()).args(kiln.get_args()).current_dir(world.path("."));
    command.env_clear().envs(kiln.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let run = Run::of(command.spawn().unwrap());
    run.fails(1).says("it ran out of memory").says("the container that kiln runs in").points_at("RUN");
}
