//! A folder of this machine as a [`Tree`]: a build's context.

use super::at::{self, Meta, Xattrs};
use super::{Error, Tree};
use crate::layer::EntryPath;
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// What ignore rules say about one path, its parents' rules counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is part of the tree.
    Keep,
    /// It isn't, nor is anything below it.
    Drop,
    /// It isn't, but an exception may bring back something below it, and with that itself.
    DropUnlessNeeded,
}

/// Ignore rules: what becomes of a path, and whether it is a directory.
pub type Ignore = dyn Fn(&EntryPath, bool) -> Verdict + Send + Sync;

/// Ignore rules from patterns that are asked on the way down, each path with what was found out about its directory
/// (nothing for the root's entries): `enter` says whether a path is left out, and what its entries need to know; `prune`,
/// whether nothing below a directory that is left out can come back.
pub fn walked<V: Send + Sync + 'static>(
    enter: impl Fn(&str, Option<&V>) -> (bool, V) + Send + Sync + 'static,
    prune: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Box<Ignore> {
    // The directories that were asked about last, outermost first: the next path is most likely in them.
    let way: Mutex<Vec<(Vec<u8>, V)>> = Mutex::default();
    Box::new(move |path, is_dir| {
        let mut way = way.lock().unwrap_or_else(PoisonError::into_inner);
        let text = String::from_utf8_lossy(path.as_bytes());
        let names: Vec<&[u8]> = path.components().collect();
        let above = names.len().saturating_sub(1);
        let known = way.iter().zip(names.iter().take(above)).take_while(|((have, _), want)| have == *want).count();
        way.truncate(known);
        for depth in known..above {
            let dir = names.get(..=depth).unwrap_or_default().join(&b'/');
            let (_, verdict) = enter(&String::from_utf8_lossy(&dir), way.last().map(|(_, v)| v));
            way.push((names.get(depth).map(|n| n.to_vec()).unwrap_or_default(), verdict));
        }
        match enter(&text, way.last().map(|(_, v)| v)) {
            (false, _) => Verdict::Keep,
            (true, _) if is_dir && !prune(&text) => Verdict::DropUnlessNeeded,
            (true, _) => Verdict::Drop,
        }
    })
}

/// A folder, without what ignore rules leave out.
///
/// Everything in it belongs to root, as BuildKit's transfer of a context makes it.
pub struct FolderTree {
    root: OwnedFd,
    ignore: Option<Box<Ignore>>,
    /// Dropped directories: whether an exception keeps something in them.
    needed: Mutex<HashMap<EntryPath, bool>>,
}

impl std::fmt::Debug for FolderTree {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FolderTree").field("root", &self.root).finish_non_exhaustive()
    }
}

impl FolderTree {
    /// The folder at `path`, all of it.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Ok(Self { root: at::open_root(path)?, ignore: None, needed: Mutex::default() })
    }

    /// Leaves out what the rules say.
    pub fn ignoring(mut self, ignore: Box<Ignore>) -> Self {
        self.ignore = Some(ignore);
        self
    }

    fn fd(&self, path: &EntryPath, flags: OFlags, call: &'static str) -> Result<OwnedFd, Error> {
        at::open(self.root.as_fd(), path, flags).map_err(|e| Error::inside(call, path, e))
    }

    fn is_visible(&self, path: &EntryPath, is_dir: bool) -> Result<bool, Error> {
        let Some(ignore) = self.ignore.as_ref().filter(|_| !path.is_root()) else { return Ok(true) };
        match ignore(path, is_dir) {
            Verdict::Keep => Ok(true),
            Verdict::DropUnlessNeeded if is_dir => self.is_needed(path, ignore),
            Verdict::Drop | Verdict::DropUnlessNeeded => Ok(false),
        }
    }

    /// Whether anything below a dropped directory is kept.
    fn is_needed(&self, path: &EntryPath, ignore: &Ignore) -> Result<bool, Error> {
        if let Some(known) = self.needed.lock().unwrap_or_else(PoisonError::into_inner).get(path) {
            return Ok(*known);
        }
        let mut todo = vec![path.clone()];
        let mut needed = false;
        'search: while let Some(dir) = todo.pop() {
            for (name, meta) in self.list(&dir)? {
                let child = dir.join(&name)?;
                match ignore(&child, meta.is_dir()) {
                    Verdict::Keep => {
                        needed = true;
                        break 'search;
                    }
                    Verdict::DropUnlessNeeded if meta.is_dir() => todo.push(child),
                    Verdict::Drop | Verdict::DropUnlessNeeded => {}
                }
            }
        }
        self.needed.lock().unwrap_or_else(PoisonError::into_inner).insert(path.clone(), needed);
        Ok(needed)
    }

    fn list(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let dir = self.fd(path, OFlags::RDONLY | OFlags::DIRECTORY, "open")?;
        let fail = |call| move |e| Error::inside(call, path, e);
        let mut entries = Vec::new();
        for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
            // A file that went away meanwhile isn't in the tree.
            if let Some(meta) = at::stat_name(dir.as_fd(), &name).map_err(fail("stat"))? {
                entries.push((name, roots(meta)));
            }
        }
        Ok(entries)
    }
}

/// The same file, owned by root.
fn roots(meta: Meta) -> Meta {
    Meta { uid: 0, gid: 0, ..meta }
}

impl Tree for FolderTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let meta = at::stat(self.root.as_fd(), path).map_err(|e| Error::inside("stat", path, e))?;
        match meta {
            Some(meta) if self.is_visible(path, meta.is_dir())? => Ok(Some(roots(meta))),
            _ => Ok(None),
        }
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        let mut entries = self.list(path)?;
        if self.ignore.is_some() {
            let mut kept = Vec::with_capacity(entries.len());
            for (name, meta) in entries {
                if self.is_visible(&path.join(&name)?, meta.is_dir())? {
                    kept.push((name, meta));
                }
            }
            entries = kept;
        }
        Ok(entries)
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        let link = self.fd(path, OFlags::PATH, "open")?;
        at::read_link(link.as_fd(), b"").map_err(|e| Error::inside("readlink", path, e))
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        Ok(File::from(self.fd(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")?))
    }

    fn xattrs(&self, path: &EntryPath) -> Result<Xattrs, Error> {
        let file = self.fd(path, OFlags::RDONLY | OFlags::NONBLOCK, "open")?;
        at::xattrs(file.as_fd()).map_err(|e| Error::inside("flistxattr", path, e))
    }

    fn is_ignored(&self, path: &EntryPath) -> bool {
        match at::stat(self.root.as_fd(), path) {
            Ok(Some(meta)) => self.is_visible(path, meta.is_dir()).is_ok_and(|visible| !visible),
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::testing::path;
    use std::fs;

    fn folder(files: &[&str]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for file in files {
            let path = dir.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, file).unwrap();
        }
        dir
    }

    /// Everything that the tree shows.
    fn all(tree: &dyn Tree) -> Vec<String> {
        let mut todo = vec![EntryPath::root()];
        let mut all = Vec::new();
        while let Some(dir) = todo.pop() {
            for (name, meta) in tree.read_dir(&dir).unwrap() {
                let path = dir.join(&name).unwrap();
                assert_eq!(tree.stat(&path).unwrap(), Some(meta), "{path}");
                all.push(path.to_string());
                if meta.is_dir() {
                    todo.push(path);
                }
            }
        }
        all.sort();
        all
    }

    #[test]
    fn files_belong_to_root() {
        let dir = folder(&["a/b"]);
        let tree = FolderTree::open(dir.path()).unwrap();
        let meta = tree.stat(&path("a/b")).unwrap().unwrap();
        assert_eq!((meta.uid, meta.gid, meta.size), (0, 0, 3));
        assert_eq!(std::io::read_to_string(Tree::open(&tree, &path("a/b")).unwrap()).unwrap(), "a/b");
        assert!(FolderTree::open(&dir.path().join("none")).unwrap_err().to_string().contains("none"));
    }

    #[test]
    fn links_are_never_followed_by_themselves() {
        let dir = folder(&["a/b"]);
        std::os::unix::fs::symlink("/etc", dir.path().join("out")).unwrap();
        std::os::unix::fs::symlink("a", dir.path().join("in")).unwrap();
        let tree = FolderTree::open(dir.path()).unwrap();
        assert_eq!(tree.read_link(&path("out")).unwrap(), b"/etc");
        for hidden in ["out/passwd", "in/b"] {
            assert_eq!(tree.stat(&path(hidden)).unwrap(), None, "{hidden}");
            assert!(Tree::open(&tree, &path(hidden)).is_err(), "{hidden}");
        }
        assert!(Tree::open(&tree, &path("out")).is_err());
        assert_eq!(tree.lookup(&path("in/b"), true).unwrap().unwrap().path, path("a/b"));
        assert_eq!(tree.lookup(&path("out/passwd"), true).unwrap(), None);
    }

    #[test]
    fn a_pipe_is_not_waited_for() {
        let dir = folder(&[]);
        rustix::fs::mknodat(
            rustix::fs::CWD,
            dir.path().join("p"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        let tree = FolderTree::open(dir.path()).unwrap();
        assert!(Tree::open(&tree, &path("p")).is_ok());
        assert_eq!(tree.stat(&path("p")).unwrap().unwrap().kind, crate::snapshot::Kind::Fifo);
    }

    /// Rules for tests: everything whose name is in `dropped`, below it too, but not what `kept` names.
    fn rules(dropped: &'static [&'static str], kept: &'static [&'static str]) -> Box<Ignore> {
        walked(
            move |path, above: Option<&bool>| {
                let inherited = above.copied().unwrap_or(false);
                let drop = (inherited || dropped.contains(&path)) && !kept.contains(&path);
                (drop, drop)
            },
            move |dir| !kept.iter().any(|k| k.starts_with(&format!("{dir}/"))),
        )
    }

    #[test]
    fn ignored_files_are_not_there_but_known() {
        let dir = folder(&["a", "b/c", "b/d/e", "f/g"]);
        let tree = FolderTree::open(dir.path()).unwrap().ignoring(rules(&["a", "b"], &[]));
        assert_eq!(all(&tree), ["/f", "/f/g"]);
        assert_eq!(tree.stat(&path("b/c")).unwrap(), None);
        for (at, ignored) in [("a", true), ("b", true), ("b/d/e", true), ("f", false), ("none", false)] {
            assert_eq!(tree.is_ignored(&path(at)), ignored, "{at}");
        }
    }

    #[test]
    fn exceptions_bring_their_folders_back() {
        let dir = folder(&["b/c", "b/d/e", "b/d/x", "b/empty/y"]);
        let tree = FolderTree::open(dir.path()).unwrap().ignoring(rules(&["b"], &["b/d/e", "b/empty/none"]));
        assert_eq!(all(&tree), ["/b", "/b/d", "/b/d/e"]);
        let tree = FolderTree::open(dir.path()).unwrap().ignoring(rules(&["b"], &["b/none"]));
        assert_eq!(all(&tree), Vec::<String>::new());
    }
}
