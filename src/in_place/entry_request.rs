//! Decodes the system calls that create, rename or remove directory entries into one request type, whichever variant was called.

use super::caller::AssumedIdentity;
use crate::sandbox::seccomp::When;
use crate::sys::notify::Call;
use rustix::io::Errno;
use std::ffi::CString;

/// The calls, and the flags with which kiln must see them; those that open a directory are for [`root_listing`](super::root_listing).
pub(super) const CALLS: [(&str, When); 18] = [
    ("mkdir", When::Always),
    ("mkdirat", When::Always),
    ("open", When::With(1, (libc::O_CREAT | libc::O_DIRECTORY) as u32)),
    ("openat", When::With(2, (libc::O_CREAT | libc::O_DIRECTORY) as u32)),
    ("openat2", When::Always),
    ("creat", When::Always),
    ("mknod", When::Always),
    ("mknodat", When::Always),
    ("symlink", When::Always),
    ("symlinkat", When::Always),
    ("rename", When::Always),
    ("renameat", When::Always),
    ("renameat2", When::Always),
    ("link", When::Always),
    ("linkat", When::Always),
    ("unlink", When::Always),
    ("unlinkat", When::Always),
    ("rmdir", When::Always),
];

/// A change of directory entries that a process requests. The `target` of a symbolic link is the address of its text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryRequest {
    CreateDir { at: PathArgument, mode: u32 },
    Open { at: PathArgument, flags: u32, mode: u32 },
    CreateNode { at: PathArgument, mode: u32, device: u64 },
    Symlink { at: PathArgument, target: u64 },
    Rename { from: PathArgument, to: PathArgument, flags: u32 },
    HardLink { to: PathArgument },
    Remove { at: PathArgument, flags: u32 },
}

/// A path argument: the descriptor that a relative path starts from, and the address of the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PathArgument {
    pub(super) from: i32,
    address: u64,
}

/// A request together with its paths, which were read once from the process's memory.
pub(super) struct PathRequest {
    pub(super) request: EntryRequest,
    pub(super) path: CString,
    /// The second path, of a rename.
    pub(super) other: Option<CString>,
}

impl PathRequest {
    /// Reads the request that a call makes; `None` for one that changes no entry. Afterwards this thread has an identity that may
    /// look into the call's process.
    ///
    /// # Errors
    /// If a path cannot be read.
    pub(super) fn read(call: &Call<'_>, identity: &mut AssumedIdentity) -> Result<Option<Self>, Errno> {
        let Some(request) = EntryRequest::decode(call, identity) else { return Ok(None) };
        let (first, second) = request.paths();
        let path = identity.read(call, first)?;
        let other = second.map(|second| identity.read(call, second)).transpose()?;
        Ok(Some(Self { request, path, other }))
    }
}

impl EntryRequest {
    /// The addresses of its paths. The text of a symbolic link is not one of them.
    fn paths(&self) -> (u64, Option<u64>) {
        match *self {
            Self::CreateDir { at, .. }
            | Self::Open { at, .. }
            | Self::CreateNode { at, .. }
            | Self::Symlink { at, .. }
            | Self::Remove { at, .. } => (at.address, None),
            Self::HardLink { to } => (to.address, None),
            Self::Rename { from, to, .. } => (from.address, Some(to.address)),
        }
    }

    /// Decodes a call; `None` for one that changes no entry.
    fn decode(call: &Call<'_>, identity: &mut AssumedIdentity) -> Option<Self> {
        let below = |from: usize, path: usize| PathArgument { from: call.int(from), address: call.argument(path) };
        let plain = |path: usize| PathArgument { from: libc::AT_FDCWD, address: call.argument(path) };
        let int = |index: usize| call.int(index).cast_unsigned();
        Some(match call.number() {
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mkdir => Self::CreateDir { at: plain(0), mode: int(1) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_open => Self::Open { at: plain(0), flags: int(1), mode: int(2) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_creat => Self::Open {
                at: plain(0),
                flags: (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned(),
                mode: int(1),
            },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_mknod => Self::CreateNode { at: plain(0), mode: int(1), device: u64::from(int(2)) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_symlink => Self::Symlink { target: call.argument(0), at: plain(1) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rename => Self::Rename { from: plain(0), to: plain(1), flags: 0 },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_link => Self::HardLink { to: plain(1) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_unlink => Self::Remove { at: plain(0), flags: 0 },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_rmdir => Self::Remove { at: plain(0), flags: libc::AT_REMOVEDIR.cast_unsigned() },
            libc::SYS_mkdirat => Self::CreateDir { at: below(0, 1), mode: int(2) },
            libc::SYS_openat => Self::Open { at: below(0, 1), flags: int(2), mode: int(3) },
            libc::SYS_openat2 => return Self::decode_open_how(call, below(0, 1), identity),
            libc::SYS_mknodat => Self::CreateNode { at: below(0, 1), mode: int(2), device: u64::from(int(3)) },
            libc::SYS_symlinkat => Self::Symlink { target: call.argument(0), at: below(1, 2) },
            #[cfg(target_arch = "x86_64")]
            libc::SYS_renameat => Self::Rename { from: below(0, 1), to: below(2, 3), flags: 0 },
            libc::SYS_renameat2 => Self::Rename { from: below(0, 1), to: below(2, 3), flags: int(4) },
            libc::SYS_linkat => Self::HardLink { to: below(2, 3) },
            libc::SYS_unlinkat => Self::Remove { at: below(0, 1), flags: int(2) },
            _ => return None,
        })
    }

    /// Decodes `openat2`, whose flags are in memory: flags, mode and resolve flags of 8 bytes each.
    fn decode_open_how(call: &Call<'_>, at: PathArgument, identity: &mut AssumedIdentity) -> Option<Self> {
        let how = identity.bytes(call, call.argument(2), 24).ok()?;
        let number = |index: usize| how.get(index * 8..index * 8 + 8)?.try_into().ok().map(u64::from_ne_bytes);
        let (flags, mode, resolve) = (u32::try_from(number(0)?).ok()?, u32::try_from(number(1)?).ok()?, number(2)?);
        (flags & libc::O_CREAT.cast_unsigned() != 0 && resolve == 0).then_some(Self::Open { at, flags, mode })
    }
}
