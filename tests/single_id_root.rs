//! The level `rootless` for a user without ranges of numbers: owners, devices and users are recorded, and the images are those
//! of root. With root, to make such a user and to compare; Debian's busybox-static and libarchive-tools, and the Debian base of scripts/make-bases.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Stdio};
use world::{KILN, Run, World};

/// A number that has no user, and so no ranges.
const NOBODYS: u32 = 54321;

/// A world with a folder for the user, whom everything else in it is closed to.
struct Place {
    world: World,
}

impl Place {
    /// `None`, and a line that says why, where there can't be one.
    fn new() -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: it needs root, to become another user");
            return None;
        }
        let needs = ["/bin/busybox", "/usr/bin/setpriv", "/usr/sbin/setcap"];
        if let Some(file) = needs.into_iter().find(|file| !Path::new(file).exists()) {
            println!("skipped: {file} is missing (packages busybox-static, util-linux, libcap2-bin)");
            return None;
        }
        let world = World::new();
        for folder in ["users", "bin"] {
            fs::create_dir(world.path(folder)).unwrap();
        }
        fs::copy(KILN, world.path("bin/kiln")).unwrap();
        fs::copy("/bin/busybox", world.path("context/busybox")).unwrap();
        fs::set_permissions(world.path(""), fs::Permissions::from_mode(0o755)).unwrap();
        chown(world.path("users"), Some(NOBODYS), Some(NOBODYS)).unwrap();
        Some(Self { world })
    }

    /// The binary as the user.
    fn as_user(&self, args: &[&str]) -> Run {
        let id = NOBODYS.to_string();
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", &id, "--regid", &id, "--clear-groups"])
            .arg(self.world.path("bin/kiln"))
            .args(args)
            .current_dir(self.world.path(""))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("KILN_ROOT", self.world.path("users/store"))
            .env("HOME", self.world.path("users"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Run::of(command.spawn().unwrap())
    }

    /// Builds as root and as the user; both images are one.
    #[track_caller]
    fn same(&self, about: &str, dockerfile: &str) {
        self.world.dockerfile(dockerfile);
        let args = ["build", "-q", "--build-arg=SOURCE_DATE_EPOCH=1700000000", "-t", "x", "context"];
        let (root, user) = (self.world.kiln(args), self.as_user(&args));
        assert_eq!(root.code, Some(0), "{about}, as root: {}", root.stderr);
        assert_eq!(user.code, Some(0), "{about}, as a user: {}", user.stderr);
        assert_eq!(root.stdout, user.stdout, "{about}");
        assert!(root.stdout.starts_with("sha256:"), "{about}: {}", root.stdout);
    }
}

/// What the Dockerfiles start with.
const BASE: &str = "FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN mkdir -p /etc /tmp && chmod 1777 /tmp && echo root:x:0:0::/:/bin/sh > /etc/passwd && \\
    echo me:x:1000:1000::/:/bin/sh >> /etc/passwd && echo me:x:1000: > /etc/group
";

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 12] = [
    (
        "stages",
        "FROM base AS one\nRUN echo a > /a && chown 3:4 /a\nFROM base\nCOPY --from=one /a /b\nCOPY --from=one --chown=me /a /c\n",
    ),
    (
        "users",
        "FROM base\nUSER me\nRUN id > /tmp/id && test $(id -u) = 1000 && mkdir /tmp/d && ln -s a /tmp/l && mkfifo /tmp/p\nUSER root\nRUN echo b >> /tmp/id\n",
    ),
    (
        "owners",
        "FROM base\nRUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65000:33 /d && chown -h 1:2 /d/e/l\nRUN echo more >> /d/e/f\n",
    ),
    (
        "what is told of owners",
        "FROM base\nRUN mkdir /d && touch /d/f && ln -s f /d/l && chown -R 5:6 /d && chown -h 7:8 /d/l\nRUN stat -c '%n %u %g %F' /d /d/f /d/l /bin > /list; cp -a /d /e; tar -cf - /e | tar -C /tmp -xf -; sed -i s/d/d/ /list\n",
    ),
    (
        "set-id bits",
        "FROM base\nRUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g && touch /g/f && mkdir /g/d && chown 9 /s\nCOPY --chmod=4711 --chown=5:6 busybox /t\nRUN cp /bin/busybox /u && chmod 000 /u\nRUN touch /g/d/e && echo x >> /u\n",
    ),
    ("capabilities and attributes", "FROM base\nADD files.tar /\nRUN cp -a /marked/. /copied && mv /marked /moved\n"),
    (
        "hardlinks and pipes",
        "FROM base\nRUN echo a > /a && ln /a /b && ln /a /c && mkfifo /p && chown 4:5 /p /b\nRUN rm /a && chmod 600 /b\n",
    ),
    (
        "removals",
        "FROM base\nRUN mkdir -p /d/e && touch /d/1 /d/e/2\nRUN rm -r /d && mkdir /d && touch /d/3\nRUN rm /d/3\nFROM base\nCOPY --from=1 / /all\n",
    ),
    (
        "devices",
        "FROM base\nRUN mknod /disk b 8 0 && mknod -m 600 /null c 1 3 && chown 1:2 /null\nRUN stat -c '%n %u %g %a %F %t %T' /disk /null > /list && mv /disk /moved && cp -a /null /copy\nFROM base\nCOPY --from=1 /moved /copy /d/\n",
    ),
    (
        "links of lower layers",
        "FROM base\nRUN mkdir /d && ln -s a /d/1 && ln -s b /d/2 && ln -s c /d/3 && mkfifo /d/4 && chown -h 5:6 /d/1 /d/2 /d/4\nRUN mv /d/1 /d/one; chown -h 7:8 /d/2 /d/3; ln /d/4 /d/four; rm /d/4\n",
    ),
    (
        "copies",
        "FROM base\nWORKDIR /w\nCOPY --chown=me busybox a/\nRUN mv a/busybox b && ls -lan . > list && rm list\nUSER me\nRUN umask 077; echo x > /tmp/private; mkdir /tmp/dir; cd /tmp/dir && echo y > ../tmpfile && echo z > ./../dir/./q\n",
    ),
    (
        "mounts",
        "FROM base\nRUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=700 --mount=type=tmpfs,target=/t \\\n --mount=type=bind,source=busybox,target=/bb --network=none stat -c '%n %u %g %a %F' / /bin /c /t /bb > /list; test -s /bb && touch /c/x /t/y\n",
    ),
];

/// An archive with a file's capabilities and an attribute of a user's, a device and owners.
fn marked(world: &World) {
    let folder = world.path("files");
    fs::create_dir_all(folder.join("marked")).unwrap();
    let file = folder.join("marked/ping");
    fs::copy("/bin/busybox", &file).unwrap();
    chown(&file, Some(12), Some(34)).unwrap();
    let done = |command: &mut Command| assert!(command.status().unwrap().success(), "{command:?}");
    done(Command::new("setcap").arg("cap_net_raw+ep").arg(&file));
    done(Command::new("mknod").arg(folder.join("marked/disk")).args(["b", "8", "1"]));
    rustix::fs::setxattr(&file, "user.kiln", b"yes", rustix::fs::XattrFlags::empty()).unwrap();
    let archive = world.path("context/files.tar");
    let args = ["--xattrs", "--xattrs-include=*", "--format=pax", "--numeric-owner", "-C"];
    done(Command::new("tar").args(args).arg(&folder).arg("-cf").arg(archive).arg("marked"));
}

#[test]
fn the_same_images_as_roots() {
    let Some(place) = Place::new() else { return };
    marked(&place.world);
    for (about, dockerfile) in CASES {
        place.same(about, &format!("{BASE}{dockerfile}"));
    }
}

/// What programs of Debian's do with users: they make sure of who they are, and copy what they find.
#[test]
fn debians_programs_change_users_and_owners_as_roots_do() {
    let Some(place) = Place::new() else { return };
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bases/debian-bookworm.tar");
    if !made.exists() {
        println!("skipped: {} is missing (scripts/make-bases makes it)", made.display());
        return;
    }
    let archive = place.world.path("context/debian.tar");
    let without =
        ["./dev/*", "./usr/share/doc/*", "./usr/share/locale/*", "./usr/share/man/*", "./usr/share/zoneinfo/*"];
    let mut bsdtar = Command::new("bsdtar");
    bsdtar.arg("-cf").arg(archive).args(without.iter().flat_map(|path| ["--exclude", path]));
    assert!(bsdtar.arg(format!("@{}", made.display())).status().unwrap().success());
    let package = place.world.path("package");
    place
        .world
        .file(
            "package/DEBIAN/control",
            "Package: kdemo\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.org>\nDescription: a\n",
        )
        .file(
            "package/DEBIAN/postinst",
            "#!/bin/sh\nset -e\nchown daemon:adm /var/lib/kdemo\nchmod 2750 /var/lib/kdemo\n",
        )
        .file("package/usr/bin/kdemo", "#!/bin/sh\n")
        .file("package/var/lib/kdemo/f", "f\n");
    for (file, mode) in [("DEBIAN/postinst", 0o755), ("usr/bin/kdemo", 0o4755)] {
        fs::set_permissions(package.join(file), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::create_dir(place.world.path("context/repo")).unwrap();
    let archive = place.world.path("context/repo/kdemo.deb");
    let built =
        Command::new("dpkg-deb").args(["--root-owner-group", "-b"]).arg(&package).arg(&archive).output().unwrap();
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let (size, sum) =
        (fs::metadata(&archive).unwrap().len(), Command::new("sha256sum").arg(&archive).output().unwrap());
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sum = sum.split_whitespace().next().unwrap();
    let index = format!(
        "Package: kdemo\nVersion: 1\nArchitecture: all\nMaintainer: n <n@example.org>\nFilename: ./kdemo.deb\nSize: {size}\nSHA256: {sum}\nDescription: a\n"
    );
    place.world.file("context/repo/Packages", index);
    // What holds the time of the build is removed, as the images couldn't be the same otherwise.
    let dockerfile = "FROM scratch
ADD debian.tar /
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin DEBIAN_FRONTEND=noninteractive
COPY repo /repo
RUN useradd -m -s /bin/bash app && mkdir /x && cp -a /etc/skel/. /x && chown -R app:app /x && stat -c '%U %a' /x > /stat && \\
    su app -c 'id; touch /x/mine; mkdir /x/d; ln -s a /x/l' > /su && sed -i 's/#/##/' /x/.bashrc && ls -lan /x | cut -c1-30 > /ls && \\
    setpriv --reuid app --regid app --init-groups id > /setpriv && rm -f /etc/*- /var/log/lastlog /var/log/faillog
RUN rm -rf /etc/apt/sources.list.d/* && echo 'deb [trusted=yes] file:/repo ./' > /etc/apt/sources.list && \\
    apt-get update && apt-get install -y kdemo && dpkg -V kdemo && stat -c '%U:%G %a' /var/lib/kdemo > /kdemo && \\
    rm -rf /var/lib/apt/* /var/log/* /var/cache/* /var/lib/dpkg/*-old /repo
RUN perl -e '$) = \"1000 1000 7\"; $( = 1000; $< = 1000; $> = 1000; print \"$( $) $< $>\\n\"; print open(F, \">/x/perl\") ? 1 : 0; $> = 0; print $!{EPERM} ? 1 : 0' > /perl
USER app
RUN id > ~/id && test $(id -u) = 1000 && echo ok > /x/more
USER root
RUN cp -a /home/app /home/copy && tar -C /home -cf - app | tar -C /srv -xf - && mv /x/l /x/moved
";
    place.same("Debian", dockerfile);
}

#[test]
fn an_image_runs_as_its_user_and_nothing_is_left() {
    let Some(place) = Place::new() else { return };
    place
        .world
        .dockerfile(&format!("{BASE}RUN mkdir /d && touch /d/f && chown -R 77:77 /d && chmod 700 /d\nUSER me\n"));
    place.as_user(&["build", "-t", "x", "context"]).ok();
    assert_eq!(place.as_user(&["run", "x", "id", "-u"]).ok().stdout, "1000\n");
    assert_eq!(place.as_user(&["run", "x", "stat", "-c", "%u", "/d"]).ok().stdout, "77\n");
    assert_eq!(place.as_user(&["run", "x", "sh", "-c", "exit 7"]).code, Some(7));
    place.as_user(&["rmi", "x"]).ok();
    place.as_user(&["prune", "--all"]).ok();
    for folder in ["snapshots", "tmp"] {
        let left = fs::read_dir(place.world.path("users/store").join(folder)).unwrap().count();
        assert_eq!(left, 0, "in {folder}");
    }
}

#[test]
fn a_process_that_asks_for_nonsense_is_told_what_the_kernel_would_tell() {
    let Some(place) = Place::new() else { return };
    let script = "! chown 1:1 /nowhere 2> /dev/null && ! mkdir /bin 2> /dev/null && \\
        ! mknod /bin b 1 1 2> /dev/null && echo a > /dev/stdout && \\
        chown 5 /dev/shm && test $(stat -c %u /dev/shm) = 5";
    place.same(
        "refusals",
        &format!("{BASE}FROM base\nRUN {script}\nUSER me\nRUN ! chown 5 /bin && ! mknod /tmp/x c 1 1\n"),
    );
}

#[test]
fn info_says_how_it_works_and_why() {
    let Some(place) = Place::new() else { return };
    let info = place.as_user(&["info"]).ok().stdout;
    assert!(info.contains("rootless:") && info.contains("with a single number"), "{info}");
    assert!(info.contains("/etc/subuid gives 54321 no range"), "{info}");
}
