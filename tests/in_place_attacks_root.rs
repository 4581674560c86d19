//! Attacks of a RUN's program at the level `in-place`, that need more than a shell: this test's own program is put into the context,
//! and runs there as the command of a RUN. Each attack comes with a harmless variant that must succeed. In containers by Debian's podman
//! and runc; with root, to start them, and Debian's busybox-static.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]
#![allow(unsafe_code, reason = "attackers use system calls as they are")]

#[path = "support/container.rs"]
mod container;

use container::{AS_DOCKER, BASE, Place, run, text};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;

/// Names the attack to a program that runs in a RUN.
const ATTACK: &str = "KILN_TEST_ATTACK";

/// Whether this is the program in a RUN.
fn is_inside() -> bool {
    std::env::var_os(ATTACK).is_some()
}

/// A place whose context has this program as `attacker`.
fn place(name: &str) -> Option<Place> {
    let place = Place::new(name)?;
    let program = place.path("context/attacker");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    if Path::new("/usr/bin/strip").exists() {
        run("strip", &[program.to_str().unwrap()]);
    }
    Some(place)
}

/// The lines of a Dockerfile up to the steps that attack.
fn with_attacker() -> String {
    format!("{BASE}COPY --chmod=755 attacker /attacker\n")
}

/// A step that executes a test of this program in a RUN.
fn attack(test: &str) -> String {
    format!("RUN {ATTACK}=1 /attacker --exact {test} --nocapture --test-threads=1\n")
}

fn open_path(path: &str) -> OwnedFd {
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).unwrap_or_else(|e| panic!("{path}: {e}"))
}

/// The error of a raw call, or its value.
fn call(number: libc::c_long, arguments: [usize; 6]) -> Result<libc::c_long, Errno> {
    let [a, b, c, d, e, f] = arguments;
    // SAFETY: the arguments are numbers and pointers to what lives across the call.
    let value = unsafe { libc::syscall(number, a, b, c, d, e, f) };
    if value >= 0 { Ok(value) } else { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap()) }
}

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
    "/kiln/store/in-place/in-place.json",
    "/kiln/home/.docker/config.json",
    "/workspace/of-another-user",
];

fn assert_all_fail(who: &str) {
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

fn assert_all_succeed(who: &str, file: &str) {
    fs::write(file, "").unwrap();
    for (way, done) in change_attributes(file) {
        let unknown = way == "fchmodat2" && matches!(done, Err(Errno::NOSYS | Errno::PERM));
        let removed = way == "removexattr";
        assert!(done.is_ok() || unknown || removed, "{who}: {way} of {file}: {done:?}");
    }
    fs::remove_file(file).unwrap();
}

fn without_capabilities() {
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none })
        .unwrap();
}

/// Tries the same from a root directory that is hidden.
fn in_another_root(root: &str, file: &str) {
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

/// Hides this process's memory from kiln.
fn undumpable() {
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable).unwrap();
}

#[test]
fn root_without_capabilities_changes_no_hidden_file() {
    if is_inside() {
        assert_all_fail("root");
        assert_all_succeed("root", "/ok");
        in_another_root("/kiln", "/kiln");
        in_another_root("/workspace", "/of-another-user");
        without_capabilities();
        assert_all_fail("root without capabilities");
        assert_all_succeed("root without capabilities", "/etc/ok");
        assert!(rustix::fs::chownat(CWD, "/etc", Some(Uid::from_raw(7)), None, AtFlags::empty()).is_err());
        undumpable();
        assert_all_fail("root whose memory cannot be read");
        return;
    }
    attributes("no-capabilities", "root_without_capabilities_changes_no_hidden_file");
}

#[test]
fn another_user_changes_no_hidden_file_of_its_own() {
    if is_inside() {
        let open = Mode::from_raw_mode(0o1777);
        for dir in ["/tmp/one", "/tmp/other"] {
            fs::create_dir(dir).unwrap();
            rustix::fs::chmodat(CWD, dir, open, AtFlags::empty()).unwrap();
        }
        // This user owns a hidden file. As it changes its own identity, kiln cannot read its memory from now on.
        become_user(1000);
        assert_all_fail("the owner");
        become_user(42);
        assert_all_fail("another user");
        return;
    }
    attributes("other-user", "another_user_changes_no_hidden_file_of_its_own");
}

#[test]
fn another_user_changes_its_own_files() {
    if is_inside() {
        let user: u32 = std::env::var(ATTACK).unwrap().parse().unwrap();
        become_user(user);
        assert_all_succeed("the user", &format!("/tmp/of-{user}"));
        return;
    }
    let Some(place) = place("own-files") else { return };
    let step = attack("another_user_changes_its_own_files").replace(&format!("{ATTACK}=1"), &format!("{ATTACK}=42"));
    // The memory of a user's process can be read if it did not change its identity itself.
    let user = format!("USER 1000\n{}", attack("another_user_changes_its_own_files"));
    let user = user.replace(&format!("{ATTACK}=1"), &format!("{ATTACK}=1000"));
    place.file("context/Dockerfile", &format!("{}{step}{user}", with_attacker()));
    let output = place.container(&[AS_DOCKER], "kiln build --progress plain /workspace/context");
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}

fn become_user(user: u32) {
    let (uid, gid) = (Uid::from_raw(user), Gid::from_raw(user));
    if rustix::process::geteuid() != uid {
        if !rustix::process::geteuid().is_root() {
            rustix::thread::set_thread_res_uid(None::<Uid>, Uid::ROOT, None::<Uid>).unwrap();
        }
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(Uid::ROOT, uid, Uid::ROOT).unwrap();
    }
}

/// Builds with one attack on attributes, and compares what is hidden before and after.
fn attributes(name: &str, test: &str) {
    let Some(place) = place(name) else { return };
    place.file("context/Dockerfile", &format!("{}{}", with_attacker(), attack(test)));
    place.file("of-another-user", "");
    std::os::unix::fs::chown(place.path("of-another-user"), Some(1000), Some(1000)).unwrap();
    let script =
        "look() { b stat -c '%n %a %u %g %Y' /kiln/kiln /kiln/home/.docker/config.json /workspace/of-another-user; }
        look > /kiln/before
        kiln build --progress plain /workspace/context || exit 1
        look > /kiln/after; b diff /kiln/before /kiln/after";
    let output = place.container(&[AS_DOCKER], script);
    assert!(output.status.success(), "{:?}: {}", output.status, text(&output));
}
