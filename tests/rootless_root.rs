//! The level `rootless`: what an ordinary user is told, and what is left. That the images are root's is `levels_root`'s to
//! test. With root, to make such a user, and Debian's uidmap and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/docker_registry.rs"]
mod docker_registry;
#[path = "support/user.rs"]
mod user;
#[allow(dead_code)]
#[path = "support/world.rs"]
mod world;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use user::{BASE, Place, run};

#[test]
fn images_run_and_nothing_is_left() {
    let Some(place) = Place::new("run") else { return };
    place
        .world
        .dockerfile(&format!("{BASE}RUN mkdir /d && touch /d/f && chown -R 77:77 /d && chmod 700 /d\nUSER me\n"));
    place.as_user(["build", "-t", "x", "context"]).ok();
    assert_eq!(place.as_user(["run", "x", "id", "-u"]).ok().stdout, "1000\n");
    assert_eq!(place.as_user(["run", "x", "sh", "-c", "exit 7"]).code, Some(7));
    place.as_user(["rmi", "x"]).ok();
    place.as_user(["prune", "--all"]).ok();
    for folder in ["snapshots", "tmp"] {
        let left = fs::read_dir(place.world.path("users/store").join(folder)).unwrap().count();
        assert_eq!(left, 0, "in {folder}, whose files belong to numbers of images");
    }
}

#[test]
fn a_users_builds_are_explained_and_kept_within_a_limit() {
    let Some(place) = Place::new("explained") else { return };
    let build = |more: &str, limit: &str| {
        place.world.dockerfile(&format!("{BASE}{more}"));
        place.as_user(["build", "--store-limit", limit, "context"]).ok().stderr
    };
    let step = |n: u32| format!("RUN mkdir /d && echo {n} > /d/f && chown -R 3:4 /d && chmod 700 /d\n");
    build(&step(1), "none");
    build(&step(2), "none");
    let explained = place.as_user(["explain"]).ok().stdout;
    for part in ["1 of 4 steps ran", "- RUN mkdir /d && echo 1", "+ RUN mkdir /d && echo 2"] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    // Files of numbers that are the user's only in a namespace are removed, too.
    let told = build(&step(3), "1k");
    assert!(told.contains("its limit is 1.02kB"), "{told}");
    assert_eq!(
        fs::read_dir(place.world.path("users/store/snapshots")).unwrap().count(),
        4,
        "the layers of the last build"
    );
}

#[test]
fn cache_mounts_go_from_users_to_root_and_back() {
    let Some(place) = Place::new("caches") else { return };
    fs::create_dir(place.world.path("cache")).unwrap();
    fs::set_permissions(place.world.path("cache"), fs::Permissions::from_mode(0o1777)).unwrap();
    let step = |tell: &str| {
        let mount = "--mount=type=cache,target=/c,uid=1000,gid=1000,mode=2750";
        place.world.dockerfile(&format!("{BASE}RUN {mount} stat -c '%n %a %u %g %h %y' /c /c/* 2>/dev/null; {tell}\n"));
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
    let said = place.as_user(step(fill)).ok().stderr;
    assert!(said.contains("wrote the cache mount \"/c\""), "{said}");
    let was = ["/c 2750 1000 1000", "/c/f 4711 65000 33 2 2001-02-03", "/c/g 4711 65000 33 2 2001-02-03"];
    let comes = |said: String| {
        assert!(said.contains("the cache mount \"/c\" comes from") && said.contains("is up to date"), "{said}");
        was.iter().for_each(|line| assert!(said.contains(line), "{line}: {said}"));
    };
    comes(place.as_root(step("true")).ok().stderr);
    fs::remove_dir_all(place.world.path("users/store")).unwrap();
    comes(place.as_user(step("true")).ok().stderr);
}

#[test]
fn limits_that_need_control_groups_say_so() {
    let Some(place) = Place::new("limits") else { return };
    place.world.dockerfile(&format!("{BASE}RUN true\n"));
    let built = place.as_user(["build", "--memory=64m", "context"]);
    // A user may have been given a group of its own.
    if built.code != Some(0) {
        built.fails(4).says("can't limit memory: ").says("--memory");
    }
}

#[test]
fn a_device_is_an_error_that_names_it() {
    let Some(place) = Place::new("device") else { return };
    place.world.dockerfile(&format!("{BASE}RUN mknod /disk b 8 0\n"));
    place.as_root(["build", "-o", "type=oci,dest=image.tar", "-t", "x", "context"]).ok();
    place.as_user(["load", "-i", "image.tar"]).ok();
    let ran = place.as_user(["run", "x", "true"]);
    assert_ne!(ran.code, Some(0));
    ran.says("/disk is a device");
    assert_eq!(place.as_user(["build", "context"]).code, Some(1));
}

#[test]
fn says_how_it_works_and_why() {
    let Some(place) = Place::new("why") else { return };
    place.world.dockerfile(&format!("{BASE}RUN true\n"));
    let info = place.as_user(["info"]).ok().stdout;
    assert!(info.lines().any(|l| l.split_whitespace().eq(["rootless:", "works"])), "{info}");
    run("usermod", &["--del-subuids", "0-4294967294", place.user.as_deref().unwrap()]);
    let less = place.as_user(["info"]).ok();
    less.prints("with a single number").prints("/etc/subuid gives").prints("usermod --add-subuids");
    place.as_root(["build", "--isolation", "rootless", "context"]).fails(4).says("for ordinary users");
}
