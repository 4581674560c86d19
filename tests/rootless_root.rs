//! The level `rootless`: an ordinary user's builds give what root's give. With root, to make such a user, and Debian's uidmap
//! and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Runs a program that must go well.
fn run(program: &str, args: &[&str]) -> Output {
    let output = Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// An ordinary user with ranges of numbers, gone when dropped, and a folder that only the user can write to.
struct Place {
    folder: tempfile::TempDir,
    user: String,
    uid: u32,
    gid: u32,
}

impl Place {
    /// `None`, and a line that says why, where there can't be one.
    fn new(name: &str) -> Option<Self> {
        let missing = |what: &str| println!("skipped: {what}");
        if !rustix::process::geteuid().is_root() {
            missing("it needs root, to make an ordinary user");
            return None;
        }
        let needs = ["/usr/bin/newuidmap", "/usr/sbin/useradd", "/usr/bin/setpriv", "/bin/busybox", "/usr/sbin/setcap"];
        if let Some(file) = needs.into_iter().find(|file| !Path::new(file).exists()) {
            missing(&format!("{file} is missing (packages uidmap, passwd, util-linux, busybox-static, libcap2-bin)"));
            return None;
        }
        let user = format!("kiln-{name}-{}", std::process::id());
        run("useradd", &["--no-create-home", "--home-dir", "/nonexistent", &user]);
        let number = |flag| {
            let text = String::from_utf8(run("id", &[flag, &user]).stdout).unwrap();
            text.trim().parse::<u32>().unwrap()
        };
        let (uid, gid) = (number("-u"), number("-g"));
        let place = Self { folder: tempfile::tempdir().unwrap(), user, uid, gid };
        if !fs::read_to_string("/etc/subuid").unwrap_or_default().contains(&format!("{}:", place.user)) {
            let range = "400000000-400065535";
            run("usermod", &["--add-subuids", range, "--add-subgids", range, &place.user]);
        }
        fs::set_permissions(place.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_kiln"), place.path("kiln")).unwrap();
        for folder in ["home", "context"] {
            fs::create_dir(place.path(folder)).unwrap();
        }
        chown(place.path("home"), Some(uid), Some(gid)).unwrap();
        fs::copy("/bin/busybox", place.path("context/busybox")).unwrap();
        Some(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn dockerfile(&self, text: &str) {
        fs::write(self.path("context/Dockerfile"), text).unwrap();
    }

    /// The binary as the user, whose own folder is the home.
    fn as_user<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        let [uid, gid] = [self.uid, self.gid].map(|n| n.to_string());
        let mut command = Command::new("setpriv");
        command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups"]);
        self.finish(command.arg(self.path("kiln")).args(args), "home")
    }

    /// The binary as root.
    fn as_root<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Output {
        self.finish(Command::new(self.path("kiln")).args(args), "roots-home")
    }

    fn finish(&self, command: &mut Command, home: &str) -> Output {
        let path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        let home = self.path(home);
        command
            .current_dir(self.folder.path())
            .env_clear()
            .env("PATH", path)
            .env("KILN_ROOT", home.join("store"))
            .env("HOME", home)
            .output()
            .unwrap()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = Command::new("userdel").arg(&self.user).output();
    }
}

fn text(output: &Output) -> String {
    format!("{}\n{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// What all the Dockerfiles start with.
const BASE: &str = "FROM scratch AS base
COPY --chmod=755 busybox /bin/busybox
RUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]
RUN mkdir -p /etc /tmp && chmod 1777 /tmp && echo root:x:0:0::/:/bin/sh > /etc/passwd && \\
    echo me:x:1000:1000::/:/bin/sh >> /etc/passwd && echo me:x:1000: > /etc/group
";

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 8] = [
    (
        "stages",
        "FROM base AS one\nRUN echo a > /a && chown 3:4 /a\nFROM base\nCOPY --from=one /a /b\nCOPY --from=one --chown=me /a /c\n",
    ),
    ("users", "FROM base\nUSER me\nRUN id > /tmp/id && test $(id -u) = 1000 && ! touch /bin/x\n"),
    (
        "owners",
        "FROM base\nRUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65000:33 /d && chown -h 1:2 /d/e/l\nRUN echo more >> /d/e/f\n",
    ),
    (
        "set-id bits",
        "FROM base\nRUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g\nCOPY --chmod=4711 --chown=5:6 busybox /t\n",
    ),
    ("capabilities and attributes", "FROM base\nADD files.tar /\nRUN cp -a /marked/. /copied && mv /marked /moved\n"),
    (
        "hardlinks and pipes",
        "FROM base\nRUN echo a > /a && ln /a /b && ln /a /c && mkfifo /p\nRUN rm /a && chmod 600 /b\n",
    ),
    (
        "removals",
        "FROM base\nRUN mkdir -p /d/e && touch /d/1 /d/e/2\nRUN rm -r /d && mkdir /d && touch /d/3\nRUN rm /d/3\nFROM base\nCOPY --from=1 / /all\n",
    ),
    (
        "mounts",
        "FROM base\nRUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=700 --mount=type=tmpfs,target=/t \\\n --mount=type=bind,source=busybox,target=/bb --network=none stat -c '%n %u %g %a %F' / /bin /c /t /bb > /list; test -s /bb && touch /c/x /t/y\n",
    ),
];

/// An archive with a file's capabilities and an attribute of a user's, neither of which a build can set with busybox.
fn marked(place: &Place) {
    let folder = place.path("files");
    fs::create_dir_all(folder.join("marked")).unwrap();
    let file = folder.join("marked/ping");
    fs::copy("/bin/busybox", &file).unwrap();
    run("setcap", &["cap_net_raw+ep", file.to_str().unwrap()]);
    rustix::fs::setxattr(&file, "user.kiln", b"yes", rustix::fs::XattrFlags::empty()).unwrap();
    let (archive, folder) = (place.path("context/files.tar"), folder.display().to_string());
    let archive = archive.display().to_string();
    run("tar", &["--xattrs", "--xattrs-include=*", "--format=pax", "-C", &folder, "-cf", &archive, "marked"]);
}

#[test]
fn the_same_images_as_roots() {
    let Some(place) = Place::new("same") else { return };
    marked(&place);
    for (about, dockerfile) in CASES {
        place.dockerfile(&format!("{BASE}{dockerfile}"));
        let args = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "x"];
        let build = |level| args.into_iter().chain(["--isolation", level, "context"]);
        let (root, rootless) = (place.as_root(build("root")), place.as_user(build("rootless")));
        assert!(root.status.success(), "{about}, as root: {}", text(&root));
        assert!(rootless.status.success(), "{about}, as a user: {}", text(&rootless));
        assert_eq!(text(&root), text(&rootless), "{about}");
        assert!(text(&root).contains("sha256:"), "{about}: {}", text(&root));
    }
    // Without a flag, too; and the cache knows it.
    let auto = place.as_user(["build", "--progress=plain", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "context"]);
    assert!(auto.status.success() && text(&auto).contains("CACHED"), "{}", text(&auto));
}

#[test]
fn images_run_and_nothing_is_left() {
    let Some(place) = Place::new("run") else { return };
    place.dockerfile(&format!("{BASE}RUN mkdir /d && touch /d/f && chown -R 77:77 /d && chmod 700 /d\nUSER me\n"));
    let built = place.as_user(["build", "-t", "x", "context"]);
    assert!(built.status.success(), "{}", text(&built));
    let ran = place.as_user(["run", "x", "id", "-u"]);
    assert_eq!(String::from_utf8_lossy(&ran.stdout), "1000\n", "{}", text(&ran));
    let failed = place.as_user(["run", "x", "sh", "-c", "exit 7"]);
    assert_eq!(failed.status.code(), Some(7), "{}", text(&failed));
    assert!(place.as_user(["rmi", "x"]).status.success());
    let pruned = place.as_user(["prune", "--all"]);
    assert!(pruned.status.success(), "{}", text(&pruned));
    for folder in ["snapshots", "tmp"] {
        let left = fs::read_dir(place.path("home/store").join(folder)).unwrap().count();
        assert_eq!(left, 0, "in {folder}, whose files belong to numbers of images");
    }
}

#[test]
fn a_users_builds_are_explained_and_kept_within_a_limit() {
    let Some(place) = Place::new("explained") else { return };
    let build = |more: &str, limit: &str| {
        place.dockerfile(&format!("{BASE}{more}"));
        let built = place.as_user(["build", "--store-limit", limit, "context"]);
        assert!(built.status.success(), "{}", text(&built));
        text(&built)
    };
    let step = |n: u32| format!("RUN mkdir /d && echo {n} > /d/f && chown -R 3:4 /d && chmod 700 /d\n");
    build(&step(1), "none");
    build(&step(2), "none");
    let explained = text(&place.as_user(["explain"]));
    for part in ["1 of 4 steps ran", "- RUN mkdir /d && echo 1", "+ RUN mkdir /d && echo 2"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    // Files of numbers that are the user's only in a namespace are removed, too.
    let told = build(&step(3), "1k");
    assert!(told.contains("its limit is 1.02kB"), "{told}");
    assert_eq!(fs::read_dir(place.path("home/store/snapshots")).unwrap().count(), 4, "the layers of the last build");
}

#[test]
fn cache_mounts_go_from_users_to_root_and_back() {
    let Some(place) = Place::new("caches") else { return };
    fs::create_dir(place.path("cache")).unwrap();
    fs::set_permissions(place.path("cache"), fs::Permissions::from_mode(0o1777)).unwrap();
    let step = |tell: &str| {
        let mount = "--mount=type=cache,target=/c,uid=1000,gid=1000,mode=2750";
        place.dockerfile(&format!("{BASE}RUN {mount} stat -c '%n %a %u %g %h %y' /c /c/* 2>/dev/null; {tell}\n"));
        let place = "type=local,dest=cache";
        [
            "build",
            "--progress=plain",
            "--cache-mounts-to",
            place,
            "--cache-mounts-from",
            "type=local,src=cache",
            "context",
        ]
    };
    let fill = "echo x > /c/f && ln /c/f /c/g && chown 65000:33 /c/f && chmod 4711 /c/f && touch -d '2001-02-03 04:05:06' /c/f";
    let said = text(&place.as_user(step(fill)));
    assert!(said.contains("wrote the cache mount \"/c\""), "{said}");
    let was = ["/c 2750 1000 1000", "/c/f 4711 65000 33 2 2001-02-03", "/c/g 4711 65000 33 2 2001-02-03"];
    let comes = |said: String| {
        assert!(said.contains("the cache mount \"/c\" comes from") && said.contains("is up to date"), "{said}");
        was.iter().for_each(|line| assert!(said.contains(line), "{line}: {said}"));
    };
    comes(text(&place.as_root(step("true"))));
    fs::remove_dir_all(place.path("home/store")).unwrap();
    comes(text(&place.as_user(step("true"))));
}

#[test]
fn limits_that_need_control_groups_say_so() {
    let Some(place) = Place::new("limits") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    let built = place.as_user(["build", "--memory=64m", "context"]);
    // A user may have been given a group of its own.
    if !built.status.success() {
        assert_eq!(built.status.code(), Some(4), "{}", text(&built));
        let said = text(&built);
        assert!(said.contains("can't limit memory: ") && said.contains("--memory"), "{said}");
    }
}

#[test]
fn a_device_is_an_error_that_names_it() {
    let Some(place) = Place::new("device") else { return };
    place.dockerfile(&format!("{BASE}RUN mknod /disk b 8 0\n"));
    let built = place.as_root(["build", "-o", "type=oci,dest=image.tar", "-t", "x", "context"]);
    assert!(built.status.success(), "{}", text(&built));
    let loaded = place.as_user(["load", "-i", "image.tar"]);
    assert!(loaded.status.success(), "{}", text(&loaded));
    let ran = place.as_user(["run", "x", "true"]);
    assert_ne!(ran.status.code(), Some(0));
    assert!(text(&ran).contains("/disk is a device"), "{}", text(&ran));
    let built = place.as_user(["build", "context"]);
    assert_eq!(built.status.code(), Some(1), "{}", text(&built));
}

#[test]
fn says_why_it_does_not_work() {
    let Some(place) = Place::new("why") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    let info = text(&place.as_user(["info"]));
    assert!(info.lines().any(|l| l.split_whitespace().eq(["rootless:", "works"])), "{info}");
    run("usermod", &["--del-subuids", "0-4294967294", &place.user]);
    let info = text(&place.as_user(["info"]));
    assert!(info.contains("/etc/subuid gives") && info.contains("usermod --add-subuids"), "{info}");
    let built = place.as_user(["build", "context"]);
    assert_eq!(built.status.code(), Some(4), "{}", text(&built));
    assert!(text(&built).contains("rootless: /etc/subuid gives"), "{}", text(&built));
    let root = place.as_root(["build", "--isolation", "rootless", "context"]);
    assert_eq!(root.status.code(), Some(4), "{}", text(&root));
    assert!(text(&root).contains("for ordinary users"), "{}", text(&root));
}
