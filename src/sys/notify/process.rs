//! What a call's process is, besides its memory and its files, and what is written into its structures.

use super::Call;
use crate::sys::recorded::{Device, Recorded};
use rustix::fs::{FileType, makedev};
use rustix::io::Errno;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};

/// Lets the calling thread make files with just the modes that it names, whatever its process's mask is.
///
/// # Errors
/// If the kernel refuses a thread a mask of its own.
pub fn without_umask() -> Result<(), Errno> {
    // SAFETY: takes no pointer; only this thread is concerned.
    if unsafe { libc::unshare(libc::CLONE_FS) } != 0 {
        return Err(crate::sys::child::last_errno());
    }
    rustix::process::umask(rustix::fs::Mode::empty());
    Ok(())
}

impl Call<'_> {
    /// A number that kiln keeps with the process and that its children inherit; `None` before [`set_mark`](Self::set_mark).
    ///
    /// It stands in the limit `RLIMIT_LOCKS`, which no kernel since 2.4 looks at. The process can change it by itself, so it
    /// is no more than the process's own word.
    ///
    /// # Errors
    /// `ESRCH` if the call doesn't wait any more.
    pub fn mark(&self) -> Result<Option<u64>, Errno> {
        let limit = self.locks()?;
        Ok((limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur))
    }

    /// Sets that number.
    ///
    /// # Errors
    /// As [`mark`](Self::mark); `EINVAL` if the process may not have so large a one.
    pub fn set_mark(&self, mark: u64) -> Result<(), Errno> {
        let new = libc::rlimit { rlim_cur: mark, ..self.locks()? };
        // SAFETY: the kernel only reads the new limit.
        let result = unsafe { libc::prlimit(self.pid(), libc::RLIMIT_LOCKS, &raw const new, std::ptr::null_mut()) };
        if result == 0 { Ok(()) } else { Err(crate::sys::child::last_errno()) }
    }

    fn locks(&self) -> Result<libc::rlimit, Errno> {
        // SAFETY: zeroes are a valid value; the kernel fills it in.
        let (result, limit) = unsafe {
            let mut limit: libc::rlimit = zeroed();
            (libc::prlimit(self.pid(), libc::RLIMIT_LOCKS, std::ptr::null(), &raw mut limit), limit)
        };
        let failed = if result == 0 { Ok(()) } else { Err(crate::sys::child::last_errno()) };
        self.alive()?;
        failed.map(|()| limit)
    }

    /// The process's mask of permissions.
    ///
    /// # Errors
    /// `ESRCH` if the call doesn't wait any more.
    pub fn umask(&self) -> Result<u32, Errno> {
        let status = std::fs::read_to_string(self.proc("status"));
        self.alive()?;
        let status = status.map_err(|_| Errno::SRCH)?;
        let mask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        mask.and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok()).ok_or(Errno::INVAL)
    }

    /// The program that the process executes.
    ///
    /// # Errors
    /// `ESRCH` if the call doesn't wait any more.
    pub fn program(&self) -> Result<OwnedFd, Errno> {
        let flags = rustix::fs::OFlags::PATH | rustix::fs::OFlags::CLOEXEC;
        let opened = rustix::fs::open(self.proc("exe"), flags, rustix::fs::Mode::empty());
        self.alive()?;
        opened
    }

    /// Writes a file's `struct stat` to an address, with what is recorded of it.
    ///
    /// # Errors
    /// As `stat(2)` and [`write`](Self::write).
    pub fn write_stat(&self, address: u64, file: impl AsFd, recorded: &Recorded) -> Result<(), Errno> {
        // SAFETY: zeroes are a valid value; the kernel fills it in.
        let (result, mut stat) = unsafe {
            let mut stat: libc::stat = zeroed();
            (libc::fstat(file.as_fd().as_raw_fd(), &raw mut stat), stat)
        };
        if result != 0 {
            return Err(crate::sys::child::last_errno());
        }
        (stat.st_uid, stat.st_gid) = (recorded.uid, recorded.gid);
        if let Some(device) = recorded.device {
            stat.st_mode = mode_of(stat.st_mode, device);
            stat.st_rdev = makedev(device.major, device.minor);
        }
        self.write(address, bytes_of(&stat))
    }

    /// Writes a file's `struct statx` likewise: what `flags` (of those, how fresh it must be) and `mask` ask for.
    ///
    /// # Errors
    /// As [`write_stat`](Self::write_stat).
    pub fn write_statx(
        &self,
        address: u64,
        file: impl AsFd,
        (flags, mask): (i32, u32),
        recorded: &Recorded,
    ) -> Result<(), Errno> {
        const SYNC: i32 = 0x6000;
        let flags = (flags & SYNC) | libc::AT_EMPTY_PATH;
        // SAFETY: zeroes are a valid value; the kernel fills it in.
        let (result, mut stat) = unsafe {
            let mut stat: libc::statx = zeroed();
            (libc::statx(file.as_fd().as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat), stat)
        };
        if result != 0 {
            return Err(crate::sys::child::last_errno());
        }
        (stat.stx_uid, stat.stx_gid) = (recorded.uid, recorded.gid);
        if let Some(device) = recorded.device {
            stat.stx_mode = mode_of(stat.stx_mode.into(), device) as u16;
            (stat.stx_rdev_major, stat.stx_rdev_minor) = (device.major, device.minor);
        }
        self.write(address, bytes_of(&stat))
    }
}

fn mode_of(mode: u32, device: Device) -> u32 {
    let kind = if device.block { FileType::BlockDevice } else { FileType::CharacterDevice };
    (mode & 0o7777) | kind.as_raw_mode()
}

/// The memory of one of the kernel's structures.
fn bytes_of<T: Copy>(plain: &T) -> &[u8] {
    // SAFETY: the kernel's structures, which began as zeroes: every byte is a value, padding included.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(plain).cast::<u8>(), size_of::<T>()) }
}
