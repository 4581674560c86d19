//! No raw sockets for processes on kiln's own network, where they would read what kiln sends and receives.
//!
//! CAP_NET_RAW itself stays in the bounding set, which BuildKit's steps look at, and root gets back by executing a program what is in
//! there. So the seccomp filter refuses raw and packet sockets instead. It can't see what 32-bit programs of x86 ask `socketcall(2)` for:
//! that stands behind a pointer. Those calls are told to kiln, which makes the ordinary sockets itself.

use super::program::CAPABILITIES;
use super::seccomp::{self, When};
use super::{Error, Spec};
use crate::sys::notify::{Answer, Call, Listener};
use crate::sys::{Cancel, netns};
use libc::sock_filter;
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SocketFlags, SocketType};
use rustix::thread::CapabilitySet;

/// What a process may at most: Docker's default set, without CAP_NET_RAW on kiln's own network. For levels where it can't get back what
/// it hasn't: by a runtime, whose bounding set has no more either, and with `no_new_privs`.
pub fn capabilities_for(shares_network: bool) -> CapabilitySet {
    if shares_network { CAPABILITIES.difference(CapabilitySet::NET_RAW) } else { CAPABILITIES }
}

/// The filters of processes that share kiln's network.
#[derive(Debug)]
pub(super) struct NoRawSockets {
    /// In place of the one that other processes have.
    pub(super) filter: Vec<sock_filter>,
    /// The one that tells kiln, where there are such calls.
    pub(super) notifier: Option<Vec<sock_filter>>,
}

impl NoRawSockets {
    /// `None` where CAP_NET_RAW gives nothing on kiln's network anyway. Where `is_heard` isn't set, kiln can't be told, and such calls are
    /// refused.
    pub(super) fn find(permitted: CapabilitySet, is_heard: bool) -> Result<Option<Self>, Error> {
        if !permitted.contains(CapabilitySet::NET_RAW) || !netns::is_own()? {
            return Ok(None);
        }
        let filter = seccomp::without_raw_sockets(CAPABILITIES & permitted, is_heard);
        let has_call = is_heard && cfg!(target_arch = "x86_64");
        let notifier = has_call.then(|| seccomp::notifier_of(&[], &[("socketcall", When::Is(0, MAKE))]));
        Ok(Some(Self { filter, notifier }))
    }
}

/// Whether a process is on kiln's own network, if `private` says that there is another one.
pub(super) fn shares_network(spec: &Spec, private: bool) -> bool {
    match spec.network {
        super::Network::Default => !private,
        super::Network::Host => true,
        super::Network::None => false,
    }
}

/// `SYS_SOCKET` in `linux/net.h`: what `socketcall` does for `socket`.
const MAKE: u32 = 1;

/// Answers the calls of 32-bit programs until none is left that could ask, or `stop` is set.
pub(super) fn serve(listener: &Listener, stop: &Cancel) -> Result<(), Error> {
    Ok(listener.serve(stop, &mut |call| make(call).unwrap_or_else(Answer::Errno))?)
}

fn make(call: &Call<'_>) -> Result<Answer, Errno> {
    let bytes = call.bytes(call.argument(1), 3 * size_of::<u32>())?;
    let words: Vec<u32> = bytes.chunks_exact(4).filter_map(|b| Some(u32::from_ne_bytes(b.try_into().ok()?))).collect();
    let [family, kind, protocol] = words.as_slice() else { return Err(Errno::FAULT) };
    let wanted = Wanted::new(*family, *kind, *protocol)?;
    let fd = rustix::net::socket_with(wanted.family, wanted.kind, wanted.flags, wanted.protocol)?;
    Ok(Answer::Fd { fd, close_on_exec: wanted.flags.contains(SocketFlags::CLOEXEC) })
}

/// A socket that kiln makes for a process.
#[derive(Debug, PartialEq)]
struct Wanted {
    family: AddressFamily,
    kind: SocketType,
    flags: SocketFlags,
    protocol: Option<Protocol>,
}

impl Wanted {
    /// Those that anybody may make, as kiln has rights that the process hasn't.
    fn new(family: u32, kind: u32, protocol: u32) -> Result<Self, Errno> {
        let flags = SocketFlags::from_bits_retain(kind & !seccomp::SOCKET_TYPES);
        let kind = SocketType::from_raw(kind & seccomp::SOCKET_TYPES);
        let family = AddressFamily::from_raw(u16::try_from(family).map_err(|_| Errno::AFNOSUPPORT)?);
        let allowed = match (family, kind) {
            (AddressFamily::INET | AddressFamily::INET6, SocketType::STREAM) => {
                [0, libc::IPPROTO_TCP].contains(&protocol.cast_signed())
            }
            (AddressFamily::INET | AddressFamily::INET6, SocketType::DGRAM) => {
                [0, libc::IPPROTO_UDP].contains(&protocol.cast_signed())
            }
            (AddressFamily::INET | AddressFamily::INET6 | AddressFamily::PACKET, _) => return Err(Errno::PERM),
            (AddressFamily::UNIX | AddressFamily::NETLINK, _) => true,
            _ => return Err(Errno::AFNOSUPPORT),
        };
        if !allowed {
            return Err(Errno::PROTONOSUPPORT);
        }
        let protocol = rustix::net::RawProtocol::new(protocol).map(Protocol::from_raw);
        Ok(Self { family, kind, flags, protocol })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ordinary_sockets_are_made_and_no_others() {
        let kind = |kind: i32| kind.cast_unsigned();
        let (stream, datagram, raw) = (kind(libc::SOCK_STREAM), kind(libc::SOCK_DGRAM), kind(libc::SOCK_RAW));
        let made = Wanted::new(2, stream | kind(libc::SOCK_CLOEXEC), 6).unwrap();
        assert_eq!(
            (made.family, made.kind, made.flags),
            (AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC)
        );
        for (family, kind, protocol) in [(10, datagram, 17), (1, stream, 0), (16, raw, 0), (2, datagram, 0)] {
            assert!(Wanted::new(family, kind, protocol).is_ok(), "{family} {kind}");
        }
        for (family, kind, protocol, errno) in [
            (2, raw, 6, Errno::PERM),
            (2, 10, 0x0300, Errno::PERM),
            (17, datagram, 0x0300, Errno::PERM),
            (2, datagram, 1, Errno::PROTONOSUPPORT),
            (15, raw, 2, Errno::AFNOSUPPORT),
            (0x1_0002, stream, 0, Errno::AFNOSUPPORT),
        ] {
            assert_eq!(Wanted::new(family, kind, protocol), Err(errno), "{family} {kind} {protocol}");
        }
    }

    #[test]
    fn the_capability_is_kept_on_networks_of_the_processes_own() {
        assert_eq!(CAPABILITIES.difference(capabilities_for(true)), CapabilitySet::NET_RAW);
        assert_eq!(capabilities_for(false), CAPABILITIES);
        let mut spec = Spec::new(crate::sys::RootMount::Dir("/".into()), vec!["/x".into()]);
        for (network, private, shares) in [
            (super::super::Network::Host, false, true),
            (super::super::Network::Host, true, true),
            (super::super::Network::Default, false, true),
            (super::super::Network::Default, true, false),
            (super::super::Network::None, false, false),
        ] {
            spec.network = network;
            assert_eq!(shares_network(&spec, private), shares, "{network:?} {private}");
        }
    }
}
