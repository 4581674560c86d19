//! What hostile processes try to reach outside of a sandbox of the level `root`. Needs root; Debian's busybox-static and perl.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

#[path = "support/executor.rs"]
mod executor;

use kiln::sandbox::{Mount, MountKind, Spec};
use kiln::sys::{Cancel, RootMount, landlock};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

/// The exit code of a script of perl's, which sees this machine's programs in `/host`.
fn perl(script: &str) -> Option<i32> {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the isolation level root needs root");
        return None;
    }
    if let Some(file) = ["/bin/busybox", "/usr/bin/perl"].iter().find(|file| !Path::new(file).exists()) {
        eprintln!("skipped: {file} isn't there (Debian: busybox-static, perl-base)");
        return None;
    }
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    let file = dir.path().join("script");
    fs::write(&file, format!("use Socket; {script}")).unwrap();
    let args = ["/bin/busybox", "chroot", "/host", "/usr/bin/perl", file.to_str().unwrap()];
    let mut spec = Spec::new(RootMount::Dir(root), args.map(String::from).to_vec());
    let kind = MountKind::Tree { root: RootMount::Dir("/".into()), path: "".into(), readonly: true };
    spec.mounts.push(Mount { target: "/host".into(), kind });
    let executor = executor::executor(String::new());
    let mut said = Vec::new();
    let exit = executor.run(&spec, &mut |_, bytes| said.extend_from_slice(bytes), &Cancel::new().unwrap()).unwrap();
    eprintln!("{}", String::from_utf8_lossy(&said));
    Some(exit.code)
}

/// A process is on this machine's network, and so among its abstract sockets: those of container runtimes and desktops do
/// whatever root asks for (CVE-2020-15257).
#[test]
fn abstract_sockets_of_the_host_are_out_of_reach() {
    let name = format!("kiln-test-{}", std::process::id());
    let _listener = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    if landlock::abi().unwrap_or(0) < 6 {
        eprintln!("skipped: this kernel's Landlock knows of no processes outside (Linux 6.12)");
        return;
    }
    let connect = |name: &str| {
        format!("socket(S, AF_UNIX, SOCK_STREAM, 0); exit(connect(S, pack('S a*', 1, \"\\0{name}\")) ? 7 : 8)")
    };
    let Some(code) = perl(&connect(&name)) else { return };
    assert_eq!(code, 8);
    let own =
        "socket(L, AF_UNIX, SOCK_STREAM, 0); bind(L, pack('S a*', 1, \"\\0kiln-own\")) and listen(L, 1) or exit 9; ";
    assert_eq!(perl(&format!("{own}{}", connect("kiln-own"))), Some(7), "its own are in reach");
}

/// A child has its maker's descriptors until it executes its command, and a directory among them is a way to the machine's files
/// (CVE-2024-21626).
#[test]
fn a_command_by_a_descriptor_of_its_maker_is_not_found() {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: it needs root, and Debian's busybox-static");
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let machine = fs::File::open("/").unwrap();
    let path = format!("/proc/self/fd/{}/bin/busybox", machine.as_raw_fd());
    assert!(Path::new(&path).exists());
    let spec = Spec::new(RootMount::Dir(root.path().to_owned()), vec![path, "true".into()]);
    let ran = executor::executor(String::new()).run(&spec, &mut |_, _| {}, &Cancel::new().unwrap());
    assert!(ran.is_err(), "{ran:?}");
}
