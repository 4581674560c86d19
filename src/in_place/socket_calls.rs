//! Emulates the system calls with which processes connect to Unix sockets, where Landlock does not restrict that (before Linux 7.1).
//!
//! A socket in a hidden directory or volume, such as Docker's or an SSH agent's, must not accept a connection from a RUN. To look at an
//! address and let the kernel go on would be useless: another thread changes the address meanwhile, or puts another socket in the place
//! of the descriptor. So the processes have no Unix socket that they could connect and send with by themselves:
//!
//! - `socket` gives them a [mute](super::mute_sockets) one. They bind, listen, accept and receive with it, and the kernel refuses to
//!   send, for good. What is accepted is an ordinary socket.
//! - `connect`: kiln finds the socket that the address leads to, refuses a hidden one, connects a new socket to it with the caller's
//!   credentials, and puts that in the place of the mute one.
//! - `sendto` with an address on a datagram socket: kiln sends the message. A connected datagram socket is [relayed](super::datagram_relay).
//! - `socketpair` for datagrams gives a pair of sequenced packet sockets, which are connected for good.
//!
//! All other sockets are the kernel's business alone: it makes them, and calls on them go on, whatever becomes of the descriptor.
//!
//! What remains possible to a hostile process is a connection to a hidden socket that sends nothing; it could see what the other side
//! sends unasked. What differs for others: options and event registrations (`epoll`) from before `connect` are lost, `sendmsg` with an
//! address fails, and a datagram that is sent has no sender's address. Of a process that changed its IDs by itself, without a new
//! program, only the first descriptor of a socket is known, and a copy of such a process cannot connect.

use super::caller::{AssumedIdentity, Caller};
use super::confinement::Confinement;
use super::datagram_relay::{DatagramRelays, LARGEST};
use super::mute_sockets::MuteSockets;
use super::socket_address::{Destination, Name};
use crate::sandbox::seccomp::{self, When};
use crate::sys::Credentials;
use crate::sys::notify::{Answer, Call, Deferred, DescriptorFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, SendFlags, SocketFlags, SocketType};
use std::collections::HashMap;
use std::os::fd::OwnedFd;

/// The kind of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Socket,
    Pair,
    Connect,
    SendTo,
    /// `socketcall` of 32-bit x86 programs: its arguments are the number of one of these and the address of its arguments.
    Multiplexed,
}

/// The calls, for a filter. Their first arguments are the family of addresses and the type; types of datagrams have bit 1.
pub(super) const CALLS: [(&str, When); 5] = [
    ("socket", When::Is(0, libc::AF_UNIX.cast_unsigned())),
    ("socketpair", When::With(1, 2)),
    ("connect", When::Always),
    ("sendto", When::Points(4)),
    ("socketcall", When::Always),
];

/// The calls by architecture and number.
#[derive(Debug)]
pub(super) struct Table(HashMap<(u32, libc::c_long), Kind>);

impl Table {
    /// The same for every RUN.
    pub(super) fn new() -> Self {
        let kinds = [Kind::Socket, Kind::Pair, Kind::Connect, Kind::SendTo, Kind::Multiplexed];
        let all = CALLS.iter().zip(kinds).flat_map(|((name, _), kind)| {
            seccomp::numbers(name).map(move |(architecture, number, _)| ((architecture, number), kind))
        });
        Self(all.collect())
    }
}

/// Answers those calls.
#[derive(Debug)]
pub(super) struct SocketCalls<'a> {
    table: &'a Table,
    confinement: &'a Confinement,
    mute: MuteSockets,
    relays: DatagramRelays,
}

/// The arguments of a call. Those of a multiplexed one come from memory: the kernel must not read them again.
#[derive(Debug, Clone, Copy)]
struct Arguments {
    values: [u64; 6],
    from_memory: bool,
}

impl Arguments {
    fn int(&self, index: usize) -> i32 {
        self.value(index) as u32 as i32
    }

    fn value(&self, index: usize) -> u64 {
        self.values.get(index).copied().unwrap_or(0)
    }
}

/// A call that waits until the other side has room.
#[derive(Debug)]
pub(super) struct Waiting<'l> {
    call: Deferred<'l>,
    attempt: Attempt,
}

/// Something that is tried again until it succeeds or fails.
#[derive(Debug)]
struct Attempt {
    socket: OwnedFd,
    destination: Destination,
    credentials: Credentials,
    /// What is sent; a connection is made where there is nothing.
    message: Option<Vec<u8>>,
    /// The descriptor that is replaced by a connection.
    descriptor: i32,
    flags: DescriptorFlags,
}

/// How many calls may wait at one time. Further ones are told to try again.
const MOST_WAITING: usize = 256;

impl<'a> SocketCalls<'a> {
    pub(super) fn new(table: &'a Table, confinement: &'a Confinement) -> Self {
        Self { table, confinement, mute: MuteSockets::default(), relays: DatagramRelays::default() }
    }

    /// Answers a call; `None` for one that is not of these. `waiting` gets those that are answered later.
    pub(super) fn answer<'l>(
        &mut self,
        call: &Call<'l>,
        identity: &mut AssumedIdentity,
        waiting: &mut Vec<Waiting<'l>>,
    ) -> Option<Answer> {
        let kind = *self.table.0.get(&(call.architecture(), call.number()))?;
        let arguments = Arguments { values: std::array::from_fn(|index| call.argument(index)), from_memory: false };
        let (kind, arguments) = match kind {
            Kind::Multiplexed => match demultiplex(call, identity, arguments) {
                Ok(Some(demultiplexed)) => demultiplexed,
                Ok(None) => return Some(Answer::Continue),
                Err(errno) => return Some(Answer::Errno(errno)),
            },
            kind => (kind, arguments),
        };
        let answer = match kind {
            Kind::Socket => self.socket(call, identity, arguments),
            Kind::Pair => pair(call, identity, arguments),
            Kind::Connect => self.connect(call, identity, arguments, waiting),
            Kind::SendTo => self.send_to(call, identity, arguments, waiting),
            Kind::Multiplexed => Ok(Answer::Continue),
        };
        Some(answer.unwrap_or_else(Answer::Errno))
    }

    fn socket(
        &mut self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        arguments: Arguments,
    ) -> Result<Answer, Errno> {
        let (family, (kind, flags), protocol) = (arguments.int(0), kind_of(arguments.int(1)), arguments.int(2));
        let caller = Caller::of(call).ok_or(Errno::SRCH)?;
        let close_on_exec = flags.contains(SocketFlags::CLOEXEC);
        if family == libc::AF_UNIX {
            if !matches!(protocol, 0 | libc::AF_UNIX) {
                return Err(Errno::PROTONOSUPPORT);
            }
            // The kernel takes one for the other as well.
            let kind = if kind == SocketType::RAW { SocketType::DGRAM } else { kind };
            identity.assume(&caller)?;
            let socket = self.mute.make(kind, flags | SocketFlags::CLOEXEC)?;
            let number = call.add_fd(socket, None, close_on_exec)?;
            self.mute.given((caller.process, number), kind, flags);
            return Ok(Answer::Value(number.into()));
        }
        if !arguments.from_memory {
            return Ok(Answer::Continue);
        }
        let fd = foreign(identity, &caller, family, (kind, flags | SocketFlags::CLOEXEC), protocol)?;
        Ok(Answer::Fd { fd, close_on_exec })
    }

    fn connect<'l>(
        &mut self,
        call: &Call<'l>,
        identity: &mut AssumedIdentity,
        arguments: Arguments,
        waiting: &mut Vec<Waiting<'l>>,
    ) -> Result<Answer, Errno> {
        let (descriptor, address) = (arguments.int(0), (arguments.value(1), arguments.value(2)));
        let Some((kind, flags, name)) = self.find(call, identity, descriptor, address)? else {
            return Ok(Answer::Continue);
        };
        let mut attempt = self.attempt(call, identity, kind, (descriptor, flags), name)?;
        match attempt.make(identity) {
            Err(Errno::AGAIN) if !flags.nonblocking && waiting.len() < MOST_WAITING => {
                waiting.push(Waiting { call: call.defer(), attempt });
                return Ok(Answer::Later);
            }
            done => done?,
        };
        if kind == SocketType::DGRAM {
            let nonblocking = if flags.nonblocking { SocketFlags::NONBLOCK } else { SocketFlags::empty() };
            attempt.socket = self.relays.start(attempt.socket, nonblocking | SocketFlags::CLOEXEC)?;
        }
        call.add_fd(attempt.connected()?, Some(descriptor), flags.close_on_exec)?;
        Ok(Answer::Value(0))
    }

    fn send_to<'l>(
        &mut self,
        call: &Call<'l>,
        identity: &mut AssumedIdentity,
        arguments: Arguments,
        waiting: &mut Vec<Waiting<'l>>,
    ) -> Result<Answer, Errno> {
        let (descriptor, address) = (arguments.int(0), (arguments.value(4), arguments.value(5)));
        let Some((SocketType::DGRAM, flags, name)) = self.find(call, identity, descriptor, address)? else {
            return Ok(Answer::Continue);
        };
        let length = usize::try_from(arguments.value(2)).ok().filter(|length| *length <= LARGEST);
        let message = identity.bytes(call, arguments.value(1), length.ok_or(Errno::MSGSIZE)?)?;
        let attempt = self.attempt(call, identity, SocketType::DGRAM, (descriptor, flags), name)?;
        let attempt = Attempt { message: Some(message), ..attempt };
        let nonblocking = flags.nonblocking || arguments.int(3) & libc::MSG_DONTWAIT != 0;
        match attempt.make(identity) {
            Err(Errno::AGAIN) if !nonblocking && waiting.len() < MOST_WAITING => {
                waiting.push(Waiting { call: call.defer(), attempt });
                Ok(Answer::Later)
            }
            done => done.map(Answer::Value),
        }
    }

    /// The type and flags of the mute socket behind a descriptor, and the name in an address of a Unix socket; `None` for any other
    /// socket or address, which the kernel deals with.
    ///
    /// # Errors
    /// `EACCES` if a process that kiln may not look into seems to mean a Unix socket. The kernel would connect a mute one, and an error
    /// is better for who wants to send with it.
    fn find(
        &self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        descriptor: i32,
        address: (u64, u64),
    ) -> Result<Option<(SocketType, DescriptorFlags, Name)>, Errno> {
        let number = match identity.look(call, || call.socket(descriptor)) {
            Err(Errno::ACCESS) => return self.find_unseen(call, identity, descriptor, address),
            number => number?,
        };
        let Some(kind) = number.and_then(|number| self.mute.kind(number)) else { return Ok(None) };
        let flags = identity.look(call, || call.descriptor_flags(descriptor))?;
        Ok(Name::read(call, identity, address)?.map(|name| (kind, flags, name)))
    }

    /// The same where the descriptors of the process cannot be seen.
    fn find_unseen(
        &self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        descriptor: i32,
        address: (u64, u64),
    ) -> Result<Option<(SocketType, DescriptorFlags, Name)>, Errno> {
        let name = match Name::read(call, identity, address) {
            Err(Errno::ACCESS) if OF_OTHER_FAMILIES.contains(&address.1) => return Ok(None),
            name => name?,
        };
        let Some(name) = name else { return Ok(None) };
        let process = Caller::of(call).ok_or(Errno::SRCH)?.process;
        let (kind, flags) = self.mute.was_given((process, descriptor)).ok_or(Errno::ACCESS)?;
        let flags = DescriptorFlags {
            close_on_exec: flags.contains(SocketFlags::CLOEXEC),
            nonblocking: flags.contains(SocketFlags::NONBLOCK),
        };
        Ok(Some((kind, flags, name)))
    }

    /// Prepares a connection or a message to a socket.
    fn attempt(
        &self,
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        kind: SocketType,
        (descriptor, flags): (i32, DescriptorFlags),
        name: Name,
    ) -> Result<Attempt, Errno> {
        let address = name.address(call, identity)?;
        let caller = Caller::of(call).ok_or(Errno::SRCH)?;
        identity.assume(&caller)?;
        let destination = address.find(self.confinement, &self.mute)?;
        let credentials = caller.credentials;
        let socket = identity.fully(&credentials, || {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None)
        })?;
        Ok(Attempt { socket, destination, credentials, message: None, descriptor, flags })
    }
}

impl Attempt {
    /// Connects or sends with the caller's credentials; gives what the call gives.
    fn make(&self, identity: &mut AssumedIdentity) -> Result<i64, Errno> {
        let address = self.destination.address()?;
        identity.fully(&self.credentials, || match &self.message {
            None => rustix::net::connect(&self.socket, &address).map(|()| 0),
            Some(message) => {
                let sent = rustix::net::sendto(&self.socket, message, SendFlags::NOSIGNAL, &address)?;
                i64::try_from(sent).map_err(|_| Errno::MSGSIZE)
            }
        })
    }

    /// The connected socket, which waits if the one that it replaces did.
    fn connected(self) -> Result<OwnedFd, Errno> {
        rustix::io::ioctl_fionbio(&self.socket, self.flags.nonblocking)?;
        Ok(self.socket)
    }
}

impl<'l> Waiting<'l> {
    /// Tries it once more; gives it back if it has to wait still.
    pub(super) fn go_on(self, identity: &mut AssumedIdentity) -> Option<Self> {
        if !self.call.is_alive() {
            return None;
        }
        let value = match self.attempt.make(identity) {
            Err(Errno::AGAIN) if self.call.has_signal() => Err(Errno::INTR),
            Err(Errno::AGAIN) => return Some(self),
            value => value,
        };
        let Self { call, attempt } = self;
        let value = value.and_then(|value| {
            if attempt.message.is_none() {
                let (descriptor, close_on_exec) = (attempt.descriptor, attempt.flags.close_on_exec);
                call.add_fd(attempt.connected()?, Some(descriptor), close_on_exec)?;
            }
            Ok(value)
        });
        // A call that ended meanwhile needs no answer.
        let _ = call.answer(value.map_or_else(Answer::Errno, Answer::Value));
        None
    }
}

/// The lengths of addresses of other families: `sockaddr_nl`, `sockaddr_in`, `sockaddr_ll`, `sockaddr_in6` and `sockaddr_storage`.
const OF_OTHER_FAMILIES: [u64; 5] = [12, 16, 20, 28, 128];

/// A type of sockets as it stands among the arguments of a call, and the flags beside it.
fn kind_of(argument: i32) -> (SocketType, SocketFlags) {
    const KINDS: u32 = 0xf;
    let argument = argument.cast_unsigned();
    (SocketType::from_raw(argument & KINDS), SocketFlags::from_bits_retain(argument & !KINDS))
}

/// A socket of another family than Unix. The kernel cannot make it, as it would read the family once more.
fn foreign(
    identity: &mut AssumedIdentity,
    caller: &Caller,
    family: i32,
    (kind, flags): (SocketType, SocketFlags),
    protocol: i32,
) -> Result<OwnedFd, Errno> {
    if !seccomp::allows_family(family.cast_unsigned()) || is_raw(family, kind) {
        return Err(Errno::PERM);
    }
    let family = u16::try_from(family).map_err(|_| Errno::AFNOSUPPORT)?;
    let protocol = std::num::NonZeroU32::new(protocol.cast_unsigned()).map(Protocol::from_raw);
    identity
        .fully(&caller.credentials, || rustix::net::socket_with(AddressFamily::from_raw(family), kind, flags, protocol))
}

/// Whether a socket reads what others send and receive. The filter refuses those of 64-bit programs.
fn is_raw(family: i32, kind: SocketType) -> bool {
    let has_harmless_ones = matches!(family, libc::AF_UNIX | libc::AF_NETLINK | libc::AF_CAN);
    matches!(family, libc::AF_PACKET | libc::AF_XDP) || (kind == SocketType::RAW && !has_harmless_ones)
}

/// Makes a pair of Unix sockets.
fn pair(call: &Call<'_>, identity: &mut AssumedIdentity, arguments: Arguments) -> Result<Answer, Errno> {
    let (family, (kind, flags), address) = (arguments.int(0), kind_of(arguments.int(1)), arguments.value(3));
    if family != libc::AF_UNIX {
        // No other family has pairs.
        return Err(Errno::OPNOTSUPP);
    }
    let kind = if matches!(kind, SocketType::DGRAM | SocketType::RAW) { SocketType::SEQPACKET } else { kind };
    // If nothing can be written there, nothing must be made.
    identity.bytes(call, address, 2 * size_of::<i32>())?;
    let caller = Caller::of(call).ok_or(Errno::SRCH)?;
    let (one, other) = identity.fully(&caller.credentials, || {
        rustix::net::socketpair(AddressFamily::UNIX, kind, flags | SocketFlags::CLOEXEC, None)
    })?;
    let close_on_exec = flags.contains(SocketFlags::CLOEXEC);
    let numbers = [call.add_fd(one, None, close_on_exec)?, call.add_fd(other, None, close_on_exec)?];
    let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_ne_bytes()).collect();
    identity.look(call, || call.write(address, &bytes))?;
    Ok(Answer::Value(0))
}

/// The call that `socketcall` stands for, and its arguments; `None` if it is none of these.
///
/// # Errors
/// `EPERM` if kiln may not look into the process, and so cannot know what it would get.
fn demultiplex(
    call: &Call<'_>,
    identity: &mut AssumedIdentity,
    arguments: Arguments,
) -> Result<Option<(Kind, Arguments)>, Errno> {
    const WIDTH: usize = size_of::<u32>();
    let (kind, count) = match arguments.int(0) {
        1 => (Kind::Socket, 3),
        3 => (Kind::Connect, 3),
        8 => (Kind::Pair, 4),
        11 => (Kind::SendTo, 6),
        _ => return Ok(None),
    };
    let bytes = match identity.bytes(call, arguments.value(1), count * WIDTH) {
        // A process has only mute sockets to connect.
        Err(Errno::ACCESS) if matches!(kind, Kind::Connect | Kind::SendTo) => return Ok(None),
        Err(Errno::ACCESS) => return Err(Errno::PERM),
        bytes => bytes?,
    };
    let mut values = [0; 6];
    for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(WIDTH)) {
        *value = bytes.try_into().map_or(0, u32::from_ne_bytes).into();
    }
    Ok(Some((kind, Arguments { values, from_memory: true })))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_and_flags_share_an_argument() {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        for (argument, kind, expected) in [
            (libc::SOCK_STREAM, SocketType::STREAM, SocketFlags::empty()),
            (libc::SOCK_DGRAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, SocketType::DGRAM, flags),
            (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, SocketType::SEQPACKET, SocketFlags::CLOEXEC),
        ] {
            assert_eq!(kind_of(argument), (kind, expected), "{argument:#o}");
        }
    }

    #[test]
    fn calls_of_both_architectures_are_known() {
        let table = Table::new();
        assert!(CALLS.iter().all(|(name, _)| *name == "socketcall" || seccomp::numbers(name).next().is_some()));
        assert_eq!(table.0.values().filter(|kind| **kind == Kind::Connect).count(), 2);
        // Types of datagrams have a bit that others lack.
        let of_datagrams = |kind: i32| kind & 2 != 0;
        assert!([libc::SOCK_DGRAM, libc::SOCK_RAW].into_iter().all(of_datagrams));
        assert!(![libc::SOCK_STREAM, libc::SOCK_SEQPACKET].into_iter().any(of_datagrams));
    }
}
