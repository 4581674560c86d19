//! What calls that change names ask for, whatever their form.

use super::caller::AssumedIdentity;
use crate::sandbox::seccomp::When;
use crate::sys::notify::Call;
use rustix::io::Errno;
use std::ffi::CString;

/// The calls that change names, and the flag with which some do; and those that list, for [`listing`](super::listing).
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

/// A call, whatever its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum EntryRequest {
    Folder { at: Named, mode: u32 },
    Open { at: Named, flags: u32, mode: u32 },
    Node { at: Named, mode: u32, device: u64 },
    Link { at: Named, target: u64 },
    Rename { from: Named, to: Named, flags: u32 },
    Second { to: Named },
    Remove { at: Named, flags: u32 },
}

/// A path in the process's memory, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) from: i32,
    path: u64,
}

/// A wish whose paths were read.
pub(super) struct Asked {
    pub(super) wish: EntryRequest,
    /// The first path that it names.
    pub(super) path: CString,
    /// The second.
    pub(super) other: Option<CString>,
}

impl Asked {
    /// What a call asks for; nothing for one that asks for no change. From then on this thread has the role in which the
    /// call's process can be looked into.
    ///
    /// # Errors
    /// Where its paths can't be read.
    pub(super) fn hear(call: &Call<'_>, role: &mut AssumedIdentity) -> Result<Option<Self>, Errno> {
        let Some(wish) = wish(call) else { return Ok(None) };
        let (first, second) = wish.paths();
        let path = role.read(call, first)?;
        let other = second.map(|second| role.read(call, second)).transpose()?;
        Ok(Some(Self { wish, path, other }))
    }
}

impl EntryRequest {
    /// Where its paths stand; what a link says is none.
    fn paths(&self) -> (u64, Option<u64>) {
        match *self {
            Self::Folder { at, .. }
            | Self::Open { at, .. }
            | Self::Node { at, .. }
            | Self::Link { at, .. }
            | Self::Remove { at, .. } => (at.path, None),
            Self::Second { to } => (to.path, None),
            Self::Rename { from, to, .. } => (from.path, Some(to.path)),
        }
    }
}

/// What a call asks for; nothing for one that asks for no change.
fn wish(call: &Call<'_>) -> Option<EntryRequest> {
    let named = |from: usize, path: usize| Named { from: call.int(from), path: call.argument(path) };
    let here = |path: usize| Named { from: libc::AT_FDCWD, path: call.argument(path) };
    let int = |index: usize| call.int(index).cast_unsigned();
    Some(match call.number() {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => EntryRequest::Folder { at: here(0), mode: int(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => EntryRequest::Open { at: here(0), flags: int(1), mode: int(2) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => EntryRequest::Open {
            at: here(0),
            flags: (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned(),
            mode: int(1),
        },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mknod => EntryRequest::Node { at: here(0), mode: int(1), device: u64::from(int(2)) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_symlink => EntryRequest::Link { target: call.argument(0), at: here(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => EntryRequest::Rename { from: here(0), to: here(1), flags: 0 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => EntryRequest::Second { to: here(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => EntryRequest::Remove { at: here(0), flags: 0 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir => EntryRequest::Remove { at: here(0), flags: libc::AT_REMOVEDIR.cast_unsigned() },
        libc::SYS_mkdirat => EntryRequest::Folder { at: named(0, 1), mode: int(2) },
        libc::SYS_openat => EntryRequest::Open { at: named(0, 1), flags: int(2), mode: int(3) },
        libc::SYS_openat2 => return open_how(call, named(0, 1)),
        libc::SYS_mknodat => EntryRequest::Node { at: named(0, 1), mode: int(2), device: u64::from(int(3)) },
        libc::SYS_symlinkat => EntryRequest::Link { target: call.argument(0), at: named(1, 2) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_renameat => EntryRequest::Rename { from: named(0, 1), to: named(2, 3), flags: 0 },
        libc::SYS_renameat2 => EntryRequest::Rename { from: named(0, 1), to: named(2, 3), flags: int(4) },
        libc::SYS_linkat => EntryRequest::Second { to: named(2, 3) },
        libc::SYS_unlinkat => EntryRequest::Remove { at: named(0, 1), flags: int(2) },
        _ => return None,
    })
}

/// The same of `openat2`, which has its flags in memory: flags, mode, and how the path is resolved, 8 bytes each.
fn open_how(call: &Call<'_>, at: Named) -> Option<EntryRequest> {
    let how = call.bytes(call.argument(2), 24).ok()?;
    let number = |index: usize| how.get(index * 8..index * 8 + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (flags, mode, resolve) = (u32::try_from(number(0)?).ok()?, u32::try_from(number(1)?).ok()?, number(2)?);
    (flags & libc::O_CREAT.cast_unsigned() != 0 && resolve == 0).then_some(EntryRequest::Open { at, flags, mode })
}
