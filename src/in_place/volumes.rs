//! Mount points that a stage has something at: volumes, and the hostname file that a container runtime mounts.
//!
//! Nothing can be renamed to another file system. The stage's files are copied to a volume, and back when the stage leaves; the
//! volume's own entries are meanwhile in a directory inside it, which no process can reach:
//!
//! ```text
//! VOLUME/.kiln-NUMBER/own/     the volume's own entries
//! VOLUME/.kiln-NUMBER/pool/    inodes for new entries (see `inode_pool`)
//! VOLUME/.kiln-NUMBER/binds/   what bind emulation sets aside there
//! ```
//!
//! A mounted file cannot be renamed either: its content is replaced, and the original is kept in the work directory.

use super::crash_journal::{BindSource, CrashJournal, Record, State, VolumeState};
use super::directory_metadata::DirectoryMetadata;
use super::layout::{Fixed, Layout};
use super::switch::{Entered, Log, Switch, failed, os, rename};
use crate::layer::EntryPath;
use crate::snapshot::at::{self, Kind, Meta};
use crate::snapshot::{Error, root_copy};
use crate::sys::{self, Said as _};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

/// Directories of kiln's own inside a volume.
const OWN: &str = "own";
pub(super) const POOL: &str = "pool";
pub(super) const BINDS: &str = "binds";

/// Why a stage cannot have a file or directory somewhere, and what helps.
pub(super) const FILE: &str = "a file is mounted on that path in this container; mount it elsewhere";
const NOT_A_DIRECTORY: &str =
    "a volume is mounted on that path in this container, and the image has no directory there; mount it elsewhere";
const READ_ONLY: &str = "a volume is mounted read-only on that path in this container; mount it elsewhere, or writable";
const MOUNTS_INSIDE: &str =
    "a volume with another mount inside is mounted on that path in this container; mount them elsewhere";

/// Times and size of a file.
pub(super) type Stamp = [i64; 5];

/// The largest mounted file whose content is replaced, in bytes.
const LARGEST_FILE: u64 = 1 << 20;

/// Copies a stage's directory to the volume that is mounted in its place.
///
/// # Errors
/// [`Error::Occupied`] if that cannot be done, or as the calls that copy.
pub(super) fn enter(
    switch: &Switch<'_>,
    log: Log<'_>,
    place: &Path,
    path: &EntryPath,
    read_only: bool,
) -> Result<(), Error> {
    let stage = at::open_root(place)?;
    let is_dir = at::stat(stage.as_fd(), path).is_ok_and(|meta| meta.is_some_and(|meta| meta.is_dir()));
    if !is_dir {
        return Err(occupied(switch, path, NOT_A_DIRECTORY));
    }
    if read_only {
        return Err(occupied(switch, path, READ_ONLY));
    }
    set_aside(switch, log, path)?;
    root_copy::copy_directory(&place.join(path.as_path()), &switch.root.join(path.as_path()), None).map(drop)
}

/// Empties the volumes that a process would take for directories of its root filesystem, although the stage has nothing there: those
/// with a name that every system has, and those that are empty. Others stay, and are hidden.
///
/// # Errors
/// As the calls that rename.
pub(super) fn enter_absent(
    switch: &Switch<'_>,
    layout: &Layout,
    log: Log<'_>,
    entered: &mut Entered,
) -> Result<(), Error> {
    for (path, fixed) in layout.paths().filter_map(|path| Some((path, layout.at(path)?))) {
        let dir = path.parent().unwrap_or_default();
        let is_visible = entered.directories.contains(&dir) || entered.absent.contains(&dir);
        if fixed != (Fixed::Volume { read_only: false }) || !is_visible || entered.volumes.contains(path) {
            continue;
        }
        let names = at::names(open(switch, path)?.as_fd()).map_err(|e| Error::inside("getdents", path, e))?;
        if names.is_empty() || is_usual(path) {
            set_aside(switch, log, path)?;
            DirectoryMetadata::made().apply(open(switch, path)?, path.as_path()).map_err(failed)?;
            entered.absent_volumes.insert(path.clone());
        }
    }
    Ok(())
}

/// Whether a path is a directory that every system has (Filesystem Hierarchy Standard).
fn is_usual(path: &EntryPath) -> bool {
    const USUAL: [&str; 16] = [
        "bin", "boot", "etc", "home", "lib", "lib64", "media", "mnt", "opt", "root", "run", "sbin", "srv", "tmp",
        "usr", "var",
    ];
    USUAL.iter().any(|usual| usual.as_bytes() == path.as_bytes())
}

/// Whether a volume has anything but kiln's directory and, in it, the volume's own files.
///
/// # Errors
/// If it cannot be read.
pub(super) fn holds_stage_files(switch: &Switch<'_>, path: &EntryPath, state: &VolumeState) -> Result<bool, Error> {
    let names = at::names(open(switch, path)?.as_fd()).map_err(|e| Error::inside("getdents", path, e))?;
    Ok(names.iter().any(|name| name != state.aside.as_bytes()))
}

/// Renames the entries of a volume to a directory inside it.
fn set_aside(switch: &Switch<'_>, log: Log<'_>, path: &EntryPath) -> Result<(), Error> {
    let volume = open(switch, path)?;
    let metadata = DirectoryMetadata::read(&volume, path.as_path()).map_err(failed)?;
    let aside = fresh_name()?;
    log(Record::Volume { path: path.as_bytes().to_vec(), metadata, aside: aside.clone() })?;
    let names = at::names(volume.as_fd()).map_err(|e| Error::inside("getdents", path, e))?;
    if !names.is_empty() {
        let own = make(&volume, &aside, OWN).map_err(|e| Error::inside("mkdir", path, e))?;
        for name in names {
            rename(volume.as_fd(), own.as_fd(), &name).map_err(|errno| match errno {
                Errno::BUSY | Errno::XDEV => occupied(switch, path, MOUNTS_INSIDE),
                errno => Error::inside("rename", path, errno),
            })?;
        }
    }
    log(Record::VolumeEntered { path: path.as_bytes().to_vec() })
}

fn occupied(switch: &Switch<'_>, path: &EntryPath, why: &'static str) -> Error {
    Error::Occupied { path: switch.root.join(path.as_path()), why }
}

/// Copies what is in a volume to `place`, if the stage is needed, and gives the volume its own entries back. A directory that a process
/// has claimed is the stage's even if it is empty. Returns whether the stage has
/// something there.
///
/// # Errors
/// As the calls that copy and rename.
pub(super) fn leave(
    switch: &Switch<'_>,
    journal: &mut CrashJournal,
    (path, state): (&EntryPath, &VolumeState),
    place: Option<(&Path, bool)>,
) -> Result<bool, Error> {
    let volume = open(switch, path)?;
    let mut is_stages = false;
    if state.is_entered {
        if let Some((place, is_claimed)) = place {
            let to = place.join(path.as_path());
            is_stages = is_claimed || to.exists() || holds_stage_files(switch, path, state)?;
            if is_stages {
                replace(&switch.root.join(path.as_path()), &to, path, state.aside.as_bytes())?;
            }
        }
        for name in at::names(volume.as_fd()).map_err(|e| Error::inside("getdents", path, e))? {
            if name != state.aside.as_bytes() {
                at::remove(volume.as_fd(), &name).map_err(|e| Error::inside("remove", path, e))?;
            }
        }
        journal.add(Record::VolumeCleared { path: path.as_bytes().to_vec() })?;
    }
    if let Ok(aside) = at::open_dir(volume.as_fd(), state.aside.as_bytes()) {
        if let Ok(own) = at::open_dir(aside.as_fd(), OWN.as_bytes()) {
            for name in at::names(own.as_fd()).map_err(|e| Error::inside("getdents", path, e))? {
                rename(own.as_fd(), volume.as_fd(), &name).map_err(|e| Error::inside("rename", path, e))?;
            }
            rustix::fs::unlinkat(&aside, OWN, AtFlags::REMOVEDIR).map_err(|e| Error::inside("rmdir", path, e))?;
        }
        at::remove(volume.as_fd(), state.aside.as_bytes()).map_err(|e| Error::inside("remove", path, e))?;
    }
    state.metadata.apply(&volume, path.as_path()).map_err(failed)?;
    Ok(is_stages)
}

/// Replaces the directory `to` by a copy of `from`, without one name of it.
fn replace(from: &Path, to: &Path, path: &EntryPath, except: &[u8]) -> Result<(), Error> {
    let (Some(parent), Some(name)) = (to.parent(), path.file_name()) else { return Ok(()) };
    at::remove(at::open_root(parent)?.as_fd(), name).map_err(|e| Error::host("remove", to, e))?;
    std::fs::create_dir(to).map_err(|e| Error::host("mkdir", to, e))?;
    root_copy::copy_directory(from, to, Some(except)).map(drop)
}

/// The directory in a volume where bind emulation sets things aside; it is made.
///
/// # Errors
/// If it cannot be made.
pub(super) fn binds(root: &Path, path: &EntryPath, state: &VolumeState) -> sys::Result<PathBuf> {
    let volume = root.join(path.as_path());
    let dir = sys::file::open_dir(&volume)?;
    make(&dir, &state.aside, BINDS).said("mkdir", &volume)?;
    Ok(volume.join(&state.aside).join(BINDS))
}

fn open(switch: &Switch<'_>, path: &EntryPath) -> Result<OwnedFd, Error> {
    at::open(switch.root_fd, path, OFlags::RDONLY | OFlags::DIRECTORY).map_err(|e| Error::inside("open", path, e))
}

/// Makes a directory of kiln's own in a volume, unless it is there.
fn make(volume: &OwnedFd, aside: &str, name: &str) -> Result<OwnedFd, Errno> {
    let made = |dir: BorrowedFd<'_>, name: &str| match rustix::fs::mkdirat(dir, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => at::open_dir(dir, name.as_bytes()),
        Err(errno) => Err(errno),
    };
    made(made(volume.as_fd(), aside)?.as_fd(), name)
}

/// A name that nothing else has.
pub(super) fn fresh_name() -> Result<String, Error> {
    let mut number = [0; 8];
    rustix::rand::getrandom(&mut number, rustix::rand::GetRandomFlags::empty()).call("getrandom").map_err(failed)?;
    Ok(format!(".kiln-{:016x}", u64::from_ne_bytes(number)))
}

/// Gives the mounted files that can be changed by a process the content that the stage has in their place. Those are runtime
/// files in a directory that stays, but for the ones that are mounted at every isolation level.
///
/// # Errors
/// If the original cannot be saved.
pub(super) fn enter_files(
    switch: &Switch<'_>,
    layout: &Layout,
    log: Log<'_>,
    place: &Path,
    entered: &mut Entered,
) -> Result<(), Error> {
    let Ok(path) = EntryPath::parse(b"etc/hostname") else { return Ok(()) };
    let is_visible =
        path.parent().is_some_and(|dir| entered.absent.contains(&dir) || entered.directories.contains(&dir));
    if !is_visible || layout.at(&path) != Some(Fixed::MountedFile) {
        return Ok(());
    }
    let Ok(mut file) = open_file(switch.root_fd, &path, OFlags::RDWR) else { return Ok(()) };
    let saved = saved_name(&path);
    log(Record::File { path: path.as_bytes().to_vec(), saved: saved.clone() })?;
    save(&mut file, &saved_path(switch.work, &saved)?)?;
    let stage = at::open_root(place)?;
    if let Ok(mut from) = open_file(stage.as_fd(), &path, OFlags::RDONLY) {
        copy(&mut from, &mut file).map_err(|e| Error::inside("write", &path, e))?;
    }
    let stat = rustix::fs::fstat(&file).map_err(|e| Error::inside("fstat", &path, e))?;
    entered.files.insert(path, stamp(&stat));
    Ok(())
}

/// Gives a mounted file this content, and keeps its original one until the stage leaves.
///
/// # Errors
/// If it cannot be saved or written.
pub(super) fn replace_content(
    root: &Path,
    work: &Path,
    journal: &mut CrashJournal,
    path: &EntryPath,
    content: &[u8],
) -> sys::Result<()> {
    let full = root.join(path.as_path());
    let dir = sys::file::open_dir(root)?;
    let mut file = open_file(dir.as_fd(), path, OFlags::RDWR).said("open", &full)?;
    let failed = |e: Error| sys::Error::from_io("write", &full, &std::io::Error::other(e));
    if !journal.state().files.contains_key(path) {
        let saved = saved_name(path);
        journal.add(Record::File { path: path.as_bytes().to_vec(), saved: saved.clone() }).map_err(failed)?;
        save(&mut file, &saved_path(work, &saved).map_err(failed)?).map_err(failed)?;
    }
    file.set_len(0).said("ftruncate", &full)?;
    rustix::fs::seek(&file, rustix::fs::SeekFrom::Start(0)).said("lseek", &full)?;
    file.write_all(content).said("write", &full)
}

fn saved_name(path: &EntryPath) -> String {
    path.as_path().to_string_lossy().replace('/', "-")
}

/// Whether a process has changed a mounted file.
pub(super) fn is_changed(switch: &Switch<'_>, entered: &Entered, path: &EntryPath) -> bool {
    let Some(before) = entered.files.get(path) else { return false };
    let now = open_file(switch.root_fd, path, OFlags::RDONLY).and_then(rustix::fs::fstat);
    now.is_ok_and(|now| stamp(&now) != *before)
}

/// Gives mounted files their original content. What a process changed goes to `place`, if somebody needs it. Returns those files.
///
/// # Errors
/// If a file cannot be read or written.
pub(super) fn leave_files(
    switch: &Switch<'_>,
    state: &State,
    place: &Path,
    entered: Option<&Entered>,
) -> Result<BTreeSet<EntryPath>, Error> {
    let mut changed = BTreeSet::new();
    for (path, saved) in &state.files {
        let fail = |call| move |e: std::io::Error| Error::inside(call, path, e);
        let mut file = open_file(switch.root_fd, path, OFlags::RDWR).map_err(|e| fail("open")(e.into()))?;
        if entered.is_some_and(|entered| is_changed(switch, entered, path)) {
            let to = place.join(path.as_path());
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let to = rustix::fs::openat(CWD, &to, flags, Mode::RUSR | Mode::WUSR);
            copy(&mut file, &mut File::from(to.map_err(|e| fail("create")(e.into()))?)).map_err(fail("write"))?;
            changed.insert(path.clone());
        }
        let saved = saved_path(switch.work, saved)?;
        match File::open(&saved) {
            Ok(mut original) => copy(&mut original, &mut file).map_err(fail("write"))?,
            // It was not saved yet, so the file has its own content.
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
            Err(e) => return Err(Error::host("open", &saved, e)),
        }
        std::fs::remove_file(&saved).map_err(|e| Error::host("unlink", &saved, e))?;
    }
    Ok(changed)
}

fn saved_path(work: &Path, name: &str) -> Result<PathBuf, Error> {
    let dir = work.join("saved");
    std::fs::create_dir_all(&dir).map_err(|e| Error::host("mkdir", &dir, e))?;
    Ok(dir.join(name))
}

/// Copies a file beside and renames the copy: it is whole, or not there.
fn save(file: &mut File, to: &Path) -> Result<(), Error> {
    let beside = to.with_extension("new");
    let fail = |e| Error::host("write", to, e);
    copy(file, &mut File::create(&beside).map_err(fail)?).map_err(fail)?;
    std::fs::rename(&beside, to).map_err(fail)
}

/// Opens a regular file of a root filesystem, and nothing else.
fn open_file(root: BorrowedFd<'_>, path: &EntryPath, flags: OFlags) -> Result<File, Errno> {
    let meta = at::stat(root, path)?;
    if meta.is_none_or(|meta: Meta| meta.kind != Kind::File) {
        return Err(Errno::NOENT);
    }
    at::open(root, path, flags | OFlags::NONBLOCK).map(File::from)
}

/// Gives one file the content, owner, mode and modification time of another.
fn copy(from: &mut File, to: &mut File) -> std::io::Result<()> {
    let mut content = Vec::new();
    rustix::fs::seek(&*from, rustix::fs::SeekFrom::Start(0))?;
    (&mut *from).take(LARGEST_FILE + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST_FILE {
        return Err(Errno::FBIG.into());
    }
    let stat = rustix::fs::fstat(&*from)?;
    to.set_len(0)?;
    rustix::fs::seek(&*to, rustix::fs::SeekFrom::Start(0))?;
    to.write_all(&content)?;
    rustix::fs::fchown(&*to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&*to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    let last_modification = Timespec { tv_sec: stat.st_mtime, tv_nsec: nanos(stat.st_mtime_nsec) };
    let last_access = Timespec { tv_sec: 0, tv_nsec: libc::UTIME_OMIT };
    rustix::fs::futimens(&*to, &Timestamps { last_access, last_modification })?;
    Ok(())
}

/// What changes when a process writes to a file: files are dated by ticks, so a time alone may stay the same.
fn stamp(stat: &Stat) -> Stamp {
    [stat.st_ctime, stat.st_mtime, stat.st_size, nanos(stat.st_ctime_nsec), nanos(stat.st_mtime_nsec)]
}

fn nanos(nanos: u64) -> i64 {
    i64::try_from(nanos).unwrap_or(0)
}

/// Takes what a killed process had in the places of mounts back to where it belongs. What cannot be taken back is discarded with
/// the stage.
pub(super) fn undo_binds(switch: &Switch<'_>, state: &State) {
    for (target, source) in state.binds.iter().rev() {
        let is = |identity: (u64, u64)| {
            rustix::fs::statat(CWD, target, AtFlags::SYMLINK_NOFOLLOW)
                .is_ok_and(|stat| (stat.st_dev, stat.st_ino) == identity)
        };
        match source {
            Some(BindSource { path, identity }) if is(*identity) => {
                let _ = rustix::fs::renameat_with(CWD, target, CWD, path, RenameFlags::NOREPLACE);
            }
            Some(_) => {}
            None => remove_from_fixed(switch, state, target),
        }
    }
}

/// Removes a file that kiln wrote to one of the container's mounts, where it would stay.
fn remove_from_fixed(switch: &Switch<'_>, state: &State, target: &Path) {
    let Ok(inside) = target.strip_prefix(switch.root) else { return };
    let top = inside.iter().next().and_then(|name| EntryPath::root().join(name.as_encoded_bytes()).ok());
    if top.is_some_and(|top| state.fixed.contains(&top)) {
        let _ = rustix::fs::unlinkat(switch.root_fd, os(inside.as_os_str().as_encoded_bytes()), AtFlags::empty());
    }
}
