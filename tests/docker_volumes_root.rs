//! Volumes in containers of Docker's, where users have them: the image is the one that level root gives, and afterwards the volume's own
//! files are what they were. With root, Debian's docker.io, busybox-static and ca-certificates.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker.rs"]
mod docker;
#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/user.rs"]
mod user;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use docker::{Docker, Users, WORKSPACE};
use std::fs::{self, Metadata};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Output;
use std::sync::Arc;
use user::{BASE, run, text};
use world::World;

/// Gives the same image each time.
const BUILD: [&str; 4] = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000"];

struct Site {
    world: World,
    docker: Arc<Docker>,
}

impl Site {
    /// `None`, and a line that says why, where there cannot be one.
    fn new() -> Option<Self> {
        let docker = Docker::with_image(Users::Host)?;
        let world = World::new();
        fs::copy("/bin/busybox", world.path("context/busybox")).unwrap();
        world.file("context/secret", "hidden").file("links/real/f", "linked");
        for folder in ["tmp", "run", "var", "home"] {
            fs::create_dir(world.path(&format!("links/{folder}"))).unwrap();
            fs::hard_link(world.path("links/real/f"), world.path(&format!("links/{folder}/linked"))).unwrap();
        }
        let [archive, folder] = ["context/links.tar", "links"].map(|name| world.path(name).display().to_string());
        run("tar", &["-C", &folder, "-cf", &archive, "."]);
        Some(Self { world, docker })
    }

    /// The flag that mounts a directory of the world in a container.
    fn volume(&self, name: &str, at: &str) -> String {
        format!("-v={}:{at}", self.world.path(name).display())
    }

    /// A directory with files of somebody else's, some of whose names are those of the Dockerfiles below.
    fn filled(&self, name: &str) {
        let path = |file: &str| self.world.path(&format!("{name}/{file}"));
        for (file, text, mode, owner) in
            [("own", "own", 0o600, 7), ("f", "not the image's", 0o644, 0), ("sub/deep/own", "own", 0o4755, 1000)]
        {
            fs::create_dir_all(path(file).parent().unwrap()).unwrap();
            fs::write(path(file), text).unwrap();
            chown(path(file), Some(owner), Some(owner)).unwrap();
            fs::set_permissions(path(file), fs::Permissions::from_mode(mode)).unwrap();
        }
        symlink("/nowhere", path("link")).unwrap();
        chown(path(""), Some(3), Some(4)).unwrap();
        fs::set_permissions(path(""), fs::Permissions::from_mode(0o1775)).unwrap();
    }

    /// kiln's build of the context with this Dockerfile in a new container.
    fn build(&self, flags: &[&str], dockerfile: &str) -> Output {
        self.world.dockerfile(dockerfile);
        let context = self.volume("context", &format!("{WORKSPACE}:ro"));
        let flags = [flags, &[&context]].concat();
        self.docker.kiln(&flags, &[&BUILD[..], &["--secret", "id=s,src=secret", "."]].concat())
    }

    /// The digest that level root gives the same Dockerfile.
    fn root(&self) -> String {
        let args = [&BUILD[..], &["--secret", "id=s,src=context/secret", "context"]].concat();
        self.world.kiln(args).ok().stdout
    }

    /// What is wrong with the image of a build in a container with these flags, in which the directory `name` of the world is mounted.
    fn fault(&self, flags: &[&str], name: &str, dockerfile: &str) -> Option<String> {
        let before = listing(&self.world.path(name));
        let there = self.build(flags, dockerfile);
        let after = listing(&self.world.path(name));
        let root = self.root();
        let what = if !there.status.success() {
            format!("{:?}: {}", there.status, text(&there))
        } else if String::from_utf8_lossy(&there.stdout) != root {
            format!("another image: {} as root {root}", text(&there))
        } else if before != after {
            format!("the volume was\n{before}and is\n{after}")
        } else {
            return None;
        };
        Some(format!("{flags:?}: {what}"))
    }
}

/// All that a volume's owner may care for, one file a line.
fn listing(path: &Path) -> String {
    let Ok(data) = fs::symlink_metadata(path) else { return String::new() };
    let owner = |data: &Metadata| format!("{:o} {} {}", data.mode(), data.uid(), data.gid());
    // The time of the directory itself changes when something is put there.
    let mut lines = format!("{} {}\n", path.display(), owner(&data));
    let mut folders = vec![path.to_owned()];
    while let Some(folder) = folders.pop() {
        let mut entries: Vec<_> =
            fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect();
        entries.sort();
        for path in entries {
            let data = fs::symlink_metadata(&path).unwrap();
            let content = if data.is_file() { fs::read_to_string(&path).unwrap() } else { String::new() };
            lines += &format!("{} {} {}.{} {content}\n", path.display(), owner(&data), data.mtime(), data.mtime_nsec());
            if data.is_dir() {
                folders.push(path);
            }
        }
    }
    lines
}

#[track_caller]
fn none(faults: &[String]) {
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

/// Everything that a step can do in a directory, in an image that has it and in one that has not. A further stage does nothing there, and
/// one has a file there that is also a file elsewhere.
fn all_in(directory: &str) -> String {
    format!(
        "{BASE}FROM base AS used
COPY busybox ~/given
RUN mkdir -p ~/sub/deep && chmod 1770 ~ && chown 0:33 ~ && echo 1 > ~/f && echo 2 > ~/sub/deep/g && chown -R 5:6 ~/sub && \\
    ln -s f ~/l && echo h > ~/sub/h && ln ~/sub/h ~/sub/hard && mkfifo -m 640 ~/p && chmod 2750 ~/sub && test ! -e ~/own && test -s ~/given
RUN echo more >> ~/f && rm ~/l ~/sub/h && mv ~/sub ~/moved && mv ~/p /p && mv ~/given /given && stat -c '%n %a %u %g %F' ~ ~/* /p > /list
COPY busybox ~/copied
COPY --chown=3:4 --chmod=600 busybox ~/sub/copied
USER me
RUN ! rm ~/copied 2>/dev/null
USER root
WORKDIR ~/work
RUN pwd > here && rm ~/moved/hard && mkdir ~/new && touch -d @1000 ~/new && cp -a ~/moved /copy && mv ~/moved /away && mv /away ~/back
FROM base AS unused
RUN mkdir /beside && echo a > /beside/f
RUN rm /beside/f && touch /etc/unused
FROM base AS new
RUN mkdir -p ~/new/deep && echo a > ~/new/deep/f
RUN rm -r ~/new/deep
FROM base AS linked
ADD links.tar /
RUN touch /etc/linked
RUN mv /etc/linked /linked
FROM used
RUN --mount=type=bind,from=unused,target=/m --mount=type=tmpfs,target=~/t touch ~/t/x && test -e /m/etc/unused && echo ok > ~/ok
COPY --from=unused / /unused
COPY --from=new / /new
COPY --from=linked / /linked
"
    )
    .replace('~', directory)
}

/// Programs of the image that lie in a directory are executed.
fn programs_in(directory: &str) -> String {
    let steps = "COPY --chmod=755 busybox ~/copied/busybox
RUN mkdir ~/made && cp ~/copied/busybox ~/made/ && chown 5:6 ~/made/busybox
RUN ~/made/busybox true && ~/copied/busybox id > /id\n";
    format!("{BASE}{}", steps.replace('~', directory))
}

/// The directories that jobs mount something on.
const USUAL: [&str; 4] = ["/tmp", "/run", "/var", "/home"];

#[test]
fn a_tmpfs_on_a_usual_directory() {
    let Some(site) = Site::new() else { return };
    let faults = USUAL.map(|at| site.fault(&["--tmpfs", at], "none", &all_in(at)));
    none(&faults.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn a_directory_with_files_on_a_usual_directory() {
    let Some(site) = Site::new() else { return };
    site.filled("volume");
    let build = |at: &&str| {
        let volume = site.volume("volume", at);
        [all_in(at), programs_in(at)].iter().find_map(|dockerfile| site.fault(&[&volume], "volume", dockerfile))
    };
    none(&USUAL.iter().filter_map(build).collect::<Vec<_>>());
}

/// Each directory at once, as with the volumes of a pod, and all in a second build once more.
#[test]
fn volumes_on_all_usual_directories_at_once() {
    let Some(site) = Site::new() else { return };
    site.filled("volumes/var");
    site.filled("volumes/home");
    let volumes = [site.volume("volumes/var", "/var"), site.volume("volumes/home", "/home")];
    let flags = ["--tmpfs=/tmp", "--tmpfs=/run", &volumes[0], &volumes[1]];
    let all: String =
        USUAL.iter().map(|at| format!("RUN mkdir -p {at}/d && echo {at} > {at}/d/f && mv {at}/d {at}/e\n")).collect();
    let moves = "RUN mv /tmp/e /var/tmp && mv /var/e /run/var && mv /run/e /home/run && mv /home/e /tmp/home && ln -s /var/tmp /home/link\n";
    let dockerfile = format!("{BASE}FROM base\n{all}{moves}RUN rm -r /run/var && cat /var/tmp/f /home/link/f > /out\n");
    let faults = [(), ()].map(|()| site.fault(&flags, "volumes", &dockerfile));
    none(&faults.into_iter().flatten().collect::<Vec<_>>());
}

#[test]
fn a_failed_step_and_a_killed_one_leave_a_volume_as_it_was() {
    let Some(site) = Site::new() else { return };
    site.filled("volume");
    let before = listing(&site.world.path("volume"));
    let step =
        "mkdir -p /var && touch /var/f /var/sub; rm -rf /var/own; mkdir -p /var/new/deep; chmod 700 /var; chown 9 /var";
    let build = |rest: &str| site.build(&[&site.volume("volume", "/var")], &format!("{BASE}RUN {step}; {rest}\n"));
    for rest in ["exit 7", "kill -9 $$"] {
        let failed = build(rest);
        assert_eq!(failed.status.code(), Some(1), "{}", text(&failed));
        assert_eq!(listing(&site.world.path("volume")), before, "{rest}");
    }
}

#[test]
fn the_store_on_a_volume_serves_the_next_container() {
    let Some(site) = Site::new() else { return };
    site.world.dockerfile(&format!(
        "{BASE}RUN mkdir /d && echo 1 > /d/f\nFROM base\nCOPY --from=0 /d /e\nRUN chown 5:6 /e/f && echo 2 > /tmp/f\n"
    ));
    let context = site.volume("context", &format!("{WORKSPACE}:ro"));
    fs::create_dir(site.world.path("disk")).unwrap();
    let root = site.root();
    let faults: Vec<String> = [
        ("/store", "-v=kiln-store:/store"),
        ("/kiln/store", "-v=kiln-own:/kiln/store"),
        ("/cache/kiln", &*site.volume("disk", "/cache")),
    ]
    .into_iter()
    .filter_map(|(store, volume)| {
        let variable = format!("KILN_ROOT={store}");
        let flags = [volume, "-e", &variable, &context];
        let build = ["build", "--progress", "plain", "--build-arg", BUILD[3], "-t", "x", "."];
        let script = format!("kiln {} || exit 1; kiln {} .", build.join(" "), BUILD.join(" "));
        let [first, second] = [(), ()].map(|()| site.docker.shell(&flags, &script));
        let said = text(&second);
        let cached = said.lines().filter(|line| line.ends_with("CACHED")).count();
        let same =
            [&first, &second].iter().all(|output| output.status.success() && output.stdout.ends_with(root.as_bytes()));
        (!same || cached < 4).then(|| format!("{volume}: {cached} steps CACHED\n{}\n{said}", text(&first)))
    })
    .collect();
    none(&faults);
}

/// Where it cannot work, the message names the directory and the exit code is 4.
#[track_caller]
fn works_or_says_what_to_change(
    site: &Site,
    flags: &[&str],
    name: &str,
    dockerfile: &str,
    parts: &[&str],
) -> Option<String> {
    let fault = site.fault(flags, name, dockerfile)?;
    let before = listing(&site.world.path(name));
    let there = site.build(flags, dockerfile);
    let refused = there.status.code() == Some(4) && parts.iter().all(|part| text(&there).to_lowercase().contains(part));
    (!refused || listing(&site.world.path(name)) != before).then_some(fault)
}

#[test]
fn a_volume_elsewhere_works_or_is_named() {
    let Some(site) = Site::new() else { return };
    site.filled("volume");
    let faults = ["/etc/x", "/usr/lib/x/y", "/data", "/root/.cache"].into_iter().filter_map(|at| {
        let volume = site.volume("volume", at);
        let parent = Path::new(at).parent().unwrap().display();
        let around = format!("RUN mkdir -p {parent}; mkdir -p {at}2 && echo a > {at}2/f && rm -f /etc/passwd\n");
        [format!("{BASE}{around}"), all_in(at)]
            .into_iter()
            .find_map(|dockerfile| works_or_says_what_to_change(&site, &[&volume], "volume", &dockerfile, &[at]))
    });
    none(&faults.collect::<Vec<_>>());
}

#[test]
fn a_file_that_is_mounted_works_or_is_named() {
    let Some(site) = Site::new() else { return };
    site.world.file("volume/ca.crt", "certificates");
    for at in ["/etc/ssl/certs/ca-certificates.crt", "/root/.docker/config.json"] {
        let volume = format!("-v={}:{at}:ro", site.world.path("volume/ca.crt").display());
        let parent = Path::new(at).parent().unwrap().display();
        let dockerfile =
            format!("{BASE}RUN mkdir -p {parent} && touch {parent}/beside\nRUN rm {parent}/beside && touch /etc/x\n");
        none(
            &works_or_says_what_to_change(&site, &[&volume], "volume", &dockerfile, &[at])
                .into_iter()
                .collect::<Vec<_>>(),
        );
    }
}

#[test]
fn a_read_only_root_works_or_is_named() {
    let Some(site) = Site::new() else { return };
    let volumes = ["-v=kiln-read-only:/kiln/store", "--tmpfs=/tmp", "--tmpfs=/run", "--tmpfs=/var"];
    let dockerfile = format!("{BASE}RUN echo a > /tmp/f && mkdir -p /var/d /new\n");
    let read_only = |volumes: &[&'static str]| [&["--read-only"], volumes].concat();
    let some = [&volumes[..], &volumes[..1]];
    let faults = some.into_iter().filter_map(|volumes| {
        works_or_says_what_to_change(&site, &read_only(volumes), "none", &dockerfile, &["read-only"])
    });
    none(&faults.collect::<Vec<_>>());
    // A build that runs no process needs nothing but the store.
    let copies =
        "FROM scratch AS made\nCOPY --chown=5:6 busybox /d/b\nFROM scratch\nCOPY --from=made /d /e\nWORKDIR /w\n";
    none(&site.fault(&read_only(&volumes[..1]), "none", copies).into_iter().collect::<Vec<_>>());
}

#[test]
fn secrets_and_caches_in_directories_that_are_volumes() {
    let Some(site) = Site::new() else { return };
    site.filled("volume");
    let secret = "RUN --mount=type=secret,id=s,mode=0440,uid=7,gid=1000 --mount=type=secret,id=s,target=/run/deep/er/s \\
        test \"$(cat /run/secrets/s)\" = hidden && test \"$(cat /run/deep/er/s)\" = hidden && stat -c '%a %u %g' /run/secrets/s > /seen
        RUN test ! -e /run/secrets/s && test ! -e /run/deep/er/s\n";
    let cache = "FROM base AS filled\nRUN mkdir /d && echo a > /d/a\nFROM base
        RUN --mount=type=cache,target=/var/cache/x,uid=1000,mode=700 stat -c '%a %u' /var/cache/x > /seen && echo kept > /var/cache/x/f && mkdir -p /var/lib/made
        RUN --mount=type=cache,target=/var/cache/x,uid=1000,mode=700 --mount=type=cache,from=filled,source=/d,target=/var/y cat /var/cache/x/f /var/y/a > /kept
        RUN test ! -e /var/cache/x/f && test ! -e /var/y/a && touch /var/lib/made/f\n";
    let (run, var) = (site.volume("volume", "/run"), site.volume("volume", "/var"));
    let containers = [("--tmpfs=/run", secret), (run.as_str(), secret), ("--tmpfs=/var", cache), (var.as_str(), cache)];
    let faults =
        containers.into_iter().filter_map(|(flag, steps)| site.fault(&[flag], "volume", &format!("{BASE}{steps}")));
    none(&faults.collect::<Vec<_>>());
}
