//! Addresses of Unix sockets that a process names, and whether it may reach them.

use super::caller::{AssumedIdentity, own_descriptor};
use super::confinement::Confinement;
use super::mute_sockets::MuteSockets;
use crate::sys::file::by_number;
use crate::sys::notify::{Call, Origin};
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// The size of `struct sockaddr_un`.
const LONGEST: usize = 110;

/// A socket that an address leads to.
#[derive(Debug)]
pub(super) enum Destination {
    /// The socket's inode, which it leads to whatever the path means by now.
    Inode(OwnedFd),
    Abstract(Vec<u8>),
}

/// The name in the address of a Unix socket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Name {
    Path(CString),
    /// A name that is in no file system.
    Abstract(Vec<u8>),
}

/// A name as its process means it.
pub(super) enum Address<'a> {
    /// A path, and where it is resolved.
    Path(Origin<'a>, CString),
    Abstract(Vec<u8>),
}

impl Name {
    /// Reads the name in an address once from the memory of the process; `None` for an address that no Unix socket can be
    /// connected to, for which the kernel has the right error.
    ///
    /// # Errors
    /// `EACCES` if kiln may not look into the process; otherwise as the kernel has them.
    pub(super) fn read(
        call: &Call<'_>,
        identity: &mut AssumedIdentity,
        (address, length): (u64, u64),
    ) -> Result<Option<Self>, Errno> {
        match usize::try_from(length).ok().filter(|length| (3..=LONGEST).contains(length)) {
            Some(length) => Ok(Self::parse(&identity.bytes(call, address, length)?)),
            None => Ok(None),
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let (family, name) = bytes.split_first_chunk::<2>()?;
        if i32::from(u16::from_ne_bytes(*family)) != libc::AF_UNIX {
            return None;
        }
        match name.split_first()? {
            (0, name) => Some(Self::Abstract(name.to_vec())),
            _ => {
                let path = name.split(|b| *b == 0).next()?;
                CString::new(path).ok().map(Self::Path)
            }
        }
    }

    /// What it means to the process.
    ///
    /// # Errors
    /// As [`Call::origin`].
    pub(super) fn address<'a>(self, call: &'a Call<'_>, identity: &mut AssumedIdentity) -> Result<Address<'a>, Errno> {
        match self {
            Self::Abstract(name) => Ok(Address::Abstract(name)),
            Self::Path(path) => {
                let own = own_descriptor(&path).and_then(|(descriptor, rest)| Some((descriptor, rest?)));
                let (from, path) = own.unwrap_or((libc::AT_FDCWD, path));
                let origin = identity.look(call, || call.origin(from, &path))?;
                Ok(Address::Path(origin, path))
            }
        }
    }
}

impl Address<'_> {
    /// Finds the socket, with the credentials that this thread has.
    ///
    /// # Errors
    /// `EACCES` for a path that leads to something hidden, `EPERM` for an abstract name that is not of the RUN; otherwise as the
    /// kernel has them for paths.
    pub(super) fn find(self, confinement: &Confinement, own: &MuteSockets) -> Result<Destination, Errno> {
        match self {
            Self::Path(origin, path) => {
                let socket = origin.find(&path, true)?;
                confinement.refuse_hidden(&socket)?;
                Ok(Destination::Inode(socket))
            }
            Self::Abstract(name) => {
                let table = std::fs::read("/proc/net/unix").map_err(|_| Errno::ACCESS)?;
                let mut owners = owners(&table, &name).peekable();
                match (owners.peek().is_none(), owners.all(|socket| own.kind(socket).is_some())) {
                    (true, _) => Err(Errno::CONNREFUSED),
                    (false, true) => Ok(Destination::Abstract(name)),
                    (false, false) => Err(Errno::PERM),
                }
            }
        }
    }
}

impl Destination {
    /// The address to connect or send to.
    pub(super) fn address(&self) -> Result<SocketAddrUnix, Errno> {
        match self {
            Self::Inode(inode) => SocketAddrUnix::new(by_number(inode)),
            Self::Abstract(name) => SocketAddrUnix::new_abstract_name(name),
        }
    }
}

/// The numbers of the sockets that have an abstract name, by `/proc/net/unix`. It shows zero bytes as `@` and newlines as they are, so
/// there may be others among them.
fn owners<'t>(table: &'t [u8], name: &[u8]) -> impl Iterator<Item = u64> + use<'t> {
    let shown = std::iter::once(b'@').chain(name.iter().map(|b| if *b == 0 { b'@' } else { *b }));
    let first_line: Vec<u8> = shown.take_while(|b| *b != b'\n').collect();
    let sockets = table.split(|b| *b == b'\n').filter_map(parse_socket);
    sockets.filter(move |(_, name)| *name == first_line).map(|(number, _)| number)
}

/// The number and the name of a socket in a line of `/proc/net/unix`: six fields, the number, and a space before the name.
fn parse_socket(line: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = line;
    let mut field: &[u8] = &[];
    for _ in 0..7 {
        rest = rest.trim_ascii_start();
        let end = rest.iter().position(|b| *b == b' ')?;
        (field, rest) = rest.split_at(end);
    }
    Some((std::str::from_utf8(field).ok()?.parse().ok()?, rest.strip_prefix(b" ")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_in_addresses() {
        let unix = 1_u16.to_ne_bytes();
        let path = |path: &str| Some(Name::Path(CString::new(path).unwrap()));
        for (name, expected) in [
            (&b"/run/s\0"[..], path("/run/s")),
            (b"/run/s", path("/run/s")),
            (b"s\0left over", path("s")),
            (b"\0name", Some(Name::Abstract(b"name".to_vec()))),
            (b"\0a\0b", Some(Name::Abstract(b"a\0b".to_vec()))),
            (b"\0", Some(Name::Abstract(Vec::new()))),
            (b"", None),
        ] {
            assert_eq!(Name::parse(&[&unix[..], name].concat()), expected, "{name:?}");
        }
        assert_eq!(Name::parse(&[2, 0, 0, 80, 127, 0, 0, 1]), None, "the internet's");
        assert_eq!(Name::parse(&[1]), None);
    }

    #[test]
    fn sockets_with_an_abstract_name_are_found() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path\n\
            0000000079aa457e: 00000003 00000000 00000000 0001 03 1492890 /run/x y\n\
            000000002a442d7e: 00000003 00000000 00000000 0001 03  1072\n\
            000000002a442d7e: 00000003 00000000 00000000 0001 01  1073 @name\n\
            000000002a442d7e: 00000003 00000000 00000000 0002 01    74 @name\n\
            000000002a442d7e: 00000003 00000000 00000000 0002 01    75 @name \n\
            000000002a442d7e: 00000003 00000000 00000000 0002 01    76 @na@me\nsecond\n\
            nonsense\n";
        let found = |name: &[u8]| owners(table, name).collect::<Vec<_>>();
        assert_eq!(found(b"name"), [1073, 74]);
        assert_eq!(found(b"name "), [75]);
        assert_eq!(found(b"na\0me\nsecond"), [76]);
        assert_eq!(found(b"nam"), [0; 0]);
    }
}
