//! Landlock: a process gives up, for itself and all its children, what no rule allows it. Needs no privilege.
//!
//! Rules allow; nothing forbids. A rule belongs to an inode, wherever that is renamed to, and to all that is below it.

use super::{Error, Result, Said};
use rustix::io::Errno;
use std::mem::size_of;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// Rights on files, by the bits of the kernel's `LANDLOCK_ACCESS_FS_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rights(u64);

impl Rights {
    /// To list a directory.
    pub const LIST: Self = Self(1 << 3);
    /// To execute and read files and to list directories.
    pub const READ: Self = Self(1 | 1 << 2 | 1 << 3);
    /// What there is for a file that is no directory: execute, write, read, truncate, `ioctl` of devices, connect to a socket.
    const OF_FILE: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15 | 1 << 16;

    /// All that a version of the interface knows.
    fn all(abi: u32) -> Self {
        let bits = match abi {
            0 | 1 => 13,
            2 => 14,
            3 | 4 => 15,
            5..RESOLVES_UNIX => 16,
            _ => 17,
        };
        Self((1 << bits) - 1)
    }
}

/// The version of Landlock's interface that the kernel has.
///
/// # Errors
/// `ENOSYS` where it has none or a filter refuses the call, `EOPNOTSUPP` where it is off.
pub fn abi() -> Result<u32> {
    const VERSION: libc::c_uint = 1;
    // SAFETY: a null pointer of length 0 asks for the version.
    let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u64>(), 0, VERSION) };
    u32::try_from(version).map_err(|_| failed("landlock_create_ruleset"))
}

/// The version that knows of processes outside.
const APART: u32 = 6;

/// The version whose rights cover connections to Unix sockets in file systems (Linux 7.1). Sockets of the restricted processes
/// themselves need no rule.
pub const RESOLVES_UNIX: u32 = 9;

/// `struct landlock_ruleset_attr`.
#[repr(C)]
struct RulesetAttributes {
    files: u64,
    network: u64,
    scoped: u64,
}

/// `struct landlock_path_beneath_attr`, which is packed.
#[repr(C, packed)]
struct PathBeneath {
    allowed: u64,
    parent: i32,
}

/// Rules that are being made.
#[derive(Debug)]
pub struct Ruleset {
    fd: OwnedFd,
    all: Rights,
}

impl Ruleset {
    /// One that allows nothing with files yet; nor signals to, and abstract sockets of, processes outside, where the kernel
    /// knows of that (version 6).
    pub fn new(abi: u32) -> Result<Self> {
        Self::of(Rights::all(abi), abi)
    }

    /// One that takes nothing with files away, only signals to, and abstract sockets of, processes outside; nothing where the
    /// kernel doesn't know of that.
    pub fn apart(abi: u32) -> Result<Option<Self>> {
        if abi < APART { Ok(None) } else { Self::of(Rights(0), abi).map(Some) }
    }

    fn of(all: Rights, abi: u32) -> Result<Self> {
        const ABSTRACT_SOCKETS: u64 = 1;
        const SIGNALS: u64 = 2;
        let scoped = if abi >= APART { ABSTRACT_SOCKETS | SIGNALS } else { 0 };
        let attributes = RulesetAttributes { files: all.0, network: 0, scoped };
        // Older kernels know only the first fields.
        let size = match abi {
            0..=3 => size_of::<u64>(),
            4 | 5 => 2 * size_of::<u64>(),
            _ => size_of::<RulesetAttributes>(),
        };
        // SAFETY: the kernel reads `size` bytes of the structure.
        let fd = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, &raw const attributes, size, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(|| failed("landlock_create_ruleset"))?;
        // SAFETY: the kernel has just made it, and nobody else knows it.
        Ok(Self { fd: unsafe { OwnedFd::from_raw_fd(fd) }, all })
    }

    /// Allows everything with a file, or with a directory and what is below it.
    pub fn allow_all(&self, file: impl AsFd) -> Result<()> {
        let stat = rustix::fs::fstat(&file).call("fstat")?;
        let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory;
        let rights = if is_dir { self.all } else { Rights(self.all.0 & Rights::OF_FILE) };
        self.allow(file, rights)
    }

    /// Allows something with a file, or with a directory and what is below it.
    pub fn allow(&self, file: impl AsFd, rights: Rights) -> Result<()> {
        const PATH_BENEATH: libc::c_uint = 1;
        let rule = PathBeneath { allowed: rights.0 & self.all.0, parent: file.as_fd().as_raw_fd() };
        // SAFETY: the kernel only reads the structure, which is the one of this kind of rule.
        let result = unsafe {
            libc::syscall(libc::SYS_landlock_add_rule, self.fd.as_raw_fd(), PATH_BENEATH, &raw const rule, 0)
        };
        if result == 0 { Ok(()) } else { Err(failed("landlock_add_rule")) }
    }

    /// What a child takes.
    pub fn into_fd(self) -> OwnedFd {
        self.fd
    }
}

/// Restricts this process; allocates nothing. It must have given up gaining rights (`no_new_privs`), or have CAP_SYS_ADMIN.
pub(super) fn restrict(ruleset: &OwnedFd) -> std::result::Result<(), Errno> {
    // SAFETY: takes plain numbers.
    let result = unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset.as_raw_fd(), 0) };
    if result == 0 { Ok(()) } else { Err(super::child::last_errno()) }
}

fn failed(call: &'static str) -> Error {
    Error { call, path: None, errno: super::child::last_errno() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_can_be_made_where_there_is_landlock() {
        let Ok(abi) = abi() else {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let ruleset = Ruleset::new(abi).unwrap();
        let file = std::fs::File::create(dir.path().join("f")).unwrap();
        ruleset.allow_all(&file).unwrap();
        ruleset.allow_all(std::fs::File::open(dir.path()).unwrap()).unwrap();
        assert!(ruleset.allow(&file, Rights::LIST).is_err());
    }
}
