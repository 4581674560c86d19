//! Stands in for mounts: a file or directory is renamed to its target, and what is there is set aside meanwhile. Afterwards both go
//! back. The times of the directories around the target stay what the process makes of them.
//!
//! Where nothing can be renamed to the target because that is on a volume, the files are copied, and copied back. A mounted file
//! gets another content. No process runs meanwhile, so nothing changes between two calls.

use super::confinement::Confinement;
use super::crash_journal::{BindSource, Record};
use super::host_root::HostRoot;
use crate::snapshot::root_copy;
use crate::sys::{Error, Result, Said, file, tree};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// The mounts of one process; dropping it undoes them.
#[derive(Debug)]
pub(super) struct BindEmulation<'a> {
    host: &'a HostRoot,
    root: OwnedFd,
    /// What is hidden, so that nothing is put there.
    confinement: &'a Confinement,
    /// What was done, in order.
    done: Vec<Step>,
    count: usize,
    over: bool,
}

/// Something that is to be undone.
#[derive(Debug)]
enum Step {
    /// Something is in the place of a name.
    Swapped {
        dir: OwnedFd,
        name: OsString,
        /// What becomes of it.
        after: After,
        /// Where the entry is that was there before.
        aside: Option<PathBuf>,
    },
    /// A file was made at its target.
    Written { dir: OwnedFd, name: OsString },
    /// A directory was made on the way.
    Made { dir: OwnedFd, name: OsString },
}

/// What becomes of something that stood in for a mount.
#[derive(Debug)]
enum After {
    /// It is removed.
    Remove,
    /// It is renamed to this path, if it still is a directory, or still is none.
    Return { to: PathBuf, is_dir: bool },
    /// It is a copy of this directory, which gets its content.
    CopyBack(PathBuf),
}

impl<'a> BindEmulation<'a> {
    /// None yet. Symbolic links of an image may lead to hidden files as well, as they are in the same root: that is refused.
    pub(super) fn new(host: &'a HostRoot, confinement: &'a Confinement) -> Result<Self> {
        let dir = directory(host);
        std::fs::create_dir_all(&dir).said("mkdir", &dir)?;
        // What is in it, a killed process has left.
        clear(&dir)?;
        let root = file::open_dir(host.root())?;
        Ok(Self { host, root, confinement, done: Vec::new(), count: 0, over: false })
    }

    /// Shows a file with this content.
    pub(super) fn file(&mut self, at: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = self.fresh();
        let mut made = std::fs::File::create_new(&path).said("create", &path)?;
        made.write_all(content).said("write", &path)?;
        give(&made, owner, mode, &path)?;
        match self.swap(at, &path, After::Remove) {
            Err(e) if e.errno == Errno::BUSY => self.overwrite(at, content),
            Err(e) if e.errno == Errno::XDEV => self.write(at, content, mode, owner).map_err(|other| {
                // Something is there that cannot be set aside.
                if other.errno == Errno::EXIST { e } else { other }
            }),
            done => done,
        }
    }

    /// Gives a file that the container runtime has mounted this content, until the stage leaves. A file that is mounted read-only
    /// stays as it is: the process sees the container's.
    fn overwrite(&mut self, at: &Path, content: &[u8]) -> Result<()> {
        let (dir, name) = self.place(at)?;
        let path = file::path_of(&dir)?.join(name);
        match self.host.replace_content(&path, content) {
            Err(e) if e.errno == Errno::ROFS => Ok(()),
            done => done,
        }
    }

    /// Writes a file on another file system (`/dev`, or a volume), to which nothing can be renamed.
    fn write(&mut self, at: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let (dir, name) = self.place(at)?;
        self.record(&dir, &name, None)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made = rustix::fs::openat(&dir, &name, flags, Mode::from_raw_mode(0o600)).said("create", at)?;
        self.done.push(Step::Written { dir, name });
        let mut made = std::fs::File::from(made);
        made.write_all(content).said("write", at)?;
        give(&made, owner, mode, at)
    }

    /// Shows an empty folder, with the mode of the one that it stands in the place of.
    pub(super) fn empty(&mut self, at: &Path) -> Result<()> {
        let path = self.fresh();
        std::fs::create_dir(&path).said("mkdir", &path)?;
        let mode = self.stat(at)?.map_or(0o755, |stat| stat.st_mode & 0o7777);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).said("chmod", &path)?;
        self.swap(at, &path, After::Remove)
    }

    /// Shows the file or directory at `path` in the directory `tree`, or all of it; symbolic links stay inside. It is back there
    /// afterwards.
    pub(super) fn tree(&mut self, at: &Path, tree: &Path, path: &Path) -> Result<()> {
        let root = file::open_dir(tree)?;
        let inside = path.strip_prefix("/").unwrap_or(path);
        let found = file::open_in_root(&root, inside, OFlags::PATH, Mode::empty())?;
        let from = file::path_of(&found)?;
        let is_dir = is_folder(&rustix::fs::fstat(&found).said("fstat", &from)?);
        self.swap(at, &from, After::Return { to: from.clone(), is_dir })
    }

    /// Sees to it that a folder is there, as [`Step::WorkIn`](crate::sys::child::Step::WorkIn) does it; it stays.
    pub(super) fn folder(&mut self, at: &Path, owner: (u32, u32)) -> Result<()> {
        let (mut dir, mut so_far) = (reopened(&self.root)?, PathBuf::new());
        for name in at.iter().skip(1) {
            so_far.push(name);
            dir = match file::open_in_root(&self.root, &so_far, DIR, Mode::empty()) {
                Err(e) if e.errno == Errno::NOENT => {
                    self.refuse_closed(&dir, name, at)?;
                    rustix::fs::mkdirat(&dir, name, Mode::from_raw_mode(0o755)).said("mkdir", at)?;
                    let made = file::open_in_root(&self.root, &so_far, OFlags::DIRECTORY, Mode::empty())?;
                    give(&made, owner, 0o755, at)?;
                    made
                }
                opened => opened?,
            };
        }
        Ok(())
    }

    /// Puts everything back.
    pub(super) fn end(mut self) -> Result<()> {
        self.undo()
    }

    /// A path on the file system of the root that nothing has.
    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        directory(self.host).join(self.count.to_string())
    }

    /// A path that nothing has on the file system of an open directory.
    fn fresh_beside(&mut self, dir: &OwnedFd) -> Result<PathBuf> {
        let beside = self.host.binds_of_volume(&file::path_of(dir)?)?;
        self.count += 1;
        Ok(beside.unwrap_or_else(|| directory(self.host)).join(self.count.to_string()))
    }

    /// Writes to the crash journal that something will stand in for a mount.
    fn record(&self, dir: &OwnedFd, name: &OsStr, source: Option<BindSource>) -> Result<()> {
        let target = file::path_of(dir)?.join(name);
        self.host.record(Record::Bind { target: target.clone(), source }).map_err(|e| io_error(&e, &target))
    }

    fn stat(&self, at: &Path) -> Result<Option<Stat>> {
        match file::open_in_root(&self.root, at, OFlags::PATH, Mode::empty()) {
            Ok(found) => rustix::fs::fstat(found).said("fstat", at).map(Some),
            Err(e) if e.errno == Errno::NOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Lets the entry `from` stand at `at`.
    fn swap(&mut self, at: &Path, from: &Path, after: After) -> Result<()> {
        let (dir, name) = self.place(at)?;
        let before = times(&dir)?;
        let aside = self.fresh_beside(&dir)?;
        let identity = rustix::fs::lstat(from).map(|stat| (stat.st_dev, stat.st_ino)).said("stat", from)?;
        let source = matches!(after, After::Return { .. }).then(|| BindSource { path: from.into(), identity });
        self.record(&dir, &name, source)?;
        let aside = match rustix::fs::renameat(&dir, &name, CWD, &aside) {
            Ok(()) => Some(aside),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(Error { call: "rename", path: Some(at.into()), errno }),
        };
        // Known before it is done, so that the original comes back whatever happens.
        self.done.push(Step::Swapped { dir: reopened(&dir)?, name: name.clone(), after, aside });
        match rustix::fs::renameat_with(CWD, from, &dir, &name, RenameFlags::NOREPLACE) {
            Err(Errno::XDEV) => self.copy_in(from, &dir, &name)?,
            renamed => renamed.said("rename", at)?,
        }
        set_times(&dir, before, at)
    }

    /// Copies what the last step was to rename, as its target is on another file system.
    fn copy_in(&mut self, from: &Path, dir: &OwnedFd, name: &OsStr) -> Result<()> {
        let Some(Step::Swapped { after, .. }) = self.done.last_mut() else { return Ok(()) };
        let to = file::path_of(dir)?.join(name);
        match after {
            After::Return { is_dir: true, .. } => *after = After::CopyBack(from.into()),
            After::Remove if from.is_dir() => {}
            // The caller writes the file.
            After::Remove | After::Return { .. } | After::CopyBack(_) => {
                return Err(Error::new("rename", to, Errno::XDEV));
            }
        }
        std::fs::create_dir(&to).said("mkdir", &to)?;
        root_copy::copy_directory(from, &to, None).map(drop).map_err(|e| io_error(&e, &to))
    }

    /// The folder and name that a path means, inside the root; folders on the way are made. A link that leads to something
    /// means that; one that leads nowhere is what stands there itself.
    fn place(&mut self, at: &Path) -> Result<(OwnedFd, OsString)> {
        let real = match file::open_in_root(&self.root, at, OFlags::PATH, Mode::empty()) {
            Ok(found) => file::path_of(&found)?.strip_prefix(file::path_of(&self.root)?).unwrap_or(at).to_owned(),
            Err(e) if e.errno == Errno::NOENT => at.to_owned(),
            Err(e) => return Err(e),
        };
        let name = real.file_name().ok_or(Errno::BUSY).said("rename", at)?.to_owned();
        let (mut dir, mut so_far) = (reopened(&self.root)?, PathBuf::new());
        for part in real.parent().into_iter().flat_map(Path::iter).filter(|p| *p != OsStr::new("/")) {
            so_far.push(part);
            dir = match file::open_in_root(&self.root, &so_far, DIR, Mode::empty()) {
                Err(e) if e.errno == Errno::NOENT => self.make(&dir, part, &so_far)?,
                opened => opened?,
            };
        }
        self.refuse_closed(&dir, &name, at)?;
        Ok((dir, name))
    }

    /// Fails for a hidden name, and below one.
    fn refuse_closed(&self, dir: &OwnedFd, name: &OsStr, at: &Path) -> Result<()> {
        let path = file::path_of(dir)?.join(name);
        match path.starts_with(file::path_of(&self.root)?) && !self.confinement.hides(&path) {
            true => Ok(()),
            false => Err(Error::new("rename", at, Errno::ACCESS)),
        }
    }

    /// Makes a folder that is removed again if it stays empty.
    fn make(&mut self, dir: &OwnedFd, name: &OsStr, path: &Path) -> Result<OwnedFd> {
        self.refuse_closed(dir, name, path)?;
        let before = times(dir)?;
        rustix::fs::mkdirat(dir, name, Mode::from_raw_mode(0o755)).said("mkdir", path)?;
        self.done.push(Step::Made { dir: reopened(dir)?, name: name.to_owned() });
        let made = file::open_in_root(&self.root, path, OFlags::DIRECTORY, Mode::empty())?;
        give(&made, (0, 0), 0o755, path)?;
        set_times(dir, before, path)?;
        Ok(made)
    }

    fn undo(&mut self) -> Result<()> {
        self.over = true;
        let mut first = Ok(());
        while let Some(step) = self.done.pop() {
            let undone = self.undo_one(step);
            first = first.and(undone);
        }
        first?;
        clear(&directory(self.host))
    }

    fn undo_one(&mut self, step: Step) -> Result<()> {
        match step {
            Step::Written { dir, name } => match rustix::fs::unlinkat(&dir, &name, AtFlags::empty()) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(Error { call: "unlink", path: Some(name.into()), errno }),
            },
            Step::Made { dir, name } => {
                let before = times(&dir)?;
                match rustix::fs::unlinkat(&dir, &name, AtFlags::REMOVEDIR) {
                    Ok(()) => set_times(&dir, before, Path::new(&name)),
                    // The process put something there, or something else in its place, or took it away.
                    Err(Errno::NOTEMPTY | Errno::NOTDIR | Errno::NOENT | Errno::EXIST) => Ok(()),
                    Err(errno) => Err(Error { call: "rmdir", path: Some(name.into()), errno }),
                }
            }
            Step::Swapped { dir, name, after, aside } => {
                let before = times(&dir)?;
                let gone = self.take_out(&dir, &name, after);
                let returned = match aside {
                    Some(aside) => rustix::fs::renameat(CWD, &aside, &dir, &name).said("rename", Path::new(&name)),
                    None => Ok(()),
                };
                gone.and(returned).and(set_times(&dir, before, Path::new(&name)))
            }
        }
    }

    /// Takes something out of a target.
    fn take_out(&mut self, dir: &OwnedFd, name: &OsStr, after: After) -> Result<()> {
        // Something of another kind that the process put there is not what it got: it is removed, and nothing goes back.
        let now = rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW);
        let is_same = |is_dir| now.is_ok_and(|now| is_folder(&now) == is_dir && !is_link(&now));
        let to = match after {
            After::Return { to, is_dir } if is_same(is_dir) => to,
            After::CopyBack(to) if is_same(true) => {
                copy_back(&file::path_of(dir)?.join(name), &to)?;
                return tree::remove(dir, Path::new(name));
            }
            _ => self.fresh_beside(dir)?,
        };
        match rustix::fs::renameat(dir, name, CWD, &to) {
            // The process took it away.
            Err(Errno::NOENT) => Ok(()),
            done => done.said("rename", Path::new(name)),
        }
    }
}

/// Gives the directory `to` the content of its copy.
fn copy_back(copy: &Path, to: &Path) -> Result<()> {
    let dir = file::open_dir(to)?;
    for entry in std::fs::read_dir(to).said("read", to)? {
        tree::remove(&dir, Path::new(&entry.said("read", to)?.file_name()))?;
    }
    root_copy::copy_directory(copy, to, None).map(drop).map_err(|e| io_error(&e, to))
}

/// The directory for what is set aside, on the file system of the root.
fn directory(host: &HostRoot) -> PathBuf {
    host.work().join("binds")
}

/// An error of a root filesystem as one of a system call.
fn io_error(error: &crate::snapshot::Error, path: &Path) -> Error {
    match error {
        crate::snapshot::Error::Call { call, source, .. } => Error::from_io(call, path, source),
        _ => Error::new("write", path, Errno::IO),
    }
}

impl Drop for BindEmulation<'_> {
    fn drop(&mut self) {
        if !self.over {
            // What fails here is thrown away with the stage.
            let _ = self.undo();
        }
    }
}

fn is_folder(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Directory
}

fn is_link(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::Symlink
}

const DIR: OFlags = OFlags::DIRECTORY;

/// Removes everything in a directory.
fn clear(dir: &Path) -> Result<()> {
    for entry in std::fs::read_dir(dir).said("read", dir)? {
        tree::remove(CWD, &dir.join(entry.said("read", dir)?.file_name()))?;
    }
    Ok(())
}

fn reopened(dir: &OwnedFd) -> Result<OwnedFd> {
    dir.try_clone().map_err(|e| Error::from_io("dup", Path::new(""), &e))
}

fn times(dir: &OwnedFd) -> Result<Timestamps> {
    let stat = rustix::fs::fstat(dir).call("fstat")?;
    let time = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Ok(Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    })
}

fn set_times(dir: &OwnedFd, times: Timestamps, path: &Path) -> Result<()> {
    rustix::fs::futimens(dir, &times).said("utimensat", path)
}

fn give(made: impl AsFd, (uid, gid): (u32, u32), mode: u32, path: &Path) -> Result<()> {
    rustix::fs::fchown(&made, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid))).said("fchown", path)?;
    rustix::fs::fchmod(&made, Mode::from_raw_mode(mode)).said("fchmod", path)
}

#[cfg(test)]
#[path = "bind_emulation_tests.rs"]
mod tests;
