//! Connected datagram sockets of a RUN's processes.
//!
//! A process must not have a datagram socket that can send, as it could name any destination in the message itself. So a connected one is
//! one end of a pair that keeps the boundaries of messages, and kiln sends on what arrives at the other end.

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// How many may exist at one time.
const MOST: usize = 64;

/// The largest message. The kernel's own limit for a socket is 208 KiB by default.
pub(super) const LARGEST: usize = 256 << 10;

/// A destination that reads nothing for so long loses a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// The relays of a RUN. Each ends when the process has closed its end.
#[derive(Debug, Default)]
pub(super) struct DatagramRelays {
    count: Arc<AtomicUsize>,
}

impl DatagramRelays {
    /// Starts one for a connected datagram socket, and gives the end for the process.
    ///
    /// # Errors
    /// `ENOBUFS` if there are too many; otherwise as `socketpair(2)`.
    pub(super) fn start(&self, connected: OwnedFd, flags: SocketFlags) -> Result<OwnedFd, Errno> {
        let (theirs, own) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::io::fcntl_setfd(&own, rustix::io::FdFlags::CLOEXEC)?;
        rustix::io::ioctl_fionbio(&own, false)?;
        set_socket_timeout(&connected, Timeout::Send, Some(PATIENCE))?;
        if self.count.fetch_add(1, Ordering::Relaxed) >= MOST {
            self.count.fetch_sub(1, Ordering::Relaxed);
            return Err(Errno::NOBUFS);
        }
        let count = Arc::clone(&self.count);
        let thread = std::thread::Builder::new().name("datagrams".into());
        let started = thread.spawn(move || {
            relay(&own, &connected);
            count.fetch_sub(1, Ordering::Relaxed);
        });
        started.map(|_| theirs).map_err(|_| Errno::NOBUFS)
    }
}

/// Sends on message by message, until the other end is closed or the destination is gone.
fn relay(from: &OwnedFd, to: &OwnedFd) {
    let mut buffer = vec![0; LARGEST];
    loop {
        let length = match rustix::net::recv(from, &mut *buffer, RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Ok((length, _)) if length > 0 => length,
            _ => return,
        };
        let message = buffer.get(..length).unwrap_or_default();
        // As with any datagram, nobody is told that one was lost.
        if let Err(Errno::CONNREFUSED | Errno::PIPE | Errno::NOTCONN) =
            rustix::net::send(to, message, SendFlags::NOSIGNAL)
        {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::SocketAddrUnix;

    #[test]
    fn messages_arrive_one_by_one_until_an_end_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let address = SocketAddrUnix::new(dir.path().join("s")).unwrap();
        let make = || rustix::net::socket(AddressFamily::UNIX, SocketType::DGRAM, None).unwrap();
        let (server, client) = (make(), make());
        rustix::net::bind(&server, &address).unwrap();
        rustix::net::connect(&client, &address).unwrap();
        let relays = DatagramRelays::default();
        let end = relays.start(client, SocketFlags::NONBLOCK).unwrap();
        for message in [&b"one"[..], b"three"] {
            rustix::net::send(&end, message, SendFlags::NOSIGNAL).unwrap();
        }
        let mut buffer = [0; 8];
        let mut receive = || rustix::net::recv(&server, &mut buffer, RecvFlags::empty()).unwrap().0;
        assert_eq!([receive(), receive()], [3, 5]);
        assert_eq!(relays.count.load(Ordering::Relaxed), 1);
        drop(end);
        while relays.count.load(Ordering::Relaxed) > 0 {
            std::thread::yield_now();
        }
    }
}
