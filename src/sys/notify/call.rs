//! One call that waits for its answer.

use super::Listener;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::ffi::{CString, c_void};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// The longest path that the kernel takes, with its final zero.
const PATH_MAX: usize = libc::PATH_MAX as usize;
/// Strings are read in pieces that don't cross pages, as the next one may not be there.
const PAGE: usize = 4096;

/// A call that a process waits in.
#[derive(Debug)]
pub struct Call<'a> {
    listener: &'a Listener,
    pub(super) id: u64,
    thread: u32,
    number: libc::c_long,
    architecture: u32,
    arguments: [u64; 6],
}

impl<'a> Call<'a> {
    pub(super) fn new(listener: &'a Listener, notification: &libc::seccomp_notif) -> Self {
        let libc::seccomp_notif { id, pid, data, .. } = *notification;
        let (number, architecture) = (libc::c_long::from(data.nr), data.arch);
        Self { listener, id, thread: pid, number, architecture, arguments: data.args }
    }

    /// The call's number (`libc::SYS_*`), of the architecture that kiln was made for if the filter tells others nothing.
    pub fn number(&self) -> libc::c_long {
        self.number
    }

    /// The architecture that the number is of (`AUDIT_ARCH_*`).
    pub fn architecture(&self) -> u32 {
        self.architecture
    }

    /// One of its six arguments; 0 beyond.
    pub fn argument(&self, index: usize) -> u64 {
        self.arguments.get(index).copied().unwrap_or(0)
    }

    /// An argument that is an `int`, or half as wide as a register otherwise.
    pub fn int(&self, index: usize) -> i32 {
        self.argument(index) as u32 as i32
    }

    /// The number of the thread that makes it, as this process sees it. To be used only together with
    /// [`is_alive`](Self::is_alive).
    pub fn thread(&self) -> u32 {
        self.thread
    }

    /// Whether it still waits. If so, whatever was found by its thread's number *before* was found in that thread.
    pub fn is_alive(&self) -> bool {
        self.listener.is_valid(self.id)
    }

    /// Fails with `ESRCH` if the call doesn't wait any more.
    pub(super) fn alive(&self) -> Result<(), Errno> {
        if self.is_alive() { Ok(()) } else { Err(Errno::SRCH) }
    }

    /// A file of the thread's in `/proc`.
    pub(super) fn proc(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.thread))
    }

    /// The path at an address.
    ///
    /// # Errors
    /// As the kernel: `EFAULT` where there is no memory, `ENAMETOOLONG` for one without an end; `ESRCH` if the call doesn't
    /// wait any more; `EPERM` for a process of others than this one's user and group, unless this one may look everywhere.
    pub fn string(&self, address: u64) -> Result<CString, Errno> {
        string(address, |at, length| self.bytes(at, length))
    }

    /// The same for a thread that [acts](crate::sys::Someone::act) as the user and group of the call's process; a little
    /// slower.
    ///
    /// # Errors
    /// As [`string`](Self::string), but `EACCES` for a process of others than those.
    pub fn string_by_file(&self, address: u64) -> Result<CString, Errno> {
        let memory = self.memory()?;
        string(address, |at, length| read(&memory, at, length))
    }

    /// [`bytes`](Self::bytes) for such a thread.
    ///
    /// # Errors
    /// As [`string_by_file`](Self::string_by_file).
    pub fn bytes_by_file(&self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        read(&self.memory()?, address, length)
    }

    fn memory(&self) -> Result<OwnedFd, Errno> {
        let memory = open(self.proc("mem"), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        self.alive()?;
        memory
    }

    /// What stands at an address.
    ///
    /// # Errors
    /// `EFAULT` where there is no memory; `ESRCH` if the call doesn't wait any more; `EPERM` as for [`string`](Self::string).
    pub fn bytes(&self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        let mut bytes = vec![0; length];
        let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast::<c_void>(), iov_len: length };
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: length };
        // SAFETY: the kernel writes `length` bytes at most, which the vector has.
        let read = unsafe { libc::process_vm_readv(self.pid(), &raw const local, 1, &raw const remote, 1, 0) };
        let whole = moved(read, length);
        self.alive()?;
        whole.map(|()| bytes)
    }

    /// Writes to an address.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        self.alive()?;
        let local = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast::<c_void>(), iov_len: bytes.len() };
        let remote = libc::iovec { iov_base: address as *mut c_void, iov_len: bytes.len() };
        // SAFETY: the kernel only reads what is here.
        let written = unsafe { libc::process_vm_writev(self.pid(), &raw const local, 1, &raw const remote, 1, 0) };
        moved(written, bytes.len())
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        // Numbers of threads are below 2^22.
        self.thread.cast_signed()
    }
}

/// Reads from the memory of a process, which must be there.
fn read(memory: &OwnedFd, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    match rustix::io::pread(memory, &mut bytes, at) {
        Ok(count) if count == length => Ok(bytes),
        Ok(_) | Err(Errno::IO) => Err(Errno::FAULT),
        Err(errno) => Err(errno),
    }
}

/// Reads a string by pieces.
fn string(address: u64, read: impl Fn(u64, usize) -> Result<Vec<u8>, Errno>) -> Result<CString, Errno> {
    let mut text = Vec::new();
    while text.len() < PATH_MAX {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let to_end_of_page = PAGE - (at % PAGE as u64) as usize;
        let piece = read(at, to_end_of_page.min(PATH_MAX - text.len()))?;
        if let Some(end) = piece.iter().position(|b| *b == 0) {
            text.extend(piece.into_iter().take(end));
            return CString::new(text).map_err(|_| Errno::INVAL);
        }
        text.extend(piece);
    }
    Err(Errno::NAMETOOLONG)
}

/// Whether all was moved to or from another process.
fn moved(count: libc::ssize_t, wanted: usize) -> Result<(), Errno> {
    match usize::try_from(count) {
        Ok(count) if count == wanted => Ok(()),
        Ok(_) => Err(Errno::FAULT),
        Err(_) => Err(crate::sys::child::last_errno()),
    }
}
