//! A folder of the user's as a tree: walked by several threads, hashed by what the store remembers.
//!
//! Nothing is walked or hashed but what is asked for. What was listed once is what the whole build sees.

use super::error::{At as _, Error, Result};
use crate::layer::EntryPath;
use crate::snapshot::{self, Fingerprint, FolderTree, Ignore, Meta, Tree, Xattrs, fingerprint_again};
use crate::store::{Stamp, StatIndex, Store};
use crate::sys::Cancel;
use std::collections::HashMap;
use std::fs::File;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError, RwLock};

/// What a folder has, sorted by name.
type Listing = Arc<Vec<(Vec<u8>, Meta)>>;

/// A context or another folder named on the command line.
#[derive(Debug)]
pub struct LocalTree {
    path: PathBuf,
    folder: FolderTree,
    store: Store,
    threads: NonZeroUsize,
    cancel: Cancel,
    listings: RwLock<HashMap<EntryPath, Listing>>,
    index: OnceLock<StatIndex>,
    /// What was hashed in this build, the young files too, which the index doesn't take.
    hashed: Mutex<HashMap<EntryPath, (Stamp, Fingerprint)>>,
}

/// Locks data that is whole even after a panic elsewhere.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl LocalTree {
    /// The folder at `path`, without what `ignore` leaves out. `threads` is how many read at once.
    ///
    /// # Errors
    /// [`Error::Context`] where there is no such folder.
    pub fn open(
        store: &Store,
        path: &Path,
        ignore: Option<Box<Ignore>>,
        threads: NonZeroUsize,
        cancel: &Cancel,
    ) -> Result<Self> {
        let bad = |why| Error::Context { path: path.into(), why };
        let real = match std::fs::canonicalize(path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Err(bad("not found")),
            other => other.at("open", path)?,
        };
        if !real.is_dir() {
            return Err(bad("is not a folder"));
        }
        let folder = FolderTree::open(&real)?;
        Ok(Self {
            folder: match ignore {
                Some(ignore) => folder.ignoring(ignore),
                None => folder,
            },
            path: real,
            store: store.clone(),
            threads,
            cancel: cancel.clone(),
            listings: RwLock::default(),
            index: OnceLock::new(),
            hashed: Mutex::default(),
        })
    }

    /// Lists a folder and all below it, on all threads, so that walking it costs no system call afterwards. A path
    /// that isn't a folder is left alone.
    ///
    /// # Errors
    /// Where a folder can't be read, or the build is stopped.
    pub fn prefetch(&self, path: &EntryPath) -> Result<()> {
        if self.listed(path).is_some() || !self.folder.stat(path)?.is_some_and(|m| m.is_dir()) {
            return Ok(());
        }
        let queue = Queue::new(path.clone());
        std::thread::scope(|scope| {
            for _ in 1..self.threads.get() {
                // Without PIDs for more, one thread does it all.
                let _ = std::thread::Builder::new().spawn_scoped(scope, || self.list_all(&queue));
            }
            self.list_all(&queue);
        });
        queue.result()
    }

    /// Lists what the queue gives, and gives it what is found.
    fn list_all(&self, queue: &Queue) {
        let mut lists = Vec::new();
        while let Some(path) = queue.next() {
            let listed = self.list(&path).map(|list| {
                let below = list.iter().filter(|(_, meta)| meta.is_dir()).map(|(name, _)| path.join(name));
                let below = below.collect::<std::result::Result<Vec<_>, _>>();
                lists.push((path.clone(), Arc::new(list)));
                below
            });
            queue.done(listed.and_then(|below| below.map_err(|e| snapshot::Error::from(e).into())));
        }
        self.listings.write().unwrap_or_else(PoisonError::into_inner).extend(lists);
    }

    fn list(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>> {
        if self.cancel.is_cancelled() { Err(Error::Cancelled) } else { Ok(self.folder.read_dir(path)?) }
    }

    fn listed(&self, path: &EntryPath) -> Option<Listing> {
        self.listings.read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    /// The fingerprints of regular files, on all threads. Those that are as they were when a former build read them
    /// aren't read.
    ///
    /// # Errors
    /// Where a file can't be read, or the build is stopped.
    pub fn fingerprints(&self, files: &[(EntryPath, Meta)]) -> Result<Vec<Fingerprint>> {
        // By one thread, not by each that starts.
        self.index()?;
        let next = AtomicUsize::new(0);
        let work = || -> Result<Vec<(usize, Fingerprint)>> {
            let mut done = Vec::new();
            loop {
                let from = next.fetch_add(TOGETHER, Ordering::Relaxed);
                let Some(part) = files.get(from..files.len().min(from + TOGETHER)).filter(|p| !p.is_empty()) else {
                    return Ok(done);
                };
                for (offset, (path, meta)) in part.iter().enumerate() {
                    done.push((from + offset, self.fingerprint_of(path, meta)?));
                }
            }
        };
        let threads = self.threads.get().min(files.len().div_ceil(TOGETHER));
        let parts: Result<Vec<_>> = std::thread::scope(|scope| {
            let other = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
            let others: Vec<_> = (1..threads).filter_map(other).collect();
            let own = work();
            let others = others.into_iter().map(|t| t.join().unwrap_or_else(|_| Err(Error::Worker("hashing".into()))));
            std::iter::once(own).chain(others).collect()
        });
        let mut all = vec![[0; 32]; files.len()];
        for (at, fingerprint) in parts?.into_iter().flatten() {
            if let Some(slot) = all.get_mut(at) {
                *slot = fingerprint;
            }
        }
        Ok(all)
    }

    /// The fingerprint of one regular file, whose metadata was asked for before.
    ///
    /// # Errors
    /// As [`LocalTree::fingerprints`].
    pub fn fingerprint_of(&self, path: &EntryPath, meta: &Meta) -> Result<Fingerprint> {
        let stamp = stamp(meta);
        if let Some(known) = self.index()?.get(path.as_bytes(), &stamp) {
            return Ok(known);
        }
        match locked(&self.hashed).get(path) {
            Some((known, fingerprint)) if *known == stamp => return Ok(*fingerprint),
            _ => {}
        }
        if self.cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let (fingerprint, now) = fingerprint_again(&self.folder.open(path)?, path, meta)?;
        // One that changed while it was read may be half the old and half the new.
        if self::stamp(&now) == stamp {
            self.index()?.put(path.as_bytes(), stamp, fingerprint);
            locked(&self.hashed).insert(path.clone(), (stamp, fingerprint));
        }
        Ok(fingerprint)
    }

    /// The store's memory of this folder, loaded before the first file is hashed.
    fn index(&self) -> Result<&StatIndex> {
        if let Some(index) = self.index.get() {
            return Ok(index);
        }
        let loaded = self.store.stat_index(&self.path)?;
        Ok(self.index.get_or_init(|| loaded))
    }

    /// Writes down what was hashed, for the next build.
    ///
    /// # Errors
    /// Where the store can't be written to.
    pub fn remember(&self) -> Result<()> {
        match self.index.get() {
            Some(index) => Ok(self.store.save_stat_index(index)?),
            None => Ok(()),
        }
    }
}

/// How many files a thread takes at once.
const TOGETHER: usize = 64;

fn stamp(meta: &Meta) -> Stamp {
    let nanos = |t: crate::layer::Timestamp| t.secs.saturating_mul(1_000_000_000).saturating_add(t.nanos.into());
    let (device, inode) = meta.inode;
    // The device tells the same number on another file system apart; one that changes with every boot costs one read.
    let inode = inode ^ device.rotate_left(40);
    Stamp { inode, size: meta.size, mtime: nanos(meta.mtime), ctime: nanos(meta.ctime) }
}

impl Tree for LocalTree {
    fn stat(&self, path: &EntryPath) -> std::result::Result<Option<Meta>, snapshot::Error> {
        let listing = path.parent().and_then(|parent| self.listed(&parent));
        let Some((listing, name)) = listing.zip(path.file_name()) else { return self.folder.stat(path) };
        let found = listing.binary_search_by(|(n, _)| n.as_slice().cmp(name)).ok();
        Ok(found.and_then(|at| listing.get(at)).map(|(_, meta)| *meta))
    }

    fn read_dir(&self, path: &EntryPath) -> std::result::Result<Vec<(Vec<u8>, Meta)>, snapshot::Error> {
        match self.listed(path) {
            Some(listing) => Ok(listing.to_vec()),
            None => self.folder.read_dir(path),
        }
    }

    fn read_link(&self, path: &EntryPath) -> std::result::Result<Vec<u8>, snapshot::Error> {
        self.folder.read_link(path)
    }

    fn open(&self, path: &EntryPath) -> std::result::Result<File, snapshot::Error> {
        self.folder.open(path)
    }

    fn xattrs(&self, path: &EntryPath) -> std::result::Result<Xattrs, snapshot::Error> {
        self.folder.xattrs(path)
    }

    fn is_ignored(&self, path: &EntryPath) -> bool {
        self.folder.is_ignored(path)
    }
}

/// The folders that are still to be listed, among threads that find more of them.
struct Queue {
    state: Mutex<QueueState>,
    changed: Condvar,
}

struct QueueState {
    todo: Vec<EntryPath>,
    /// Folders that somebody is listing now.
    busy: usize,
    failed: Option<Error>,
}

impl Queue {
    fn new(first: EntryPath) -> Self {
        Self { state: Mutex::new(QueueState { todo: vec![first], busy: 0, failed: None }), changed: Condvar::new() }
    }

    /// The next folder; `None` once all are done or one has failed.
    fn next(&self) -> Option<EntryPath> {
        let mut state = locked(&self.state);
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(next) = state.todo.pop() {
                state.busy += 1;
                return Some(next);
            }
            if state.busy == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// A folder was listed; these are in it.
    fn done(&self, below: Result<Vec<EntryPath>>) {
        let mut state = locked(&self.state);
        state.busy -= 1;
        match below {
            Ok(below) if below.is_empty() && state.busy > 0 => return,
            Ok(below) => state.todo.extend(below),
            Err(error) => state.failed = Some(error),
        }
        self.changed.notify_all();
    }

    fn result(self) -> Result<()> {
        let state = self.state.into_inner().unwrap_or_else(PoisonError::into_inner);
        state.failed.map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::Verdict;
    use std::fs;

    struct Fixture {
        temp: tempfile::TempDir,
        store: Store,
        cancel: Cancel,
    }

    impl Fixture {
        fn new() -> Self {
            let temp = tempfile::tempdir().unwrap();
            let store = Store::open(&temp.path().join("store")).unwrap();
            fs::create_dir_all(temp.path().join("context/a/b")).unwrap();
            let fixture = Self { temp, store, cancel: Cancel::new().unwrap() };
            for (path, text) in [("x", "1"), ("a/y", "2"), ("a/b/z", "3")] {
                fs::write(fixture.path(path), text).unwrap();
            }
            fixture
        }

        fn path(&self, path: &str) -> PathBuf {
            self.temp.path().join("context").join(path)
        }

        fn tree(&self, ignore: Option<Box<Ignore>>) -> LocalTree {
            let threads = NonZeroUsize::new(2).unwrap();
            LocalTree::open(&self.store, &self.path(""), ignore, threads, &self.cancel).unwrap()
        }

        /// Lets the clock move on, so that files written before aren't too young for the index.
        fn settle(&self) {
            std::thread::sleep(std::time::Duration::from_millis(40));
        }
    }

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap()
    }

    fn files(tree: &LocalTree, paths: &[&str]) -> Vec<(EntryPath, Meta)> {
        paths.iter().map(|p| (path(p), tree.stat(&path(p)).unwrap().unwrap())).collect()
    }

    #[test]
    fn a_prefetched_tree_is_the_same_tree() {
        let f = Fixture::new();
        let (plain, fetched) = (f.tree(None), f.tree(None));
        fetched.prefetch(&path("a")).unwrap();
        fetched.prefetch(&path("x")).unwrap();
        fetched.prefetch(&path("missing")).unwrap();
        assert_eq!(fetched.listings.read().unwrap().len(), 2);
        for at in ["", "a", "a/b"] {
            assert_eq!(plain.read_dir(&path(at)).unwrap(), fetched.read_dir(&path(at)).unwrap(), "{at}");
        }
        for at in ["", "x", "a", "a/y", "a/b/z", "a/none", "a/b/z/w"] {
            assert_eq!(plain.stat(&path(at)).unwrap(), fetched.stat(&path(at)).unwrap(), "{at}");
        }
        // It was listed, and the build goes on with what it saw.
        fs::remove_file(f.path("a/y")).unwrap();
        assert!(fetched.stat(&path("a/y")).unwrap().is_some() && plain.stat(&path("a/y")).unwrap().is_none());
    }

    #[test]
    fn what_is_ignored_is_not_even_walked() {
        let f = Fixture::new();
        let ignore = |path: &EntryPath, _| if path.as_bytes() == b"a/b" { Verdict::Drop } else { Verdict::Keep };
        let tree = f.tree(Some(Box::new(ignore)));
        tree.prefetch(&EntryPath::root()).unwrap();
        assert_eq!(tree.listings.read().unwrap().len(), 2);
        assert!(tree.stat(&path("a/b")).unwrap().is_none() && tree.is_ignored(&path("a/b")));
    }

    #[test]
    fn fingerprints_follow_the_content() {
        let f = Fixture::new();
        fs::write(f.path("same"), "1").unwrap();
        let tree = f.tree(None);
        let prints = tree.fingerprints(&files(&tree, &["x", "a/y", "same"])).unwrap();
        assert_eq!(prints[0], prints[2]);
        assert_ne!(prints[0], prints[1]);
        assert_eq!(prints[0], *blake3::hash(b"1").as_bytes());
    }

    #[test]
    fn unchanged_files_are_not_read_again() {
        let f = Fixture::new();
        f.settle();
        let first = f.tree(None);
        let before = first.fingerprints(&files(&first, &["x", "a/y"])).unwrap();
        first.remember().unwrap();
        // Moved away, so that whoever reads it fails.
        let second = f.tree(None);
        let known = files(&second, &["x", "a/y"]);
        let gone = f.path("moved");
        fs::rename(f.path("x"), &gone).unwrap();
        assert_eq!(second.fingerprints(&known).unwrap(), before);
        fs::rename(&gone, f.path("x")).unwrap();
    }

    #[test]
    fn a_changed_file_is_read_whatever_its_mtime_says() {
        let f = Fixture::new();
        f.settle();
        let first = f.tree(None);
        let before = first.fingerprints(&files(&first, &["x"])).unwrap();
        first.remember().unwrap();
        let mtime = fs::metadata(f.path("x")).unwrap().modified().unwrap();
        f.settle();
        fs::write(f.path("x"), "9").unwrap();
        File::options().write(true).open(f.path("x")).unwrap().set_modified(mtime).unwrap();
        let second = f.tree(None);
        assert_ne!(second.fingerprints(&files(&second, &["x"])).unwrap(), before);
    }

    #[test]
    fn an_edit_within_the_tick_is_never_missed() {
        let f = Fixture::new();
        for round in 0u8..20 {
            fs::write(f.path("x"), [round]).unwrap();
            let tree = f.tree(None);
            let print = tree.fingerprints(&files(&tree, &["x"])).unwrap();
            tree.remember().unwrap();
            assert_eq!(print[0], *blake3::hash(&[round]).as_bytes(), "round {round}");
        }
    }

    #[test]
    fn many_files_keep_their_order() {
        let f = Fixture::new();
        let names: Vec<String> = (0..500).map(|i| format!("f{i:03}")).collect();
        names.iter().for_each(|n| fs::write(f.path(n), n).unwrap());
        let tree = f.tree(None);
        tree.prefetch(&EntryPath::root()).unwrap();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let prints = tree.fingerprints(&files(&tree, &names)).unwrap();
        assert!(prints.iter().zip(&names).all(|(p, n)| p == blake3::hash(n.as_bytes()).as_bytes()));
    }

    #[test]
    fn a_stopped_build_stops_walking_and_hashing() {
        let f = Fixture::new();
        let tree = f.tree(None);
        let known = files(&tree, &["x"]);
        f.cancel.cancel();
        assert!(matches!(tree.prefetch(&EntryPath::root()), Err(Error::Cancelled)));
        assert!(matches!(tree.fingerprints(&known), Err(Error::Cancelled)));
    }

    #[test]
    fn a_context_must_be_a_folder() {
        let f = Fixture::new();
        let open = |path: PathBuf| {
            LocalTree::open(&f.store, &path, None, NonZeroUsize::MIN, &f.cancel).map(drop).unwrap_err().to_string()
        };
        assert!(open(f.path("missing")).contains("not found"));
        assert!(open(f.path("x")).contains("is not a folder"));
    }
}
