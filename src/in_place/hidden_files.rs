//! Files that no process is to see while a stage stands in `/`, where nothing else keeps it from them: root may read
//! everything, so that they are in this process's memory alone for as long.
//!
//! What is lost with this process is lost: a kill that can't be caught takes them along.

use crate::snapshot::Error;
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The largest file of credentials, in bytes.
const LARGEST: u64 = 16 << 20;

/// Files, and what became of them. Clones are the same ones.
#[derive(Debug, Clone, Default)]
pub struct HiddenFiles(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    files: Vec<PathBuf>,
    /// Whether those that can't be taken away may stay.
    forced: bool,
    now: Mutex<Now>,
}

#[derive(Debug, Default)]
struct Now {
    absent: Vec<HiddenFile>,
    /// Whether nothing is to go away any more.
    over: bool,
}

/// A file that is here and nowhere else.
struct HiddenFile {
    path: PathBuf,
    /// Its folder, wherever that is moved to.
    dir: OwnedFd,
    name: OsString,
    content: Vec<u8>,
    stat: Stat,
    /// Its folder's times.
    times: Timestamps,
}

/// Without the content.
impl std::fmt::Debug for HiddenFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HiddenFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// The files are away; dropped, they are back.
#[derive(Debug)]
pub(super) struct HiddenGuard(HiddenFiles);

impl HiddenFiles {
    /// These files, where there are any. With `forced`, one that can't be taken away stays; else no stage can stand.
    pub fn new(files: impl IntoIterator<Item = PathBuf>, forced: bool) -> Self {
        let files: BTreeSet<PathBuf> = files.into_iter().collect();
        Self(Arc::new(Inner { files: files.into_iter().collect(), forced, now: Mutex::default() }))
    }

    /// Takes them away.
    ///
    /// # Errors
    /// [`Error::Exposed`] for one that stays; all are back then.
    pub(super) fn take(&self) -> Result<HiddenGuard, Error> {
        let away = HiddenGuard(self.clone());
        // Whoever drops what is away needs the lock, which goes first.
        let mut now = self.lock();
        if now.over {
            return Err(Error::host("unlink", Path::new("/"), Errno::CANCELED));
        }
        for file in &self.0.files {
            // Links are followed: what they lead to has the content.
            let path = match file.canonicalize() {
                Ok(path) => path,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                Err(e) => return Err(exposed(file, e.to_string())),
            };
            match take_one(&path) {
                Ok(one) => now.absent.extend(one),
                Err(_) if self.0.forced => {}
                Err(why) => return Err(exposed(file, why)),
            }
        }
        drop(now);
        Ok(away)
    }

    /// Puts back for good what is away, wherever its folders are now. For a process that is about to end in the middle of
    /// everything, after all others have ended; otherwise it is done when a stage is taken away.
    ///
    /// # Errors
    /// The first file that couldn't be written.
    pub fn put_back_for_good(&self) -> Result<(), Error> {
        let mut now = self.lock();
        now.over = true;
        now.put_back()
    }

    fn lock(&self) -> MutexGuard<'_, Now> {
        self.0.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Now {
    /// Puts everything back, whatever becomes of one file. Under the lock, so that nobody ends this process meanwhile.
    fn put_back(&mut self) -> Result<(), Error> {
        let put = self.absent.drain(..).map(|one| put_one(&one).map_err(|e| Error::host("write", &one.path, e)));
        put.fold(Ok(()), Result::and)
    }
}

impl HiddenGuard {
    /// Puts the files back.
    ///
    /// # Errors
    /// The first that couldn't be written.
    pub(super) fn end(self) -> Result<(), Error> {
        self.0.lock().put_back()
    }
}

impl Drop for HiddenGuard {
    fn drop(&mut self) {
        // Who wants to know whether it failed has ended it.
        let _ = self.0.lock().put_back();
    }
}

fn exposed(path: &Path, why: String) -> Error {
    Error::Exposed { path: path.to_owned(), why }
}

/// Takes a file away; nothing for what isn't one: a device or a pipe gives its bytes once.
fn take_one(path: &Path) -> Result<Option<HiddenFile>, String> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(None) };
    let said = |e: Errno| std::io::Error::from(e).to_string();
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
    let times = times_of(&rustix::fs::fstat(&dir).map_err(said)?);
    rustix::fs::unlinkat(&dir, name, AtFlags::empty()).map_err(|e| match e {
        Errno::BUSY => "something is mounted on it".into(),
        e => said(e),
    })?;
    Ok(Some(HiddenFile { path: path.to_owned(), dir, name: name.to_owned(), content, stat, times }))
}

/// Writes a file beside and renames it, so that it is whole wherever it is.
fn put_one(absent: &HiddenFile) -> Result<(), Errno> {
    let HiddenFile { dir, name, content, stat, times, .. } = absent;
    let (mut file, beside) = new_beside(dir, name)?;
    file.write_all(content).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
    rustix::fs::fchown(&file, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    rustix::fs::fchmod(&file, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
    rustix::fs::futimens(&file, &times_of(stat))?;
    match rustix::fs::renameat(dir, &beside, dir, name) {
        // A process made a folder of that name: that steps aside.
        Err(Errno::ISDIR) => rustix::fs::renameat_with(dir, &beside, dir, name, RenameFlags::EXCHANGE)?,
        renamed => renamed?,
    }
    rustix::fs::futimens(dir.as_fd(), times)
}

/// A new file, by a name that a process may have guessed but can't have taken.
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

fn times_of(stat: &Stat) -> Timestamps {
    let time = |secs, nanos: u64| Timespec { tv_sec: secs, tv_nsec: i64::try_from(nanos).unwrap_or(0) };
    Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

    #[test]
    fn files_go_and_come_back_as_they_were() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir(at("data")).unwrap();
        fs::write(at("data/token"), "hush").unwrap();
        fs::set_permissions(at("data/token"), fs::Permissions::from_mode(0o640)).unwrap();
        symlink("data/token", at("link")).unwrap();
        let before = (fs::metadata(at("data/token")).unwrap(), fs::metadata(at("data")).unwrap());
        let withheld = HiddenFiles::new([at("link"), at("data/token"), at("none"), at("data")], false);
        let away = withheld.take().unwrap();
        assert!(!at("data/token").exists() && at("data").exists());
        // The folder is renamed, and somebody has taken the name.
        fs::rename(at("data"), at("moved")).unwrap();
        fs::write(at("moved/token"), "planted").unwrap();
        away.end().unwrap();
        let after = fs::metadata(at("moved/token")).unwrap();
        assert_eq!(fs::read(at("moved/token")).unwrap(), b"hush");
        assert_eq!((after.mode(), after.mtime_nsec()), (before.0.mode(), before.0.mtime_nsec()));
        assert_eq!(fs::metadata(at("moved")).unwrap().mtime_nsec(), before.1.mtime_nsec());
        assert_eq!(fs::read_dir(at("moved")).unwrap().count(), 1);
        assert!(!format!("{withheld:?}").contains("hush"));
    }

    #[test]
    fn what_cannot_be_taken_away_is_told_and_the_rest_is_back() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::write(at("a"), "a").unwrap();
        fs::write(at("b"), "b").unwrap();
        fs::hard_link(at("b"), at("c")).unwrap();
        let refused = HiddenFiles::new([at("a"), at("b")], false).take().unwrap_err();
        assert!(matches!(&refused, Error::Exposed { path, .. } if *path == at("b")), "{refused}");
        assert_eq!(fs::read(at("a")).unwrap(), b"a");
        let away = HiddenFiles::new([at("a"), at("b")], true).take().unwrap();
        assert!(!at("a").exists() && at("b").exists());
        drop(away);
        assert!(at("a").exists());
    }

    #[test]
    fn a_folder_in_its_place_steps_aside() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "x").unwrap();
        let withheld = HiddenFiles::new([file.clone()], false);
        let away = withheld.take().unwrap();
        fs::create_dir_all(file.join("deep")).unwrap();
        withheld.put_back_for_good().unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"x");
        assert!(withheld.take().is_err(), "nothing goes away after that");
        drop(away);
        assert_eq!(fs::read(&file).unwrap(), b"x");
    }
}
