//! The level `rootless`: what an ordinary user is told, and what is left. That the images are root's is `levels_root`'s to
//! test. With root, to make such a user, and Debian's uidmap and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;
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

/// The programs that map numbers, as copies in a folder of the user's `PATH`.
fn mappers(place: &Place, mode: u32) {
    fs::create_dir(place.path("bin")).unwrap();
    for name in ["newuidmap", "newgidmap"] {
        let copy = place.path("bin").join(name);
        fs::copy(Path::new("/usr/bin").join(name), &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(mode)).unwrap();
    }
}

#[test]
fn numbers_are_mapped_by_programs_with_file_capabilities() {
    let Some(place) = Place::new("filecaps") else { return };
    place.dockerfile(&format!("{BASE}RUN touch /f && chown 77:78 /f\n"));
    mappers(&place, 0o755);
    let kiln = |args: &[&str]| place.as_user_with(&[("PATH", place.path("bin").to_str().unwrap())], args);
    let said = text(&kiln(&["info"]));
    assert!(said.contains("bin/newuidmap is neither setuid nor has capabilities"), "{said}");
    assert!(said.contains("setcap cap_setuid+ep"), "{said}");
    for (name, capability) in [("newuidmap", "cap_setuid+ep"), ("newgidmap", "cap_setgid+ep")] {
        run("setcap", &[capability, place.path("bin").join(name).to_str().unwrap()]);
    }
    let info = text(&kiln(&["info"]));
    assert!(info.lines().any(|l| l.split_whitespace().eq(["rootless:", "works"])), "{info}");
    let built = kiln(&["build", "--isolation=rootless", "context"]);
    assert!(built.status.success(), "{}", text(&built));
}

#[test]
fn programs_without_their_rights_are_explained() {
    let Some(place) = Place::new("norights") else { return };
    let mut command = Command::new("setpriv");
    let [uid, gid] = place.ids();
    command.args(["--reuid", &uid, "--regid", &gid, "--clear-groups", "--no-new-privs"]);
    let info = text(&place.finish(command.arg(place.path("kiln")).arg("info"), "home"));
    assert!(info.contains("with a single number") && info.contains("no_new_privs keeps it"), "{info}");
    let nowhere = text(&place.as_user_with(&[("PATH", "/nonexistent")], ["info"]));
    assert!(nowhere.contains("newuidmap isn't in $PATH") && nowhere.contains("package uidmap"), "{nowhere}");
}

#[test]
fn too_few_numbers_are_named_when_one_is_missing() {
    let Some(place) = Place::new("few") else { return };
    run("usermod", &["--del-subuids", "0-4294967294", "--del-subgids", "0-4294967294", &place.user]);
    let few = "400000000-400000099";
    run("usermod", &["--add-subuids", few, "--add-subgids", few, &place.user]);
    for step in ["COPY --chown=1000:1000 busybox /x", "ADD owned.tar /"] {
        fs::write(place.path("owned"), "x").unwrap();
        let (archive, folder) = (place.path("context/owned.tar"), place.path(""));
        let (archive, folder) = (archive.display().to_string(), folder.display().to_string());
        run("tar", &["--owner=:1000", "--group=:1000", "-C", &folder, "-cf", &archive, "owned"]);
        place.dockerfile(&format!("{BASE}{step}\nRUN true\n"));
        let built = place.as_user(["build", "context"]);
        assert_eq!(built.status.code(), Some(4), "{step}: {}", text(&built));
        assert!(text(&built).contains("usermod --add-subuids"), "{step}: {}", text(&built));
    }
}

#[test]
fn user_namespaces_that_are_off_are_told() {
    let Some(place) = Place::new("off") else { return };
    // The setting of a user namespace is that of its root.
    let script =
        "echo 0 > /proc/sys/user/max_user_namespaces && exec setpriv --bounding-set=-sys_admin --inh-caps=-all \"$@\"";
    let kiln = place.path("kiln").display().to_string();
    let mut command = Command::new("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c", script, "sh", &kiln, "info"]);
    let info = text(&place.finish(&mut command, "off-home"));
    assert!(info.contains("rootless:     no: unshare(CLONE_NEWUSER): No space left on device"), "{info}");
    assert!(info.contains("sysctl -w user.max_user_namespaces=10000"), "{info}");
}

#[test]
fn anothers_store_is_refused() {
    let Some(place) = Place::new("anothers") else { return };
    fs::create_dir(place.path("roots-home")).unwrap();
    place.dockerfile(&format!("{BASE}RUN true\n"));
    assert!(place.as_user(["build", "context"]).status.success());
    assert!(place.as_root(["images"]).status.success());
    let before = fs::read_dir(place.path("home/store")).unwrap().count();
    let [uid, _] = place.ids();
    let [theirs, roots] = ["home/store", "roots-home/store"].map(|path| place.path(path).display().to_string());
    for command in [&["build", "context"][..], &["images"], &["prune"], &["info"]] {
        let args = [&["--root", theirs.as_str()], command].concat();
        let root = place.as_root(&args);
        assert_eq!(root.status.code(), Some(4), "{command:?}: {}", text(&root));
        assert!(text(&root).contains(&format!("belongs to user {uid}")), "{command:?}: {}", text(&root));
        let user = place.as_user([&["--root", roots.as_str()], command].concat());
        assert_eq!(user.status.code(), Some(4), "{command:?}: {}", text(&user));
        let said = text(&user);
        assert!(said.contains("belongs to user 0") || said.contains("belongs to another user"), "{command:?}: {said}");
    }
    assert_eq!(fs::read_dir(place.path("home/store")).unwrap().count(), before);
}

#[test]
fn a_store_whose_numbers_have_changed_is_refused() {
    let Some(place) = Place::new("changed") else { return };
    place.dockerfile(&format!("{BASE}RUN touch /f && chown 77:78 /f\n"));
    let build = || place.as_user(["build", "context"]);
    assert!(build().status.success());
    run("usermod", &["--del-subuids", "0-4294967294", "--del-subgids", "0-4294967294", &place.user]);
    let others = "500000000-500065535";
    run("usermod", &["--add-subuids", others, "--add-subgids", others, &place.user]);
    let refused = build();
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused));
    let said = text(&refused);
    assert!(said.contains("numbers have changed") && said.contains("1 500000000 65536"), "{said}");
}
