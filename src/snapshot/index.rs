//! What stands in a folder, as far as one walk tells it without reading a file: enough to find what a process changed.

use super::Error;
use super::at::{self, Meta};
use crate::layer::{EntryPath, Timestamp};
use rustix::fs::OFlags;
use rustix::time::{ClockId, clock_gettime};
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The files of one directory, sorted by name.
type Listing = Vec<(Box<[u8]>, Meta)>;

/// Every file below a folder with its inode, size, times, mode and owner. The folder itself isn't in it.
#[derive(Debug, Default)]
pub(super) struct Index {
    dirs: HashMap<EntryPath, Listing>,
}

/// A difference between two indexes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: EntryPath,
    /// What stood there before.
    pub(super) was: Option<Meta>,
    /// What stands there now; nothing where something stood before.
    pub(super) now: Option<Meta>,
}

impl Index {
    /// Walks what is below an open folder, but for the paths in `skip` and what is below them, on several threads.
    pub(super) fn of(root: BorrowedFd<'_>, skip: &HashSet<EntryPath>, threads: NonZeroUsize) -> Result<Self, Error> {
        let walk = Walk::from(vec![EntryPath::root()]);
        let dirs = std::thread::scope(|scope| {
            let work = || walk.work(root, skip);
            let others: Vec<_> = (1..threads.get()).map(|_| scope.spawn(work)).collect();
            let mut all = work()?;
            for other in others {
                // A thread that panicked has found nothing; there is no panic in it.
                all.extend(other.join().unwrap_or_else(|_| Ok(Vec::new()))?);
            }
            Ok::<_, Error>(all)
        })?;
        Ok(Self { dirs: dirs.into_iter().collect() })
    }

    /// Looks again at a few directories and what is new below them; those that are gone are forgotten.
    pub(super) fn look_again(
        &mut self,
        root: BorrowedFd<'_>,
        skip: &HashSet<EntryPath>,
        dirs: impl IntoIterator<Item = EntryPath>,
    ) -> Result<(), Error> {
        for dir in dirs {
            let Some(listing) = list(root, &dir, skip)? else { continue };
            let was = self.dirs.insert(dir.clone(), listing);
            self.forget_below(&dir, was.as_ref());
        }
        Ok(())
    }

    /// Forgets the directories that a directory had and has no more.
    fn forget_below(&mut self, dir: &EntryPath, was: Option<&Listing>) {
        let is_dir = |listing: &Listing, name: &[u8]| find(listing, name).is_some_and(Meta::is_dir);
        let now = self.dirs.get(dir);
        let gone: Vec<EntryPath> = was
            .into_iter()
            .flatten()
            .filter(|(name, meta)| meta.is_dir() && !now.is_some_and(|now| is_dir(now, name)))
            .filter_map(|(name, _)| dir.join(name).ok())
            .collect();
        for dir in gone {
            let was = self.dirs.remove(&dir);
            self.forget_below(&dir, was.as_ref());
        }
    }

    /// How many files it knows.
    pub(super) fn len(&self) -> usize {
        self.dirs.values().map(Vec::len).sum()
    }

    /// What is different in a later index: directories before what is in them; of what is gone only the topmost.
    pub(super) fn changes(&self, later: &Self) -> Result<Vec<Change>, Error> {
        let mut changes = Vec::new();
        let mut todo = vec![EntryPath::root()];
        let nothing = Listing::new();
        while let Some(dir) = todo.pop() {
            let before = self.dirs.get(&dir).unwrap_or(&nothing);
            let after = later.dirs.get(&dir).unwrap_or(&nothing);
            let mut old = before.iter().peekable();
            for (name, meta) in after {
                while let Some((gone, was)) = old.next_if(|(old, _)| old < name) {
                    changes.push(Change { path: dir.join(gone)?, was: Some(*was), now: None });
                }
                let was = old.next_if(|(old, _)| old == name).map(|(_, was)| was);
                let path = (was != Some(meta) || meta.is_dir()).then(|| dir.join(name)).transpose()?;
                if let Some(path) = path {
                    if was != Some(meta) {
                        changes.push(Change { path: path.clone(), was: was.copied(), now: Some(*meta) });
                    }
                    if meta.is_dir() {
                        todo.push(path);
                    }
                }
            }
            for (gone, was) in old {
                changes.push(Change { path: dir.join(gone)?, was: Some(*was), now: None });
            }
        }
        Ok(changes)
    }

    /// Waits until a change to any file gets another time than it has: up to a tick of the kernel's clock.
    pub(super) fn wait_for_the_clock(&self) {
        let files = self.dirs.values().flatten().filter(|(_, meta)| !meta.is_dir());
        let Some(newest) = files.map(|(_, meta)| meta.ctime).max() else { return };
        // Longer than any tick; a clock that was set back is nothing to wait for.
        for _ in 0..20 {
            let now = clock_gettime(ClockId::RealtimeCoarse);
            let now = Timestamp { secs: now.tv_sec, nanos: u32::try_from(now.tv_nsec).unwrap_or(0) };
            if now > newest {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn find<'a>(listing: &'a Listing, name: &[u8]) -> Option<&'a Meta> {
    let at = listing.binary_search_by(|(have, _)| have.as_ref().cmp(name)).ok()?;
    listing.get(at).map(|(_, meta)| meta)
}

/// The files of a directory; nothing if it is none any more.
fn list(root: BorrowedFd<'_>, path: &EntryPath, skip: &HashSet<EntryPath>) -> Result<Option<Listing>, Error> {
    use rustix::io::Errno;
    let fail = |call| move |e: Errno| Error::inside(call, path, e);
    let dir = match at::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
        dir => dir.map_err(fail("open"))?,
    };
    let mut listing = Listing::new();
    for name in at::names(dir.as_fd()).map_err(fail("getdents"))? {
        if !skip.is_empty() && skip.contains(&path.join(&name)?) {
            continue;
        }
        // A file that went away meanwhile isn't there.
        if let Some(meta) = at::stat_name(dir.as_fd(), &name).map_err(fail("stat"))? {
            listing.push((name.into(), meta));
        }
    }
    Ok(Some(listing))
}

/// Directories that several threads list.
struct Walk {
    state: Mutex<WalkState>,
    more: Condvar,
}

struct WalkState {
    todo: Vec<EntryPath>,
    /// How many threads are listing, and may find more.
    busy: usize,
    failed: bool,
}

/// How many directories a thread takes at once.
const BATCH: usize = 16;

impl Walk {
    fn from(todo: Vec<EntryPath>) -> Self {
        Self { state: Mutex::new(WalkState { todo, busy: 0, failed: false }), more: Condvar::new() }
    }

    /// Lists until nothing is left, for any thread.
    fn work(&self, root: BorrowedFd<'_>, skip: &HashSet<EntryPath>) -> Result<Vec<(EntryPath, Listing)>, Error> {
        let mut done = Vec::new();
        while let Some(batch) = self.take() {
            let listed = batch.into_iter().map(|path| Ok((list(root, &path, skip)?.unwrap_or_default(), path)));
            match listed.collect::<Result<Vec<_>, Error>>() {
                Ok(listed) => {
                    let mut found = Vec::new();
                    for (listing, path) in listed {
                        for (name, _) in listing.iter().filter(|(_, meta)| meta.is_dir()) {
                            found.push(path.join(name)?);
                        }
                        done.push((path, listing));
                    }
                    self.give(found, false);
                }
                Err(error) => {
                    self.give(Vec::new(), true);
                    return Err(error);
                }
            }
        }
        Ok(done)
    }

    fn take(&self) -> Option<Vec<EntryPath>> {
        let mut state = self.lock();
        loop {
            if state.failed || (state.todo.is_empty() && state.busy == 0) {
                self.more.notify_all();
                return None;
            }
            if !state.todo.is_empty() {
                // Half of what there is, so that others find something, too.
                let count = state.todo.len().div_ceil(2).min(BATCH);
                let from = state.todo.len().saturating_sub(count);
                state.busy += 1;
                return Some(state.todo.split_off(from));
            }
            state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn give(&self, found: Vec<EntryPath>, failed: bool) {
        let mut state = self.lock();
        state.busy = state.busy.saturating_sub(1);
        state.failed |= failed;
        state.todo.extend(found);
        self.more.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, WalkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::Path;

    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    fn index(folder: &Path, skip: &[&str]) -> Index {
        let skip = skip.iter().map(|p| EntryPath::parse(p.as_bytes()).unwrap()).collect();
        Index::of(at::open_root(folder).unwrap().as_fd(), &skip, TWO).unwrap()
    }

    fn changes(from: &Index, to: &Index) -> Vec<String> {
        let mut all: Vec<String> = from
            .changes(to)
            .unwrap()
            .iter()
            .map(|c| format!("{}{}", if c.now.is_some() { '+' } else { '-' }, c.path))
            .collect();
        all.sort();
        all
    }

    #[test]
    fn what_changed_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        for folder in ["a/b/c", "gone/deep", "turned"] {
            fs::create_dir_all(at(folder)).unwrap();
        }
        for file in ["a/same", "a/b/edited", "a/b/c/gone", "gone/deep/f", "turned/f", "file"] {
            fs::write(at(file), "x").unwrap();
        }
        let before = index(dir.path(), &[]);
        assert_eq!(before.len(), 12);
        assert_eq!(changes(&before, &index(dir.path(), &[])), [""; 0]);
        before.wait_for_the_clock();
        fs::write(at("a/b/edited"), "y").unwrap();
        fs::remove_file(at("a/b/c/gone")).unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
        fs::remove_dir_all(at("turned")).unwrap();
        fs::write(at("turned"), "").unwrap();
        fs::remove_file(at("file")).unwrap();
        fs::create_dir_all(at("file/new")).unwrap();
        fs::write(at("file/new/f"), "").unwrap();
        let after = index(dir.path(), &[]);
        let expected =
            ["+/a/b/c", "+/a/b/edited", "+/file", "+/file/new", "+/file/new/f", "+/turned", "-/a/b/c/gone", "-/gone"];
        assert_eq!(changes(&before, &after), expected);
        let kept = index(dir.path(), &["a/b", "file"]);
        assert_eq!(kept.len(), 3);
    }

    #[test]
    fn a_second_look_is_a_full_one() {
        let dir = tempfile::tempdir().unwrap();
        let at = |path: &str| dir.path().join(path);
        fs::create_dir_all(at("a/b/c")).unwrap();
        fs::create_dir_all(at("other")).unwrap();
        let mut known = index(dir.path(), &[]);
        fs::remove_dir_all(at("a/b")).unwrap();
        fs::write(at("a/f"), "").unwrap();
        let root = at::open_root(dir.path()).unwrap();
        let dirs = ["", "a"].map(|p| EntryPath::parse(p.as_bytes()).unwrap());
        known.look_again(root.as_fd(), &HashSet::new(), dirs).unwrap();
        assert_eq!(changes(&known, &index(dir.path(), &[])), [""; 0]);
        assert_eq!(known.dirs.len(), 3);
    }
}
