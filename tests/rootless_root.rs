//! The level `rootless`: what an ordinary user is told, and what is left. That the images are root's is `levels_root`'s to
//! test. With root, to make such a user, and Debian's uidmap and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use user::{BASE, Place, run, text};

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
fn says_how_it_works_and_why() {
    let Some(place) = Place::new("why") else { return };
    place.dockerfile(&format!("{BASE}RUN true\n"));
    let info = text(&place.as_user(["info"]));
    assert!(info.lines().any(|l| l.split_whitespace().eq(["rootless:", "works"])), "{info}");
    run("usermod", &["--del-subuids", "0-4294967294", &place.user]);
    let info = text(&place.as_user(["info"]));
    assert!(
        info.contains("with a single number")
            && info.contains("/etc/subuid gives")
            && info.contains("usermod --add-subuids"),
        "{info}"
    );
    let root = place.as_root(["build", "--isolation", "rootless", "context"]);
    assert_eq!(root.status.code(), Some(4), "{}", text(&root));
    assert!(text(&root).contains("for ordinary users"), "{}", text(&root));
}
