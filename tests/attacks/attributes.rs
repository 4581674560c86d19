//! Changes of modes, owners, times and attributes of files that are not the RUN's.

use super::attacker::{call, open_path};
use rustix::fs::{AtFlags, CWD, Gid, Mode, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd as _;

/// Every way to change a file's mode, owner, times and attributes by a path, with its result.
fn change_attributes(file: &str) -> Vec<(&'static str, Result<(), Errno>)> {
    let (dir, name) = file.rsplit_once('/').unwrap();
    let (dir, itself) = (open_path(if dir.is_empty() { "/" } else { dir }), open_path(file));
    let by_number = format!("/proc/self/fd/{}", itself.as_raw_fd());
    let mode = Mode::from_raw_mode(0o4755);
    let owner = rustix::fs::fstat(&itself).unwrap();
    let (uid, gid) = (Uid::from_raw(owner.st_uid), Gid::from_raw(owner.st_gid));
    let now = rustix::fs::Timespec { tv_sec: 7, tv_nsec: 7 };
    let times = Timestamps { last_access: now, last_modification: now };
    let (none, flags) = (AtFlags::empty(), XattrFlags::empty());
    let raw = |number, arguments| call(number, arguments).map(drop);
    #[cfg(target_arch = "x86_64")]
    let (path, utime) = (CString::new(file).unwrap(), [7_i64, 7]);
    let mut done = vec![
        ("chmod", rustix::fs::chmodat(CWD, file, mode, none)),
        ("fchmodat", rustix::fs::chmodat(&dir, name, mode, none)),
        ("chmod by number", rustix::fs::chmodat(CWD, &by_number, mode, none)),
        ("chmod below .", rustix::fs::chmodat(&dir, format!("./{name}"), mode, none)),
        ("fchmodat2", raw(452, [itself.as_raw_fd() as usize, c"".as_ptr() as usize, 0o4755, 0x1000, 0, 0])),
        ("fchownat", rustix::fs::chownat(&dir, name, Some(uid), Some(gid), none)),
        ("fchownat, no link", rustix::fs::chownat(&dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)),
        ("fchownat, no path", rustix::fs::chownat(&itself, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)),
        ("utimensat", rustix::fs::utimensat(&dir, name, &times, none)),
        ("utimensat, no path", rustix::fs::utimensat(&itself, "", &times, AtFlags::EMPTY_PATH)),
        ("utimensat by number", rustix::fs::utimensat(CWD, &by_number, &times, none)),
        ("setxattr", rustix::fs::setxattr(file, "user.kiln", b"x", flags)),
        ("setxattr by number", rustix::fs::setxattr(&by_number, "user.kiln", b"x", flags)),
        ("lsetxattr", rustix::fs::lsetxattr(file, "user.kiln", b"x", flags)),
        ("removexattr", rustix::fs::removexattr(file, "user.kiln")),
    ];
    #[cfg(target_arch = "x86_64")]
    done.extend([
        ("old chmod", raw(libc::SYS_chmod, [path.as_ptr() as usize, 0o4755, 0, 0, 0, 0])),
        (
            "old chown",
            raw(libc::SYS_chown, [path.as_ptr() as usize, uid.as_raw() as usize, -1_isize as usize, 0, 0, 0]),
        ),
        ("utime", raw(libc::SYS_utime, [path.as_ptr() as usize, utime.as_ptr() as usize, 0, 0, 0, 0])),
        ("utimes", raw(libc::SYS_utimes, [path.as_ptr() as usize, 0, 0, 0, 0, 0])),
        ("futimesat", raw(libc::SYS_futimesat, [-100_i32 as usize, path.as_ptr() as usize, 0, 0, 0, 0])),
    ]);
    done
}

/// Calls of recent kernels for the same; and those that make a mount or a descriptor that could. Nobody may make them at all.
fn refused_calls(file: &str) -> Vec<(&'static str, Result<libc::c_long, Errno>)> {
    let path = CString::new(file).unwrap();
    let (cwd, path, space) = (libc::AT_FDCWD as usize, path.as_ptr() as usize, [0_u64; 8]);
    let space = space.as_ptr() as usize;
    vec![
        ("setxattrat", call(463, [cwd, path, 0, c"user.kiln".as_ptr() as usize, space, 16])),
        ("removexattrat", call(466, [cwd, path, 0, c"user.kiln".as_ptr() as usize, 0, 0])),
        ("file_setattr", call(469, [cwd, path, space, 24, 0, 0])),
        ("open_tree", call(428, [cwd, path, 1, 0, 0, 0])),
        ("open_tree_attr", call(467, [cwd, path, 1, space, 32, 0])),
        ("mount_setattr", call(442, [cwd, path, 0, space, 32, 0])),
        ("open_by_handle_at", call(304, [cwd, space, 0, 0, 0, 0])),
        ("fanotify_init", call(300, [0, 0, 0, 0, 0, 0])),
        ("io_uring_setup", call(425, [1, space, 0, 0, 0, 0])),
        ("pidfd_getfd", call(438, [0, 0, 0, 0, 0, 0])),
    ]
}

/// What no process may change; the last is another user's.
const HIDDEN: [&str; 5] = [
    "/kiln/kiln",
    "/kiln/store/kiln-store",
    "/kiln/store/in-place/crash-journal",
    "/kiln/home/.docker/config.json",
    "/workspace/of-another-user",
];

pub(crate) fn assert_all_fail(who: &str) {
    for file in HIDDEN {
        // Somebody without rights does not even get as far as the file in some cases.
        if rustix::fs::stat(file).is_err() {
            continue;
        }
        for (way, done) in change_attributes(file) {
            assert!(matches!(done, Err(Errno::ACCESS | Errno::PERM)), "{who}: {way} of {file}: {done:?}");
        }
        for (way, done) in refused_calls(file) {
            assert!(
                matches!(done, Err(Errno::ACCESS | Errno::PERM | Errno::NOSYS)),
                "{who}: {way} of {file}: {done:?}"
            );
        }
    }
}

pub(crate) fn assert_all_succeed(who: &str, file: &str) {
    fs::write(file, "").unwrap();
    for (way, done) in change_attributes(file) {
        let unknown = way == "fchmodat2" && matches!(done, Err(Errno::NOSYS | Errno::PERM));
        let removed = way == "removexattr";
        assert!(done.is_ok() || unknown || removed, "{who}: {way} of {file}: {done:?}");
    }
    fs::remove_file(file).unwrap();
}

/// Tries the same from a root directory that is hidden.
pub(crate) fn in_another_root(root: &str, file: &str) {
    let own = open_path("/");
    rustix::process::chroot(root).unwrap();
    for (way, done) in change_attributes(file) {
        // Nothing is in /proc here.
        let refused = matches!(done, Err(Errno::ACCESS | Errno::PERM)) || way.ends_with("by number") && done.is_err();
        assert!(refused, "{way} of {file} in {root}: {done:?}");
    }
    rustix::process::fchdir(&own).unwrap();
    rustix::process::chroot(".").unwrap();
}

/// What apt does, which was another user for a while: absolute paths.
pub(crate) fn assert_absolute_paths_succeed(who: &str, file: &str) {
    fs::write(file, "").unwrap();
    for (way, done) in change_attributes(file) {
        if ["chmod", "old chmod", "old chown", "utime", "utimes", "setxattr", "lsetxattr"].contains(&way) {
            assert!(done.is_ok(), "{who}: {way} of {file}: {done:?}");
        }
    }
    fs::remove_file(file).unwrap();
}
