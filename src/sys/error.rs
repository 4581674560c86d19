//! A failed system call.

use rustix::io::Errno;
use std::io;
use std::path::{Path, PathBuf};

/// The result of a system call.
pub type Result<T> = std::result::Result<T, Error>;

/// A system call that failed: its name, the path it was about, and why.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{call}{}: {}", shown(path.as_deref()), io::Error::from(*errno))]
pub struct Error {
    /// The call, as its manual page names it.
    pub call: &'static str,
    /// What it was about.
    pub path: Option<PathBuf>,
    /// Why.
    pub errno: Errno,
}

impl Error {
    /// A call that failed on a path.
    pub fn new(call: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        Self { call, path: Some(path.into()), errno }
    }

    /// From the standard library's error; one that isn't the kernel's becomes `EIO`.
    pub fn from_io(call: &'static str, path: impl Into<PathBuf>, error: &io::Error) -> Self {
        Self::new(call, path, Errno::from_io_error(error).unwrap_or(Errno::IO))
    }

    /// Whether the thing isn't there.
    pub fn is_not_found(&self) -> bool {
        self.errno == Errno::NOENT
    }

    /// Whether the thing is there already.
    pub fn is_exists(&self) -> bool {
        self.errno == Errno::EXIST
    }

    /// Whether it was refused for want of rights.
    pub fn is_denied(&self) -> bool {
        matches!(self.errno, Errno::PERM | Errno::ACCESS)
    }
}

impl From<Error> for io::Error {
    fn from(error: Error) -> Self {
        Self::new(io::Error::from(error.errno).kind(), error)
    }
}

/// Gives a call's bare result its name and its path: `unlinkat(…).said("unlinkat", path)?`.
pub trait Said<T> {
    /// Names the call and the path.
    fn said(self, call: &'static str, path: impl AsRef<Path>) -> Result<T>;
    /// Names the call, where no path is involved.
    fn call(self, call: &'static str) -> Result<T>;
}

impl<T> Said<T> for std::result::Result<T, Errno> {
    fn said(self, call: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|errno| Error::new(call, path.as_ref(), errno))
    }

    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|errno| Error { call, path: None, errno })
    }
}

impl<T> Said<T> for io::Result<T> {
    fn said(self, call: &'static str, path: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::from_io(call, path.as_ref(), &e))
    }

    fn call(self, call: &'static str) -> Result<T> {
        self.map_err(|e| Error { call, path: None, errno: Errno::from_io_error(&e).unwrap_or(Errno::IO) })
    }
}

fn shown(path: Option<&Path>) -> String {
    path.map(|p| format!(" {}", p.display())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_call_path_and_reason() {
        let e = Err::<(), _>(Errno::PERM).said("mount", "/proc").unwrap_err();
        assert_eq!(e.to_string(), "mount /proc: Operation not permitted (os error 1)");
        assert!(e.is_denied());
        let e = Err::<(), _>(Errno::NOSYS).call("clone").unwrap_err();
        assert_eq!(e.to_string(), "clone: Function not implemented (os error 38)");
    }

    #[test]
    fn becomes_an_io_error_of_the_same_kind() {
        let e: io::Error = Error::new("open", "/x", Errno::NOENT).into();
        assert_eq!(e.kind(), io::ErrorKind::NotFound);
        assert!(e.to_string().starts_with("open /x: "));
    }
}
