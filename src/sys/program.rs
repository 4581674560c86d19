//! Finding helper programs: git, credential helpers, and those that sandboxes need.
//!
//! Only absolute directories of `$PATH` count. An empty or relative entry means the working directory, which may be a build
//! context, and a program of a context must never run outside of a sandbox.

use std::ffi::{OsStr, OsString};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

/// The first executable file of this name in the absolute directories of `path` (`$PATH`).
pub fn find(program: &str, path: &OsStr) -> Option<PathBuf> {
    if program.is_empty() || program.contains('/') {
        return None;
    }
    let is_executable =
        |file: &PathBuf| file.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    directories(path).map(|dir| dir.join(program)).find(is_executable)
}

/// The absolute directories of `path`, for the environment of a helper program that starts others.
pub fn absolute(path: &OsStr) -> OsString {
    std::env::join_paths(directories(path)).unwrap_or_default()
}

fn directories(path: &OsStr) -> impl Iterator<Item = PathBuf> {
    std::env::split_paths(path).filter(|dir| dir.is_absolute())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn programs_are_found_in_absolute_directories_alone() {
        assert_eq!(find("sh", OsStr::new("relative::.:/nowhere:/bin:/usr/bin")).unwrap(), Path::new("/bin/sh"));
        for path in ["bin:", "", ":", ".", "bin", "../bin"] {
            assert_eq!(find("sh", OsStr::new(path)), None, "{path:?}");
        }
        for program in ["", "/bin/sh", "../bin/sh", "passwd"] {
            assert_eq!(find(program, OsStr::new("/bin:/etc")).filter(|p| p.starts_with("/etc")), None, "{program}");
        }
        assert_eq!(find("../bin/sh", OsStr::new("/bin")), None);
    }

    #[test]
    fn a_search_path_loses_its_relative_directories() {
        for (path, want) in [("/a:b::/c/d:.", "/a:/c/d"), (":", ""), ("", "")] {
            assert_eq!(absolute(OsStr::new(path)), want, "{path:?}");
        }
    }
}
