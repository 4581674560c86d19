//! What hostile processes try to reach outside of a sandbox of the level `root`. Needs root; Debian's busybox-static and perl.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, reason = "a test")]

#[path = "support/executor.rs"]
mod executor;

use kiln::sandbox::{Error, Executor, Mount, MountKind, Network, Spec};
use kiln::sys::child::step::Identity;
use kiln::sys::child::{Namespaces, Program, Step};
use kiln::sys::{Cancel, RootMount, landlock};
use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

/// The exit code of a script of perl's, which sees this machine's programs in `/host`.
fn perl(script: &str) -> Option<i32> {
    perl_on(Network::Host, script)
}

fn perl_on(network: Network, script: &str) -> Option<i32> {
    perl_by(&*executor::executor(String::new()), network, script)
}

fn perl_by(executor: &dyn Executor, network: Network, script: &str) -> Option<i32> {
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
    spec.network = network;
    let kind = MountKind::Tree { root: RootMount::Dir("/".into()), path: "".into(), readonly: true };
    spec.mounts.push(Mount { target: "/host".into(), kind });
    let mut said = Vec::new();
    let exit = executor.run(&spec, &mut |_, bytes| said.extend_from_slice(bytes), &Cancel::new().unwrap()).unwrap();
    eprintln!("{}", String::from_utf8_lossy(&said));
    Some(exit.code)
}

/// The exit code of a script of busybox's shell.
fn busybox(script: &str) -> Option<i32> {
    if !rustix::process::geteuid().is_root() || !Path::new("/bin/busybox").exists() {
        eprintln!("skipped: it needs root, and Debian's busybox-static");
        return None;
    }
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("bin")).unwrap();
    fs::copy("/bin/busybox", root.path().join("bin/busybox")).unwrap();
    let script = format!("/bin/busybox --install -s /bin; PATH=/bin; {script}");
    let args = ["/bin/busybox", "sh", "-c", &script].map(String::from);
    let spec = Spec::new(RootMount::Dir(root.path().to_owned()), args.to_vec());
    let mut said = Vec::new();
    let executor = executor::executor(String::new());
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
    let own =
        "socket(L, AF_UNIX, SOCK_STREAM, 0); bind(L, pack('S a*', 1, \"\\0kiln-own\")) and listen(L, 1) or exit 9; ";
    let runtimes = [("crun", "/usr/bin/crun"), ("runc", "/usr/sbin/runc")].into_iter();
    let runtimes = runtimes.filter(|(_, path)| Path::new(path).exists()).map(|(name, _)| name);
    for level in ["", "chroot"].into_iter().chain(runtimes) {
        let executor = executor::at(level, String::new());
        let Some(code) = perl_by(&*executor, Network::Host, &connect(&name)) else { return };
        assert_eq!(code, 8, "{level}");
        let own = perl_by(&*executor, Network::Host, &format!("{own}{}", connect("kiln-own")));
        assert_eq!(own, Some(7), "{level}: its own are in reach");
    }
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

/// By such sockets a process reads what others send on the same network, kiln's passwords too.
#[test]
fn raw_sockets_are_for_a_network_of_its_own() {
    for (family, kind) in
        [("AF_INET", "SOCK_RAW"), ("AF_INET6", "SOCK_RAW | 02000000"), ("17", "SOCK_RAW"), ("17", "SOCK_DGRAM")]
    {
        let script = format!("exit(socket(S, {family}, {kind}, 6) ? 7 : $!{{EPERM}} ? 8 : 9)");
        let Some(code) = perl(&script) else { return };
        assert_eq!((code, perl_on(Network::None, &script)), (8, Some(7)), "{family} {kind}");
    }
    for (family, kind) in
        [("AF_INET", "SOCK_STREAM"), ("AF_INET6", "SOCK_DGRAM"), ("AF_UNIX", "SOCK_STREAM"), ("16", "SOCK_RAW")]
    {
        assert_eq!(perl(&format!("exit(socket(S, {family}, {kind}, 0) ? 7 : 8)")), Some(7), "{family} {kind}");
    }
}

/// A 32-bit program that makes a socket by `socketcall`, and exits with the negative of what that gave.
#[cfg(target_arch = "x86_64")]
fn socketcall(family: u32, kind: u32, protocol: u32) -> Vec<u8> {
    const BASE: u32 = 0x0804_8000;
    const HEADERS: u32 = 52 + 32;
    const CODE: u32 = 32;
    // mov eax, 102; mov ebx, 1; mov ecx, arguments; int 0x80; mov ebx, eax; neg ebx; mov eax, 1; int 0x80
    let mut code = vec![0xb8, 102, 0, 0, 0, 0xbb, 1, 0, 0, 0, 0xb9];
    code.extend((BASE + HEADERS + CODE).to_le_bytes());
    code.extend([0xcd, 0x80, 0x89, 0xc3, 0xf7, 0xdb, 0xb8, 1, 0, 0, 0, 0xcd, 0x80]);
    code.resize(CODE as usize, 0);
    code.extend([family, kind, protocol].iter().flat_map(|word| word.to_le_bytes()));
    let mut file = b"\x7fELF\x01\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, values: &[u16]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    let words = |file: &mut Vec<u8>, values: &[u32]| file.extend(values.iter().flat_map(|v| v.to_le_bytes()));
    half(&mut file, &[2, 3]);
    words(&mut file, &[1, BASE + HEADERS, 52, 0, 0]);
    half(&mut file, &[52, 32, 1, 0, 0, 0]);
    let size = HEADERS + code.len() as u32;
    words(&mut file, &[1, 0, BASE, BASE, size, size, 5, 0x1000]);
    file.extend(code);
    file
}

#[cfg(target_arch = "x86_64")]
#[test]
fn programs_of_32_bits_have_no_raw_sockets_either() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: the isolation level root needs root");
        return;
    }
    let (eperm, third) = (libc::EPERM, 256 - 3);
    let raw = [(2, 3, 6), (2, 0o2_000_003, 6), (10, 3, 58), (2, 10, 0x0300), (17, 3, 0x0300), (17, 2, 0x0300)];
    let others = [(2, 1, 0), (2, 0o2_000_001, 6), (10, 2, 17), (1, 1, 0), (16, 3, 0)];
    let cases = raw.map(|socket| (Network::Host, socket, eperm));
    let others = others.map(|socket| (Network::Host, socket, third));
    let own = raw.map(|socket| (Network::None, socket, third));
    for (network, (family, kind, protocol), expected) in cases.into_iter().chain(others).chain(own) {
        let root = tempfile::tempdir().unwrap();
        let program = root.path().join("program");
        fs::write(&program, socketcall(family, kind, protocol)).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let mut spec = Spec::new(RootMount::Dir(root.path().to_owned()), vec!["/program".into()]);
        spec.network = network;
        match executor::executor(String::new()).run(&spec, &mut |_, _| {}, &Cancel::new().unwrap()) {
            Err(Error::Command { why, .. }) if why.contains("exec format") => {
                eprintln!("skipped: this kernel runs no 32-bit programs");
                return;
            }
            ran => assert_eq!(ran.unwrap().code, expected, "{network:?} {family} {kind:o} {protocol}"),
        }
    }
}

/// Neither the machine's terminals, nor what stands for them, are among a process's devices.
#[test]
fn terminals_of_the_machine_are_out_of_reach() {
    let mode = || fs::metadata("/dev/pts/ptmx").map(|meta| meta.permissions().mode()).unwrap_or(0);
    let before = mode();
    let script =
        "test ! -e /dev/console && chmod 600 /dev/pts/ptmx && test $(ls /dev/pts) = ptmx && ! echo x > /dev/tty";
    let Some(code) = busybox(script) else { return };
    assert_eq!((code, mode()), (0, before));
}

/// A child has its maker's memory until it executes its command. Another process of the same user, with the same capabilities, could read
/// that by `/proc/PID/mem` if it sees the child in its `/proc`.
#[test]
fn a_child_keeps_a_capability_that_others_lack_until_it_executes_its_command() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: needs root");
        return;
    }
    let kept = kiln::sandbox::capabilities_for(false);
    let (full, stuck) = rustix::pipe::pipe().unwrap();
    rustix::io::ioctl_fionbio(&stuck, true).unwrap();
    while rustix::io::write(&stuck, &[0; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&stuck, false).unwrap();
    let maker = std::thread::spawn(move || {
        let mut program = Program::default();
        let (uid, gid, groups) = (0, 0, vec![]);
        program.push(Step::Identity(Identity {
            uid,
            gid,
            groups,
            capabilities: kept,
            ambient: false,
            keeps_ids: false,
        }));
        // Waits until there is room in the pipe.
        program.push(Step::JoinCgroup { procs: stuck, path: c"stuck".to_owned() });
        program.spawn(Namespaces::default()).map(|mut child| child.wait())
    });
    let permitted = || {
        let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path().join("children"));
        let children: String = tasks.filter_map(|children| fs::read_to_string(children).ok()).collect();
        let statuses =
            children.split_whitespace().filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/status")).ok());
        let field = |status: &str, name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            u64::from_str_radix(line.trim(), 16).unwrap_or(0)
        };
        let mut statuses = statuses.filter(|status| field(status, "CapBnd:") == kept.bits());
        statuses.next().map(|status| (field(&status, "CapEff:"), field(&status, "CapPrm:")))
    };
    let end = std::time::Instant::now() + std::time::Duration::from_secs(5);
    let found = loop {
        match permitted() {
            Some((effective, permitted)) if effective == kept.bits() => break permitted,
            _ => assert!(std::time::Instant::now() < end, "there is no such child"),
        }
    };
    rustix::io::read(&full, &mut [0; 8192]).unwrap();
    maker.join().unwrap().unwrap().unwrap();
    assert_ne!(found & !kept.bits(), 0, "{found:x}");
}
