//! Calls relative to an open directory that never follow a symbolic link: what stands in a root filesystem is hostile.

use super::Error;
use crate::layer::{Device, EntryPath, Timestamp};
use crate::sys;
use rustix::fs::{self, AtFlags, FileType, Mode, OFlags, RawDir, ResolveFlags, SeekFrom, Stat, XattrFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Extended attributes by full name.
pub type Xattrs = BTreeMap<Vec<u8>, Vec<u8>>;

/// What a file is, and everything about it but its content and extended attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Meta {
    /// What it is.
    pub kind: Kind,
    /// Permission, set-id and sticky bits: 0o7777.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// Bytes of content; of a symbolic link, of its target.
    pub size: u64,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// When anything about it last changed.
    pub ctime: Timestamp,
    /// The device and number of its inode: equal for two names of one file.
    pub inode: (u64, u64),
    /// How many names it has.
    pub links: u64,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

impl Meta {
    /// Whether it is a directory.
    pub fn is_dir(&self) -> bool {
        self.kind == Kind::Dir
    }

    /// Whether it is overlayfs's mark that a lower layer's file is gone.
    pub(super) fn is_whiteout(&self) -> bool {
        self.kind == Kind::CharDevice(Device { major: 0, minor: 0 })
    }
}

impl From<Stat> for Meta {
    fn from(st: Stat) -> Self {
        let device = || Device { major: fs::major(st.st_rdev), minor: fs::minor(st.st_rdev) };
        let kind = match FileType::from_raw_mode(st.st_mode) {
            FileType::Directory => Kind::Dir,
            FileType::Symlink => Kind::Symlink,
            FileType::CharacterDevice => Kind::CharDevice(device()),
            FileType::BlockDevice => Kind::BlockDevice(device()),
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            _ => Kind::File,
        };
        Self {
            kind,
            mode: st.st_mode & 0o7777,
            uid: st.st_uid,
            gid: st.st_gid,
            size: u64::try_from(st.st_size).unwrap_or(0),
            mtime: timestamp(st.st_mtime, st.st_mtime_nsec),
            ctime: timestamp(st.st_ctime, st.st_ctime_nsec),
            inode: (st.st_dev, st.st_ino),
            links: st.st_nlink,
        }
    }
}

fn timestamp(secs: i64, nanos: u64) -> Timestamp {
    Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) }
}

/// Opens a directory of this machine, the root of everything below.
pub(crate) fn open_root(path: &Path) -> Result<OwnedFd, Error> {
    fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|e| Error::host("open", path, e))
}

/// Opens `path` below `root`, following no symbolic link on the way nor at the end.
///
/// Fails with `ELOOP` or `ENOTDIR` where there is one.
pub(crate) fn open(root: BorrowedFd<'_>, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let name = if path.is_root() { Path::new(".") } else { path.as_path() };
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    match fs::openat2(root, name, flags, Mode::empty(), resolve) {
        // Kernels before 5.6, and seccomp filters that don't know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_steps(root, path, flags),
        done => done,
    }
}

/// The same, one component after the other.
fn open_by_steps(root: BorrowedFd<'_>, path: &EntryPath, flags: OFlags) -> Result<OwnedFd, Errno> {
    let step = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut names: Vec<_> = path.components().collect();
    let last = names.pop().unwrap_or(b".");
    let mut dir = None;
    for name in names {
        let at = dir.as_ref().map_or(root, AsFd::as_fd);
        dir = Some(fs::openat(at, name, step, Mode::empty())?);
    }
    fs::openat(dir.as_ref().map_or(root, AsFd::as_fd), last, flags, Mode::empty())
}

/// What stands at `path` below `root`; `None` where there is nothing, or a part of the way is no directory.
pub(crate) fn stat(root: BorrowedFd<'_>, path: &EntryPath) -> Result<Option<Meta>, Errno> {
    // Nothing is on the way to a single name.
    if path.is_root() {
        return Ok(Some(fs::fstat(root)?.into()));
    }
    if !path.as_bytes().contains(&b'/') {
        return stat_name(root, path.as_bytes());
    }
    match open(root, path, OFlags::PATH) {
        Ok(fd) => Ok(Some(fs::fstat(fd)?.into())),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
        Err(e) => Err(e),
    }
}

/// What `name` in the directory is; `None` where there is nothing.
pub(crate) fn stat_name(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Option<Meta>, Errno> {
    match fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat.into())),
        Err(Errno::NOENT) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Opens the directory `name` of a directory; a symbolic link is `ENOTDIR`.
pub(crate) fn open_dir(dir: BorrowedFd<'_>, name: &[u8]) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(dir, name, flags, Mode::empty())
}

/// Opens the regular file `name` of a directory; never waits for the other end of a pipe.
pub(super) fn open_file(dir: BorrowedFd<'_>, name: &[u8]) -> Result<File, Errno> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(File::from(fs::openat(dir, name, flags, Mode::empty())?))
}

/// How much the kernel writes of a directory at once, bytes.
const NAMES: usize = 32 << 10;

/// The names in an open directory, sorted by their bytes.
pub(crate) fn names(dir: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    let mut names = Vec::new();
    fs::seek(dir, SeekFrom::Start(0))?;
    let mut buffer = Vec::with_capacity(NAMES);
    let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        match entry?.file_name().to_bytes() {
            b"." | b".." => {}
            name => names.push(name.to_vec()),
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Sets an attribute of an open file; where the file system has none, it is left out, as containerd does.
pub(super) fn set_xattr(file: BorrowedFd<'_>, name: &[u8], value: &[u8]) -> Result<(), Errno> {
    match fs::fsetxattr(file, name, value, XattrFlags::empty()) {
        Err(Errno::OPNOTSUPP) => Ok(()),
        done => done,
    }
}

/// Removes whatever `name` in the directory is, with everything in it, however deep.
pub(crate) fn remove(dir: BorrowedFd<'_>, name: &[u8]) -> Result<(), Errno> {
    sys::tree::remove(dir, Path::new(OsStr::from_bytes(name))).map_err(|e| e.errno)
}

/// The target of the symbolic link `name` of a directory.
pub(super) fn read_link(dir: BorrowedFd<'_>, name: &[u8]) -> Result<Vec<u8>, Errno> {
    fs::readlinkat(dir, name, Vec::new()).map(|target| target.into_bytes())
}

/// Whether a layer keeps an attribute: a file's capabilities and what users set, not what belongs to this machine
/// (`security.selinux`), to overlayfs or to kiln.
pub(super) fn is_kept(name: &[u8]) -> bool {
    let is_own = name.starts_with(b"user.overlay.") || name.starts_with(sys::recorded::PREFIX);
    name == b"security.capability" || (name.starts_with(b"user.") && !is_own)
}

/// The attributes of an open file, by their names.
pub(super) struct Attributes<'a> {
    file: BorrowedFd<'a>,
    names: Vec<Vec<u8>>,
}

impl<'a> Attributes<'a> {
    /// Asks for the names; none where the file system has no attributes.
    pub(super) fn of(file: BorrowedFd<'a>) -> Result<Self, Errno> {
        Ok(Self { file, names: sys::xattr::list_fd(file, Path::new("")).map_err(|e| e.errno)? })
    }

    /// Those that a layer keeps.
    pub(super) fn kept(&self) -> Result<Xattrs, Errno> {
        let mut kept = Xattrs::new();
        for name in self.names.iter().filter(|n| is_kept(n)) {
            // It may go away between the two calls; then it isn't there.
            if let Some(value) = self.value(name)? {
                kept.insert(name.clone(), value);
            }
        }
        Ok(kept)
    }

    /// Whether a directory of an overlay layer hides what lower layers have in it.
    pub(super) fn is_opaque(&self) -> Result<bool, Errno> {
        for name in self.names.iter().filter(|n| is_overlays(n, b"opaque")) {
            if self.value(name)?.as_deref() == Some(b"y") {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether overlayfs moved this directory and only noted from where (its `redirect_dir`).
    pub(super) fn has_redirect(&self) -> bool {
        self.names.iter().any(|n| is_overlays(n, b"redirect"))
    }

    fn value(&self, name: &[u8]) -> Result<Option<Vec<u8>>, Errno> {
        sys::xattr::get_fd(self.file, OsStr::from_bytes(name), Path::new("")).map_err(|e| e.errno)
    }
}

/// Whether an attribute is overlayfs's own of that name, as root or anybody else notes it.
fn is_overlays(attribute: &[u8], name: &[u8]) -> bool {
    [&b"trusted.overlay."[..], b"user.overlay."].iter().any(|prefix| attribute.strip_prefix(*prefix) == Some(name))
}

/// The attributes of an open file that a layer keeps; none where the file system has no attributes.
pub(super) fn xattrs(file: BorrowedFd<'_>) -> Result<Xattrs, Errno> {
    Attributes::of(file)?.kept()
}

/// Whether an open file has attributes that a layer keeps, or that say what the file is in the image.
pub(super) fn has_xattrs(file: BorrowedFd<'_>) -> Result<bool, Errno> {
    let says = |name: &Vec<u8>| is_kept(name) || name.starts_with(sys::recorded::PREFIX);
    Ok(Attributes::of(file)?.names.iter().any(says))
}

/// Makes an open directory of an overlay layer hide what lower layers have in it.
/// Without the right to set `trusted.` attributes, which nobody has in a user namespace, by the one that overlays with
/// `userxattr` know.
pub(super) fn set_opaque(dir: BorrowedFd<'_>) -> Result<(), Errno> {
    match fs::fsetxattr(dir, "trusted.overlay.opaque", b"y", XattrFlags::empty()) {
        Err(Errno::PERM) => fs::fsetxattr(dir, "user.overlay.opaque", b"y", XattrFlags::empty()),
        done => done,
    }
}

/// Whether an open directory of an overlay layer hides what lower layers have in it.
pub(super) fn is_opaque(dir: BorrowedFd<'_>) -> Result<bool, Errno> {
    Attributes::of(dir)?.is_opaque()
}
