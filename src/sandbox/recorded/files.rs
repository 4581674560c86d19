//! Calls about files: who owns them, what they are, and new ones.

use super::ids::Ids;
use super::{Named, Recorder, id};
use crate::sys::notify::{Answer, Call};
use crate::sys::recorded::{Device, Recorded, identity};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::CString;
use std::os::fd::OwnedFd;

/// A path among a call's arguments, and the descriptor it starts from, if there is one.
type Path = (Option<usize>, usize);

/// Where a new file is to be, and whose it will be.
struct Birth {
    folder: OwnedFd,
    name: CString,
    owner: Recorded,
}

impl Recorder<'_> {
    /// `chown` and its kin. What can't be found is left to the kernel: it says why.
    pub(super) fn owner(&mut self, call: &Call<'_>, named: Named, owner: usize) -> Result<Answer, Errno> {
        let Ok(file) = find(call, named) else { return Ok(Answer::Continue) };
        let ids = self.ids(call)?;
        let given = |index| (id(call, index) != u32::MAX).then(|| id(call, index));
        let to = (given(owner), given(owner + 1));
        let before = self.records.get(&file)?.unwrap_or_default();
        let (uid, gid) = ids.may_give((before.uid, before.gid), to)?;
        // The kernel takes set-id bits and capabilities away, and overlayfs brings the file up.
        let own = (to.0.map(|_| Uid::ROOT), to.1.map(|_| Gid::ROOT));
        let path = match named {
            Named::Path(_) => Some((None, 0)),
            Named::From(_) => Some((Some(0), 1)),
            Named::Descriptor => None,
        };
        let file = raise(call, path, file, own)?;
        self.records.put(&file, Recorded { uid, gid, ..before })?;
        Ok(Answer::Value(0))
    }

    /// `stat` and its kin: the kernel says it of files of which nothing is recorded.
    pub(super) fn status(&self, call: &Call<'_>, named: Named, buffer: usize) -> Result<Answer, Errno> {
        let Ok(file) = find(call, named) else { return Ok(Answer::Continue) };
        let Some(recorded) = self.records.get(&file)? else { return Ok(Answer::Continue) };
        call.write_stat(call.argument(buffer), &file, &recorded)?;
        Ok(Answer::Value(0))
    }

    pub(super) fn statusx(&self, call: &Call<'_>) -> Result<Answer, Errno> {
        let Ok(file) = find(call, Named::From(2)) else { return Ok(Answer::Continue) };
        let Some(recorded) = self.records.get(&file)? else { return Ok(Answer::Continue) };
        call.write_statx(call.argument(4), &file, (call.int(2), id(call, 3)), &recorded)?;
        Ok(Answer::Value(0))
    }

    /// `open` that may make a file. Only one that will be somebody's besides root is made here.
    pub(super) fn open(
        &mut self,
        call: &Call<'_>,
        path: Path,
        flags: Option<usize>,
        mode: usize,
    ) -> Result<Answer, Errno> {
        let asked = match flags {
            Some(index) => OFlags::from_bits_retain(id(call, index)),
            None => OFlags::CREATE | OFlags::WRONLY | OFlags::TRUNC,
        };
        if asked.contains(OFlags::PATH) {
            return Ok(Answer::Continue);
        }
        let mode = Mode::from_raw_mode(id(call, mode) & 0o7777);
        if asked.contains(OFlags::TMPFILE) {
            return self.nameless(call, path, asked, mode);
        }
        let Some(birth) = self.birth(call, path)? else { return Ok(Answer::Continue) };
        if birth.is_plain() || birth.exists() {
            return Ok(Answer::Continue);
        }
        let flags = asked | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&birth.folder, &birth.name, flags, masked(call, mode)?) {
            // Somebody was quicker.
            Err(Errno::EXIST) if !asked.contains(OFlags::EXCL) => return Ok(Answer::Continue),
            opened => opened?,
        };
        self.records.put(&fd, birth.owner)?;
        Ok(Answer::Fd { fd, close_on_exec: asked.contains(OFlags::CLOEXEC) })
    }

    /// A file without a name, in a folder.
    fn nameless(&mut self, call: &Call<'_>, path: Path, flags: OFlags, mode: Mode) -> Result<Answer, Errno> {
        let Ok(folder) = call.find(start(call, path), &call.string(call.argument(path.1))?, true) else {
            return Ok(Answer::Continue);
        };
        let owner = self.owner_in(call, &folder)?;
        if owner == Recorded::default() {
            return Ok(Answer::Continue);
        }
        let fd = rustix::fs::openat(&folder, ".", flags | OFlags::CLOEXEC, masked(call, mode)?)?;
        self.records.put(&fd, owner)?;
        Ok(Answer::Fd { fd, close_on_exec: flags.contains(OFlags::CLOEXEC) })
    }

    pub(super) fn folder(&mut self, call: &Call<'_>, path: Path) -> Result<Answer, Errno> {
        let Some(birth) = self.birth(call, path)? else { return Ok(Answer::Continue) };
        if birth.is_plain() {
            return Ok(Answer::Continue);
        }
        let mode = Mode::from_raw_mode(id(call, path.1 + 1) & 0o1777);
        rustix::fs::mkdirat(&birth.folder, &birth.name, masked(call, mode)?)?;
        self.record(&birth)
    }

    /// `mknod`: a device is a regular file, of which it is recorded.
    pub(super) fn node(&mut self, call: &Call<'_>, path: Path) -> Result<Answer, Errno> {
        let Some(mut birth) = self.birth(call, path)? else { return Ok(Answer::Continue) };
        let (raw, number) = (id(call, path.1 + 1), u64::from(id(call, path.1 + 2)));
        let kind = FileType::from_raw_mode(raw);
        let mode = masked(call, Mode::from_raw_mode(raw & 0o7777))?;
        if let FileType::CharacterDevice | FileType::BlockDevice = kind {
            if !self.ids(call)?.is_privileged() {
                return Err(Errno::PERM);
            }
            let block = kind == FileType::BlockDevice;
            let (major, minor) = (rustix::fs::major(number), rustix::fs::minor(number));
            birth.owner.device = Some(Device { block, major, minor });
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&birth.folder, &birth.name, flags, mode)?;
        } else if birth.is_plain() && !self.records.is_any_put() {
            return Ok(Answer::Continue);
        } else {
            let kind = if raw & libc::S_IFMT == 0 { FileType::RegularFile } else { kind };
            rustix::fs::mknodat(&birth.folder, &birth.name, kind, mode, 0)?;
        }
        self.record(&birth)
    }

    pub(super) fn link(&mut self, call: &Call<'_>, path: Path) -> Result<Answer, Errno> {
        let Some(birth) = self.birth(call, path)? else { return Ok(Answer::Continue) };
        if birth.is_plain() && !self.records.is_any_put() {
            return Ok(Answer::Continue);
        }
        rustix::fs::symlinkat(call.string(call.argument(0))?, &birth.folder, &birth.name)?;
        self.record(&birth)
    }

    /// Keeps what is recorded of a link or a pipe, which overlayfs is about to bring up: there it is another file. The call
    /// itself is the kernel's.
    pub(super) fn bring_up(&mut self, call: &Call<'_>, path: Path) -> Answer {
        let find = || call.find(start(call, path), &call.string(call.argument(path.1))?, false);
        let Ok(file) = find() else { return Answer::Continue };
        let done = match self.of_link(&file) {
            Ok(Some(recorded)) => {
                raise(call, Some(path), file, (None, None)).and_then(|up| self.records.put(&up, recorded))
            }
            Ok(None) => Ok(()),
            Err(errno) => Err(errno),
        };
        done.map_or_else(Answer::Errno, |()| Answer::Continue)
    }

    /// What is recorded of a file that can't have an attribute.
    fn of_link(&self, file: &OwnedFd) -> Result<Option<Recorded>, Errno> {
        match identity(file)?.1 {
            FileType::RegularFile | FileType::Directory => Ok(None),
            _ => self.records.get(file),
        }
    }

    /// Records what was made just now.
    fn record(&mut self, birth: &Birth) -> Result<Answer, Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&birth.folder, &birth.name, flags, Mode::empty())?;
        self.records.put(&made, birth.owner)?;
        Ok(Answer::Value(0))
    }

    /// Where a new file is to be; `None` where the kernel will say that it can't be.
    fn birth(&mut self, call: &Call<'_>, path: Path) -> Result<Option<Birth>, Errno> {
        let Ok((folder, name)) = call.parent(start(call, path), &call.string(call.argument(path.1))?) else {
            return Ok(None);
        };
        let owner = self.owner_in(call, &folder)?;
        Ok(Some(Birth { folder, name, owner }))
    }

    /// Whose a new file in a folder is: a folder with the set-group bit gives its group.
    fn owner_in(&mut self, call: &Call<'_>, folder: &OwnedFd) -> Result<Recorded, Errno> {
        let Ids { user, group, .. } = self.ids(call)?;
        let inherits = rustix::fs::fstat(folder)?.st_mode & libc::S_ISGID != 0;
        let gid = match inherits {
            true => self.records.get(folder)?.unwrap_or_default().gid,
            false => group.files,
        };
        Ok(Recorded { uid: user.files, gid, device: None })
    }
}

impl Birth {
    /// Whether it is root's, as the kernel makes it.
    fn is_plain(&self) -> bool {
        self.owner == Recorded::default()
    }

    fn exists(&self) -> bool {
        rustix::fs::statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }
}

/// Gives a file to the one user, which has overlayfs bring it up; the file that it is then.
///
/// Overlayfs shows a link or a pipe that it brought up under the number of the one below, as long as it is mounted. So that
/// it can be known by its number afterwards, another one is made in its place.
fn raise(
    call: &Call<'_>,
    path: Option<Path>,
    file: OwnedFd,
    (uid, gid): (Option<Uid>, Option<Gid>),
) -> Result<OwnedFd, Errno> {
    let (before, kind) = identity(&file)?;
    rustix::fs::chownat(&file, "", uid, gid, AtFlags::EMPTY_PATH)?;
    let is_link = matches!(kind, FileType::Symlink | FileType::Fifo);
    match path {
        Some(path) if is_link && identity(&file)?.0 != before => renew(call, path, &file, kind),
        _ => Ok(file),
    }
}

/// Makes a link or a pipe like one that stands at a path, and puts it there. The directory keeps its times: for the process, the file
/// is the one that was there.
fn renew(call: &Call<'_>, path: Path, file: &OwnedFd, kind: FileType) -> Result<OwnedFd, Errno> {
    let (folder, name) = call.parent(start(call, path), &call.string(call.argument(path.1))?)?;
    let stat = rustix::fs::fstat(file)?;
    let there = rustix::fs::statat(&folder, &name, AtFlags::SYMLINK_NOFOLLOW)?;
    if (there.st_dev, there.st_ino) != (stat.st_dev, stat.st_ino) {
        // A link leads to it, or somebody was quicker.
        return rustix::io::dup(file);
    }
    let around = rustix::fs::fstat(&folder)?;
    let beside = format!(".kiln-{}-{}", call.thread(), stat.st_ino);
    match kind {
        FileType::Symlink => {
            rustix::fs::symlinkat(rustix::fs::readlinkat(file, "", Vec::new())?, &folder, &*beside)?;
        }
        kind => rustix::fs::mknodat(&folder, &*beside, kind, Mode::from_raw_mode(stat.st_mode & 0o7777), 0)?,
    }
    rustix::fs::utimensat(&folder, &*beside, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?;
    rustix::fs::renameat(&folder, &*beside, &folder, &name)?;
    rustix::fs::utimensat(&folder, ".", &times(&around), AtFlags::empty())?;
    rustix::fs::openat(&folder, &name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Both times of a file.
fn times(stat: &rustix::fs::Stat) -> Timestamps {
    let time = |tv_sec, nanos| Timespec { tv_sec, tv_nsec: nanos as i64 };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

fn start(call: &Call<'_>, (from, _): Path) -> i32 {
    from.map_or(libc::AT_FDCWD, |index| call.int(index))
}

/// A mode without what the process's mask takes.
fn masked(call: &Call<'_>, mode: Mode) -> Result<Mode, Errno> {
    Ok(mode.difference(Mode::from_raw_mode(call.umask()?)))
}

/// The file that a call is about.
fn find(call: &Call<'_>, named: Named) -> Result<OwnedFd, Errno> {
    match named {
        Named::Path(follow) => call.find(libc::AT_FDCWD, &call.string(call.argument(0))?, follow),
        Named::Descriptor if call.int(0) < 0 => Err(Errno::BADF),
        Named::Descriptor => call.descriptor(call.int(0)),
        Named::From(flags) => {
            let flags = call.int(flags);
            let itself = flags & libc::AT_EMPTY_PATH != 0;
            if itself && call.argument(1) == 0 {
                return call.descriptor(call.int(0));
            }
            let path = call.string(call.argument(1))?;
            match path.is_empty() && itself {
                true => call.descriptor(call.int(0)),
                false => call.find(call.int(0), &path, flags & libc::AT_SYMLINK_NOFOLLOW == 0),
            }
        }
    }
}
