//! Keeps this program's file out of reach of the processes that it starts.
//!
//! `/proc/PID/exe` leads to the file that a process executes, whatever the mount namespace. A child executes this program
//! until it executes its command, so the command `/proc/self/exe` is this program, also as the interpreter of a script. A
//! process beside it could then change the file's mode, owner, attributes or content (CVE-2019-5736).
//!
//! So this program executes itself a second time before it starts such processes: by a read-only mount of its file that is
//! mounted nowhere, or by a sealed copy in memory. Neither can be changed through `/proc`. The mount costs nothing to make;
//! the copy takes as much memory as the file has bytes.

use super::child::step::Pointers;
use super::{Error, Result, Said, child, file};
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags, SealFlags, StatVfsMountFlags};
use rustix::io::Errno;
use rustix::mount::{MountAttrFlags, OpenTreeFlags};
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

const EXE: &str = "/proc/self/exe";

const SEALS: SealFlags = SealFlags::SEAL.union(SealFlags::SHRINK).union(SealFlags::GROW).union(SealFlags::WRITE);

/// Whether nothing can be changed through this process's `/proc/self/exe`.
///
/// # Errors
/// Where `/proc` isn't mounted.
pub fn is_protected() -> Result<bool> {
    let exe = open_exe()?;
    let flags = rustix::fs::fstatvfs(&exe).said("fstatvfs", EXE)?.f_flag;
    Ok(flags.contains(StatVfsMountFlags::RDONLY) || rustix::fs::fcntl_get_seals(&exe).is_ok_and(|s| s.contains(SEALS)))
}

/// This program, which is the file at `path`, in a form that can be executed and not be changed.
///
/// # Errors
/// Why there can be neither a mount nor a copy.
pub fn protected(path: &Path) -> std::result::Result<OwnedFd, String> {
    read_only_mount(path).or_else(|mount| sealed_copy().map_err(|copy| format!("{mount}; {copy}")))
}

/// Executes [`protected`]; comes back only with the reason why that failed.
pub fn execute(program: &OwnedFd, args: Vec<CString>, env: Vec<CString>) -> Error {
    let (args, env) = (Pointers::new(args), Pointers::new(env));
    // SAFETY: the path, the arguments and the environment are strings and arrays that end as they must, and live across the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            args.as_ptr(),
            env.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Error { call: "execveat", path: None, errno: child::last_errno() }
}

fn open_exe() -> Result<OwnedFd> {
    rustix::fs::openat(CWD, EXE, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).said("open", EXE)
}

/// Needs rights over mounts. The file is found by its path: in a new mount namespace, `/proc/self/exe` still leads to a mount of the
/// old one, and that can't be cloned.
fn read_only_mount(path: &Path) -> Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let mount = rustix::mount::open_tree(CWD, path, flags).said("open_tree", path)?;
    let inode = |file: &OwnedFd| rustix::fs::fstat(file).map(|stat| (stat.st_dev, stat.st_ino));
    if inode(&mount).call("fstat")? != inode(&open_exe()?).call("fstat")? {
        // It was replaced since this process began.
        return Err(Error::new("open_tree", path, Errno::STALE));
    }
    child::set_flags(mount.as_fd(), MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    Ok(mount)
}

fn sealed_copy() -> Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = match rustix::fs::memfd_create("kiln", flags | MemfdFlags::EXEC) {
        // Before Linux 6.3 every one can be executed.
        Err(Errno::INVAL) => rustix::fs::memfd_create("kiln", flags),
        made => made,
    };
    let copy = copy.call("memfd_create")?;
    file::copy(open_exe()?, &copy)?;
    rustix::fs::fcntl_add_seals(&copy, SEALS).call("fcntl(F_ADD_SEALS)")?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::FileExt as _;

    #[test]
    fn a_copy_cannot_be_changed() {
        let copy = std::fs::File::from(sealed_copy().unwrap());
        let mut first = [0; 4];
        copy.read_exact_at(&mut first, 0).unwrap();
        assert_eq!(&first, b"\x7fELF");
        assert_eq!(copy.metadata().unwrap().len(), std::fs::metadata(EXE).unwrap().len());
        assert!(copy.write_at(b"x", 0).is_err() && copy.set_len(0).is_err());
    }

    /// Needs root.
    #[test]
    fn a_mount_cannot_be_changed_and_is_of_this_program_alone() {
        let path = std::env::current_exe().unwrap();
        assert!(read_only_mount(Path::new("/bin/sh")).is_err(), "another program");
        let mount = match read_only_mount(&path) {
            Ok(mount) => mount,
            Err(error) if error.is_denied() => {
                println!("skipped: it needs rights over mounts");
                return;
            }
            Err(error) => panic!("{error}"),
        };
        let link = file::by_number(&mount);
        let mode = std::fs::metadata(&link).unwrap().permissions();
        let refused = std::fs::set_permissions(&link, mode).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    }
}
