//! Opens files whose names come from outside: from the command line, the environment, or a build context.
//!
//! Such a name may stand for anything. So nothing here waits for the other end of a named pipe, and what is opened must be a
//! regular file. In a context, which may be somebody else's work, links lead to files of the context only.

use super::{Error, Result, Said, file};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How every file is opened here.
const READ: OFlags = OFlags::RDONLY.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

/// Opens a regular file of this machine; links are followed.
///
/// # Errors
/// What the kernel says; of kind `InvalidInput` (`IsADirectory`) where it is no regular file.
pub fn open_regular(path: &Path) -> io::Result<File> {
    regular(rustix::fs::openat(CWD, path, READ, Mode::empty()))
}

/// Opens a file that the user named on the command line: a regular file, `/dev/null`, or by `/dev/stdin` or `/dev/fd/N` a
/// descriptor that the user's shell gave this process, which may be a pipe (`-f <(…)`).
///
/// # Errors
/// As [`open_regular`].
pub fn open_given(path: &Path) -> io::Result<File> {
    if !is_own_descriptor(path) && path != Path::new("/dev/null") {
        return open_regular(path);
    }
    // Without waiting, in case it is a named pipe that nobody writes to; its content may well be waited for.
    let opened = rustix::fs::openat(CWD, path, READ, Mode::empty())?;
    let flags = rustix::fs::fcntl_getfl(&opened)?;
    rustix::fs::fcntl_setfl(&opened, flags.difference(OFlags::NONBLOCK))?;
    Ok(File::from(opened))
}

/// Whether a path is one that shells give to commands for a pipe: it names a descriptor of this process.
pub fn is_own_descriptor(path: &Path) -> bool {
    let number = |prefix: &str| path.strip_prefix(prefix).ok()?.to_str()?.parse::<u32>().ok();
    path == Path::new("/dev/stdin") || number("/dev/fd").or_else(|| number("/proc/self/fd")).is_some()
}

/// Opens the regular file `name` of the directory `root` as a process with that root directory would: links, absolute ones and
/// `..` too, lead to files below `root` only.
///
/// # Errors
/// As [`open_regular`]; `NotFound` also for a link that leads out.
pub fn open_inside(root: impl AsFd, name: &Path) -> io::Result<File> {
    let opened = file::open_in_root(root, name, READ, Mode::empty());
    regular(opened.map_err(|e| e.errno))
}

/// All of an open file.
///
/// # Errors
/// Where it cannot be read; of kind `FileTooLarge` where it has more than `limit` bytes.
pub fn read_all(file: impl Read, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("it is larger than {limit} bytes")));
    }
    Ok(bytes)
}

/// The first part of a path below `root` that is a link to nothing below `root`.
pub fn broken_link(root: impl AsFd, name: &Path) -> Option<PathBuf> {
    let root = root.as_fd();
    let mut parts: Vec<&Path> = name.ancestors().filter(|part| !part.as_os_str().is_empty()).collect();
    parts.reverse();
    let open = |path: &Path, flags| file::open_in_root(root, path, OFlags::PATH | flags, Mode::empty());
    let is_link = |fd: OwnedFd| rustix::fs::fstat(fd).is_ok_and(|s| kind(&s) == FileType::Symlink);
    let broken =
        |part: &&&Path| open(part, OFlags::NOFOLLOW).is_ok_and(is_link) && open(part, OFlags::empty()).is_err();
    parts.iter().find(broken).map(|part| part.to_path_buf())
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn regular(opened: std::result::Result<OwnedFd, Errno>) -> io::Result<File> {
    let opened = opened.map_err(|errno| match errno {
        Errno::NXIO => not_regular(FileType::Socket),
        errno => errno.into(),
    })?;
    match kind(&rustix::fs::fstat(&opened)?) {
        FileType::RegularFile => Ok(File::from(opened)),
        other => Err(not_regular(other)),
    }
}

fn not_regular(kind: FileType) -> io::Error {
    let (error, what) = match kind {
        FileType::Directory => (io::ErrorKind::IsADirectory, "a directory"),
        FileType::Fifo => (io::ErrorKind::InvalidInput, "a named pipe"),
        FileType::Socket => (io::ErrorKind::InvalidInput, "a socket"),
        FileType::CharacterDevice | FileType::BlockDevice => (io::ErrorKind::InvalidInput, "a device"),
        _ => (io::ErrorKind::InvalidInput, "something else"),
    };
    io::Error::new(error, format!("it is {what}, not a regular file"))
}

/// How many links may lead to each other, as in the kernel.
const MAX_LINKS: usize = 40;

/// What `openat2` does with `RESOLVE_IN_ROOT`, one component after the other: for kernels before 5.6, and containers whose
/// seccomp profile does not know the call.
pub(super) fn open_in_root_by_steps(root: impl AsFd, path: &Path, flags: OFlags, mode: Mode) -> Result<OwnedFd> {
    const STEP: OFlags = OFlags::PATH.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
    let mut todo = names(path);
    let mut dirs: Vec<OwnedFd> = Vec::new();
    let mut links = 0;
    while let Some(name) = todo.pop() {
        let here = dirs.last().map_or(root.as_fd(), AsFd::as_fd);
        let last = todo.is_empty();
        match name.to_str() {
            Some("/") => dirs.clear(),
            Some("..") => drop(dirs.pop()),
            _ => {
                let found = rustix::fs::statat(here, &name, AtFlags::SYMLINK_NOFOLLOW).map(|s| kind(&s));
                let follow = !last || !flags.contains(OFlags::NOFOLLOW);
                if found == Ok(FileType::Symlink) && follow {
                    links += 1;
                    let target = rustix::fs::readlinkat(here, &name, Vec::new()).said("readlinkat", path)?;
                    todo.extend(names(Path::new(OsStr::from_bytes(target.as_bytes()))));
                    if links > MAX_LINKS {
                        return Err(Error::new("open", path, Errno::LOOP));
                    }
                } else if last {
                    return rustix::fs::openat(here, &name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, mode)
                        .said("open", path);
                } else {
                    dirs.push(
                        rustix::fs::openat(here, &name, STEP | OFlags::DIRECTORY, Mode::empty()).said("open", path)?,
                    );
                }
            }
        }
    }
    let here = dirs.last().map_or(root.as_fd(), AsFd::as_fd);
    rustix::fs::openat(here, ".", flags | OFlags::CLOEXEC, mode).said("open", path)
}

/// The components of a path, last one first; `/` stands for the root.
fn names(path: &Path) -> Vec<PathBuf> {
    let mut names: Vec<PathBuf> =
        path.components().map(|c| PathBuf::from(c.as_os_str())).filter(|c| c.as_os_str() != ".").collect();
    names.reverse();
    names
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::Dev;
    use std::fs;
    use std::os::unix::fs::symlink;

    struct Place(tempfile::TempDir);

    impl Place {
        /// A directory `context` with files and links, beside a file `secret`.
        fn new() -> Self {
            let place = Self(tempfile::tempdir().unwrap());
            fs::create_dir_all(place.path("context/sub")).unwrap();
            fs::write(place.path("secret"), "outside").unwrap();
            fs::write(place.path("context/file"), "inside").unwrap();
            for (link, target) in [
                ("near", "file"),
                ("absolute", "/file"),
                ("sub/up", "../file"),
                ("up", "../../../file"),
                ("chain", "sub/up"),
                ("out", "../secret"),
                ("proc", "/proc/self/environ"),
                ("host", place.path("secret").to_str().unwrap()),
                ("loop", "loop"),
                ("dir", ".."),
            ] {
                symlink(target, place.path("context").join(link)).unwrap();
            }
            place
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.path().join(name)
        }
    }

    fn text(mut file: File) -> String {
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn links_lead_to_files_inside_only() {
        let place = Place::new();
        let root = file::open_dir(&place.path("context")).unwrap();
        for name in ["file", "near", "absolute", "sub/up", "up", "chain", "dir/file", "sub/../file", "/file", "./near"]
        {
            assert_eq!(text(open_inside(&root, Path::new(name)).unwrap()), "inside", "{name}");
            assert_eq!(broken_link(&root, Path::new(name)), None, "{name}");
        }
        for name in ["out", "proc", "host", "loop", "../secret", "missing", "out/x"] {
            assert!(open_inside(&root, Path::new(name)).is_err(), "{name}");
        }
        let broken = |name: &str| broken_link(&root, Path::new(name));
        assert_eq!((broken("out"), broken("proc/x")), (Some("out".into()), Some("proc".into())));
        assert_eq!((broken("missing"), broken("../secret")), (None, None));
    }

    #[test]
    fn openat2_can_be_done_without() {
        let place = Place::new();
        let root = file::open_dir(&place.path("context")).unwrap();
        for flags in [OFlags::RDONLY, OFlags::PATH | OFlags::NOFOLLOW, OFlags::PATH | OFlags::DIRECTORY] {
            for name in [
                "file",
                "near",
                "absolute",
                "sub/up",
                "up",
                "chain",
                "dir",
                "dir/file",
                "sub",
                "sub/..",
                ".",
                "",
                "/",
                "out",
                "proc",
                "host",
                "loop",
                "../secret",
                "missing",
                "missing/x",
                "file/x",
                "out/x",
            ] {
                let found =
                    |fd: Result<OwnedFd>| fd.map(|fd| rustix::fs::fstat(fd).unwrap().st_ino).map_err(|e| e.errno);
                let name = Path::new(name);
                let want = found(file::open_in_root(&root, name, flags, Mode::empty()));
                let got = found(open_in_root_by_steps(&root, name, flags, Mode::empty()));
                assert_eq!(got, want, "{name:?} {flags:?}");
            }
        }
    }

    #[test]
    fn only_regular_files_are_opened_and_nothing_is_waited_for() {
        let place = Place::new();
        let root = file::open_dir(place.0.path()).unwrap();
        file::mknod_at(&root, Path::new("fifo"), FileType::Fifo, 0o600, Dev::default()).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(place.path("socket")).unwrap();
        for (name, said) in [("fifo", "a named pipe"), ("socket", "a socket"), ("context", "a directory")] {
            for opened in
                [open_regular(&place.path(name)), open_given(&place.path(name)), open_inside(&root, Path::new(name))]
            {
                assert!(opened.unwrap_err().to_string().contains(said), "{name}");
            }
        }
        assert!(open_regular(Path::new("/dev/null")).unwrap_err().to_string().contains("a device"));
        assert_eq!(open_regular(Path::new("/nowhere")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(text(open_regular(&place.path("context/near")).unwrap()), "inside");
    }

    #[test]
    fn a_descriptor_that_the_user_gives_may_be_a_pipe() {
        use std::io::Write as _;
        use std::os::fd::AsRawFd as _;
        let (reader, mut writer) = io::pipe().unwrap();
        let paths = ["/dev/fd", "/proc/self/fd"].map(|dir| Path::new(dir).join(reader.as_raw_fd().to_string()));
        assert!(paths.iter().all(|path| is_own_descriptor(path)) && is_own_descriptor(Path::new("/dev/stdin")));
        for other in ["/dev/fd", "/dev/fd/x", "/dev/fd/1/2", "/proc/1/fd/3", "dev/fd/3"] {
            assert!(!is_own_descriptor(Path::new(other)), "{other}");
        }
        let given = open_given(&paths[0]).unwrap();
        // It is waited for what comes later.
        let late = std::thread::spawn(move || {
            std::thread::sleep(std::time::Duration::from_millis(50));
            writer.write_all(b"late").unwrap();
        });
        assert_eq!(text(given), "late");
        late.join().unwrap();
        assert_eq!(text(open_given(Path::new("/dev/null")).unwrap()), "");
    }
}
