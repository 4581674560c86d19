//! Emulates the creation, renaming and removal of entries of [split directories](SplitDirectory), such as `/`.
//!
//! A Landlock rule belongs to an inode that exists when a process starts. A process may create anything below a directory that has a
//! rule, but split directories have none: a new entry in one could be neither created nor used. So kiln answers these calls. For a new
//! file or directory it renames an inode from its pool, which already has a rule, to the name that the process asks for.
//!
//! This grants nothing that the confinement refuses: kiln acts only on names in split directories that are not hidden, with the
//! credentials of the caller, and leaves all other calls to the kernel, which checks the rules.

use super::caller::{AssumedIdentity, Caller};
use super::confinement::{Confinement, SplitDirectory};
use super::entry_request::{EntryRequest, PathArgument, PathRequest};
use super::host_root::HostRoot;
use super::inode_pool::InodePool;
use crate::sys::notify::{Answer, Call};
use crate::sys::{Result as Called, Said};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Statx, StatxFlags, Uid, openat, renameat_with,
};
use rustix::io::Errno;
use std::collections::HashSet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// The device and number of an inode.
type Inode = (u64, u64);

/// Answers the calls of one RUN's processes.
pub(super) struct RootEntries<'a> {
    host: &'a HostRoot,
    confinement: &'a Confinement,
    directories: Vec<Directory<'a>>,
    /// When the RUN began, by the clock of file timestamps.
    start: (i64, i64),
    /// Directories from the pools that the RUN has got. They are new to it, though they were made before it began.
    given: HashSet<Inode>,
}

/// A split directory that the stage has.
struct Directory<'a> {
    split: &'a SplitDirectory,
    fd: OwnedFd,
    inode: Inode,
    pool: &'a mut InodePool,
}

/// An entry of a split directory: the number of the directory in the list, and the name.
struct Entry {
    directory: usize,
    name: CString,
}

impl<'a> RootEntries<'a> {
    /// `pools` has one pool for each split directory, in the same order.
    pub(super) fn new(host: &'a HostRoot, confinement: &'a Confinement, pools: &'a mut [InodePool]) -> Called<Self> {
        let mut directories = Vec::new();
        for (split, pool) in confinement.directories().iter().zip(pools) {
            let Some(fd) = split.open()? else { continue };
            let inode = inode(&fd).call("fstat")?;
            directories.push(Directory { split, fd, inode, pool });
        }
        Ok(Self { host, confinement, directories, start: crate::sys::file::clock(), given: HashSet::new() })
    }

    /// Answers a call. The thread keeps the assumed identity from call to call.
    pub(super) fn answer(&mut self, call: &Call<'_>, identity: &mut AssumedIdentity) -> Answer {
        let request = PathRequest::read(call, identity).ok().flatten();
        match request.and_then(|request| self.grant(call, request, identity).transpose()) {
            Some(Ok(answer)) => answer,
            Some(Err(errno)) => Answer::Errno(errno),
            None => Answer::Continue,
        }
    }

    /// Carries out a request that is about an entry of a split directory; `None` for any other one.
    fn grant(
        &mut self,
        call: &Call<'_>,
        PathRequest { request, path, other }: PathRequest,
        identity: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        let at = match request {
            EntryRequest::Rename { from, to, flags } => {
                let Some(other) = other else { return Ok(None) };
                return self.rename(call, (from, &path), (to, &other), flags, identity);
            }
            EntryRequest::HardLink { to: at }
            | EntryRequest::CreateDir { at, .. }
            | EntryRequest::Open { at, .. }
            | EntryRequest::CreateNode { at, .. }
            | EntryRequest::Symlink { at, .. }
            | EntryRequest::Remove { at, .. } => at,
        };
        let Some(entry) = self.entry(call, at, &path) else { return Ok(None) };
        if self.is_hidden(&entry)? {
            self.host.want_mount(&self.path(&entry)?);
            return Ok(None);
        }
        let Some(caller) = Caller::of(call) else { return Ok(None) };
        let exists = self.exists(&entry)?;
        match request {
            // To the process, this directory was not there.
            EntryRequest::CreateDir { mode, .. } if exists && self.host.claim(&self.path(&entry)?) => {
                self.give(&entry, Some(mode & 0o1777), &caller)?;
                return Ok(Some(Answer::Value(0)));
            }
            EntryRequest::HardLink { .. } => return Err(Errno::XDEV),
            EntryRequest::Open { .. } if exists => return Ok(None),
            EntryRequest::Remove { .. } => {}
            _ if exists => return Err(Errno::EXIST),
            _ => {}
        }
        let target =
            if let EntryRequest::Symlink { target, .. } = request { Some(identity.read(call, target)?) } else { None };
        // The kernel refuses kiln what it would refuse the caller.
        identity.assume(&caller)?;
        match (request, target) {
            (EntryRequest::Remove { flags, .. }, _) => self.remove(&entry, flags).map(Some),
            (EntryRequest::Symlink { .. }, Some(target)) => self.symlink(&entry, &target, &caller).map(Some),
            (EntryRequest::CreateDir { mode, .. }, _) => self.create_dir(&entry, mode, &caller, identity),
            (EntryRequest::Open { flags, mode, .. }, _) => self.open(&entry, (flags, mode), &caller, identity),
            (EntryRequest::CreateNode { mode, device, .. }, _) => {
                self.create_node(&entry, (mode, device), &caller, identity)
            }
            (EntryRequest::Symlink { .. } | EntryRequest::Rename { .. } | EntryRequest::HardLink { .. }, _) => Ok(None),
        }
    }

    /// The entry of a split directory that a path means, which may be hidden; `None` if it means anything else.
    fn entry(&self, call: &Call<'_>, at: PathArgument, path: &CStr) -> Option<Entry> {
        // With `/` alone, most paths show by their text that they mean something else.
        if self.directories.len() == 1 && !may_be_in_root(path.to_bytes()) {
            return None;
        }
        let (dir, name) = call.parent(at.from, path).ok()?;
        let found = inode(&dir).ok()?;
        let directory = self.directories.iter().position(|dir| dir.inode == found)?;
        Some(Entry { directory, name })
    }

    fn is_hidden(&self, entry: &Entry) -> Result<bool, Errno> {
        Ok(self.directory(entry)?.split.hidden.contains(entry.name.to_bytes()))
    }

    fn path(&self, entry: &Entry) -> Result<PathBuf, Errno> {
        Ok(self.directory(entry)?.split.path.join(OsStr::from_bytes(entry.name.to_bytes())))
    }

    fn directory(&self, entry: &Entry) -> Result<&Directory<'a>, Errno> {
        self.directories.get(entry.directory).ok_or(Errno::NOENT)
    }

    fn pool(&mut self, entry: &Entry) -> Result<&mut InodePool, Errno> {
        self.directories.get_mut(entry.directory).map(|dir| &mut *dir.pool).ok_or(Errno::NOENT)
    }

    fn exists(&self, Entry { directory, name }: &Entry) -> Result<bool, Errno> {
        let dir = self.directories.get(*directory).ok_or(Errno::NOENT)?;
        Ok(rustix::fs::statat(&dir.fd, name, AtFlags::SYMLINK_NOFOLLOW).is_ok())
    }

    /// Fails for an entry that is a split directory itself: its rules and hidden names belong to its path.
    fn refuse_split(&self, entry: &Entry) -> Result<(), Errno> {
        if self.confinement.is_split(&self.path(entry)?) { Err(Errno::BUSY) } else { Ok(()) }
    }

    fn remove(&self, entry: &Entry, flags: u32) -> Result<Answer, Errno> {
        self.refuse_split(entry)?;
        let flags = AtFlags::from_bits_retain(flags) & AtFlags::REMOVEDIR;
        rustix::fs::unlinkat(&self.directory(entry)?.fd, &entry.name, flags).map(|()| Answer::Value(0))
    }

    fn symlink(&self, entry: &Entry, target: &CStr, caller: &Caller) -> Result<Answer, Errno> {
        rustix::fs::symlinkat(target, &self.directory(entry)?.fd, &entry.name)?;
        self.give(entry, None, caller)?;
        Ok(Answer::Value(0))
    }

    fn create_dir(
        &mut self,
        entry: &Entry,
        mode: u32,
        caller: &Caller,
        identity: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        may_add_to(&self.directory(entry)?.fd)?;
        identity.leave();
        let Some((path, fd)) = self.pool(entry)?.take_directory() else { return Ok(None) };
        self.given.insert(inode(&fd)?);
        self.place(&path, entry, mode & 0o1777, caller)?;
        Ok(Some(Answer::Value(0)))
    }

    fn open(
        &mut self,
        entry: &Entry,
        (flags, mode): (u32, u32),
        caller: &Caller,
        identity: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        let flags = OFlags::from_bits_retain(flags);
        if flags.intersects(OFlags::DIRECTORY | OFlags::PATH) {
            return Ok(None);
        }
        may_add_to(&self.directory(entry)?.fd)?;
        identity.leave();
        let Some((path, _)) = self.pool(entry)?.take_file() else { return Ok(None) };
        self.place(&path, entry, mode & 0o7777, caller)?;
        let wanted = (flags - (OFlags::CREATE | OFlags::EXCL)) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.directory(entry)?.fd, &entry.name, wanted, Mode::empty())?;
        Ok(Some(Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) }))
    }

    fn create_node(
        &mut self,
        entry: &Entry,
        (mode, device): (u32, u64),
        caller: &Caller,
        identity: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        let kind = FileType::from_raw_mode(mode);
        if mode & libc::S_IFMT == 0 || kind == FileType::RegularFile {
            may_add_to(&self.directory(entry)?.fd)?;
            identity.leave();
            let Some((path, _)) = self.pool(entry)?.take_file() else { return Ok(None) };
            self.place(&path, entry, mode & 0o7777, caller)?;
            return Ok(Some(Answer::Value(0)));
        }
        rustix::fs::mknodat(&self.directory(entry)?.fd, &entry.name, kind, Mode::empty(), device)?;
        identity.leave();
        self.give(entry, Some(mode & 0o7777), caller)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Renames an inode from the pool to an entry that does not exist yet.
    fn place(&self, path: &Path, entry: &Entry, mode: u32, caller: &Caller) -> Result<(), Errno> {
        let dir = &self.directory(entry)?.fd;
        renameat_with(CWD, path, dir, &entry.name, RenameFlags::NOREPLACE)?;
        self.give(entry, Some(mode), caller)?;
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(dir, &entry.name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Makes the caller the owner of an entry, and sets the mode that its umask leaves. A symbolic link has no mode.
    fn give(&self, entry: &Entry, mode: Option<u32>, caller: &Caller) -> Result<(), Errno> {
        let (dir, name) = (&self.directory(entry)?.fd, &entry.name);
        let (uid, gid) = (Uid::from_raw(caller.credentials.uid), Gid::from_raw(caller.credentials.gid));
        rustix::fs::chownat(dir, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let Some(mode) = mode else { return Ok(()) };
        rustix::fs::chmodat(dir, name, Mode::from_raw_mode(mode & !caller.umask), AtFlags::empty())
    }

    /// Whether the caller may remove a directory that existed before the RUN began. An overlay refuses to rename these, so that
    /// programs copy them instead, and not all programs copy every attribute. The image has to be the same.
    fn removes_older(
        &self,
        call: &Call<'_>,
        at: PathArgument,
        path: &CStr,
        identity: &mut AssumedIdentity,
    ) -> Result<bool, Errno> {
        let found = call.find(at.from, path, false);
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
        let stat = found.and_then(|fd| rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, wanted));
        let Some(stat) = stat.ok().filter(|stat| self.is_older(stat)) else { return Ok(false) };
        let (dir, _) = call.parent(at.from, path)?;
        let caller = Caller::of(call).ok_or(Errno::SRCH)?;
        identity.assume(&caller)?;
        // A caller that may not remove it gets that error first.
        Ok(may_remove_from(dir, stat.stx_uid, caller.credentials.uid))
    }

    fn is_older(&self, stat: &Statx) -> bool {
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let born = (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec));
        is_dir && has_birth && born < self.start && !self.given.contains(&(device, stat.stx_ino))
    }

    /// Renames an entry within or out of split directories. A file that is renamed into one would lose its rule, so the process is
    /// told to copy it, as between two file systems.
    fn rename(
        &mut self,
        call: &Call<'_>,
        (from, old): (PathArgument, &CStr),
        (to, new): (PathArgument, &CStr),
        flags: u32,
        identity: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        if self.removes_older(call, from, old, identity).unwrap_or(false) {
            return Err(Errno::XDEV);
        }
        let visible = |entry: &Entry| self.is_hidden(entry).is_ok_and(|hidden| !hidden);
        let entries = (self.entry(call, from, old).filter(visible), self.entry(call, to, new).filter(visible));
        let (false, Some(caller)) = (matches!(entries, (None, None)), Caller::of(call)) else { return Ok(None) };
        for entry in [&entries.0, &entries.1].into_iter().flatten() {
            self.refuse_split(entry)?;
        }
        identity.assume(&caller)?;
        let flags = RenameFlags::from_bits_retain(flags);
        let done = match entries {
            (Some(old), Some(new)) => {
                let (from, to) = (self.directory(&old)?, self.directory(&new)?);
                renameat_with(&from.fd, &old.name, &to.fd, &new.name, flags)
            }
            (Some(old), None) if !flags.contains(RenameFlags::EXCHANGE) => {
                let (dir, name) = call.parent(to.from, new)?;
                self.refuse_unreachable(&dir)?;
                renameat_with(&self.directory(&old)?.fd, &old.name, &dir, &name, flags)
            }
            _ => Err(Errno::XDEV),
        };
        done.map(|()| Some(Answer::Value(0)))
    }

    /// Fails for a directory that processes cannot reach, and for a split one, of which only hidden names are left here.
    fn refuse_unreachable(&self, dir: &OwnedFd) -> Result<(), Errno> {
        let found = inode(dir)?;
        if self.directories.iter().any(|split| split.inode == found) {
            return Err(Errno::ACCESS);
        }
        self.confinement.refuse_hidden(dir)
    }
}

fn inode(fd: impl AsFd) -> Result<Inode, Errno> {
    rustix::fs::fstat(fd).map(|stat| (stat.st_dev, stat.st_ino))
}

/// Fails if this thread's identity may not add entries to a directory. If the kernel cannot answer this question, the operation
/// itself decides.
fn may_add_to(dir: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::accessat(dir, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::INVAL) if rustix::process::geteuid().is_root() => Ok(()),
        answer => answer,
    }
}

/// Whether `user` may remove an entry that belongs to `owner`: in a sticky directory, only the owner of either may.
fn may_remove_from(dir: impl AsFd, owner: u32, user: u32) -> bool {
    let Ok(stat) = rustix::fs::fstat(&dir) else { return false };
    let is_sticky = stat.st_mode & libc::S_ISVTX != 0;
    may_add_to(dir).is_ok() && (!is_sticky || user == 0 || user == owner || user == stat.st_uid)
}

/// Whether a path may mean an entry of `/`: it is a single name, or has `..` in it. Symbolic links to `/` are not considered.
fn may_be_in_root(path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let single = names.clone().count() <= 1;
    single || names.any(|name| name == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_may_be_entries_of_the_root() {
        for (path, may) in [
            ("/data", true),
            ("/data/", true),
            ("data", true),
            ("./data", true),
            ("/usr/../data", true),
            ("/usr/data", false),
            ("usr/data", false),
            ("", true),
        ] {
            assert_eq!(may_be_in_root(path.as_bytes()), may, "{path}");
        }
    }
}
