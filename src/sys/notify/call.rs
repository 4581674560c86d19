//! One call that waits for its answer.

use super::Listener;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use std::cell::OnceCell;
use std::ffi::CString;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

/// The longest path that the kernel takes, with its final zero.
const PATH_MAX: usize = libc::PATH_MAX as usize;
/// Strings are read in pieces that don't cross pages, as the next one may not be there.
const PAGE: usize = 4096;

/// A call that a process waits in.
#[derive(Debug)]
pub struct Call<'a> {
    pub(super) listener: &'a Listener,
    pub(super) id: u64,
    thread: u32,
    number: libc::c_long,
    architecture: u32,
    arguments: [u64; 6],
    memory: OnceCell<OwnedFd>,
    kept: OnceCell<Arc<KeptProcess>>,
}

/// What was opened of a process as long as this one might look into it. It may be used afterwards, too.
#[derive(Debug)]
pub struct KeptProcess {
    memory: OwnedFd,
    pub(super) root: OwnedFd,
}

impl<'a> Call<'a> {
    pub(super) fn new(listener: &'a Listener, notification: &libc::seccomp_notif) -> Self {
        let libc::seccomp_notif { id, pid, data, .. } = *notification;
        let (number, architecture) = (libc::c_long::from(data.nr), data.arch);
        Self {
            listener,
            id,
            thread: pid,
            number,
            architecture,
            arguments: data.args,
            memory: OnceCell::new(),
            kept: OnceCell::new(),
        }
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

    /// The string at an address: a path, or the name of an attribute.
    ///
    /// # Errors
    /// As the kernel: `EFAULT` where there is no memory, `ENAMETOOLONG` for a string without an end. `ESRCH` if the call does not
    /// wait any more; `EACCES` if this thread may not look into its process (ptrace(2), `PTRACE_MODE_ATTACH_FSCREDS`).
    pub fn string(&self, address: u64) -> Result<CString, Errno> {
        let memory = self.memory()?;
        string(address, |at, length| read(memory, at, length))
    }

    /// The bytes at an address.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn bytes(&self, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        read(self.memory()?, address, length)
    }

    /// Writes to an address.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Errno> {
        let opened = self.open_memory(OFlags::RDWR);
        let memory = match (&opened, self.kept()) {
            (Err(Errno::ACCESS), Some(kept)) => &kept.memory,
            (opened, _) => opened.as_ref().map_err(|errno| *errno)?,
        };
        match rustix::io::pwrite(memory, bytes, address) {
            Ok(count) if count == bytes.len() => Ok(()),
            Ok(_) | Err(Errno::IO | Errno::INVAL) => Err(Errno::FAULT),
            Err(errno) => Err(errno),
        }
    }

    /// Opens the memory and the root directory of the call's process, for later calls of it.
    ///
    /// # Errors
    /// As [`string`](Self::string).
    pub fn keep(&self) -> Result<KeptProcess, Errno> {
        Ok(KeptProcess { memory: self.open_memory(OFlags::RDWR)?, root: self.root()? })
    }

    /// Looks into the call's process by what was kept of it, where it may not be looked into any more.
    pub fn look_by(&self, kept: Arc<KeptProcess>) {
        let _ = self.kept.set(kept);
    }

    pub(super) fn kept(&self) -> Option<&KeptProcess> {
        self.kept.get().map(Arc::as_ref)
    }

    /// The memory of the call's process, opened once for reading.
    fn memory(&self) -> Result<&OwnedFd, Errno> {
        if let Some(memory) = self.memory.get() {
            return Ok(memory);
        }
        match (self.open_memory(OFlags::RDONLY), self.kept()) {
            (Err(Errno::ACCESS), Some(kept)) => Ok(&kept.memory),
            (memory, _) => memory.map(|memory| self.memory.get_or_init(|| memory)),
        }
    }

    /// Opens the memory first and checks afterwards that the call still waits. The descriptor then belongs to the process that made
    /// the call, even if that ends and its number is given to another process.
    fn open_memory(&self, flags: OFlags) -> Result<OwnedFd, Errno> {
        let memory = open(self.proc("mem"), flags | OFlags::CLOEXEC, Mode::empty());
        self.alive()?;
        memory
    }

    pub(super) fn pid(&self) -> libc::pid_t {
        // Numbers of threads are below 2^22.
        self.thread.cast_signed()
    }
}

/// Reads from the memory of a process.
fn read(memory: &OwnedFd, at: u64, length: usize) -> Result<Vec<u8>, Errno> {
    let mut bytes = vec![0; length];
    match rustix::io::pread(memory, &mut bytes, at) {
        Ok(count) if count == length => Ok(bytes),
        Ok(_) | Err(Errno::IO | Errno::INVAL) => Err(Errno::FAULT),
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
