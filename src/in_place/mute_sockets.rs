//! The Unix sockets that a RUN's processes have from kiln, and which they cannot send with.

use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType};
use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::os::fd::{AsFd, OwnedFd};

/// More sockets than the processes of a RUN have at one time. A socket that is forgotten stays mute.
const MOST: usize = 1 << 16;

/// A descriptor of a process: the process's number, and its own.
pub(super) type Descriptor = (u32, i32);

/// These sockets. One that was closed is forgotten once enough others were made.
#[derive(Debug, Default)]
pub(super) struct MuteSockets {
    /// Their types, by number.
    kinds: Known<u64, SocketType>,
    /// Their types and flags, by the descriptor that they had first. Of a process that kiln may not look into, this is all that
    /// it knows.
    descriptors: Known<Descriptor, (SocketType, SocketFlags)>,
}

impl MuteSockets {
    /// Makes a Unix socket that can be bound, listen, accept and receive, but never send.
    ///
    /// # Errors
    /// As `socket(2)`.
    pub(super) fn make(&mut self, kind: SocketType, flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)?;
        // Nothing undoes this. It is the kernel's business from here on.
        rustix::net::shutdown(&socket, Shutdown::Write)?;
        self.kinds.insert(rustix::fs::fstat(socket.as_fd())?.st_ino, kind);
        Ok(socket)
    }

    /// Remembers the descriptor that a process got for a socket.
    pub(super) fn given(&mut self, descriptor: Descriptor, kind: SocketType, flags: SocketFlags) {
        self.descriptors.insert(descriptor, (kind, flags));
    }

    /// The type of the socket of this number; `None` for a socket that is none of them.
    pub(super) fn kind(&self, number: u64) -> Option<SocketType> {
        self.kinds.map.get(&number).copied()
    }

    /// The type and flags of the last socket that a process got for this descriptor.
    pub(super) fn was_given(&self, descriptor: Descriptor) -> Option<(SocketType, SocketFlags)> {
        self.descriptors.map.get(&descriptor).copied()
    }
}

/// A map that forgets what it has known for longest.
#[derive(Debug)]
struct Known<K, V> {
    map: HashMap<K, V>,
    order: VecDeque<K>,
}

impl<K, V> Default for Known<K, V> {
    fn default() -> Self {
        Self { map: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash, V> Known<K, V> {
    fn insert(&mut self, key: K, value: V) {
        if self.map.insert(key, value).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.map.remove(&oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{RecvFlags, SendFlags, SocketAddrUnix};

    #[test]
    fn a_mute_socket_serves_but_does_not_send() {
        let dir = tempfile::tempdir().unwrap();
        let mut mute = MuteSockets::default();
        for kind in [SocketType::STREAM, SocketType::SEQPACKET] {
            let address = SocketAddrUnix::new(dir.path().join(format!("{kind:?}"))).unwrap();
            let server = mute.make(kind, SocketFlags::CLOEXEC).unwrap();
            rustix::net::bind(&server, &address).unwrap();
            rustix::net::listen(&server, 5).unwrap();
            let client = rustix::net::socket(AddressFamily::UNIX, kind, None).unwrap();
            rustix::net::connect(&client, &address).unwrap();
            let accepted = rustix::net::accept(&server).unwrap();
            rustix::net::send(&client, b"x", SendFlags::NOSIGNAL).unwrap();
            rustix::net::send(&accepted, b"x", SendFlags::NOSIGNAL).unwrap();
            // What a process would have that connects by itself.
            let connected = mute.make(kind, SocketFlags::CLOEXEC).unwrap();
            rustix::net::connect(&connected, &address).unwrap();
            assert_eq!(rustix::net::send(&connected, b"x", SendFlags::NOSIGNAL), Err(Errno::PIPE));
        }
    }

    #[test]
    fn a_mute_datagram_socket_receives_but_does_not_send() {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(dir.path().join("s")).unwrap();
        let mut mute = MuteSockets::default();
        let server = mute.make(SocketType::DGRAM, SocketFlags::NONBLOCK).unwrap();
        rustix::net::bind(&server, &address).unwrap();
        let client = mute.make(SocketType::DGRAM, SocketFlags::CLOEXEC).unwrap();
        let none = SendFlags::empty();
        assert_eq!(rustix::net::sendto(&client, b"x", none, &address), Err(Errno::PIPE));
        rustix::net::connect(&client, &address).unwrap();
        assert_eq!(rustix::net::send(&client, b"x", none), Err(Errno::PIPE));
        let other = rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        rustix::net::sendto(&other, b"one", none, &address).unwrap();
        let mut buffer = [0; 8];
        assert_eq!(rustix::net::recv(&server, &mut buffer, RecvFlags::empty()).unwrap().0, 3);
        assert_eq!(rustix::net::recv(&server, &mut buffer, RecvFlags::empty()), Err(Errno::AGAIN));
    }

    #[test]
    fn only_so_many_are_known() {
        let mut known = Known::default();
        for number in 0..=MOST as u64 {
            known.insert(number, ());
            known.insert(number, ());
        }
        assert_eq!([0, 1, MOST as u64].map(|number| known.map.contains_key(&number)), [false, true, true]);
        assert_eq!((known.map.len(), known.order.len()), (MOST, MOST));
    }
}
