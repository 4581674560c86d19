//! Trees and layers as short texts, for tests.
//!
//! One line for each file: kind, mode, owner, path, and what kind asks for. Parents are made by themselves.
//!
//! ```text
//! d 755 0:0 a              a directory
//! f 644 0:0 a/b some text  a file with its content
//! l 777 0:0 a/c -> b       a symbolic link
//! h 644 0:0 a/d = a/b      a hard link
//! c 600 0:0 null 1:3       a character device (b: a block device)
//! p 600 0:0 pipe           a named pipe (s: a socket)
//! w 0 0:0 gone             a whiteout (o: an opaque directory's mark)
//! ```

use super::at::{Kind, Meta, Xattrs};
use super::tree::missing;
use super::{Error, Tree};
use crate::layer::{self, Device, Entry, EntryKind, EntryPath, EntrySink, Timestamp};
use rustix::fs::MemfdFlags;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, Write};

/// A path from a text.
pub(crate) fn path(text: &str) -> EntryPath {
    EntryPath::parse(text.as_bytes()).unwrap()
}

/// A tree in memory.
#[derive(Debug, Clone, Default)]
pub(crate) struct TextTree {
    nodes: BTreeMap<EntryPath, Node>,
    pub(crate) ignored: Vec<EntryPath>,
}

#[derive(Debug, Clone)]
struct Node {
    meta: Meta,
    content: Vec<u8>,
    xattrs: Xattrs,
}

impl TextTree {
    pub(crate) fn new(text: &str) -> Self {
        let mut tree = Self::default();
        tree.insert(EntryPath::root(), meta(Kind::Dir, 0o755, (0, 0), 0), Vec::new());
        for line in text.lines().map(str::trim).filter(|l| !l.is_empty()) {
            tree.line(line);
        }
        tree
    }

    pub(crate) fn set_xattr(&mut self, at: &str, name: &str, value: &[u8]) {
        self.nodes.get_mut(&path(at)).unwrap().xattrs.insert(name.into(), value.into());
    }

    pub(crate) fn set_mtime(&mut self, at: &str, secs: i64) {
        self.nodes.get_mut(&path(at)).unwrap().meta.mtime = Timestamp::from_secs(secs);
    }

    pub(crate) fn set_content(&mut self, at: &str, content: Vec<u8>) {
        let node = self.nodes.get_mut(&path(at)).unwrap();
        node.meta.size = content.len() as u64;
        node.content = content;
    }

    fn line(&mut self, line: &str) {
        let mut words = line.splitn(5, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (kind, mode, owner, at, rest) = (word(), word(), word(), path(word()), word());
        let (uid, gid) = owner.split_once(':').unwrap();
        let owner = (uid.parse().unwrap(), gid.parse().unwrap());
        let mode = u32::from_str_radix(mode, 8).unwrap();
        let device = || {
            let (major, minor) = rest.split_once(':').unwrap();
            Device { major: major.parse().unwrap(), minor: minor.parse().unwrap() }
        };
        if kind == "h" {
            let first = self.nodes.get_mut(&path(rest.trim_start_matches("= "))).unwrap();
            first.meta.links += 1;
            let copy = first.clone();
            self.insert(at.clone(), copy.meta, copy.content.clone());
            self.nodes.insert(at, copy);
            return;
        }
        let (kind, content) = match kind {
            "d" => (Kind::Dir, ""),
            "f" => (Kind::File, rest),
            "l" => (Kind::Symlink, rest.trim_start_matches("-> ")),
            "c" => (Kind::CharDevice(device()), ""),
            "b" => (Kind::BlockDevice(device()), ""),
            "p" => (Kind::Fifo, ""),
            "s" => (Kind::Socket, ""),
            other => panic!("{other:?} is no kind"),
        };
        self.insert(at, meta(kind, mode, owner, content.len()), content.into());
    }

    fn insert(&mut self, at: EntryPath, mut meta: Meta, content: Vec<u8>) {
        if let Some(parent) = at.parent().filter(|p| !self.nodes.contains_key(p)) {
            self.insert(parent, self::meta(Kind::Dir, 0o755, (0, 0), 0), Vec::new());
        }
        meta.inode = (1, self.nodes.len() as u64);
        self.nodes.insert(at, Node { meta, content, xattrs: Xattrs::new() });
    }

    fn node(&self, path: &EntryPath) -> Result<&Node, Error> {
        self.nodes.get(path).ok_or_else(|| missing("open", path))
    }
}

fn meta(kind: Kind, mode: u32, (uid, gid): (u32, u32), size: usize) -> Meta {
    let time = Timestamp::default();
    Meta { kind, mode, uid, gid, size: size as u64, mtime: time, ctime: time, inode: (0, 0), links: 1 }
}

impl Tree for TextTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        Ok(self.nodes.get(path).map(|node| node.meta))
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        self.node(path)?;
        let inside = self.nodes.iter().filter(|(p, _)| p.parent().as_ref() == Some(path));
        Ok(inside.map(|(p, node)| (p.file_name().unwrap().to_vec(), node.meta)).collect())
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        Ok(self.node(path)?.content.clone())
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        let mut file = File::from(rustix::fs::memfd_create("test", MemfdFlags::CLOEXEC).unwrap());
        file.write_all(&self.node(path)?.content).unwrap();
        file.rewind().unwrap();
        Ok(file)
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        Ok(self.node(path)?.xattrs.clone())
    }

    fn is_ignored(&self, path: &EntryPath) -> bool {
        self.ignored.contains(path)
    }
}

/// Writes entries down as lines.
#[derive(Debug, Default)]
pub(crate) struct Listing(pub(crate) Vec<Entry>, pub(crate) String);

impl EntrySink for Listing {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        let mut text = String::new();
        content.read_to_string(&mut text).map_err(layer::Error::Write)?;
        let (kind, rest) = match &entry.kind {
            EntryKind::File { size } => {
                assert_eq!(*size, text.len() as u64, "{entry:?}");
                ("f", if text.is_empty() { String::new() } else { format!(" {text}") })
            }
            EntryKind::Dir => ("d", String::new()),
            EntryKind::Symlink(target) => ("l", format!(" -> {}", String::from_utf8_lossy(target))),
            EntryKind::Hardlink(target) => ("h", format!(" = {}", String::from_utf8_lossy(target.as_bytes()))),
            EntryKind::CharDevice(d) => ("c", format!(" {}:{}", d.major, d.minor)),
            EntryKind::BlockDevice(d) => ("b", format!(" {}:{}", d.major, d.minor)),
            EntryKind::Fifo => ("p", String::new()),
            EntryKind::Whiteout => ("w", String::new()),
            EntryKind::Opaque => ("o", String::new()),
        };
        let at = String::from_utf8_lossy(entry.path.as_bytes());
        self.1 += &format!("{kind} {:o} {}:{} {at}{rest}\n", entry.mode, entry.uid, entry.gid);
        self.0.push(entry.clone());
        Ok(())
    }
}

/// A text without the indentation of the test that it stands in.
pub(crate) fn lines(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).map(|l| format!("{l}\n")).collect()
}

mod tests {
    use super::*;
    use crate::snapshot::Found;

    #[test]
    fn links_stay_inside() {
        let tree = TextTree::new(
            "l 777 0:0 abs -> /etc
             l 777 0:0 up -> ../../../etc/passwd
             l 777 0:0 a/rel -> ../etc/./passwd
             l 777 0:0 loop -> loop
             l 777 0:0 chain -> a/rel
             l 777 0:0 gone -> /nowhere/at/all
             f 644 0:0 etc/passwd x",
        );
        for (given, follow_last, want) in [
            ("abs/passwd", true, "etc/passwd"),
            ("abs", false, "abs"),
            ("abs", true, "etc"),
            ("up", true, "etc/passwd"),
            ("a/rel", true, "etc/passwd"),
            ("chain", true, "etc/passwd"),
            ("chain", false, "chain"),
            ("gone/x", true, "nowhere/at/all/x"),
            ("not/here", true, "not/here"),
        ] {
            assert_eq!(tree.resolve(&path(given), follow_last).unwrap(), path(want), "{given}");
        }
        assert!(matches!(tree.lookup(&path("chain"), true), Ok(Some(Found { .. }))));
        assert_eq!(tree.lookup(&path("gone"), true).unwrap(), None);
        assert!(matches!(tree.resolve(&path("loop/x"), true), Err(Error::Loop(_))));
    }
}
