//! Extended attributes. Nothing here follows a symbolic link: the attribute is always that of the thing named.
//!
//! Paths are those of `lgetxattr(2)` and its kin. For a file inside an open folder, give `/proc/self/fd/N/name`, or open
//! it and use the functions on descriptors ([`get_fd`], …), which take no `O_PATH` descriptor.

use super::{Error, Result, Said};
use rustix::fs::XattrFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Most attributes fit; one call then does.
const FIRST_TRY: usize = 1024;
/// The kernel's own limit for one value and for one list (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`).
const LIMIT: usize = 65536;

/// An attribute's value; `None` where there is none, or where the file system knows none.
pub fn get(path: &Path, name: &OsStr) -> Result<Option<Vec<u8>>> {
    absent(filled(|buffer| rustix::fs::lgetxattr(path, name, buffer))).said("lgetxattr", path)
}

/// The names of all attributes that may be seen; none where the file system knows none.
pub fn list(path: &Path) -> Result<Vec<Vec<u8>>> {
    let names = absent(filled(|buffer| rustix::fs::llistxattr(path, buffer))).said("llistxattr", path)?;
    Ok(split(&names.unwrap_or_default()))
}

/// Sets an attribute, there before or not.
pub fn set(path: &Path, name: &OsStr, value: &[u8]) -> Result<()> {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).said("lsetxattr", path)
}

/// Removes an attribute; one that isn't there is no error.
pub fn remove(path: &Path, name: &OsStr) -> Result<()> {
    absent(rustix::fs::lremovexattr(path, name)).said("lremovexattr", path).map(drop)
}

/// [`list`] of what a path leads to, as `/proc/self/fd/N` does: for `O_PATH` descriptors.
pub fn list_followed(path: &Path) -> Result<Vec<Vec<u8>>> {
    let names = absent(filled(|buffer| rustix::fs::listxattr(path, buffer))).said("listxattr", path)?;
    Ok(split(&names.unwrap_or_default()))
}

/// [`get`] of what a path leads to, as `/proc/self/fd/N` does: for `O_PATH` descriptors.
pub(super) fn get_followed(path: &Path, name: &OsStr) -> std::result::Result<Option<Vec<u8>>, Errno> {
    absent(filled(|buffer| rustix::fs::getxattr(path, name, buffer)))
}

/// [`set`] likewise.
pub(super) fn set_followed(path: &Path, name: &OsStr, value: &[u8]) -> std::result::Result<(), Errno> {
    rustix::fs::setxattr(path, name, value, XattrFlags::empty())
}

/// [`remove`] likewise.
pub(super) fn remove_followed(path: &Path, name: &OsStr) -> std::result::Result<(), Errno> {
    absent(rustix::fs::removexattr(path, name)).map(drop)
}

/// [`get`] on a descriptor; `path` is for the error alone.
pub fn get_fd(fd: impl AsFd, name: &OsStr, path: &Path) -> Result<Option<Vec<u8>>> {
    absent(filled(|buffer| rustix::fs::fgetxattr(fd.as_fd(), name, buffer))).said("fgetxattr", path)
}

/// [`list`] on a descriptor; `path` is for the error alone.
pub fn list_fd(fd: impl AsFd, path: &Path) -> Result<Vec<Vec<u8>>> {
    let names = absent(filled(|buffer| rustix::fs::flistxattr(fd.as_fd(), buffer))).said("flistxattr", path)?;
    Ok(split(&names.unwrap_or_default()))
}

/// [`set`] on a descriptor; `path` is for the error alone.
pub fn set_fd(fd: impl AsFd, name: &OsStr, value: &[u8], path: &Path) -> Result<()> {
    rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()).said("fsetxattr", path)
}

/// [`remove`] on a descriptor; `path` is for the error alone.
pub fn remove_fd(fd: impl AsFd, name: &OsStr, path: &Path) -> Result<()> {
    absent(rustix::fs::fremovexattr(fd, name)).said("fremovexattr", path).map(drop)
}

/// All attributes, sorted by name, so that they can be compared and written in one order. One that vanishes
/// meanwhile is left out.
pub fn all(path: &Path) -> Result<Vec<(Vec<u8>, Vec<u8>)>> {
    let mut names = list(path)?;
    names.sort();
    let mut all = Vec::with_capacity(names.len());
    for name in names {
        if let Some(value) = get(path, OsStr::from_bytes(&name))? {
            all.push((name, value));
        }
    }
    Ok(all)
}

/// Whether this failure only says that extended attributes (or those of this kind) aren't supported there.
pub fn is_unsupported(error: &Error) -> bool {
    error.errno == Errno::OPNOTSUPP
}

/// Calls with a buffer that is large enough, growing it if the first isn't.
fn filled(call: impl Fn(&mut [u8]) -> std::result::Result<usize, Errno>) -> std::result::Result<Vec<u8>, Errno> {
    let mut buffer = vec![0; FIRST_TRY];
    let length = match call(&mut buffer) {
        Err(Errno::RANGE) => {
            buffer.resize(LIMIT, 0);
            call(&mut buffer)?
        }
        other => other?,
    };
    buffer.truncate(length);
    Ok(buffer)
}

/// "There is none" and "there can be none" are answers, not failures.
fn absent<T>(result: std::result::Result<T, Errno>) -> std::result::Result<Option<T>, Errno> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn split(names: &[u8]) -> Vec<Vec<u8>> {
    names.split(|b| *b == 0).filter(|n| !n.is_empty()).map(<[u8]>::to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_lists_gets_removes() {
        let dir = tempfile::tempdir().unwrap();
        let (path, name) = (dir.path().join("f"), OsStr::new("user.kiln"));
        let file = std::fs::File::create(&path).unwrap();
        assert_eq!(get(&path, name).unwrap(), None);
        let big = vec![7; 3000];
        if let Err(e) = set(&path, name, &big) {
            assert!(is_unsupported(&e), "{e}");
            return;
        }
        assert_eq!(get(&path, name).unwrap(), Some(big.clone()));
        assert_eq!(all(&path).unwrap(), [(b"user.kiln".to_vec(), big)]);
        set_fd(&file, OsStr::new("user.b"), b"", &path).unwrap();
        assert_eq!(get_fd(&file, OsStr::new("user.b"), &path).unwrap(), Some(Vec::new()));
        assert_eq!(list_fd(&file, &path).unwrap().len(), 2);
        remove(&path, name).unwrap();
        remove(&path, name).unwrap();
        remove_fd(&file, OsStr::new("user.b"), &path).unwrap();
        assert!(list(&path).unwrap().is_empty());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("l");
        std::os::unix::fs::symlink("/nowhere", &link).unwrap();
        assert!(list(&link).is_ok());
        assert!(get(&dir.path().join("none"), OsStr::new("user.a")).unwrap_err().is_not_found());
    }
}
