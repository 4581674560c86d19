//! The files that a call's arguments name, found inside the root of its process.
//!
//! An absolute path is resolved by the kernel below the process's root (`RESOLVE_IN_ROOT`). A relative one is resolved
//! below the folder it starts from, as long as it doesn't leave that; one that does (by `..`, or a link) is put behind the
//! name of that folder, which is checked to mean the same folder still. Magic links of `/proc` are never followed: they
//! would mean this process's files, and the mounts of the host.

use super::Call;
use crate::sys::file::by_number;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, fstat, open, openat, openat2, readlink};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

const PATH: OFlags = OFlags::PATH.union(OFlags::CLOEXEC);
const DIR: OFlags = PATH.union(OFlags::DIRECTORY);

impl Call<'_> {
    /// The file behind one of the process's descriptors.
    ///
    /// # Errors
    /// `EBADF` where there is none; `ESRCH` if the call doesn't wait any more.
    pub fn descriptor(&self, fd: i32) -> Result<OwnedFd, Errno> {
        let opened = match fd {
            libc::AT_FDCWD => open(self.proc("cwd"), PATH, Mode::empty()),
            0.. => open(self.proc(&format!("fd/{fd}")), PATH, Mode::empty()),
            _ => return Err(Errno::BADF),
        };
        self.alive()?;
        opened.map_err(|errno| if errno == Errno::NOENT { Errno::BADF } else { errno })
    }

    /// Where the process resolves a path: its root for an absolute one, otherwise one of its descriptors (or `AT_FDCWD`).
    ///
    /// # Errors
    /// As [`descriptor`](Self::descriptor).
    pub fn origin(&self, from: i32, path: &CStr) -> Result<Origin<'_>, Errno> {
        let start = match path.to_bytes().first() {
            None => return Err(Errno::NOENT),
            Some(b'/') => Start::Root(self.root()?),
            Some(_) => Start::Descriptor(from, self.descriptor(from)?),
        };
        Ok(Origin { call: self, start })
    }

    /// The file that a path means to the process, as [`Origin::find`].
    ///
    /// # Errors
    /// As [`origin`](Self::origin) and [`Origin::find`].
    pub fn find(&self, from: i32, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
        self.origin(from, path)?.find(path, follow)
    }

    /// The directory and name that a path means to the process, as [`Origin::parent`].
    ///
    /// # Errors
    /// As [`origin`](Self::origin) and [`Origin::parent`].
    pub fn parent(&self, from: i32, path: &CStr) -> Result<(OwnedFd, CString), Errno> {
        self.origin(from, path)?.parent(path)
    }

    pub(super) fn root(&self) -> Result<OwnedFd, Errno> {
        let root = open(self.proc("root"), DIR, Mode::empty());
        self.alive()?;
        match (root, self.kept()) {
            (Err(Errno::ACCESS), Some(kept)) => kept.root.try_clone().map_err(|_| Errno::MFILE),
            (root, _) => root,
        }
    }
}

/// Where a process resolves a path. To make one, this thread must be allowed to look into the process; the path is then resolved with
/// whatever credentials the thread has.
#[derive(Debug)]
pub struct Origin<'a> {
    call: &'a Call<'a>,
    start: Start,
}

#[derive(Debug)]
enum Start {
    Root(OwnedFd),
    /// The number of the descriptor, and what it is open for.
    Descriptor(i32, OwnedFd),
}

impl Origin<'_> {
    /// The file that a path means to the process; `follow` says whether a link at its end is followed. Nothing can be read or
    /// written by the descriptor (`O_PATH`).
    ///
    /// # Errors
    /// As the kernel has them for paths. `ELOOP` also for a magic link of `/proc`, and `ENOENT` for `/proc/self`: both are
    /// something else to the process, to which [`Answer::Continue`](super::Answer::Continue) leaves them.
    pub fn find(&self, path: &CStr, follow: bool) -> Result<OwnedFd, Errno> {
        self.open(path, if follow { PATH } else { PATH | OFlags::NOFOLLOW })
    }

    /// The directory that the last name of a path stands in, and that name, to which nothing need exist.
    ///
    /// # Errors
    /// As [`find`](Self::find); `EEXIST` for a path that ends in no name (`/`, `.` or `..`).
    pub fn parent(&self, path: &CStr) -> Result<(OwnedFd, CString), Errno> {
        let (dir, name) = split(path.to_bytes()).ok_or(Errno::EXIST)?;
        let [dir, name] = [dir, name].map(CString::new);
        let (dir, name) = (dir.map_err(|_| Errno::INVAL)?, name.map_err(|_| Errno::INVAL)?);
        Ok((self.open(&dir, DIR)?, name))
    }

    fn open(&self, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
        match &self.start {
            Start::Root(root) => in_root(root, path, flags),
            Start::Descriptor(from, start) => {
                let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
                match openat2(start, path, flags, Mode::empty(), resolve) {
                    Err(Errno::XDEV) => {
                        let root = self.call.root()?;
                        in_root(&root, &self.behind(start, *from, &root, path)?, flags)
                    }
                    done => done,
                }
            }
        }
    }

    /// A relative path behind the path of the directory it starts from, as the process sees that.
    fn behind(&self, start: &OwnedFd, from: i32, root: &OwnedFd, path: &CStr) -> Result<CString, Errno> {
        let call = self.call;
        let link = if from == libc::AT_FDCWD { call.proc("cwd") } else { call.proc(&format!("fd/{from}")) };
        let named =
            |link: PathBuf| readlink(link, Vec::new()).map(|text| PathBuf::from(OsStr::from_bytes(text.as_bytes())));
        let (dir, below) = (named(link)?, named(call.proc("root"))?);
        call.alive()?;
        let dir = Path::new("/").join(dir.strip_prefix(&below).map_err(|_| Errno::XDEV)?);
        let name = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(|_| Errno::INVAL);
        let found = in_root(root, &name(&dir)?, DIR)?;
        let identity = |fd: &OwnedFd| fstat(fd).map(|stat| (stat.st_dev, stat.st_ino));
        if identity(&found)? != identity(start)? {
            // It was renamed, or removed, or mounted over.
            return Err(Errno::XDEV);
        }
        name(&dir.join(OsStr::from_bytes(path.to_bytes())))
    }
}

fn in_root(root: &OwnedFd, path: &CStr, flags: OFlags) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    // A rename somewhere, by anybody, stops a resolution with `..` in it.
    for _ in 0..16 {
        match openat2(root, path, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// A path as the one of a folder and a name in it; `None` if it doesn't end in a name.
fn split(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = path.iter().rposition(|b| *b != b'/')? + 1;
    let path = path.get(..end)?;
    let (folder, name) = match path.iter().rposition(|b| *b == b'/') {
        None => (&b"."[..], path),
        Some(0) => (&b"/"[..], path.get(1..)?),
        Some(at) => (path.get(..at)?, path.get(at + 1..)?),
    };
    (!matches!(name, b"" | b"." | b"..")).then_some((folder, name))
}

/// Opens for reading or writing what an `O_PATH` descriptor means.
///
/// # Errors
/// As `open(2)`; `ELOOP` for a symbolic link.
pub fn reopen(file: impl AsFd, flags: OFlags) -> Result<OwnedFd, Errno> {
    openat(CWD, by_number(file), flags | OFlags::CLOEXEC, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_at_their_last_name() {
        for (path, parts) in [
            ("a", Some((".", "a"))),
            ("/a", Some(("/", "a"))),
            ("a/b", Some(("a", "b"))),
            ("/a//b//", Some(("/a/", "b"))),
            ("a/..", None),
            ("a/.", None),
            ("..", None),
            ("/", None),
            ("//", None),
            ("", None),
            ("...", Some((".", "..."))),
        ] {
            let expected = parts.map(|(folder, name)| (folder.as_bytes(), name.as_bytes()));
            assert_eq!(split(path.as_bytes()), expected, "{path}");
        }
    }
}
