//! Files that no RUN may see, on kernels where Landlock cannot keep them from it: credentials.
//!
//! Root may read everything, so these files are removed while a stage is switched in, and written again afterwards. In between they
//! exist in this process's memory, into which a RUN cannot look, and in a [copy](super::hidden_copy) that the supervisor has.

use super::hidden_copy::HiddenCopy;
use crate::snapshot::Error;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest file of credentials, in bytes.
const LARGEST: u64 = 16 << 20;

/// The files, and whether they are hidden. Clones are the same.
#[derive(Debug, Clone, Default)]
pub struct HiddenFiles(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Vec<PathBuf>,
    /// Whether a file that cannot be removed may stay.
    forced: bool,
    /// What the supervisor restores if this process is killed.
    copy: Option<HiddenCopy>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    hidden: Vec<HiddenFile>,
    /// Whether the files have been put back for good.
    finished: bool,
}

/// A file that was removed.
pub(super) struct HiddenFile {
    pub(super) path: PathBuf,
    /// Its directory, wherever that is moved to.
    pub(super) dir: OwnedFd,
    pub(super) name: OsString,
    pub(super) content: Vec<u8>,
    pub(super) metadata: Metadata,
    /// Those of its directory. Only the times are restored.
    pub(super) directory: Metadata,
}

/// Mode, owner and times.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Metadata {
    mode: u32,
    uid: u32,
    gid: u32,
    accessed: (i64, i64),
    modified: (i64, i64),
}

/// Without the content.
impl std::fmt::Debug for HiddenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HiddenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The files are hidden; dropping this puts them back.
#[derive(Debug)]
pub(super) struct HiddenGuard(HiddenFiles);

impl HiddenFiles {
    /// These files, as far as they exist; while they are hidden, they are in `copy` as well. With `forced`, a file that cannot be
    /// removed stays visible; otherwise it is an error to hide them.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, forced: bool, copy: Option<HiddenCopy>) -> Self {
        let files: BTreeSet<PathBuf> = files.into_iter().collect();
        Self(Arc::new(Inner { files: files.into_iter().collect(), forced, copy, state: Mutex::default() }))
    }

    /// Hides the files.
    ///
    /// # Errors
    /// [`Error::Exposed`] for one that cannot be removed. The others are back then.
    pub(super) fn take(&self) -> Result<HiddenGuard, Error> {
        let guard = HiddenGuard(self.clone());
        // Dropping the guard needs this lock. Locals are dropped in reverse order, so the lock goes first.
        let mut state = self.lock();
        if state.finished {
            return Err(Error::host("unlink", Path::new("/"), Errno::CANCELED));
        }
        for file in &self.0.files {
            // Links are followed: the file that one leads to has the content.
            let path = match file.canonicalize() {
                Ok(path) => path,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(exposed(file, e.to_string())),
            };
            match self.hide(&path) {
                Ok(hidden) => state.hidden.extend(hidden),
                Err(_) if self.0.forced => {}
                Err(why) => return Err(exposed(file, why)),
            }
        }
        drop(state);
        Ok(guard)
    }

    /// Removes a file; nothing if it is not a regular one. A device or a pipe gives its bytes only once.
    fn hide(&self, path: &Path) -> Result<Option<HiddenFile>, String> {
        let Some(hidden) = read(path)? else { return Ok(None) };
        if let Some(copy) = &self.0.copy {
            copy.add(&hidden).map_err(|e| e.to_string())?;
        }
        rustix::fs::unlinkat(&hidden.dir, &hidden.name, AtFlags::empty()).map_err(|e| match e {
            Errno::BUSY => "something is mounted on it".into(),
            e => said(e),
        })?;
        Ok(Some(hidden))
    }

    /// Puts the files back for good, wherever their directories are now. For a process that is about to exit in the middle of a build,
    /// after the RUN's processes have ended.
    ///
    /// # Errors
    /// The first file that could not be written.
    pub fn put_back_for_good(&self) -> Result<(), Error> {
        let mut state = self.lock();
        state.finished = true;
        self.put_back(&mut state)
    }

    /// Puts all files back, whatever becomes of one of them. The lock is held, so that this process does not exit meanwhile.
    fn put_back(&self, state: &mut State) -> Result<(), Error> {
        let fail = |file: &HiddenFile, e| Error::host("write", &file.path, e);
        let written = state.hidden.drain(..).map(|file| put_back(&file).map_err(|e| fail(&file, e)));
        let written = written.fold(Ok(()), Result::and);
        if let (Ok(()), Some(copy)) = (&written, &self.0.copy) {
            // If that fails, the files are written once more, as they were.
            let _ = copy.clear();
        }
        written
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl HiddenGuard {
    /// Puts the files back.
    ///
    /// # Errors
    /// The first that could not be written.
    pub(super) fn end(self) -> Result<(), Error> {
        self.0.put_back(&mut self.0.lock())
    }
}

impl Drop for HiddenGuard {
    fn drop(&mut self) {
        // Whoever wants to know of a failure calls `end`.
        let _ = self.0.put_back(&mut self.0.lock());
    }
}

fn exposed(path: &Path, why: String) -> Error {
    Error::Exposed { path: path.to_owned(), why }
}

fn said(errno: Errno) -> String {
    std::io::Error::from(errno).to_string()
}

fn read(path: &Path) -> Result<Option<HiddenFile>, String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let dir = rustix::fs::openat(CWD, parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(said)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::openat(&dir, name, flags, Mode::empty()).map_err(said)?);
    let stat = rustix::fs::fstat(&file).map_err(said)?;
    if stat.st_mode & libc::S_IFMT != libc::S_IFREG {
        return Ok(None);
    }
    if stat.st_nlink > 1 {
        return Err("it has other names (hard links)".into());
    }
    let mut content = Vec::new();
    file.take(LARGEST + 1).read_to_end(&mut content).map_err(|e| e.to_string())?;
    if content.len() as u64 > LARGEST {
        return Err(format!("it is larger than {} MiB", LARGEST >> 20));
    }
    let directory = Metadata::of(&rustix::fs::fstat(&dir).map_err(said)?);
    let (path, name, metadata) = (path.to_owned(), name.to_owned(), Metadata::of(&stat));
    Ok(Some(HiddenFile { path, dir, name, content, metadata, directory }))
}

/// Writes a file under another name and renames it, so that it is complete whenever it is there.
pub(super) fn put_back(hidden: &HiddenFile) -> Result<(), Errno> {
    let HiddenFile { dir, name, content, metadata, directory, .. } = hidden;
    let (mut file, temporary) = new_beside(dir, name)?;
    file.write_all(content).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(metadata.uid)), Some(Gid::from_raw(metadata.gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(metadata.mode & 0o7777))?;
    rustix::fs::futimens(&file, &metadata.times())?;
    match rustix::fs::renameat(dir, &temporary, dir, name) {
        // A process made a directory of that name: it gets the temporary one.
        Err(Errno::ISDIR) => rustix::fs::renameat_with(dir, &temporary, dir, name, RenameFlags::EXCHANGE)?,
        renamed => renamed?,
    }
    rustix::fs::futimens(dir, &directory.times())
}

/// A new file. A process may know the name that it gets, but not have taken it.
fn new_beside(dir: &OwnedFd, name: &OsStr) -> Result<(File, OsString), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut number = 0_u64;
    loop {
        let mut beside = OsString::from(format!(".kiln-{number}-"));
        beside.push(name);
        match rustix::fs::openat(dir, &beside, flags, Mode::from_raw_mode(0o600)) {
            Err(Errno::EXIST) => number += 1,
            made => return made.map(|fd| (File::from(fd), beside)),
        }
    }
}

impl Metadata {
    fn of(stat: &Stat) -> Self {
        let time = |secs, nanos: u64| (secs, i64::try_from(nanos).unwrap_or(0));
        Self {
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            accessed: time(stat.st_atime, stat.st_atime_nsec),
            modified: time(stat.st_mtime, stat.st_mtime_nsec),
        }
    }

    fn times(&self) -> Timestamps {
        let time = |(tv_sec, tv_nsec)| Timespec { tv_sec, tv_nsec };
        Timestamps { last_access: time(self.accessed), last_modification: time(self.modified) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn files_are_hidden_and_put_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/token"), "hush").unwrap();
        fs::set_permissions(at("data/token"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("data/token", at("link")).unwrap();
        let before = (fs::metadata(at("data/token")).unwrap(), fs::metadata(at("data")).unwrap());
        let hidden = HiddenFiles::new([at("link"), at("data/token"), at("none"), at("data")], false, None);
        let guard = hidden.take().unwrap();
        assert!(!at("data/token").exists() && at("data").exists());
        // The directory is renamed, and a process has taken the name.
        fs::rename(at("data"), at("moved")).unwrap();
        fs::write(at("moved/token"), "planted").unwrap();
        guard.end().unwrap();
        let after = fs::metadata(at("moved/token")).unwrap();
        assert_eq!(fs::read(at("moved/token")).unwrap(), b"hush");
        assert_eq!((after.mode(), after.mtime_nsec()), (before.0.mode(), before.0.mtime_nsec()));
        assert_eq!(fs::metadata(at("moved")).unwrap().mtime_nsec(), before.1.mtime_nsec());
        assert_eq!(fs::read_dir(at("moved")).unwrap().count(), 1);
        assert!(!format!("{hidden:?}").contains("hush"));
    }

    #[test]
    fn a_file_that_cannot_be_hidden_is_an_error_and_the_others_are_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "a").unwrap();
        fs::write(at("b"), "b").unwrap();
        fs::hard_link(at("b"), at("c")).unwrap();
        let refused = HiddenFiles::new([at("a"), at("b")], false, None).take().unwrap_err();
        assert!(matches!(&refused, Error::Exposed { path, .. } if *path == at("b")), "{refused}");
        assert_eq!(fs::read(at("a")).unwrap(), b"a");
        let guard = HiddenFiles::new([at("a"), at("b")], true, None).take().unwrap();
        assert!(!at("a").exists() && at("b").exists());
        drop(guard);
        assert!(at("a").exists());
    }

    #[test]
    fn a_directory_in_its_place_is_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let hidden = HiddenFiles::new([file.clone()], false, None);
        let guard = hidden.take().unwrap();
        fs::create_dir_all(file.join("deep")).unwrap();
        hidden.put_back_for_good().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert!(hidden.take().is_err(), "nothing is hidden after that");
        drop(guard);
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
