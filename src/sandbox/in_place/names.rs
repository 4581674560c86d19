//! New names in `/`, for processes behind [walls](super::walls).
//!
//! Rules of Landlock's belong to files that are there when a process starts, and what a process makes below a folder with a
//! rule is covered by that. But `/` itself can have none, as kiln's own folder lies in it: what is new there could be made
//! by nobody and used by nobody. So calls that change names in `/` are answered by kiln: it renames a file or a folder that
//! was made beforehand, and has its rule, to where the process wants a new one.
//!
//! Nothing here grants what the walls refuse: kiln acts on names in `/` that aren't closed, and leaves all other calls to the
//! kernel, which asks the rules.

use super::stock::{Stock, now};
use crate::sandbox::seccomp::When;
use crate::sys::notify::{Answer, Call};
use crate::sys::{Result as Called, Said};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, StatxFlags, Uid, openat, renameat_with};
use rustix::io::Errno;
use std::collections::{BTreeSet, HashSet};
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::path::Path;

/// Answers the calls of one process and its children.
pub(super) struct Names<'a> {
    root: OwnedFd,
    /// The device and inode of the root.
    identity: (u64, u64),
    closed: &'a BTreeSet<Vec<u8>>,
    stock: &'a mut Stock,
    /// When the process began, by the clock that files are dated with.
    start: (i64, i64),
    /// The folders of the stock that it has got, by device and inode: they are older than they look.
    given: HashSet<(u64, u64)>,
}

/// The calls that change names, and the flag with which some do; and those that list, for [`listing`](super::listing).
pub(super) const CALLS: [(&str, When); 18] = [
    ("mkdir", When::Always),
    ("mkdirat", When::Always),
    ("open", When::With(1, (libc::O_CREAT | libc::O_DIRECTORY) as u32)),
    ("openat", When::With(2, (libc::O_CREAT | libc::O_DIRECTORY) as u32)),
    ("openat2", When::Always),
    ("creat", When::Always),
    ("mknod", When::Always),
    ("mknodat", When::Always),
    ("symlink", When::Always),
    ("symlinkat", When::Always),
    ("rename", When::Always),
    ("renameat", When::Always),
    ("renameat2", When::Always),
    ("link", When::Always),
    ("linkat", When::Always),
    ("unlink", When::Always),
    ("unlinkat", When::Always),
    ("rmdir", When::Always),
];

/// A call, whatever its form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Folder { at: Named, mode: u32 },
    Open { at: Named, flags: u32, mode: u32 },
    Node { at: Named, mode: u32, device: u64 },
    Link { at: Named, target: u64 },
    Rename { from: Named, to: Named, flags: u32 },
    Second { to: Named },
    Remove { at: Named, flags: u32 },
}

/// A path in the process's memory, and where it starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    from: i32,
    path: u64,
}

/// A name in `/`.
struct Top(CString);

/// Who a process is when it makes files.
struct Maker {
    umask: u32,
    uid: u32,
    gid: u32,
}

impl<'a> Names<'a> {
    pub(super) fn new(root: &Path, closed: &'a BTreeSet<Vec<u8>>, stock: &'a mut Stock) -> Called<Self> {
        let root = crate::sys::file::open_dir(root)?;
        let stat = rustix::fs::fstat(&root).call("fstat")?;
        let (start, given) = (now(), HashSet::new());
        Ok(Self { root, identity: (stat.st_dev, stat.st_ino), closed, stock, start, given })
    }

    /// What becomes of a call.
    pub(super) fn answer(&mut self, call: &Call<'_>) -> Answer {
        match wish(call).and_then(|wish| self.grant(call, wish).transpose()) {
            Some(Ok(answer)) => answer,
            Some(Err(errno)) => Answer::Errno(errno),
            None => Answer::Continue,
        }
    }

    /// Does what is asked for, if it is about `/`; nothing otherwise.
    fn grant(&mut self, call: &Call<'_>, wish: Wish) -> Result<Option<Answer>, Errno> {
        match wish {
            Wish::Rename { from, to, flags } => return self.rename(call, from, to, flags),
            Wish::Second { to } if self.top(call, to).is_some() => return Err(Errno::XDEV),
            _ => {}
        }
        let (Wish::Folder { at, .. }
        | Wish::Open { at, .. }
        | Wish::Node { at, .. }
        | Wish::Link { at, .. }
        | Wish::Remove { at, .. }) = wish
        else {
            return Ok(None);
        };
        let Some(Top(name)) = self.top(call, at) else { return Ok(None) };
        // Others than root may make nothing in `/`; the kernel says so.
        let Some(maker) = maker(call).filter(|maker| maker.uid == 0) else { return Ok(None) };
        let exists = rustix::fs::statat(&self.root, &name, AtFlags::SYMLINK_NOFOLLOW).is_ok();
        match wish {
            Wish::Remove { flags, .. } => {
                let flags = AtFlags::from_bits_retain(flags) & AtFlags::REMOVEDIR;
                rustix::fs::unlinkat(&self.root, &name, flags).map(|()| Some(Answer::Value(0)))
            }
            Wish::Open { .. } if exists => Ok(None),
            _ if exists => Err(Errno::EXIST),
            Wish::Folder { mode, .. } => self.folder(&name, mode, &maker),
            Wish::Open { flags, mode, .. } => self.open(&name, flags, mode, &maker),
            Wish::Node { mode, device, .. } => self.node(&name, mode, device, &maker),
            Wish::Link { target, .. } => {
                let target = call.string(target)?;
                rustix::fs::symlinkat(&target, &self.root, &name)?;
                let owner = (Some(Uid::from_raw(maker.uid)), Some(Gid::from_raw(maker.gid)));
                rustix::fs::chownat(&self.root, &name, owner.0, owner.1, AtFlags::SYMLINK_NOFOLLOW)?;
                Ok(Some(Answer::Value(0)))
            }
            Wish::Rename { .. } | Wish::Second { .. } => Ok(None),
        }
    }

    /// The name in `/` that a path means; nothing if it means anything else, or what is closed.
    fn top(&self, call: &Call<'_>, at: Named) -> Option<Top> {
        let path = call.string(at.path).ok()?;
        if !may_be_top(path.to_bytes()) {
            return None;
        }
        let (dir, name) = call.parent(at.from, &path).ok()?;
        (self.is_root(&dir) && !self.closed.contains(name.to_bytes())).then_some(Top(name))
    }

    fn is_root(&self, dir: &OwnedFd) -> bool {
        rustix::fs::fstat(dir).is_ok_and(|stat| (stat.st_dev, stat.st_ino) == self.identity)
    }

    fn folder(&mut self, name: &CStr, mode: u32, maker: &Maker) -> Result<Option<Answer>, Errno> {
        let Some((path, fd)) = self.stock.take_folder() else { return Ok(None) };
        self.given.insert(rustix::fs::fstat(&fd).map(|stat| (stat.st_dev, stat.st_ino))?);
        self.put(&path, name, mode & 0o1777, maker)?;
        Ok(Some(Answer::Value(0)))
    }

    fn open(&mut self, name: &CStr, flags: u32, mode: u32, maker: &Maker) -> Result<Option<Answer>, Errno> {
        let flags = OFlags::from_bits_retain(flags);
        if flags.intersects(OFlags::DIRECTORY | OFlags::PATH) {
            return Ok(None);
        }
        let Some((path, _)) = self.stock.take_file() else { return Ok(None) };
        self.put(&path, name, mode & 0o7777, maker)?;
        let wanted = (flags - (OFlags::CREATE | OFlags::EXCL)) | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = openat(&self.root, name, wanted, Mode::empty())?;
        Ok(Some(Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) }))
    }

    fn node(&mut self, name: &CStr, mode: u32, device: u64, maker: &Maker) -> Result<Option<Answer>, Errno> {
        let kind = FileType::from_raw_mode(mode);
        if mode & libc::S_IFMT == 0 || kind == FileType::RegularFile {
            let Some((path, _)) = self.stock.take_file() else { return Ok(None) };
            self.put(&path, name, mode & 0o7777, maker)?;
            return Ok(Some(Answer::Value(0)));
        }
        rustix::fs::mknodat(&self.root, name, kind, Mode::empty(), device)?;
        self.own(name, mode & 0o7777, maker)?;
        Ok(Some(Answer::Value(0)))
    }

    /// Renames something of the stock to a name in `/` that nothing has.
    fn put(&self, path: &Path, name: &CStr, mode: u32, maker: &Maker) -> Result<(), Errno> {
        renameat_with(CWD, path, &self.root, name, RenameFlags::NOREPLACE)?;
        self.own(name, mode, maker)?;
        let now = rustix::fs::Timespec { tv_sec: 0, tv_nsec: libc::UTIME_NOW };
        let times = rustix::fs::Timestamps { last_access: now, last_modification: now };
        rustix::fs::utimensat(&self.root, name, &times, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn own(&self, name: &CStr, mode: u32, maker: &Maker) -> Result<(), Errno> {
        let (uid, gid) = (Uid::from_raw(maker.uid), Gid::from_raw(maker.gid));
        rustix::fs::chownat(&self.root, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        rustix::fs::chmodat(&self.root, name, Mode::from_raw_mode(mode & !maker.umask), AtFlags::empty())
    }

    /// Whether a path means a folder that was there before the process began. An overlay refuses to rename those, so that
    /// programs copy them instead, which not all do with every attribute: the image is to be the same.
    fn is_older(&self, call: &Call<'_>, at: Named) -> bool {
        let found = call.string(at.path).and_then(|path| call.find(at.from, &path, false));
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::BTIME;
        let stat = found.and_then(|fd| rustix::fs::statx(&fd, c"", AtFlags::EMPTY_PATH, wanted));
        let Ok(stat) = stat else { return false };
        let is_dir = FileType::from_raw_mode(stat.stx_mode.into()) == FileType::Directory;
        let has_birth = stat.stx_mask & StatxFlags::BTIME.bits() != 0;
        let device = rustix::fs::makedev(stat.stx_dev_major, stat.stx_dev_minor);
        let born = (stat.stx_btime.tv_sec, i64::from(stat.stx_btime.tv_nsec));
        is_dir && has_birth && born < self.start && !self.given.contains(&(device, stat.stx_ino))
    }

    /// A rename within `/`, or out of it. One into `/` would leave its rule behind: as between two file systems, the
    /// process copies then.
    fn rename(&mut self, call: &Call<'_>, from: Named, to: Named, flags: u32) -> Result<Option<Answer>, Errno> {
        if self.is_older(call, from) {
            return Err(Errno::XDEV);
        }
        let (old, new) = (self.top(call, from), self.top(call, to));
        if old.is_none() && new.is_none() || maker(call).is_none_or(|maker| maker.uid != 0) {
            return Ok(None);
        }
        let flags = RenameFlags::from_bits_retain(flags);
        let done = match (old, new) {
            (Some(Top(old)), Some(Top(new))) => renameat_with(&self.root, &old, &self.root, &new, flags),
            (Some(Top(old)), None) if !flags.contains(RenameFlags::EXCHANGE) => {
                let (dir, name) = call.parent(to.from, call.string(to.path)?.as_c_str())?;
                self.reachable(&dir)?;
                renameat_with(&self.root, &old, &dir, &name, flags)
            }
            _ => Err(Errno::XDEV),
        };
        done.map(|()| Some(Answer::Value(0)))
    }

    /// Fails for a folder that processes can't reach.
    fn reachable(&self, dir: &OwnedFd) -> Result<(), Errno> {
        use std::os::fd::AsRawFd as _;
        let path = rustix::fs::readlink(format!("/proc/self/fd/{}", dir.as_raw_fd()), Vec::new())?;
        let first = path.to_bytes().split(|b| *b == b'/').find(|name| !name.is_empty());
        match first {
            Some(name) if !self.closed.contains(name) => Ok(()),
            _ => Err(Errno::ACCESS),
        }
    }
}

/// Whether a path may mean a name in `/`: one name, or a way through `..`. Links to `/` don't count.
fn may_be_top(path: &[u8]) -> bool {
    let mut names = path.split(|b| *b == b'/').filter(|name| !matches!(*name, b"" | b"."));
    let single = names.clone().count() <= 1;
    single || names.any(|name| name == b"..")
}

/// The process's mask and file-system ids.
fn maker(call: &Call<'_>) -> Option<Maker> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", call.thread())).ok()?;
    if !call.is_alive() {
        return None;
    }
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let last = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
    Some(Maker { umask: u32::from_str_radix(field("Umask:")?, 8).ok()?, uid: last("Uid:")?, gid: last("Gid:")? })
}

/// What a call asks for; nothing for one that asks for no change.
fn wish(call: &Call<'_>) -> Option<Wish> {
    let named = |from: usize, path: usize| Named { from: call.int(from), path: call.argument(path) };
    let here = |path: usize| Named { from: libc::AT_FDCWD, path: call.argument(path) };
    let int = |index: usize| call.int(index).cast_unsigned();
    Some(match call.number() {
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mkdir => Wish::Folder { at: here(0), mode: int(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_open => Wish::Open { at: here(0), flags: int(1), mode: int(2) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_creat => Wish::Open {
            at: here(0),
            flags: (libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC).cast_unsigned(),
            mode: int(1),
        },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_mknod => Wish::Node { at: here(0), mode: int(1), device: u64::from(int(2)) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_symlink => Wish::Link { target: call.argument(0), at: here(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rename => Wish::Rename { from: here(0), to: here(1), flags: 0 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_link => Wish::Second { to: here(1) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_unlink => Wish::Remove { at: here(0), flags: 0 },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_rmdir => Wish::Remove { at: here(0), flags: libc::AT_REMOVEDIR.cast_unsigned() },
        libc::SYS_mkdirat => Wish::Folder { at: named(0, 1), mode: int(2) },
        libc::SYS_openat => Wish::Open { at: named(0, 1), flags: int(2), mode: int(3) },
        libc::SYS_openat2 => return open_how(call, named(0, 1)),
        libc::SYS_mknodat => Wish::Node { at: named(0, 1), mode: int(2), device: u64::from(int(3)) },
        libc::SYS_symlinkat => Wish::Link { target: call.argument(0), at: named(1, 2) },
        #[cfg(target_arch = "x86_64")]
        libc::SYS_renameat => Wish::Rename { from: named(0, 1), to: named(2, 3), flags: 0 },
        libc::SYS_renameat2 => Wish::Rename { from: named(0, 1), to: named(2, 3), flags: int(4) },
        libc::SYS_linkat => Wish::Second { to: named(2, 3) },
        libc::SYS_unlinkat => Wish::Remove { at: named(0, 1), flags: int(2) },
        _ => return None,
    })
}

/// The same of `openat2`, which has its flags in memory: flags, mode, and how the path is resolved, 8 bytes each.
fn open_how(call: &Call<'_>, at: Named) -> Option<Wish> {
    let how = call.bytes(call.argument(2), 24).ok()?;
    let number = |index: usize| how.get(index * 8..index * 8 + 8)?.try_into().ok().map(u64::from_ne_bytes);
    let (flags, mode, resolve) = (u32::try_from(number(0)?).ok()?, u32::try_from(number(1)?).ok()?, number(2)?);
    (flags & libc::O_CREAT.cast_unsigned() != 0 && resolve == 0).then_some(Wish::Open { at, flags, mode })
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
