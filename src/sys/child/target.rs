//! Finding what is to be mounted on, in the new root, and making it where nothing is.
//!
//! Paths are looked up by `openat2` in the new root, so a link of the image, whatever it says, stays inside, and magic
//! links (those of /proc/self/fd) are refused. What was found is then used through its descriptor alone.

use super::interpret::State;
use super::step::{Target, TargetKind};
use super::stubs::Stub;
use super::{Done, Fault, Named, fail};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, ResolveFlags, Uid};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

/// `PATH_MAX`.
const PATH: usize = 4096;
/// `MAXSYMLINKS`: so many dangling links are followed.
const LINKS: usize = 40;
/// `PROC_SUPER_MAGIC`.
const PROC: u64 = 0x9fa0;

/// A path of at most [`PATH`] bytes with its final zero, in memory of the stack.
struct Buffer {
    bytes: [u8; PATH],
    length: usize,
}

impl Buffer {
    fn new() -> Self {
        Self { bytes: [0; PATH], length: 0 }
    }

    /// Adds bytes, keeping a zero behind them.
    fn push(&mut self, more: &[u8]) -> Done {
        let end = self.length + more.len();
        match self.bytes.get_mut(self.length..end) {
            Some(room) if end + 1 < PATH => {
                room.copy_from_slice(more);
                self.length = end;
                self.close()
            }
            _ => fail("openat2", Errno::NAMETOOLONG),
        }
    }

    fn push_component(&mut self, name: &[u8]) -> Done {
        self.push(b"/")?;
        self.push(name)
    }

    fn truncate(&mut self, length: usize) -> Done {
        self.length = length.min(self.length);
        self.close()
    }

    fn close(&mut self) -> Done {
        match self.bytes.get_mut(self.length) {
            Some(end) => {
                *end = 0;
                Ok(())
            }
            None => fail("openat2", Errno::NAMETOOLONG),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }

    /// As a path to look up; the empty one is the root.
    fn path(&self) -> &CStr {
        if self.length == 0 { c"/" } else { CStr::from_bytes_until_nul(&self.bytes).unwrap_or(c"/") }
    }
}

fn open(path: &CStr, flags: OFlags, resolve: ResolveFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = resolve | ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match rustix::fs::openat2(CWD, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            other => return other,
        }
    }
}

/// The working directory is the new root from [`super::Step::EnterRoot`], or what stands in its place, to [`super::Step::WorkIn`], so `CWD` is the root.
pub(super) fn find_or_make(wanted: &Target, state: &mut State) -> Done {
    let folder = match wanted.kind {
        TargetKind::Folder => true,
        TargetKind::File => false,
        TargetKind::Like(slot) => is_folder(state.get(slot)?)?,
    };
    let resolve = if wanted.plain { ResolveFlags::NO_SYMLINKS } else { ResolveFlags::empty() };
    let found = match open(&wanted.path, OFlags::PATH, resolve) {
        Ok(found) => found,
        Err(Errno::NOENT) => make(wanted.path.to_bytes(), folder, &mut Keep::stubs(state))?,
        Err(errno) => return fail("openat2", errno),
    };
    match (is_folder(&found)?, folder) {
        (false, true) => return fail("mount", Errno::NOTDIR),
        (true, false) => return fail("mount", Errno::ISDIR),
        _ => {}
    }
    // Nothing may cover what guards the kernel's own files (CVE-2019-16884, CVE-2025-52881).
    if rustix::fs::fstatfs(&found).fault("fstatfs")?.f_type as u64 == PROC {
        return fail("mount", Errno::PERM);
    }
    state.put(wanted.out, found)
}

fn is_folder(fd: impl AsFd) -> Done<bool> {
    let stat = rustix::fs::fstat(fd).fault("fstat")?;
    Ok(FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

/// What happens to what is made.
enum Keep<'a> {
    /// It stays, and belongs to somebody.
    For { uid: u32, gid: u32 },
    /// It is a stub, to be removed again.
    Stubs(&'a mut Vec<Stub>),
}

impl<'a> Keep<'a> {
    fn stubs(state: &'a mut State) -> Self {
        Self::Stubs(&mut state.stubs)
    }

    /// Makes a folder or an empty file and notes it.
    fn make(&mut self, parent: OwnedFd, name: &CStr, folder: bool) -> rustix::io::Result<()> {
        let before = rustix::fs::fstat(&parent)?;
        if folder {
            rustix::fs::mkdirat(&parent, name, Mode::from_raw_mode(0o755))?;
        } else {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&parent, name, flags, Mode::from_raw_mode(0o644))?;
        }
        match self {
            Self::For { uid, gid } => {
                let (uid, gid) = (Uid::from_raw(*uid), Gid::from_raw(*gid));
                rustix::fs::chownat(&parent, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
            }
            Self::Stubs(stubs) => {
                if stubs.len() == stubs.capacity() {
                    return Err(Errno::NOBUFS);
                }
                stubs.push(Stub::new(parent, name, folder, &before)?);
                Ok(())
            }
        }
    }
}

/// Makes what isn't there of an absolute path, following links that lead nowhere to where they would lead.
fn make(path: &[u8], folder: bool, keep: &mut Keep<'_>) -> Done<OwnedFd> {
    let mut rest = Buffer::new();
    rest.push(path)?;
    for _ in 0..LINKS {
        match make_once(&rest, folder, keep)? {
            None => return open(rest.path(), OFlags::PATH, ResolveFlags::empty()).fault("openat2"),
            Some(longer) => rest = longer,
        }
    }
    fail("openat2", Errno::LOOP)
}

/// Makes the missing components; stops at a dangling link and gives the path with the link replaced by what it says.
fn make_once(path: &Buffer, folder: bool, keep: &mut Keep<'_>) -> Done<Option<Buffer>> {
    let mut done = Buffer::new();
    let mut components = path.bytes().split(|b| *b == b'/').filter(|c| !c.is_empty()).peekable();
    while let Some(name) = components.next() {
        let parent_length = done.length;
        done.push_component(name)?;
        let last = components.peek().is_none();
        match open(done.path(), OFlags::PATH, ResolveFlags::empty()) {
            Ok(_) => continue,
            Err(Errno::NOENT) => {}
            Err(errno) => return fail("openat2", errno),
        }
        done.truncate(parent_length)?;
        let parent = open(done.path(), OFlags::RDONLY | OFlags::DIRECTORY, ResolveFlags::empty()).fault("openat2")?;
        let mut link = Buffer::new();
        if read_link(&parent, name, &mut link)? {
            return replaced(&done, &link, components).map(Some);
        }
        let mut single = Buffer::new();
        single.push(name)?;
        keep.make(parent, single.path(), folder || !last).fault(if folder || !last { "mkdirat" } else { "openat" })?;
        done.push_component(name)?;
    }
    Ok(None)
}

/// `parent` + what the link says + what comes after it.
fn replaced<'a>(parent: &Buffer, link: &Buffer, after: impl Iterator<Item = &'a [u8]>) -> Done<Buffer> {
    let mut path = Buffer::new();
    if link.bytes().first() != Some(&b'/') {
        path.push(parent.bytes())?;
        path.push(b"/")?;
    }
    path.push(link.bytes())?;
    for name in after {
        path.push_component(name)?;
    }
    Ok(path)
}

/// Whether a name is a symbolic link; what it says.
fn read_link(parent: &OwnedFd, name: &[u8], out: &mut Buffer) -> Done<bool> {
    let mut single = Buffer::new();
    single.push(name)?;
    match rustix::fs::readlinkat_raw(parent, single.path(), &mut out.bytes) {
        Ok(length) if length + 1 < PATH => {
            out.length = length;
            out.close()?;
            Ok(true)
        }
        Ok(_) => fail("readlinkat", Errno::NAMETOOLONG),
        Err(Errno::NOENT | Errno::INVAL) => Ok(false),
        Err(errno) => fail("readlinkat", errno),
    }
}

/// Goes to a folder, made if it isn't there, as BuildKit does.
pub(super) fn work_in(path: &CStr, uid: u32, gid: u32) -> Done {
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let folder = match open(path, flags, ResolveFlags::empty()) {
        Err(Errno::NOENT) => make(path.to_bytes(), true, &mut Keep::For { uid, gid })?,
        other => other.fault("chdir")?,
    };
    rustix::process::fchdir(folder).map_err(|errno| Fault { call: "chdir", errno })
}
