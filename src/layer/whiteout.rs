//! How a layer's tar says that something is gone: empty files with names of their own (OCI image specification, "layer",
//! "Whiteouts"; the names are AUFS's).

use super::{EntryPath, PathError};

/// What stands in front of the name of a file that is gone.
const PREFIX: &[u8] = b".wh.";
/// AUFS's own files; in a layer only [`OPAQUE`] of them means something.
const META: &[u8] = b".wh..wh.";
/// The name of the file that makes its directory opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// What a path in a layer's tar says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// It is a file of that name.
    Plain,
    /// The file at this path is gone.
    Gone(EntryPath),
    /// What lower layers have in this directory is gone.
    Opaque(EntryPath),
    /// AUFS's own bookkeeping, of no meaning to others.
    Bookkeeping,
}

/// The path in the tar that says that `path` is gone; `None` for the root, which can't be.
pub(super) fn gone(path: &EntryPath) -> Option<Vec<u8>> {
    let name = path.file_name()?;
    Some(in_directory(&path.parent()?, &[PREFIX, name].concat()))
}

/// The path in the tar that says that the directory `path` is opaque.
pub(super) fn opaque(path: &EntryPath) -> Vec<u8> {
    in_directory(path, OPAQUE)
}

/// What `path` in a layer's tar says. An error if it is a whiteout of something that is no name (`.wh.`, `.wh...`).
pub(super) fn read(path: &EntryPath) -> Result<Mark, PathError> {
    let Some((name, directory)) = path.file_name().zip(path.parent()) else { return Ok(Mark::Plain) };
    if name == OPAQUE {
        return Ok(Mark::Opaque(directory));
    }
    if path.components().any(|c| c.starts_with(META)) {
        return Ok(Mark::Bookkeeping);
    }
    match name.strip_prefix(PREFIX) {
        Some(gone) => Ok(Mark::Gone(directory.join(gone)?)),
        None => Ok(Mark::Plain),
    }
}

/// Whether a file of this path would be read back as something else than a file of this path. The names that mark
/// removals, and those of AUFS, are reserved at every depth: a directory cannot have one either.
pub(super) fn is_reserved(path: &EntryPath) -> bool {
    path.components().any(|name| name.starts_with(PREFIX))
}

fn in_directory(directory: &EntryPath, name: &[u8]) -> Vec<u8> {
    let slash: &[u8] = if directory.is_root() { b"" } else { b"/" };
    [directory.as_bytes(), slash, name].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> EntryPath {
        EntryPath::parse(s.as_bytes()).unwrap()
    }

    #[test]
    fn marks() {
        for (tar, want) in [
            ("a", Mark::Plain),
            ("", Mark::Plain),
            ("a/.wh", Mark::Plain),
            (".wha", Mark::Plain),
            ("a/.wh.b", Mark::Gone(path("a/b"))),
            (".wh.b", Mark::Gone(path("b"))),
            (".wh..b", Mark::Gone(path(".b"))),
            (".wh....", Mark::Gone(path("..."))),
            ("a/.wh..wh..opq", Mark::Opaque(path("a"))),
            (".wh..wh..opq", Mark::Opaque(path(""))),
            (".wh..wh.plnk", Mark::Bookkeeping),
            (".wh..wh.plnk/1.2", Mark::Bookkeeping),
            ("a/.wh..wh.aufs", Mark::Bookkeeping),
        ] {
            assert_eq!(read(&path(tar)), Ok(want), "{tar}");
        }
    }

    #[test]
    fn exactly_the_prefix_is_reserved() {
        for name in [".wh.a", "a/.wh.b", ".wh.a/b", "a/.wh.b/c", ".wh.", ".wh..wh..opq", ".wh..wh.plnk/1.2"] {
            assert!(is_reserved(&path(name)), "{name}");
        }
        for name in ["", "a", ".wh", ".wha", ".WH.a", "a.wh.b", "x/.wh", "..wh.a", ".wh/.a", "wh.a"] {
            assert!(!is_reserved(&path(name)), "{name}");
        }
    }

    #[test]
    fn a_whiteout_of_no_name_is_refused() {
        for bad in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh.."] {
            assert!(read(&path(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn written_marks_are_read() {
        for name in ["a", "a/b", ".a", "a/..."] {
            let at = EntryPath::parse(&gone(&path(name)).unwrap()).unwrap();
            assert_eq!(read(&at), Ok(Mark::Gone(path(name))));
        }
        for name in ["", "a", "a/b"] {
            let at = EntryPath::parse(&opaque(&path(name))).unwrap();
            assert_eq!(read(&at), Ok(Mark::Opaque(path(name))));
        }
        assert_eq!(gone(&EntryPath::root()), None);
    }
}
