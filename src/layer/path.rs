//! Paths that can't leave the root filesystem by themselves.

use std::cmp::Ordering;
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The most bytes of a path. Linux opens no path of more in one call (`PATH_MAX`, without the NUL), so that runtimes cannot
/// unpack an image with a longer one. The limit bounds the memory that a hostile layer takes.
pub const MAX_PATH: usize = 4095;

/// A path in a root filesystem: bytes relative to its root, components parted by one slash, none of them empty, `.` or
/// `..`, no NUL. The empty path is the root itself.
///
/// The text is confined; symbolic links on the way aren't looked at, so whoever opens it must not follow them out.
///
/// The order is that of a sorted walk: a directory, then everything in it, then its next sibling.
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct EntryPath(Vec<u8>);

/// Why bytes are no [`EntryPath`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// `..` climbs above the root.
    #[error("path \"{0}\" leads out of the root filesystem")]
    Escapes(String),
    /// It has more bytes than [`MAX_PATH`].
    #[error("path \"{0}\" is longer than {MAX_PATH} bytes, the most that Linux opens")]
    TooLong(String),
    /// There is a NUL in it.
    #[error("path \"{0}\" has a NUL byte")]
    Nul(String),
    /// Not the name of a file: empty, `.`, `..`, or with a slash.
    #[error("\"{0}\" is not a file name")]
    Name(String),
}

impl EntryPath {
    /// The root filesystem itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// Takes a path as archives have it, cleaned as Go's `filepath.Clean` does: leading, trailing and doubled slashes and
    /// `.` go away, `a/..` cancels out.
    ///
    /// Errors if a relative path climbs above the root (`/..` is the root itself), is too long as it is written, or has a NUL.
    pub fn parse(bytes: &[u8]) -> Result<Self, PathError> {
        // As written, since parts that cancel out take time, too; a slash at each end is usual.
        if bytes.len() > MAX_PATH + 2 {
            return Err(PathError::TooLong(show(bytes)));
        }
        if bytes.contains(&0) {
            return Err(PathError::Nul(show(bytes)));
        }
        let mut path = Self(Vec::with_capacity(bytes.len()));
        for part in bytes.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." if path.is_root() && bytes.first() != Some(&b'/') => {
                    return Err(PathError::Escapes(show(bytes)));
                }
                b".." => path.pop(),
                name => path.push(name),
            }
        }
        path.checked()
    }

    /// The file `name` in this directory.
    pub fn join(&self, name: &[u8]) -> Result<Self, PathError> {
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return Err(PathError::Name(show(name)));
        }
        let mut path = Self(Vec::with_capacity(self.0.len() + 1 + name.len()));
        path.0.extend_from_slice(&self.0);
        path.push(name);
        path.checked()
    }

    fn checked(self) -> Result<Self, PathError> {
        if self.0.len() > MAX_PATH { Err(PathError::TooLong(show(&self.0))) } else { Ok(self) }
    }

    /// What `path` is when this directory stands in for its root.
    pub fn append(&self, path: &Self) -> Self {
        let mut all = Self(Vec::with_capacity(self.0.len() + 1 + path.0.len()));
        all.0.extend_from_slice(&self.0);
        if !path.is_root() {
            all.push(&path.0);
        }
        all
    }

    /// The bytes; empty for the root.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same for the file system; empty for the root.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// Whether it is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The last component; `None` for the root.
    pub fn file_name(&self) -> Option<&[u8]> {
        self.components().next_back()
    }

    /// The directory that it is in; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        (!self.is_root()).then(|| {
            let mut parent = self.clone();
            parent.pop();
            parent
        })
    }

    /// The names on the way, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// Whether it is `directory` or something in it.
    pub fn starts_with(&self, directory: &Self) -> bool {
        match self.0.strip_prefix(directory.0.as_slice()) {
            Some(rest) => directory.is_root() || matches!(rest.first(), None | Some(b'/')),
            None => false,
        }
    }

    fn push(&mut self, name: &[u8]) {
        if !self.is_root() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(name);
    }

    fn pop(&mut self) {
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        self.0.truncate(end);
    }
}

impl Ord for EntryPath {
    fn cmp(&self, other: &Self) -> Ordering {
        const STEP: usize = 16;
        let (ours, theirs) = (self.as_bytes(), other.as_bytes());
        let chunks = ours.chunks_exact(STEP).zip(theirs.chunks_exact(STEP));
        let equal = STEP * chunks.take_while(|(a, b)| a == b).count();
        let (ours, theirs) = (ours.get(equal..).unwrap_or_default(), theirs.get(equal..).unwrap_or_default());
        let equal = ours.iter().zip(theirs).take_while(|(a, b)| a == b).count();
        // A name's end comes before whatever a longer one goes on with, and what is in a directory after the directory.
        let rank = |bytes: &[u8]| bytes.get(equal).map(|b| (*b != b'/', *b));
        rank(ours).cmp(&rank(theirs))
    }
}

impl PartialOrd for EntryPath {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl AsRef<Path> for EntryPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

/// As a person reads it: absolute, whatever can't be printed escaped.
impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "/{}", show(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", show(&self.0))
    }
}

/// Hostile bytes for a message: no control characters, not endless.
pub(super) fn show(bytes: &[u8]) -> String {
    const MOST: usize = 300;
    let mut text = String::new();
    for chunk in bytes.get(..MOST).unwrap_or(bytes).utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { text.extend(c.escape_default()) } else { text.push(c) }
        }
        text.extend(chunk.invalid().iter().map(|b| format!("\\x{b:02x}")));
    }
    if bytes.len() > MOST {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(s: &str) -> EntryPath {
        EntryPath::parse(s.as_bytes()).unwrap()
    }

    #[test]
    fn cleans_as_go_does() {
        for (given, want) in [
            ("", ""),
            (".", ""),
            ("/", ""),
            ("./", ""),
            ("a", "a"),
            ("/a", "a"),
            ("./a/", "a"),
            ("a//b/./c", "a/b/c"),
            ("a/../b", "b"),
            ("a/b/../../c", "c"),
            ("a/..", ""),
            ("/../a", "a"),
            ("/a/../../b", "b"),
            ("...", "..."),
            ("..a/b..", "..a/b.."),
            ("a b", "a b"),
            ("a\\..\\b", "a\\..\\b"),
        ] {
            assert_eq!(path(given).as_bytes(), want.as_bytes(), "{given:?}");
        }
    }

    #[test]
    fn refuses_what_leads_out() {
        for bad in ["..", "../a", "a/../..", "./../a", "a/../../b"] {
            assert!(matches!(EntryPath::parse(bad.as_bytes()), Err(PathError::Escapes(_))), "{bad}");
        }
        assert!(matches!(EntryPath::parse(b"a\0b"), Err(PathError::Nul(_))));
    }

    #[test]
    fn paths_have_a_length_that_linux_opens() {
        let longest = "d/".repeat(2047) + "f";
        assert_eq!(path(&longest).as_bytes().len(), MAX_PATH);
        assert_eq!(path(&format!("/{longest}/")), path(&longest));
        let directory = path(&longest).parent().unwrap();
        assert!(directory.join(b"f").is_ok());
        let too_long = [EntryPath::parse(format!("{longest}f").as_bytes()), directory.join(b"ff")];
        for path in too_long.into_iter().chain([EntryPath::parse(&b"a/../".repeat(2000))]) {
            let Err(error @ PathError::TooLong(_)) = path else { panic!("{path:?}") };
            assert!(error.to_string().contains("4095 bytes") && error.to_string().len() < 500, "{error}");
        }
    }

    #[test]
    fn joins_names_only() {
        assert_eq!(path("a").join(b"b").unwrap(), path("a/b"));
        assert_eq!(EntryPath::root().join(b"b").unwrap(), path("b"));
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0"] {
            assert!(matches!(path("a").join(bad), Err(PathError::Name(_))), "{bad:?}");
        }
    }

    #[test]
    fn takes_paths_apart() {
        assert_eq!(path("a/b/c").file_name(), Some(&b"c"[..]));
        assert_eq!(path("a/b/c").parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), Some(EntryPath::root()));
        assert_eq!(EntryPath::root().parent(), None);
        assert_eq!(EntryPath::root().file_name(), None);
        assert_eq!(path("a/b").components().collect::<Vec<_>>(), [b"a", b"b"]);
        assert_eq!(EntryPath::root().components().count(), 0);
    }

    #[test]
    fn starts_with_whole_components() {
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(path("a").starts_with(&EntryPath::root()));
        assert!(!path("ab").starts_with(&path("a")));
        assert!(!path("a").starts_with(&path("a/b")));
    }

    #[test]
    fn order_is_that_of_a_sorted_walk() {
        let mut paths: Vec<_> = ["a-b", "a/z", "", "a", "a/b/c", "b", "a.c", "a/b"].map(path).to_vec();
        paths.sort();
        assert_eq!(paths, ["", "a", "a/b", "a/b/c", "a/z", "a-b", "a.c", "b"].map(path));
    }

    #[test]
    fn order_is_that_of_the_names() {
        let names = ["", "a", "a-", "a/", "a/b", "a.b", "b", "long-name-of-more-bytes", "long-name-of-more-bytes/x"];
        let paths = names.iter().flat_map(|a| names.map(|b| path(&format!("{a}/{b}"))));
        let paths: Vec<_> = paths.collect();
        for (a, b) in paths.iter().flat_map(|a| paths.iter().map(move |b| (a, b))) {
            assert_eq!(a.cmp(b), a.components().cmp(b.components()), "{a} {b}");
        }
    }

    #[test]
    fn appends_whole_paths() {
        for (directory, inside, whole) in [("", "", ""), ("a", "", "a"), ("", "b/c", "b/c"), ("a/b", "c/d", "a/b/c/d")]
        {
            assert_eq!(path(directory).append(&path(inside)), path(whole));
        }
    }

    #[test]
    fn shows_hostile_bytes_harmlessly() {
        assert_eq!(EntryPath::parse(b"a\x1b[2J\n\xff\xc3\xa4").unwrap().to_string(), "/a\\u{1b}[2J\\n\\xff\u{e4}");
        assert!(show(&[b'x'; 5000]).len() < 400);
    }
}
