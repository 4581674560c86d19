//! Real children whose calls are answered. Loading a filter without `no_new_privs` needs root, and a static busybox does
//! the calls.

use super::*;
use crate::sys::Cancel;
use crate::sys::child::step::{Exec, Pointers};
use crate::sys::child::{Child, Ended, Namespaces, Program, Step};
use libc::sock_filter;
use std::ffi::CString;
use std::path::Path;

const BUSYBOX: &str = "/bin/busybox";

/// Tells of these native calls, and lets everything else through.
fn filter(numbers: &[libc::c_long]) -> Vec<sock_filter> {
    let op = |code: u32, yes: u8, no: u8, k: u32| sock_filter { code: code as u16, jt: yes, jf: no, k };
    let mut filter = vec![op(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for number in numbers {
        filter.push(op(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, *number as u32));
        filter.push(op(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_USER_NOTIF));
    }
    filter.push(op(libc::BPF_RET, 0, 0, libc::SECCOMP_RET_ALLOW));
    filter
}

/// A busybox command whose calls of these numbers are told to the listener; `None` where there can't be one.
fn start(command: &str, numbers: &[libc::c_long]) -> Option<(Child, Listener)> {
    if !rustix::process::geteuid().is_root() || !Path::new(BUSYBOX).exists() {
        eprintln!("skipped: needs root and {BUSYBOX}");
        return None;
    }
    let mut program = Program::default();
    let out = program.slot();
    let text = |s: &str| CString::new(s).unwrap();
    program.push(Step::Notify { filter: filter(numbers), out });
    program.push(Step::Exec(Exec {
        candidates: vec![text(BUSYBOX)],
        args: Pointers::new(["sh", "-c", command].map(text).to_vec()),
        env: Pointers::new(vec![text("PATH=/bin")]),
    }));
    let mut child = program.spawn(Namespaces::default()).unwrap();
    let listener = Listener::new(child.take(out).unwrap()).unwrap();
    Some((child, listener))
}

/// Runs a command; what it called, as `answer` put it, and its status.
fn answered(command: &str, numbers: &[libc::c_long], mut answer: impl FnMut(&Call<'_>) -> Answer) -> Option<Ended> {
    let (mut child, listener) = start(command, numbers)?;
    listener.serve(Cancel::new().unwrap(), &mut |call| answer(call)).unwrap();
    Some(child.wait().unwrap())
}

#[test]
fn calls_get_values_errors_and_files_and_the_loop_ends_with_the_processes() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("f"), "instead\n").unwrap();
    let command = "mkdir /nowhere/a || exit 1; mkdir /nowhere/b && exit 2; read x < /nowhere/c; test $x = instead || exit 3; \
        mkdir /nowhere/d; exit 7";
    let mut seen = Vec::new();
    let numbers = [libc::SYS_mkdir, libc::SYS_mkdirat, libc::SYS_open, libc::SYS_openat];
    let ended = answered(command, &numbers, |call| {
        let path = call.argument(if [libc::SYS_mkdirat, libc::SYS_openat].contains(&call.number()) { 1 } else { 0 });
        let path = call.string(path).unwrap().into_string().unwrap();
        if !path.starts_with("/nowhere") {
            return Answer::Continue;
        }
        seen.push(path.clone());
        match path.as_str() {
            "/nowhere/a" => Answer::Value(0),
            "/nowhere/b" => Answer::Errno(Errno::EXIST),
            "/nowhere/c" => {
                let fd = std::fs::File::open(dir.path().join("f")).unwrap().into();
                Answer::Fd { fd, close_on_exec: true }
            }
            _ => Answer::Continue,
        }
    });
    let Some(ended) = ended else { return };
    assert_eq!(ended, Ended::Exited(7));
    assert_eq!(seen, ["/nowhere/a", "/nowhere/b", "/nowhere/c", "/nowhere/d"]);
}

#[test]
fn paths_mean_what_they_mean_to_the_process() {
    let dir = tempfile::tempdir().unwrap();
    let at = |path: &str| dir.path().join(path);
    std::fs::create_dir_all(at("root/a/b")).unwrap();
    std::fs::create_dir_all(at("root/bin")).unwrap();
    std::fs::write(at("root/a/f"), "").unwrap();
    std::fs::write(at("outside"), "").unwrap();
    std::fs::copy(BUSYBOX, at("root/bin/sh")).unwrap_or(0);
    std::os::unix::fs::symlink("/a", at("root/l")).unwrap();
    std::os::unix::fs::symlink("../../../outside", at("root/out")).unwrap();
    let paths = ["/l/f", "../f", "../../../../a/f", "/out", "../../l/./f", "/../outside", "f", ".."];
    let made = paths.map(|p| format!("mkdir {p}")).join("; ");
    let command = format!("exec /bin/busybox chroot {} /bin/sh -c 'cd /a/b; {made}; true'", at("root").display());
    let mut found = Vec::new();
    let expected = std::fs::metadata(at("root/a/f")).unwrap();
    use std::os::unix::fs::MetadataExt as _;
    let ended = answered(&command, &[libc::SYS_mkdir, libc::SYS_mkdirat], |call| {
        let at = call.number() == libc::SYS_mkdirat;
        let (from, path) = if at { (call.int(0), call.argument(1)) } else { (libc::AT_FDCWD, call.argument(0)) };
        let path = call.string(path).unwrap();
        found.push(match call.find(from, &path, true) {
            Ok(fd) if rustix::fs::fstat(&fd).unwrap().st_ino == expected.ino() => "f".to_owned(),
            Ok(_) => "another".to_owned(),
            Err(errno) => errno.to_string(),
        });
        Answer::Errno(Errno::EXIST)
    });
    if ended.is_none() {
        return;
    }
    let none = Errno::NOENT.to_string();
    assert_eq!(found, ["f", "f", "f", &none, "f", &none, &none, "another"]);
}

#[test]
fn a_call_of_a_killed_process_is_not_answered() {
    let Some((child, listener)) = start("mkdir /nowhere", &[libc::SYS_mkdir, libc::SYS_mkdirat]) else { return };
    let mut asked = 0;
    listener
        .serve(Cancel::new().unwrap(), &mut |call| {
            asked += 1;
            assert!(call.is_alive());
            let path = call.bytes(call.argument(0), 8).unwrap();
            assert_eq!(path, b"/nowhere");
            child.kill().unwrap();
            while call.is_alive() {
                std::thread::yield_now();
            }
            assert_eq!(call.write(call.argument(0), b"/another").unwrap_err(), Errno::SRCH);
            // What was opened while the call waited is the memory of its process for good, whoever has the number now.
            assert!(call.string(call.argument(0)).is_err());
            assert_eq!(call.descriptor(0).unwrap_err(), Errno::SRCH);
            Answer::Value(0)
        })
        .unwrap();
    assert_eq!(asked, 1);
}

#[test]
fn memory_is_opened_only_while_the_call_waits() {
    let Some((child, listener)) = start("mkdir /nowhere", &[libc::SYS_mkdir, libc::SYS_mkdirat]) else { return };
    listener
        .serve(Cancel::new().unwrap(), &mut |call| {
            child.kill().unwrap();
            while call.is_alive() {
                std::thread::yield_now();
            }
            assert_eq!(call.string(call.argument(0)).unwrap_err(), Errno::SRCH);
            Answer::Value(0)
        })
        .unwrap();
}

#[test]
fn memory_is_written_where_the_kernel_would_write() {
    // busybox prints the working directory that `getcwd` wrote.
    let numbers = [libc::SYS_getcwd];
    let Some((mut child, listener)) = start("test $(cd /; unset PWD; busybox pwd) = /told || exit 5", &numbers) else {
        return;
    };
    listener
        .serve(Cancel::new().unwrap(), &mut |call| {
            assert_eq!(call.write(8, b"x").unwrap_err(), Errno::FAULT);
            call.write(call.argument(0), b"/told\0").unwrap();
            Answer::Value(6)
        })
        .unwrap();
    assert_eq!(child.wait().unwrap(), Ended::Exited(0));
}

#[test]
fn a_flag_stops_the_loop_and_then_the_call_fails() {
    let Some((mut child, listener)) = start("mkdir /nowhere || exit 9", &[libc::SYS_mkdir, libc::SYS_mkdirat]) else {
        return;
    };
    let stop = Cancel::new().unwrap();
    stop.cancel();
    listener.serve(&stop, &mut |_| panic!("not to be asked")).unwrap();
    drop(listener);
    assert_eq!(child.wait().unwrap(), Ended::Exited(9), "ENOSYS");
}
