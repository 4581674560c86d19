//! Root in a container without CAP_SYS_ADMIN where user namespaces are allowed: the level is `rootless`, and the images are those
//! of root; where they are forbidden, by whichever call, the level is `in-place`, and it is told what forbids them. With root,
//! to start containers, Debian's podman, runc and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, text};
use std::fs;
use std::process::Output;

/// Dockerfiles, and what they are about.
const CASES: [(&str, &str); 6] = [
    (
        "owners",
        "FROM base\nRUN mkdir -p /d/e && touch /d/e/f && ln -s f /d/e/l && chown -R 65534:33 /d && chown -h 100000:2 /d/e/l\nRUN echo more >> /d/e/f\n",
    ),
    (
        "set-id bits and users",
        "FROM base\nRUN cp /bin/busybox /s && chmod 6755 /s && mkdir /g && chown 0:7 /g && chmod 2775 /g\nCOPY --chmod=4711 --chown=5:6 busybox /t\n\
         USER me\nRUN id > /tmp/id && test $(id -u) = 1000 && touch /tmp/mine\n",
    ),
    (
        "hardlinks and pipes",
        "FROM base\nRUN echo a > /a && ln /a /b && mkfifo /p && chown 4:5 /p\nRUN rm /a && mv /p /q\n",
    ),
    (
        "removals",
        "FROM base\nRUN mkdir -p /d/e && touch /d/1 /d/e/2\nRUN rm -r /d && mkdir /d && touch /d/3\nRUN rm /d/3\nFROM base\nCOPY --from=1 / /all\n",
    ),
    (
        "mounts",
        "FROM base\nRUN --mount=type=cache,target=/c,uid=1000,gid=1000,mode=700 --mount=type=tmpfs,target=/t \\\n \
         --mount=type=bind,source=busybox,target=/bb --network=none stat -c '%n %u %g %a %F' / /c /t /bb > /list; test -s /bb && touch /c/x /t/y\n",
    ),
    (
        "the kernel's files",
        "FROM base\nRUN test -r /proc/self/status && test -d /proc/self/fd && ! touch /proc/sys/kernel/core_pattern && echo x > /dev/null && test -d /sys\n",
    ),
];

/// Docker's capabilities, without its seccomp profile.
const UNCONFINED: [&str; 2] = [AS_DOCKER, "--security-opt=seccomp=unconfined"];

impl Place {
    /// Builds every Dockerfile with the store in a folder, and compares with root's images here.
    #[track_caller]
    fn same(&self, flags: &[&str], store: &str) {
        for (number, (_, dockerfile)) in CASES.iter().enumerate() {
            self.file(&format!("cases/{number}"), &format!("{BASE}{dockerfile}"));
        }
        let build = "build -q --build-arg SOURCE_DATE_EPOCH=1700000000 -t x -f";
        let script = format!(
            "export KILN_ROOT={store}; for n in $(b seq 0 {}); do \
             kiln {build} /workspace/cases/$n --isolation rootless /workspace/context || echo failed; done",
            CASES.len() - 1
        );
        let there = self.container(flags, &script);
        let ids = String::from_utf8_lossy(&there.stdout).into_owned();
        let ids: Vec<&str> = ids.lines().collect();
        assert_eq!(ids.len(), CASES.len(), "{}", text(&there));
        for (number, ((about, _), there_id)) in CASES.iter().zip(ids).enumerate() {
            let file = format!("cases/{number}");
            let args: Vec<&str> = build.split(' ').chain([file.as_str(), "context"]).collect();
            let here = self.as_root(&args);
            assert!(here.stdout.starts_with(b"sha256:"), "{about}: {}", text(&here));
            assert_eq!(there_id, String::from_utf8_lossy(&here.stdout).trim_end(), "{about}: {}", text(&there));
        }
    }

    /// A seccomp profile that allows all calls but these.
    fn without(&self, calls: &[&str], errno: i32) -> String {
        let profile = serde_json::json!({
            "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{ "names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": errno }],
        });
        let path = self.path("without.json");
        fs::write(&path, profile.to_string()).unwrap();
        format!("--security-opt=seccomp={}", path.display())
    }
}

/// The line of `kiln info` about a level.
fn level(output: &Output, name: &str) -> String {
    let text = text(output);
    text.lines().map(str::trim).find(|line| line.starts_with(name)).unwrap_or(&text).to_owned()
}

#[test]
fn the_same_images_on_overlays() {
    let Some(place) = Place::new("overlays") else { return };
    place.same(&UNCONFINED, "/workspace/store");
}

#[test]
fn the_same_images_on_copies() {
    let Some(place) = Place::new("copies") else { return };
    // On the container's own overlay there is no other.
    place.same(&UNCONFINED, "/kiln/store");
}

#[test]
fn the_same_images_with_a_single_number() {
    let Some(place) = Place::new("single") else { return };
    let flags = [&UNCONFINED[..], &["--cap-drop=SETUID,SETGID"]].concat();
    let info = place.container(&flags, "KILN_ROOT=/workspace/store kiln info");
    assert!(level(&info, "rootless:").contains("works, with a single number"), "{}", text(&info));
    place.same(&flags, "/workspace/store");
}

/// That forbids `sethostname` without CAP_SYS_ADMIN outside, and nothing else that matters: the name is the container's.
#[test]
fn the_same_images_under_podmans_own_profile() {
    let Some(place) = Place::new("podman") else { return };
    place.same(&[AS_DOCKER, "--security-opt=seccomp=/usr/share/containers/seccomp.json"], "/workspace/store");
}

#[test]
fn it_is_taken_before_in_place_and_that_is_told() {
    let Some(place) = Place::new("taken") else { return };
    place.file("context/Dockerfile", &format!("{BASE}RUN true\n"));
    let built = place.container(&UNCONFINED, "kiln build --progress plain /workspace/context");
    let told = "isolation level rootless, since root doesn't work here: it needs CAP_SYS_ADMIN";
    assert!(built.status.success() && text(&built).contains(told), "{}", text(&built));
    let info = place.container(&UNCONFINED, "kiln info");
    assert!(level(&info, "rootless:").contains("unmask=ALL"), "{}", text(&info));
    assert_eq!(level(&info, "in-place:"), "in-place:     works");
    let own = place.container(&[&UNCONFINED[..], &["--security-opt=unmask=ALL"]].concat(), "kiln info");
    assert_eq!(level(&own, "rootless:"), "rootless:     works");
}

#[test]
fn proc_is_its_own_where_the_containers_is_whole() {
    let Some(place) = Place::new("proc") else { return };
    let count = "RUN test $(ls -d /proc/[0-9]* | wc -l) -le 5 && test \"$(readlink /proc/self)\" -lt 9\n";
    place.file("context/Dockerfile", &format!("{BASE}{count}"));
    let flags = [&UNCONFINED[..], &["--security-opt=unmask=ALL"]].concat();
    let built = place.container(&flags, "kiln build --isolation rootless /workspace/context");
    assert!(built.status.success(), "{}", text(&built));
}

/// Where a step sees the container's `/proc`, it sees its processes, and does nothing to them: a higher `oom_score_adj` would let the kernel
/// end kiln first when memory runs out.
#[test]
fn processes_in_view_are_left_alone() {
    let Some(place) = Place::new("view") else { return };
    let attacks = "for p in 1 $PPID; do for file in oom_score_adj oom_adj comm coredump_filter clear_refs autogroup; do \
                   ! echo 1 > /proc/$p/$file || exit 9; done; done 2> /dev/null\n\
                   RUN for p in 1 $(ls /proc | grep '^[0-9]'); do test -e /proc/$p/status || continue; kill -9 $p; \
                   chmod 4777 /proc/$p/exe; ls /proc/$p/root/. /proc/$p/cwd/.; cat /proc/$p/environ; done > /said 2>&1; \
                   ! grep -q s3cr3t /said && ! grep -q in-place /said\n";
    let harmless = "RUN grep -q . /proc/1/cmdline && grep -q Name /proc/self/status && readlink /proc/self/exe && ls /proc/self/fd\n";
    place.file("context/Dockerfile", &format!("{BASE}RUN {attacks}{harmless}"));
    let build = "kiln build --isolation rootless /workspace/context; echo code $?; cat /proc/$$/oom_score_adj; b ls -l /kiln/kiln";
    let built = place.container(&UNCONFINED, &format!("cat() {{ b cat \"$@\"; }}; {build}"));
    assert!(text(&built).contains("code 0\n0\n-rwxr-xr-x"), "{}", text(&built));
}

/// As AppArmor does it on Ubuntu 24.04: there is a namespace, and the first mount in it is refused.
#[test]
fn where_the_first_mount_is_refused_it_is_in_place_with_roots_image() {
    let Some(place) = Place::new("mount") else { return };
    place.file(
        "context/Dockerfile",
        &format!("{BASE}RUN touch /f && chown 5:6 /f && setfattr -n user.a -v b /f || true\n"),
    );
    let build = ["build", "-q", "--build-arg", "SOURCE_DATE_EPOCH=1700000000", "-t", "x"];
    for (calls, said) in [
        (&["mount"][..], "mount: Permission denied (os error 13): a seccomp profile forbids it"),
        (&["pivot_root"][..], "pivot_root: Permission denied (os error 13): it needs a seccomp profile"),
        (&["unshare"][..], "unshare(CLONE_NEWUSER): Permission denied (os error 13): a seccomp profile forbids it"),
    ] {
        let flags = [AS_DOCKER, &place.without(calls, 13)];
        let info = place.container(&flags, "kiln info");
        let there = place.container(&flags, &format!("kiln {} /workspace/context", build.join(" ")));
        let here = place.as_root(&[&build[..], &["context"]].concat());
        assert!(here.stdout.starts_with(b"sha256:"), "{}", text(&here));
        assert_eq!(text(&there), text(&here), "{calls:?}");
        assert!(level(&info, "rootless:").contains(said), "{calls:?}: {}", text(&info));
        let asked = place.container(&flags, "kiln build --progress plain --isolation rootless /workspace/context");
        assert_eq!(asked.status.code(), Some(4), "{calls:?}: {}", text(&asked));
        assert!(text(&asked).contains(said), "{calls:?}: {}", text(&asked));
        // An ordinary user is told the same.
        let user =
            [&flags[..], &["--user=1234:1234", "--cap-drop=ALL", "-e=KILN_ROOT=/tmp/store", "--tmpfs=/tmp"]].concat();
        let info = place.container(&user, "kiln info");
        assert!(level(&info, "rootless:").contains(said), "{calls:?}: {}", text(&info));
    }
}

#[test]
fn without_the_right_to_map_root_that_is_told() {
    let Some(place) = Place::new("setfcap") else { return };
    let flags = [&UNCONFINED[..], &["--cap-drop=SETFCAP"]].concat();
    let info = place.container(&flags, "kiln info");
    assert!(
        level(&info, "rootless:").contains("write uid_map: Operation not permitted (os error 1): to map"),
        "{}",
        text(&info)
    );
    assert!(level(&info, "rootless:").contains("CAP_SETFCAP"), "{}", text(&info));
}
