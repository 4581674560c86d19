//! Connections to Unix sockets that are not the RUN's.

use super::attacker::{become_user, call, open_path, undumpable};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendAncillaryBuffer, SendFlags, SocketAddrUnix, SocketFlags, SocketType, bind, connect,
    ipproto, listen, recv, recvfrom, send, sendmsg_addr, sendto, socket_with, socketpair, sockopt,
};
use std::fs;
use std::io::{IoSlice, Read as _, Write as _};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Where sockets outside are: in a volume, and beside kiln.
const OUTSIDE: [&str; 2] = ["/workspace/outside", "/kiln/outside"];
const ABSTRACT: &[u8] = b"kiln-outside";

/// What the servers outside write, as soon as they listen.
const RECORD: &str = "/kiln/received";

fn make(kind: SocketType) -> OwnedFd {
    socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap()
}

fn at(path: &str) -> SocketAddrUnix {
    SocketAddrUnix::new(path).unwrap()
}

/// Serves outside of the RUN until it is killed, and records whatever arrives.
pub(crate) fn serve() {
    let record = |line: &str| {
        let mut file = fs::File::options().append(true).create(true).open(RECORD).unwrap();
        file.write_all(format!("{line}\n").as_bytes()).unwrap();
    };
    std::thread::scope(|scope| {
        for path in OUTSIDE {
            let (streams, datagrams) = (make(SocketType::STREAM), make(SocketType::DGRAM));
            bind(&streams, &at(&format!("{path}.stream"))).unwrap();
            bind(&datagrams, &at(&format!("{path}.datagram"))).unwrap();
            scope.spawn(move || accept_all(&streams, &record));
            scope.spawn(move || {
                let mut buffer = [0; 64];
                while recv(&datagrams, &mut buffer, RecvFlags::empty()).is_ok() {
                    record("a datagram");
                }
            });
        }
        let name = make(SocketType::STREAM);
        bind(&name, &SocketAddrUnix::new_abstract_name(ABSTRACT).unwrap()).unwrap();
        scope.spawn(move || accept_all(&name, &record));
        std::thread::sleep(Duration::from_millis(100));
        record("listening");
    });
}

fn accept_all(socket: &OwnedFd, record: &(impl Fn(&str) + Sync)) {
    listen(socket, 100).unwrap();
    std::thread::scope(|scope| {
        while let Ok(accepted) = rustix::net::accept(socket) {
            scope.spawn(move || {
                let mut buffer = [0; 64];
                if recv(&accepted, &mut buffer, RecvFlags::empty()).is_ok_and(|(length, _)| length > 0) {
                    record("a message");
                }
            });
        }
    });
}

/// Every name of a socket outside.
fn names(path: &str) -> Vec<String> {
    let (dir, name) = path.rsplit_once('/').unwrap();
    let opened = open_path(dir);
    let number = opened.as_raw_fd();
    // It stays open.
    std::mem::forget(opened);
    let link = format!("/tmp/{}", path.replace('/', "-"));
    let _ = std::os::unix::fs::symlink(path, &link);
    vec![
        path.to_owned(),
        link,
        format!("/tmp/../{path}"),
        format!("/proc/self/fd/{number}/{name}"),
        format!("/proc/self/root{path}"),
        format!("/proc/{}/root{path}", std::process::id()),
        format!("/proc/{}/fd/{number}/{name}", std::process::id()),
    ]
}

/// Tries every way to reach sockets outside, without a race. A process that kiln may not look into may get a connection that sends
/// nothing.
pub(crate) fn assert_out_of_reach(who: &str, is_readable: bool) {
    for outside in OUTSIDE {
        for name in names(&format!("{outside}.stream")) {
            for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
                let (plain, bound) = (make(kind), make(kind));
                let own = format!("/tmp/own-{who}");
                let _ = fs::remove_file(&own);
                bind(&bound, &at(&own)).unwrap();
                for socket in [plain, bound] {
                    let connected = connect(&socket, &at(&name));
                    let sent = send(&socket, b"x", SendFlags::NOSIGNAL);
                    let refused = (connected.is_err() || !is_readable) && sent.is_err();
                    assert!(refused, "{who}: {name}: {connected:?} {sent:?}");
                }
            }
        }
        for name in names(&format!("{outside}.datagram")) {
            send_datagrams(who, is_readable, &at(&name));
        }
        let (dir, name) = outside.rsplit_once('/').unwrap();
        std::env::set_current_dir(dir).unwrap();
        let connected = connect(make(SocketType::STREAM), &at(&format!("{name}.stream")));
        assert!(connected.is_err() || !is_readable, "{who}: {name}: {connected:?}");
        send_datagrams(who, is_readable, &at(&format!("{name}.datagram")));
        std::env::set_current_dir("/").unwrap();
    }
    let name = SocketAddrUnix::new_abstract_name(ABSTRACT).unwrap();
    let connected = connect(make(SocketType::STREAM), &name);
    assert!(connected.is_err(), "{who}: an abstract name: {connected:?}");
}

fn send_datagrams(who: &str, is_readable: bool, address: &SocketAddrUnix) {
    let pair = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None);
    assert!(pair.is_ok() || !is_readable, "{who}: {pair:?}");
    let pair = pair.map(|(one, _)| (one, "pair"));
    let sockets = [(make(SocketType::DGRAM), "socket"), (make(SocketType::RAW), "raw socket")];
    for (socket, what) in sockets.into_iter().chain(pair) {
        let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
        // An end of a pair sends to the other end, whatever address is named.
        let sent = sendto(&socket, b"x", flags, address);
        assert!(sent.is_err() || what == "pair", "{who}: {what}: {sent:?}");
        let mut none = SendAncillaryBuffer::default();
        let sent = sendmsg_addr(&socket, address, &[IoSlice::new(b"x")], &mut none, flags);
        assert!(sent.is_err() || what == "pair", "{who}: {what}, sendmsg: {sent:?}");
        let connected = connect(&socket, address);
        assert!(connected.is_err() || !is_readable, "{who}: {what}: {connected:?}");
        let sent = send(&socket, b"x", flags);
        assert!(sent.is_err() || what == "pair", "{who}: {what}, connected: {sent:?}");
    }
}

/// While one thread connects and sends, another changes the address, or puts another socket in the place of the descriptor. What counts
/// is what the servers receive.
pub(crate) fn race(may_connect: bool) {
    let name = format!("/tmp/race-{}", rustix::process::geteuid().as_raw());
    let _ = fs::remove_file(&name);
    let own = UnixListener::bind(&name).unwrap();
    own.set_nonblocking(true).unwrap();
    let path = |path: &str| {
        let mut bytes = [0_u8; 32];
        bytes[0] = 1;
        bytes[2..2 + path.len()].copy_from_slice(path.as_bytes());
        bytes.chunks_exact(8).map(|b| u64::from_ne_bytes(b.try_into().unwrap())).collect::<Vec<u64>>()
    };
    let (good, bad) = (path(&name), path("/workspace/outside.stream"));
    let address: Vec<AtomicU64> = good.iter().map(|word| AtomicU64::new(*word)).collect();
    let end = AtomicBool::new(false);
    let start = Instant::now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !end.load(Ordering::Relaxed) {
                for source in [&bad, &good] {
                    address.iter().zip(source).for_each(|(to, from)| to.store(*from, Ordering::Relaxed));
                }
            }
        });
        let mut connected = 0;
        while start.elapsed() < Duration::from_secs(1) {
            let socket = make(SocketType::STREAM);
            let pointer = address.as_ptr() as usize;
            let done = call(libc::SYS_connect, [socket.as_raw_fd() as usize, pointer, 32, 0, 0, 0]);
            connected += usize::from(done.is_ok());
            let _ = send(&socket, b"x", SendFlags::NOSIGNAL);
            while own.accept().is_ok() {}
        }
        assert!(connected > 0 || !may_connect, "the harmless address was never seen");
        end.store(true, Ordering::Relaxed);
    });
    race_of_descriptors(&bad);
}

fn race_of_descriptors(address: &[u64]) {
    let end = AtomicBool::new(false);
    let start = Instant::now();
    let place = UdpSocket::bind("127.0.0.1:0").unwrap();
    let number = place.as_raw_fd() as usize;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (internet, unix) = (UdpSocket::bind("127.0.0.1:0").unwrap(), make(SocketType::STREAM));
            while !end.load(Ordering::Relaxed) {
                for other in [internet.as_raw_fd(), unix.as_raw_fd()] {
                    call(libc::SYS_dup2, [other as usize, number, 0, 0, 0, 0]).unwrap();
                }
            }
        });
        while start.elapsed() < Duration::from_secs(1) {
            let _ = call(libc::SYS_connect, [number, address.as_ptr() as usize, 32, 0, 0, 0]);
            let _ = call(libc::SYS_sendto, [number, c"x".as_ptr() as usize, 1, 0x4000, 0, 0]);
        }
        end.store(true, Ordering::Relaxed);
    });
}

/// Tries it with calls of the 32-bit architecture, which a program of 64 bits may make, too.
#[cfg(target_arch = "x86_64")]
pub(crate) fn assert_narrow_calls_are_answered(is_readable: bool) {
    const SOCKETCALL: usize = 102;
    // SAFETY: a new mapping in the part of memory that 32 bits reach.
    let memory = unsafe {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_32BIT;
        libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0)
    } as usize;
    let write = |at: usize, bytes: &[u8]| {
        // SAFETY: within the mapping.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), (memory + at) as *mut u8, bytes.len()) }
    };
    let socketcall = |number: usize, arguments: &[u32]| {
        let bytes: Vec<u8> = arguments.iter().flat_map(|a| a.to_ne_bytes()).collect();
        write(0, &bytes);
        narrow_call(SOCKETCALL, [number, memory, 0])
    };
    let address = memory as u32 + 1024;
    for (path, family, kind) in [("/workspace/outside.stream", 1, 1), ("/workspace/outside.datagram", 1, 2)] {
        write(1024, &[1, 0]);
        write(1026, path.as_bytes());
        let socket = socketcall(1, &[family, kind, 0]);
        if socket == -i64::from(libc::ENOSYS) || !is_readable && socket == -i64::from(libc::EPERM) {
            return;
        }
        assert!(socket > 0, "{socket}");
        let connected = socketcall(3, &[socket as u32, address, 2 + path.len() as u32]);
        assert!(connected < 0, "connect: {connected}");
        let sent = socketcall(11, &[socket as u32, address, 1, 0x4000, address, 2 + path.len() as u32]);
        assert!(sent < 0, "sendto: {sent}");
        let direct = narrow_call(362, [socket as usize, address as usize, 2 + path.len()]);
        assert!(direct < 0, "connect: {direct}");
    }
    let internet = socketcall(1, &[2, 1, 0]);
    assert!(internet > 0, "{internet}");
    assert!(socketcall(1, &[40, 1, 0]) < 0, "a family that Docker's profile refuses");
    assert_eq!(socketcall(8, &[1, 2, 0, address]), 0);
    let raw = socketcall(8, &[1, 1, 0, address]);
    assert_eq!(raw, 0);
}

#[cfg(target_arch = "x86_64")]
fn narrow_call(number: usize, [first, second, third]: [usize; 3]) -> i64 {
    let value: i64;
    // SAFETY: a system call whose pointers lead to the mapping of the caller; the compiler keeps `rbx` for itself.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}",
            "int 0x80",
            "xchg rbx, {first}",
            first = inout(reg) first => _,
            inlateout("rax") number as i64 => value,
            in("rcx") second,
            in("rdx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    i64::from(value as i32)
}

/// What programs do with Unix sockets of their own.
pub(crate) fn assert_own_can_be_used() {
    streams("/tmp/stream");
    streams_of_a_name();
    packets();
    datagrams();
    full_queue();
    another_user();
    passed_descriptor();
    internet();
}

fn streams(path: &str) {
    let server = UnixListener::bind(path).unwrap();
    let answers = std::thread::spawn(move || {
        let (mut stream, _) = server.accept().unwrap();
        let mut text = [0; 4];
        stream.read_exact(&mut text).unwrap();
        stream.write_all(b"pong").unwrap();
        assert_eq!(stream.read(&mut text).unwrap(), 0, "the client is gone");
    });
    let mut client = UnixStream::connect(path).unwrap();
    let flags = rustix::io::fcntl_getfd(&client).unwrap();
    assert_eq!(flags, rustix::io::FdFlags::CLOEXEC);
    client.write_all(b"ping").unwrap();
    let mut text = [0; 4];
    client.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"pong");
    drop(client);
    answers.join().unwrap();
    // Nobody listens any more.
    assert_eq!(connect(make(SocketType::STREAM), &at(path)), Err(Errno::CONNREFUSED));
    assert_eq!(connect(make(SocketType::STREAM), &at("/tmp/absent")), Err(Errno::NOENT));
    fs::remove_file(path).unwrap();
}

fn streams_of_a_name() {
    let name = SocketAddrUnix::new_abstract_name(b"own\0name").unwrap();
    let server = make(SocketType::STREAM);
    bind(&server, &name).unwrap();
    listen(&server, 5).unwrap();
    let client = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    connect(&client, &name).unwrap();
    let status = rustix::fs::fcntl_getfl(&client).unwrap();
    assert!(status.contains(rustix::fs::OFlags::NONBLOCK));
    assert_eq!(rustix::io::fcntl_getfd(&client).unwrap(), rustix::io::FdFlags::empty());
    assert_eq!(connect(&client, &name), Err(Errno::ISCONN));
    let absent = SocketAddrUnix::new_abstract_name(b"absent").unwrap();
    assert_eq!(connect(make(SocketType::STREAM), &absent), Err(Errno::CONNREFUSED));
}

fn packets() {
    let server = make(SocketType::SEQPACKET);
    bind(&server, &at("/tmp/packets")).unwrap();
    listen(&server, 5).unwrap();
    let client = make(SocketType::SEQPACKET);
    // A name of its own is no obstacle.
    bind(&client, &at("/tmp/client")).unwrap();
    connect(&client, &at("/tmp/packets")).unwrap();
    send(&client, b"one", SendFlags::empty()).unwrap();
    send(&client, b"three", SendFlags::empty()).unwrap();
    let (accepted, mut buffer) = (rustix::net::accept(&server).unwrap(), [0; 16]);
    assert_eq!(recv(&accepted, &mut buffer, RecvFlags::empty()).unwrap().0, 3);
    let (one, other) = socketpair(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::empty(), None).unwrap();
    send(&one, b"one", SendFlags::empty()).unwrap();
    send(&one, b"three", SendFlags::empty()).unwrap();
    assert_eq!(recv(&other, &mut buffer, RecvFlags::empty()).unwrap().0, 3);
}

fn datagrams() {
    let server = make(SocketType::DGRAM);
    bind(&server, &at("/tmp/datagrams")).unwrap();
    let mut buffer = [0; 16];
    let client = make(SocketType::DGRAM);
    assert_eq!(sendto(&client, b"to", SendFlags::empty(), &at("/tmp/datagrams")).unwrap(), 2);
    assert_eq!(recvfrom(&server, &mut buffer, RecvFlags::empty()).unwrap().0, 2);
    connect(&client, &at("/tmp/datagrams")).unwrap();
    send(&client, b"one", SendFlags::empty()).unwrap();
    rustix::io::write(&client, b"three").unwrap();
    let mut receive = || recv(&server, &mut buffer, RecvFlags::empty()).unwrap().0;
    assert_eq!([receive(), receive()], [3, 5]);
    // A receiver that is slow makes senders wait.
    let sender = std::thread::spawn(|| {
        let client = make(SocketType::DGRAM);
        for _ in 0..1000 {
            sendto(&client, b"many", SendFlags::empty(), &at("/tmp/datagrams")).unwrap();
        }
    });
    (0..1000).for_each(|_| assert_eq!(receive(), 4));
    sender.join().unwrap();
    assert_eq!(sendto(make(SocketType::DGRAM), b"x", SendFlags::NOSIGNAL, &at("/tmp/absent")), Err(Errno::NOENT));
}

/// A connection to a server that does not accept yet waits.
fn full_queue() {
    let server = make(SocketType::STREAM);
    bind(&server, &at("/tmp/full")).unwrap();
    listen(&server, 0).unwrap();
    let first = make(SocketType::STREAM);
    connect(&first, &at("/tmp/full")).unwrap();
    let impatient = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::NONBLOCK, None).unwrap();
    assert_eq!(connect(&impatient, &at("/tmp/full")), Err(Errno::AGAIN));
    let waits = std::thread::spawn(|| {
        let second = make(SocketType::STREAM);
        connect(&second, &at("/tmp/full")).unwrap();
        send(&second, b"second", SendFlags::empty()).unwrap();
    });
    std::thread::sleep(Duration::from_millis(50));
    assert!(!waits.is_finished());
    let mut buffer = [0; 16];
    drop(rustix::net::accept(&server).unwrap());
    let accepted = rustix::net::accept(&server).unwrap();
    assert_eq!(recv(&accepted, &mut buffer, RecvFlags::empty()).unwrap().0, 6);
    waits.join().unwrap();
}

/// The server sees who its client is.
fn another_user() {
    let server = make(SocketType::STREAM);
    bind(&server, &at("/tmp/users")).unwrap();
    listen(&server, 5).unwrap();
    let client = |user: u32| {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "connects_as_a_user", "--nocapture"]).env("KILN_TEST_CONNECT", "/tmp/users");
        command.uid(user).gid(user + 1).status().unwrap()
    };
    fs::set_permissions("/tmp/users", std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    assert!(!client(1000).success(), "it is root's alone");
    fs::set_permissions("/tmp/users", std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    for user in [1000, 0] {
        assert!(client(user).success(), "{user}");
        let peer = sockopt::socket_peercred(rustix::net::accept(&server).unwrap()).unwrap();
        assert_eq!((peer.uid.as_raw(), peer.gid.as_raw()), (user, user + 1));
    }
}

/// The client of [`another_user`].
pub(crate) fn connect_to(path: &str) {
    UnixStream::connect(path).unwrap();
}

fn passed_descriptor() {
    let server = UnixListener::bind("/tmp/passing").unwrap();
    let client = UnixStream::connect("/tmp/passing").unwrap();
    let (accepted, _) = server.accept().unwrap();
    let file = fs::File::open("/etc/passwd").unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let fds = [std::os::fd::AsFd::as_fd(&file)];
    assert!(ancillary.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
    rustix::net::sendmsg(&client, &[IoSlice::new(b"x")], &mut ancillary, SendFlags::empty()).unwrap();
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut received = rustix::net::RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let buffers = &mut [std::io::IoSliceMut::new(&mut byte)];
    rustix::net::recvmsg(&accepted, buffers, &mut received, RecvFlags::empty()).unwrap();
    let passed = received.drain().any(|message| matches!(message, rustix::net::RecvAncillaryMessage::ScmRights(_)));
    assert!(passed);
}

fn internet() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(server.accept().unwrap().0.read(&mut [0; 4]).unwrap(), 1);
    let client =
        socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::NONBLOCK, Some(ipproto::TCP)).unwrap();
    assert!(matches!(connect(&client, &address), Ok(()) | Err(Errno::INPROGRESS)));
    server.accept().unwrap();
    assert!(matches!(connect(&client, &address), Ok(()) | Err(Errno::ISCONN)));
    let (one, other) = (UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    one.send_to(b"x", other.local_addr().unwrap()).unwrap();
    let (_, from) = other.recv_from(&mut [0; 4]).unwrap();
    assert_eq!(from, one.local_addr().unwrap());
    other.connect(from).unwrap();
    other.send(b"x").unwrap();
    // A process that changed its identity by itself, as apt's methods do.
    undumpable();
    TcpStream::connect(address).unwrap();
    become_user(42);
    TcpStream::connect(address).unwrap();
    let own = UnixListener::bind("/tmp/of-42").unwrap();
    let mut client = UnixStream::connect("/tmp/of-42").unwrap();
    client.write_all(b"x").unwrap();
    assert_eq!(own.accept().unwrap().0.read(&mut [0; 4]).unwrap(), 1);
}
