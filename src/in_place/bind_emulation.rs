//! What takes a mount's place: a file or folder is renamed to where the process looks for it, what stood there is set aside,
//! and afterwards both go back. The times of the folders around stay what the process makes of them.
//!
//! No process runs while this is done, so that nothing changes between two of its calls.

use crate::sys::{Error, Result, Said, file, tree};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, RenameFlags, Stat, Timespec, Timestamps, Uid};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::Write as _;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// Everything that is in another place for one process; dropped, it goes back.
#[derive(Debug)]
pub(super) struct BindEmulation<'a> {
    root: OwnedFd,
    /// An empty folder on the same file system, for what is set aside; empty again in the end.
    folder: PathBuf,
    /// The names in the root that nothing is put below.
    closed: &'a BTreeSet<Vec<u8>>,
    /// What was done, in order.
    done: Vec<Step>,
    count: usize,
    over: bool,
}

/// A thing that is to be undone.
#[derive(Debug)]
enum Step {
    /// Something stands in the place of a name.
    Swapped {
        dir: OwnedFd,
        name: OsString,
        /// Where it goes back to, and whether that is a folder; nowhere if it is to be removed.
        back: Option<(PathBuf, bool)>,
        /// Where what stood there is.
        aside: Option<PathBuf>,
    },
    /// A file was made where it is shown.
    Written { dir: OwnedFd, name: OsString },
    /// A folder was made on the way.
    Made { dir: OwnedFd, name: OsString },
}

impl<'a> BindEmulation<'a> {
    /// None yet. `folder` is made unless it is there, as it stays; it must be on the file system of `root`, and out of reach
    /// for processes. Links of an image may lead to the names `closed`, too, as they are in the same root: that is refused.
    pub(super) fn new(root: &Path, folder: &Path, closed: &'a BTreeSet<Vec<u8>>) -> Result<Self> {
        match std::fs::DirBuilder::new().mode(0o700).create(folder) {
            // What is in it, a killed process left.
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => clear(folder)?,
            made => made.said("mkdir", folder)?,
        }
        let mark = folder.join(MARK);
        std::fs::File::create_new(&mark).said("create", &mark)?;
        let root = file::open_dir(root)?;
        Ok(Self { root, folder: folder.into(), closed, done: Vec::new(), count: 0, over: false })
    }

    /// Shows a file with this content.
    pub(super) fn file(&mut self, at: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let path = self.fresh();
        let mut made = std::fs::File::create_new(&path).said("create", &path)?;
        made.write_all(content).said("write", &path)?;
        give(&made, owner, mode, &path)?;
        match self.swap(at, &path, None) {
            Err(e) if e.errno == Errno::XDEV => self.write(at, content, mode, owner).map_err(|other| {
                // Something stands there that can't be set aside.
                if other.errno == Errno::EXIST { e } else { other }
            }),
            done => done,
        }
    }

    /// Writes a file on a file system of the container's own (`/dev`), which nothing can be renamed to.
    fn write(&mut self, at: &Path, content: &[u8], mode: u32, owner: (u32, u32)) -> Result<()> {
        let (dir, name) = self.place(at)?;
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
        self.swap(at, &path, None)
    }

    /// Shows what stands at `path` in the folder `tree`, or all of it; links stay inside. It is back there afterwards.
    pub(super) fn tree(&mut self, at: &Path, tree: &Path, path: &Path) -> Result<()> {
        let root = file::open_dir(tree)?;
        let inside = path.strip_prefix("/").unwrap_or(path);
        let found = file::open_in_root(&root, inside, OFlags::PATH, Mode::empty())?;
        let from = file::path_of(&found)?;
        let is_dir = is_folder(&rustix::fs::fstat(&found).said("fstat", &from)?);
        self.swap(at, &from, Some((from.clone(), is_dir)))
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

    /// A path in the folder that nothing has.
    fn fresh(&mut self) -> PathBuf {
        self.count += 1;
        self.folder.join(self.count.to_string())
    }

    fn stat(&self, at: &Path) -> Result<Option<Stat>> {
        match file::open_in_root(&self.root, at, OFlags::PATH, Mode::empty()) {
            Ok(found) => rustix::fs::fstat(found).said("fstat", at).map(Some),
            Err(e) if e.errno == Errno::NOENT => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Lets what is at `from` stand at `at`.
    fn swap(&mut self, at: &Path, from: &Path, back: Option<(PathBuf, bool)>) -> Result<()> {
        let (dir, name) = self.place(at)?;
        let before = times(&dir)?;
        let aside = self.fresh();
        let aside = match rustix::fs::renameat(&dir, &name, CWD, &aside) {
            Ok(()) => Some(aside),
            Err(Errno::NOENT) => None,
            Err(errno) => return Err(Error { call: "rename", path: Some(at.into()), errno }),
        };
        // Known before it is done, so that the original comes back whatever happens.
        let kept = reopened(&dir)?;
        self.done.push(Step::Swapped { dir: kept, name: name.clone(), back, aside });
        rustix::fs::renameat_with(CWD, from, &dir, &name, RenameFlags::NOREPLACE).said("rename", at)?;
        set_times(&dir, before, at)
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

    /// Fails for a name that is closed, or in a folder of one.
    fn refuse_closed(&self, dir: &OwnedFd, name: &OsStr, at: &Path) -> Result<()> {
        let path = file::path_of(dir)?.join(name);
        let first = path.strip_prefix(file::path_of(&self.root)?).ok().and_then(|inside| inside.iter().next());
        match first {
            Some(first) if !self.closed.contains(first.as_bytes()) => Ok(()),
            _ => Err(Error::new("rename", at, Errno::ACCESS)),
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
        clear(&self.folder)
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
            Step::Swapped { dir, name, back, aside } => {
                let before = times(&dir)?;
                // Something of another kind that the process put there isn't what it got: it goes, and nothing comes back.
                let is_same = |is_dir| {
                    let now = rustix::fs::statat(&dir, &name, AtFlags::SYMLINK_NOFOLLOW);
                    now.is_ok_and(|now| is_folder(&now) == is_dir && !is_link(&now))
                };
                let to = back.filter(|(_, is_dir)| is_same(*is_dir)).map_or_else(|| self.fresh(), |(to, _)| to);
                let gone = match rustix::fs::renameat(&dir, &name, CWD, &to) {
                    // The process took it away.
                    Err(Errno::NOENT) => Ok(()),
                    done => done.said("rename", Path::new(&name)),
                };
                let returned = match aside {
                    Some(aside) => rustix::fs::renameat(CWD, &aside, &dir, &name).said("rename", Path::new(&name)),
                    None => Ok(()),
                };
                gone.and(returned).and(set_times(&dir, before, Path::new(&name)))
            }
        }
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

/// What is in the folder as long as a process runs.
const MARK: &str = "running";

/// Whether a process runs whose folder this is, or did when its kiln was killed.
pub(super) fn is_in_use(folder: &Path) -> bool {
    folder.join(MARK).exists()
}

/// Removes whatever is in a folder, the mark last.
fn clear(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir(folder).said("read", folder)? {
        let name = entry.said("read", folder)?.file_name();
        if name != MARK {
            tree::remove(CWD, &folder.join(name))?;
        }
    }
    tree::remove(CWD, &folder.join(MARK))
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
mod tests {
    use super::*;
    use std::fs;

    struct Place(tempfile::TempDir, BTreeSet<Vec<u8>>);

    impl Place {
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap(), [b"kiln".to_vec()].into());
            for dir in ["root/etc", "root/kiln/store", "kiln", "cache/sub"] {
                fs::create_dir_all(place.at(dir)).unwrap();
            }
            fs::write(place.at("root/etc/hosts"), "own").unwrap();
            fs::write(place.at("cache/sub/f"), "kept").unwrap();
            std::os::unix::fs::symlink("../etc/hosts", place.at("root/etc/link")).unwrap();
            place
        }

        fn at(&self, path: &str) -> PathBuf {
            self.0.path().join(path)
        }

        fn swaps(&self) -> BindEmulation<'_> {
            BindEmulation::new(&self.at("root"), &self.at("kiln/s"), &self.1).unwrap()
        }

        fn owner(&self) -> (u32, u32) {
            (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw())
        }
    }

    #[test]
    fn everything_goes_back() {
        let place = Place::new();
        let before = fs::metadata(place.at("root/etc")).unwrap().modified().unwrap();
        let mut swaps = place.swaps();
        swaps.file(Path::new("/etc/link"), b"shown", 0o600, place.owner()).unwrap();
        swaps.file(Path::new("/etc/new"), b"secret", 0o400, place.owner()).unwrap();
        swaps.tree(Path::new("/var/cache/x"), &place.at("cache"), Path::new("sub")).unwrap();
        swaps.empty(Path::new("/etc/tmp")).unwrap();
        assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"shown");
        assert_eq!(fs::read(place.at("root/etc/new")).unwrap(), b"secret");
        fs::write(place.at("root/var/cache/x/g"), "new").unwrap();
        fs::write(place.at("root/etc/tmp/left"), "").unwrap();
        swaps.end().unwrap();
        assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"own");
        assert!(!place.at("root/etc/new").exists() && !place.at("root/etc/tmp").exists());
        assert!(!place.at("root/var").exists());
        assert_eq!(fs::read_dir(place.at("kiln/s")).unwrap().count(), 0);
        assert_eq!(fs::read(place.at("cache/sub/g")).unwrap(), b"new");
        assert_eq!(fs::read(place.at("cache/sub/f")).unwrap(), b"kept");
        assert_eq!(fs::metadata(place.at("root/etc")).unwrap().modified().unwrap(), before);
    }

    #[test]
    fn what_a_process_did_around_stays() {
        let place = Place::new();
        let mut swaps = place.swaps();
        swaps.file(Path::new("/run/secrets/s"), b"x", 0o400, place.owner()).unwrap();
        swaps.file(Path::new("/etc/hosts"), b"x", 0o400, place.owner()).unwrap();
        fs::remove_file(place.at("root/run/secrets/s")).unwrap();
        fs::write(place.at("root/run/pid"), "1").unwrap();
        fs::rename(place.at("root/etc/hosts"), place.at("root/etc/moved")).unwrap();
        swaps.end().unwrap();
        assert!(!place.at("root/run/secrets").exists());
        assert!(place.at("root/run/pid").exists());
        assert_eq!(fs::read(place.at("root/etc/hosts")).unwrap(), b"own");
    }

    #[test]
    fn a_working_directory_is_made() {
        let place = Place::new();
        let mut swaps = place.swaps();
        swaps.folder(Path::new("/srv/app"), place.owner()).unwrap();
        swaps.end().unwrap();
        assert!(place.at("root/srv/app").is_dir());
    }

    #[test]
    fn links_of_an_image_lead_to_nothing_that_is_closed() {
        let place = Place::new();
        for (link, target) in [("root/x", "/kiln"), ("root/y", "kiln/store"), ("root/etc/z", "../kiln/new")] {
            std::os::unix::fs::symlink(target, place.at(link)).unwrap();
        }
        let mut swaps = place.swaps();
        for at in ["/kiln", "/kiln/new", "/x", "/x/git", "/x/deep/er", "/y", "/y/blobs", "/etc/z/a"] {
            let errors = [
                swaps.file(Path::new(at), b"evil", 0o755, place.owner()),
                swaps.empty(Path::new(at)),
                swaps.tree(Path::new(at), &place.at("cache"), Path::new("")),
            ];
            assert!(errors.iter().all(Result::is_err), "{at}: {errors:?}");
        }
        for at in ["/x/work", "/kiln/work", "/y/a/b"] {
            assert!(swaps.folder(Path::new(at), place.owner()).is_err(), "{at}");
        }
        swaps.end().unwrap();
        assert_eq!(fs::read_dir(place.at("root/kiln")).unwrap().count(), 1);
        assert_eq!(fs::read_dir(place.at("root/kiln/store")).unwrap().count(), 0);
        assert!(place.at("cache/sub/f").exists());
    }

    #[test]
    fn nothing_of_another_kind_comes_back() {
        let place = Place::new();
        let mut swaps = place.swaps();
        swaps.tree(Path::new("/c"), &place.at("cache"), Path::new("")).unwrap();
        fs::rename(place.at("root/c"), place.at("root/moved")).unwrap();
        std::os::unix::fs::symlink("/kiln/home", place.at("root/c")).unwrap();
        swaps.end().unwrap();
        assert!(place.at("cache").symlink_metadata().is_err() && place.at("root/c").symlink_metadata().is_err());
        assert!(place.at("root/moved/sub/f").exists() && !is_in_use(&place.at("kiln/s")));
    }
}
