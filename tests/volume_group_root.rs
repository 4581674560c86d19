//! A store on a volume that prescribes a group for all that is made in it, as Kubernetes' `fsGroup` does: the images are those of a store
//! without. With root, Debian's uidmap and busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

#[path = "support/user.rs"]
mod user;

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::Path;
use std::process::{Command, Output};
use user::{BASE, Place, text};

/// A group that nobody has and no user namespace knows.
const GROUP: u32 = 54400;

const STEPS: &str = "RUN mkdir /d /d/e && touch /d/f && ls -ldn / /d > /said
RUN rm -r /d && mkdir /d /d/e && touch /d/g && mkfifo /d/p && ln -s g /d/l && chmod 2755 /d/e && ls -ldn / /d /d/* > /again
RUN --mount=type=cache,target=/c mkdir /c/x; ls -ldn /c /c/x > /cached
";

fn build(place: &Place, as_root: bool, store: &Path, level: &str) -> Output {
    let [uid, gid] = place.ids();
    let group = GROUP.to_string();
    let user = ["--groups", &group, "--reuid", &uid, "--regid", &gid];
    let mut command = Command::new("setpriv");
    command.args(&user[..if as_root { 2 } else { user.len() }]).arg("--").arg(place.path("kiln"));
    command.args([
        "build",
        "-q",
        "--no-cache",
        "--build-arg=SOURCE_DATE_EPOCH=1700000000",
        "--isolation",
        level,
        "context",
    ]);
    command.arg("--root").arg(store);
    place.finish(&mut command, "home")
}

#[test]
fn a_volume_that_prescribes_a_group_changes_no_image() {
    for place in [Place::new("volume"), Place::with_one_number()].into_iter().flatten() {
        place.dockerfile(&format!("{BASE}{STEPS}"));
        let reference = build(&place, true, &place.path("plain"), "root");
        assert!(reference.status.success(), "{}", text(&reference));
        for (as_root, level) in [(true, "root"), (true, "chroot"), (false, "rootless"), (false, "chroot")] {
            // The volume is the store, or holds it.
            for inner in ["", "store"] {
                let volume = tempfile::tempdir_in(place.path("")).unwrap();
                chown(volume.path(), Some(0), Some(GROUP)).unwrap();
                fs::set_permissions(volume.path(), fs::Permissions::from_mode(0o2775)).unwrap();
                let built = build(&place, as_root, &volume.path().join(inner), level);
                assert!(built.status.success(), "{level}, {inner:?}: {}", text(&built));
                assert_eq!(built.stdout, reference.stdout, "{level}, {inner:?}: {}", text(&built));
                let left: Vec<_> =
                    fs::read_dir(volume.path().join(inner)).unwrap().map(|e| e.unwrap().file_name()).collect();
                assert!(!left.iter().any(|name| name.to_string_lossy().starts_with(".probe")), "{left:?}");
            }
        }
    }
}
