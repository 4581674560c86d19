//! New names in `/`, for processes behind [confinement](super::confinement).
//!
//! Rules of Landlock's belong to files that are there when a process starts, and what a process makes below a folder with a
//! rule is covered by that. But `/` itself can have none, as kiln's own folder lies in it: what is new there could be made
//! by nobody and used by nobody. So calls that change names in `/` are answered by kiln: it renames a file or a folder that
//! was made beforehand, and has its rule, to where the process wants a new one.
//!
//! Nothing here grants what the confinement refuse: kiln acts on names in `/` that aren't closed, and leaves all other calls to the
//! kernel, which asks the rules.

use super::caller::{AssumedIdentity, Caller};
use super::confinement;
use super::entry_request::{Asked, EntryRequest, Named};
use super::inode_pool::InodePool;
use crate::sys::notify::{Answer, Call};
use crate::sys::{Result as Called, Said};
use rustix::fs::{
    Access, AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, StatxFlags, Uid, openat, renameat_with,
};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Answers the calls of one process and its children.
pub(super) struct RootEntries<'a> {
    root: OwnedFd,
    /// The device and inode of the root.
    identity: (u64, u64),
    closed: &'a BTreeSet<Vec<u8>>,
    stock: &'a mut InodePool,
    /// When the process began, by the clock that files are dated with.
    start: (i64, i64),
    /// The folders of the stock that it has got, by device and inode: they are older than they look.
    given: HashSet<(u64, u64)>,
}

/// A name in `/`.
struct Top(CString);

impl<'a> RootEntries<'a> {
    pub(super) fn new(root: &Path, closed: &'a BTreeSet<Vec<u8>>, stock: &'a mut InodePool) -> Called<Self> {
        let root = crate::sys::file::open_dir(root)?;
        let stat = rustix::fs::fstat(&root).call("fstat")?;
        let (start, given) = (crate::sys::file::clock(), HashSet::new());
        Ok(Self { root, identity: (stat.st_dev, stat.st_ino), closed, stock, start, given })
    }

    /// What becomes of a call. The thread is in this role from call to call.
    pub(super) fn answer(&mut self, call: &Call<'_>, role: &mut AssumedIdentity) -> Answer {
        let asked = Asked::hear(call, role).ok().flatten();
        match asked.and_then(|asked| self.grant(call, asked, role).transpose()) {
            Some(Ok(answer)) => answer,
            Some(Err(errno)) => Answer::Errno(errno),
            None => Answer::Continue,
        }
    }

    /// Does what is asked for, if it is about `/`; nothing otherwise.
    fn grant(&mut self, call: &Call<'_>, asked: Asked, role: &mut AssumedIdentity) -> Result<Option<Answer>, Errno> {
        let Asked { wish, path, other } = asked;
        let at = match wish {
            EntryRequest::Rename { from, to, flags } => {
                let Some(other) = other else { return Ok(None) };
                return self.rename(call, (from, &path), (to, &other), flags, role);
            }
            EntryRequest::Second { to: at }
            | EntryRequest::Folder { at, .. }
            | EntryRequest::Open { at, .. }
            | EntryRequest::Node { at, .. }
            | EntryRequest::Link { at, .. }
            | EntryRequest::Remove { at, .. } => at,
        };
        let Some(Top(name)) = self.top(call, at, &path) else { return Ok(None) };
        let Some(maker) = Caller::of(call) else { return Ok(None) };
        let exists = rustix::fs::statat(&self.root, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        match wish {
            EntryRequest::Second { .. } => return Err(Errno::XDEV),
            EntryRequest::Open { .. } if exists => return Ok(None),
            EntryRequest::Remove { .. } => {}
            _ if exists => return Err(Errno::EXIST),
            _ => {}
        }
        let target = if let EntryRequest::Link { target, .. } = wish { Some(role.read(call, target)?) } else { None };
        // What the kernel refuses the process, it refuses kiln in its place.
        role.take(&maker.who)?;
        match (wish, target) {
            (EntryRequest::Remove { flags, .. }, _) => {
                let flags = AtFlags::from_bits_retain(flags) & AtFlags::REMOVEDIR;
                rustix::fs::unlinkat(&self.root, &name, flags).map(|()| Some(Answer::Value(0)))
            }
            (EntryRequest::Link { .. }, Some(target)) => {
                rustix::fs::symlinkat(&target, &self.root, &name)?;
                self.own(&name, None, &maker)?;
                Ok(Some(Answer::Value(0)))
            }
            (EntryRequest::Folder { mode, .. }, _) => self.folder(&name, mode, &maker, role),
            (EntryRequest::Open { flags, mode, .. }, _) => self.open(&name, flags, mode, &maker, role),
            (EntryRequest::Node { mode, device, .. }, _) => self.node(&name, (mode, device), &maker, role),
            (EntryRequest::Link { .. } | EntryRequest::Rename { .. } | EntryRequest::Second { .. }, _) => Ok(None),
        }
    }

    /// The name in `/` that a path means; nothing if it means anything else, or what is closed.
    fn top(&self, call: &Call<'_>, at: Named, path: &CStr) -> Option<Top> {
        if !may_be_top(path.to_bytes()) {
            return None;
        }
        let (dir, name) = call.parent(at.from, path).ok()?;
        (self.is_root(&dir) && !self.closed.contains(name.to_bytes())).then_some(Top(name))
    }

    fn is_root(&self, dir: &OwnedFd) -> bool {
        rustix::fs::fstat(dir).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity)
    }

    fn folder(
        &mut self,
        name: &CStr,
        mode: u32,
        maker: &Caller,
        role: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        may_add_to(&self.root)?;
        let Some((path, fd)) = self.stock.folder() else { return Ok(None) };
        role.leave();
        self.given.insert(rustix::fs::fstat(&fd).map(|stat| (stat.st_dev, stat.st_ino))?);
        self.put(&path, name, mode & 0o1777, maker)?;
        Ok(Some(Answer::Value(0)))
    }

    fn open(
        &mut self,
        name: &CStr,
        flags: u32,
        mode: u32,
        maker: &Caller,
        role: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        let flags = OFlags::from_bits_retain(flags);
        if flags.intersects(OFlags::DIRECTORY | OFlags::PATH) {
            return Ok(None);
        }
        may_add_to(&self.root)?;
        let Some((path, _)) = self.stock.file() else { return Ok(None) };
        role.leave();
        self.put(&path, name, mode & 0o7777, maker)?;
        let wanted = (flags - (OFlags::CREATE | OFlags::EXCL)) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.root, name, wanted, Mode::empty())?;
        Ok(Some(Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) }))
    }

    fn node(
        &mut self,
        name: &CStr,
        (mode, device): (u32, u64),
        maker: &Caller,
        role: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        let kind = FileType::from_raw_mode(mode);
        if mode & libc::S_IFMT == 0 || kind == FileType::RegularFile {
            may_add_to(&self.root)?;
            let Some((path, _)) = self.stock.file() else { return Ok(None) };
            role.leave();
            self.put(&path, name, mode & 0o7777, maker)?;
            return Ok(Some(Answer::Value(0)));
        }
        rustix::fs::mknodat(&self.root, name, kind, Mode::empty(), device)?;
        role.leave();
        self.own(name, Some(mode & 0o7777), maker)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Renames something of the stock to a name in `/` that nothing has.
    fn put(&self, path: &Path, name: &CStr, mode: u32, maker: &Caller) -> Result<(), Errno> {
        renameat_with(CWD, path, &self.root, name, RenameFlags::NOREPLACE)?;
        self.own(name, Some(mode), maker)?;
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(&self.root, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    /// Gives a name to its maker, with the mode that its mask leaves; a link has none.
    fn own(&self, name: &CStr, mode: Option<u32>, maker: &Caller) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(maker.who.uid), Gid::from_raw(maker.who.gid));
        rustix::fs::chownat(&self.root, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        let Some(mode) = mode else { return Ok(()) };
        rustix::fs::chmodat(&self.root, name, Mode::from_raw_mode(mode & !maker.umask), AtFlags::empty())
    }

    /// Whether a path means a folder that was there before the process began. An overlay refuses to rename those, so that
    /// programs copy them instead, which not all do with every attribute: the image is to be the same.
    fn is_older(&self, call: &Call<'_>, at: Named, path: &CStr, role: &AssumedIdentity) -> bool {
        let found = call.find(at.from, path, false);
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
        let stat = found.and_then(|fd| rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, wanted));
        let Ok(stat) = stat else { return false };
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let born = (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec));
        let older = is_dir && has_birth && born < self.start && !self.given.contains(&(device, stat.stx_ino));
        // Whoever may not take it away is told that first.
        older && call.parent(at.from, path).is_ok_and(|(dir, _)| may_take(dir, stat.stx_uid, role.uid()))
    }

    /// A rename within `/`, or out of it. One into `/` would leave its rule behind: as between two file systems, the
    /// process copies then.
    fn rename(
        &mut self,
        call: &Call<'_>,
        (from, old): (Named, &CStr),
        (to, new): (Named, &CStr),
        flags: u32,
        role: &mut AssumedIdentity,
    ) -> Result<Option<Answer>, Errno> {
        if self.is_older(call, from, old, role) {
            return Err(Errno::XDEV);
        }
        let tops = (self.top(call, from, old), self.top(call, to, new));
        let (false, Some(maker)) = (matches!(tops, (None, None)), Caller::of(call)) else { return Ok(None) };
        role.take(&maker.who)?;
        let flags = RenameFlags::from_bits_retain(flags);
        let done = match tops {
            (Some(Top(old)), Some(Top(new))) => renameat_with(&self.root, &old, &self.root, &new, flags),
            (Some(Top(old)), None) if !flags.contains(RenameFlags::EXCHANGE) => {
                let (dir, name) = call.parent(to.from, new)?;
                self.reachable(&dir)?;
                renameat_with(&self.root, &old, &dir, &name, flags)
            }
            _ => Err(Errno::XDEV),
        };
        done.map(|()| Some(Answer::Value(0)))
    }

    /// Fails for a folder that processes can't reach.
    fn reachable(&self, dir: &OwnedFd) -> Result<(), Errno> {
        match confinement::top(dir)? {
            Some(name) if !self.closed.contains(&name) => Ok(()),
            _ => Err(Errno::ACCESS),
        }
    }
}

/// Fails for who may not change a folder's names. An error of the question itself is no answer: the calls that follow are
/// refused by their own checks.
fn may_add_to(dir: impl AsFd) -> Result<(), Errno> {
    match rustix::fs::accessat(dir, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::NOSYS | Errno::INVAL) if rustix::process::geteuid().is_root() => Ok(()),
        answer => answer,
    }
}

/// Whether `user` may take something of `owner`'s out of a folder: out of a sticky one, only what is either's own.
fn may_take(dir: impl AsFd, owner: u32, user: u32) -> bool {
    let Ok(stat) = rustix::fs::fstat(&dir) else { return false };
    let is_sticky = stat.st_mode & libc::S_ISVTX != 0;
    may_add_to(dir).is_ok() && (!is_sticky || user == 0 || user == owner || user == stat.st_uid)
}

/// Whether a path may mean a name in `/`: one name, or a way through `..`. Links to `/` don't count.
fn may_be_top(path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let single = names.clone().count() <= 1;
    single || names.any(|name| name == b"..")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_may_be_names_in_the_root() {
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
            assert_eq!(may_be_top(path.as_bytes()), may, "{path}");
        }
    }
}
