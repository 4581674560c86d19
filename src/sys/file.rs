//! Files: opening them confined to a folder, making nodes, setting owners and times, copying, locking.
//!
//! `at` functions take an open folder and a path below it; the path in an error is that one, so callers who know more
//! replace it.

use super::input::open_in_root_by_steps;
use super::{Error, Result, Said};
use rustix::fs::{
    AtFlags, CWD, Dev, FileType, FlockOperation, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, Uid,
};
use rustix::io::Errno;
use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Opens a folder to be used as the anchor of the functions below. A path of the host: links are followed.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::openat(CWD, path, flags, Mode::empty()).said("open", path)
}

/// Opens `path` as a process whose root is `root` would: symbolic links, absolute ones and `..` too, stay inside
/// (`RESOLVE_IN_ROOT`); magic links of /proc are refused. For names that an image chose.
pub fn open_in_root(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    match open_resolved(root.as_fd(), path, flags, mode, resolve) {
        Err(e) if matches!(e.errno, Errno::NOSYS | Errno::PERM) => open_in_root_by_steps(root, path, flags, mode),
        done => done,
    }
}

/// Opens `path` below `root`, refusing any symbolic link on the way (`RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS`): what is
/// opened is what is named. For trees that are written to while unpacking.
pub fn open_beneath(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    open_resolved(root, path, flags, mode, ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// A path to what a descriptor is open for, which calls that don't take an `O_PATH` descriptor do take.
pub fn by_number(file: impl AsFd) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_fd().as_raw_fd()))
}

/// The path of an open file, as this process sees it.
pub fn path_of(file: impl AsFd) -> Result<PathBuf> {
    let link = by_number(file);
    let path = rustix::fs::readlink(&link, Vec::new()).said("readlink", &link)?;
    Ok(PathBuf::from(OsString::from_vec(path.into_bytes())))
}

/// The time by the clock that files are dated with, in seconds and nanoseconds: it goes by ticks.
pub fn clock() -> (i64, i64) {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::RealtimeCoarse);
    (now.tv_sec, now.tv_nsec)
}

fn open_resolved(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode, resolve: ResolveFlags) -> Result<OwnedFd> {
    let named = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    loop {
        match rustix::fs::openat2(root.as_fd(), named, flags | OFlags::CLOEXEC, mode, resolve) {
            // A rename elsewhere in the tree raced with the lookup of a "..".
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other.said("openat2", path),
        }
    }
}

/// Makes a device, a fifo or a socket; for the first two kinds of file use the ordinary calls.
pub fn mknod_at(dir: impl AsFd, name: &Path, kind: FileType, mode: u32, device: Dev) -> Result<()> {
    rustix::fs::mknodat(dir, name, kind, Mode::from_raw_mode(mode), device).said("mknodat", name)
}

/// Sets the owner of the thing named, not following a link.
pub fn chown_at(dir: impl AsFd, name: &Path, uid: u32, gid: u32) -> Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW).said("fchownat", name)
}

/// Gives a directory of this process's user its group, and takes the set-group-ID bit away, where that is set: what is made in the
/// directory would have another group than its maker's, and be a directory of that sort itself. Another user's stays as it is, and so
/// does one that can't be changed.
pub fn keep_own_group(dir: &Path) {
    let Ok(stat) = rustix::fs::statat(CWD, dir, AtFlags::SYMLINK_NOFOLLOW) else { return };
    let is_dir = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
    if is_dir && stat.st_mode & libc::S_ISGID != 0 && stat.st_uid == rustix::process::geteuid().as_raw() {
        let own = rustix::process::getegid();
        let _ = rustix::fs::chownat(CWD, dir, None, Some(own), AtFlags::SYMLINK_NOFOLLOW);
        let _ = rustix::fs::chmodat(CWD, dir, Mode::from_raw_mode(stat.st_mode & 0o1777), AtFlags::empty());
    }
}

/// Sets both times of the thing named, not following a link. Seconds may lie before 1970; `nanos` is below 10⁹.
pub fn set_times_at(dir: impl AsFd, name: &Path, atime: (i64, u32), mtime: (i64, u32)) -> Result<()> {
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW).said("utimensat", name)
}

/// [`set_times_at`] on an open file.
pub fn set_times(fd: impl AsFd, atime: (i64, u32), mtime: (i64, u32)) -> Result<()> {
    let times = Timestamps { last_access: timespec(atime), last_modification: timespec(mtime) };
    rustix::fs::futimens(fd, &times).call("futimens")
}

fn timespec((seconds, nanos): (i64, u32)) -> Timespec {
    Timespec { tv_sec: seconds, tv_nsec: nanos.into() }
}

/// Copies the rest of `from` to the end of `to` by the cheapest way there is: shared blocks (`FICLONE`, only from the
/// start of both), then `copy_file_range`, then reading and writing. Gives the number of bytes.
///
/// Holes are not kept. The source may change meanwhile; what was there when it was read is copied.
pub fn copy(from: impl AsFd, to: impl AsFd) -> Result<u64> {
    let (from, to) = (from.as_fd(), to.as_fd());
    if at_start(from)? && at_start(to)? && rustix::fs::ioctl_ficlone(to, from).is_ok() {
        let size = rustix::fs::seek(from, rustix::fs::SeekFrom::End(0)).call("lseek")?;
        rustix::fs::seek(to, rustix::fs::SeekFrom::End(0)).call("lseek")?;
        return Ok(size);
    }
    let mut copied = 0;
    loop {
        match rustix::fs::copy_file_range(from, None, to, None, 1 << 30) {
            Ok(0) if copied > 0 => return Ok(copied),
            Ok(n) if n > 0 => copied += n as u64,
            Err(Errno::INTR) => {}
            // Some file systems report nothing to copy for files that have content (those of /proc), or refuse.
            Ok(_) => return copy_by_hand(from, to),
            Err(Errno::XDEV | Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP | Errno::BADF) if copied == 0 => {
                return copy_by_hand(from, to);
            }
            Err(errno) => return Err(Error { call: "copy_file_range", path: None, errno }),
        }
    }
}

fn at_start(fd: impl AsFd) -> Result<bool> {
    Ok(rustix::fs::tell(fd).call("lseek")? == 0)
}

fn copy_by_hand(from: impl AsFd, to: impl AsFd) -> Result<u64> {
    let mut buffer = vec![0; 128 << 10];
    let mut copied = 0;
    loop {
        let length = match rustix::io::read(from.as_fd(), &mut buffer) {
            Err(Errno::INTR) => continue,
            other => other.call("read")?,
        };
        if length == 0 {
            return Ok(copied);
        }
        write_all(to.as_fd(), buffer.get(..length).unwrap_or_default()).call("write")?;
        copied += length as u64;
    }
}

fn write_all(to: impl AsFd, mut rest: &[u8]) -> std::result::Result<(), Errno> {
    while !rest.is_empty() {
        match rustix::io::write(to.as_fd(), rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lock {
    /// Together with others of this kind.
    Shared,
    /// Alone.
    Exclusive,
}

/// Takes a lock on an open file (`flock(2)`), which lasts until every copy of the descriptor is closed. Waits for it.
pub fn lock(fd: impl AsFd, kind: Lock) -> Result<()> {
    let operation = match kind {
        Lock::Shared => FlockOperation::LockShared,
        Lock::Exclusive => FlockOperation::LockExclusive,
    };
    loop {
        match rustix::fs::flock(fd.as_fd(), operation) {
            Err(Errno::INTR) => {}
            other => return other.call("flock"),
        }
    }
}

/// Takes a lock if nobody stands in the way; says whether it did.
pub fn try_lock(fd: impl AsFd, kind: Lock) -> Result<bool> {
    let operation = match kind {
        Lock::Shared => FlockOperation::NonBlockingLockShared,
        Lock::Exclusive => FlockOperation::NonBlockingLockExclusive,
    };
    match rustix::fs::flock(fd, operation) {
        Ok(()) => Ok(true),
        Err(Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(Error { call: "flock", path: None, errno }),
    }
}

/// Writes everything of the file system that holds `fd` to disk.
pub fn sync_filesystem(fd: impl AsFd) -> Result<()> {
    rustix::fs::syncfs(fd).call("syncfs")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, File};
    use std::io::{Read as _, Seek as _};
    use std::os::unix::fs::symlink;

    #[test]
    fn in_root_keeps_hostile_links_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root_path = dir.path().join("root");
        fs::create_dir_all(root_path.join("etc")).unwrap();
        fs::write(dir.path().join("secret"), "host").unwrap();
        fs::write(root_path.join("secret"), "image").unwrap();
        symlink("../../../secret", root_path.join("etc/up")).unwrap();
        symlink("/secret", root_path.join("etc/abs")).unwrap();
        let root = open_dir(&root_path).unwrap();
        for name in ["etc/up", "/etc/abs", "../secret", "secret"] {
            let fd = open_in_root(&root, Path::new(name), OFlags::RDONLY, Mode::empty()).unwrap();
            let mut text = String::new();
            File::from(fd).read_to_string(&mut text).unwrap();
            assert_eq!(text, "image", "{name}");
        }
    }

    #[test]
    fn beneath_refuses_every_link_and_dotdot() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        fs::write(dir.path().join("d/f"), "").unwrap();
        symlink("d", dir.path().join("l")).unwrap();
        let root = open_dir(dir.path()).unwrap();
        let open = |name: &str| open_beneath(&root, Path::new(name), OFlags::PATH, Mode::empty());
        assert!(open("d/f").is_ok() && open("").is_ok());
        assert_eq!(open("l/f").unwrap_err().errno, Errno::LOOP);
        assert_eq!(open("../x").unwrap_err().errno, Errno::XDEV);
        assert!(open("none").unwrap_err().to_string().starts_with("openat2 none: "));
    }

    #[test]
    fn copies_files_and_proc_files() {
        let dir = tempfile::tempdir().unwrap();
        let data: Vec<u8> = (0..300_000u32).map(|n| n as u8).collect();
        fs::write(dir.path().join("a"), &data).unwrap();
        let mut to = File::options().create_new(true).read(true).write(true).open(dir.path().join("b")).unwrap();
        assert_eq!(copy(File::open(dir.path().join("a")).unwrap(), &to).unwrap(), 300_000);
        assert!(copy(File::open("/proc/self/status").unwrap(), &to).unwrap() > 100);
        assert_eq!(copy(File::open("/dev/null").unwrap(), &to).unwrap(), 0);
        to.rewind().unwrap();
        let mut back = Vec::new();
        to.read_to_end(&mut back).unwrap();
        assert_eq!(back[..300_000], data);
    }

    #[test]
    fn locks_exclude_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let open = || File::options().create(true).truncate(false).write(true).open(dir.path().join("l")).unwrap();
        let (a, b) = (open(), open());
        lock(&a, Lock::Shared).unwrap();
        assert!(try_lock(&b, Lock::Shared).unwrap());
        assert!(!try_lock(&b, Lock::Exclusive).unwrap());
        drop(a);
        assert!(try_lock(&b, Lock::Exclusive).unwrap());
    }

    #[test]
    fn times_before_1970_with_nanoseconds() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = tempfile::tempdir().unwrap();
        symlink("nowhere", dir.path().join("l")).unwrap();
        let root = open_dir(dir.path()).unwrap();
        set_times_at(&root, Path::new("l"), (-5, 1), (-5, 999_999_999)).unwrap();
        let meta = fs::symlink_metadata(dir.path().join("l")).unwrap();
        assert_eq!((meta.mtime(), meta.mtime_nsec()), (-5, 999_999_999));
    }
}
