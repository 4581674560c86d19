//! What stands in a folder, as far as one walk tells it without reading a file: enough to find what a process changed.

use super::Error;
use super::at::{self, Meta};
use super::excluded::Excluded;
use super::listing::{Listing, Reader, Stamp};
use crate::layer::{EntryPath, Timestamp};
use crate::sys::file::clock;
use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Every file below a folder with its inode, size, times, mode and owner. The folder itself isn't in it.
#[derive(Debug, Default)]
pub(super) struct Index {
    dirs: HashMap<EntryPath, Listing>,
}

/// A difference between what is known and what is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    pub(super) path: EntryPath,
    /// What stood there before.
    pub(super) was: Option<Stamp>,
    /// What stands there now; nothing where something stood before.
    pub(super) now: Option<Meta>,
}

impl Index {
    /// Walks everything below an open directory but the entries in `skip`, on several threads.
    pub(super) fn of(root: BorrowedFd<'_>, skip: &Excluded, threads: NonZeroUsize) -> Result<Self, Error> {
        let mut index = Self::default();
        let found = Walk::new(&index, root, skip, threads, false).run()?;
        index.learn(found.listed);
        Ok(index)
    }

    /// Walks again, and gives what is different since: directories before what is in them, and of what is gone only the
    /// topmost. From then on that is known.
    pub(super) fn changes(
        &mut self,
        root: BorrowedFd<'_>,
        skip: &Excluded,
        threads: NonZeroUsize,
    ) -> Result<Vec<Change>, Error> {
        let Found { listed, mut changes } = Walk::new(self, root, skip, threads, true).run()?;
        self.learn(listed);
        changes.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(changes)
    }

    /// Looks again at a few directories; of what is new in them, those have to be looked at, too.
    pub(super) fn look_again(
        &mut self,
        root: BorrowedFd<'_>,
        skip: &Excluded,
        dirs: impl IntoIterator<Item = EntryPath>,
    ) -> Result<(), Error> {
        let mut reader = Reader::new();
        for path in dirs {
            let Some(dir) = reader.read(root, &path, skip, NonZeroUsize::MIN)? else { continue };
            let listing = reader.listing(has_xattrs(dir.as_fd(), &path)?);
            self.learn(vec![(path, listing)]);
        }
        Ok(())
    }

    /// Looks again at a directory and at all directories below it.
    pub(super) fn look_again_below(
        &mut self,
        root: BorrowedFd<'_>,
        skip: &Excluded,
        dir: EntryPath,
    ) -> Result<(), Error> {
        let mut todo = vec![dir];
        while let Some(dir) = todo.pop() {
            self.look_again(root, skip, [dir.clone()])?;
            let names: Vec<Vec<u8>> =
                self.dirs.get(&dir).into_iter().flat_map(Listing::dirs).map(<[u8]>::to_vec).collect();
            for name in names {
                todo.push(dir.join(&name)?);
            }
        }
        Ok(())
    }

    /// Takes in what was found; directories that are gone are forgotten.
    fn learn(&mut self, listed: Vec<(EntryPath, Listing)>) {
        for (path, listing) in listed {
            let was = self.dirs.insert(path.clone(), listing);
            self.forget_below(&path, was.as_ref());
        }
    }

    /// Forgets the directories that a directory had and has no more.
    fn forget_below(&mut self, dir: &EntryPath, was: Option<&Listing>) {
        let Some(was) = was else { return };
        let kept: HashSet<&[u8]> = self.dirs.get(dir).into_iter().flat_map(Listing::dirs).collect();
        let gone = was.dirs().filter(|name| !kept.contains(name));
        let gone: Vec<EntryPath> = gone.filter_map(|name| dir.join(name).ok()).collect();
        for dir in gone {
            let was = self.dirs.remove(&dir);
            self.forget_below(&dir, was.as_ref());
        }
    }

    /// How many entries a directory has.
    pub(super) fn entries_in(&self, dir: &EntryPath) -> usize {
        self.dirs.get(dir).map_or(0, Listing::len)
    }

    /// How many files it knows.
    pub(super) fn len(&self) -> usize {
        self.dirs.values().map(Listing::len).sum()
    }

    /// Waits until a change to any file gets another time than it has: up to a tick of the kernel's clock.
    pub(super) fn wait_for_the_clock(&self) {
        let Some(newest) = self.dirs.values().filter_map(Listing::newest).max() else { return };
        // Longer than any tick; a clock that was set back is nothing to wait for.
        for _ in 0..20 {
            let (secs, nanos) = clock();
            let now = Timestamp { secs, nanos: u32::try_from(nanos).unwrap_or(0) };
            if now > newest {
                return;
            }
            std::thread::sleep(Duration::from_micros(500));
        }
    }
}

fn has_xattrs(dir: BorrowedFd<'_>, path: &EntryPath) -> Result<bool, Error> {
    at::has_xattrs(dir).map_err(|e| Error::inside("flistxattr", path, e))
}

/// A walk by several threads, against what is known.
struct Walk<'a> {
    known: &'a Index,
    root: BorrowedFd<'a>,
    skip: &'a Excluded,
    threads: NonZeroUsize,
    /// Whether differences are wanted, and not only what is there now.
    differences: bool,
    state: Mutex<WalkState>,
    more: Condvar,
}

struct WalkState {
    todo: Vec<Todo>,
    /// How many threads are at work, and may find more.
    busy: usize,
    /// How many files were found.
    files: usize,
    failed: bool,
}

/// A directory to be looked at.
struct Todo {
    path: EntryPath,
    /// Whether anything about it is different.
    is_other: bool,
    /// It looks like before, but something was done to it: it only changed if it has, or had, attributes.
    touched: Option<Change>,
}

/// What a thread has found.
#[derive(Default)]
struct Found {
    changes: Vec<Change>,
    /// The directories that look different now.
    listed: Vec<(EntryPath, Listing)>,
}

/// How many directories a thread takes at once.
const BATCH: usize = 16;

/// How many files are worth a second thread.
const WORTHWHILE: usize = 2048;

impl<'a> Walk<'a> {
    fn new(
        known: &'a Index,
        root: BorrowedFd<'a>,
        skip: &'a Excluded,
        threads: NonZeroUsize,
        differences: bool,
    ) -> Self {
        let todo = vec![Todo { path: EntryPath::root(), is_other: false, touched: None }];
        let state = Mutex::new(WalkState { todo, busy: 0, files: 0, failed: false });
        Self { known, root, skip, threads, differences, state, more: Condvar::new() }
    }

    /// Walks until nothing is left. Other threads only begin once there is something for them.
    fn run(&self) -> Result<Found, Error> {
        std::thread::scope(|scope| {
            let (mut reader, mut all, mut others) = (Reader::new(), Found::default(), Vec::new());
            while self.step(&mut reader, &mut all)? {
                if others.is_empty() && self.is_long() {
                    others.extend((1..self.threads.get()).map(|_| scope.spawn(|| self.work())));
                }
            }
            for other in others {
                // A thread that panicked has found nothing; there is no panic in it.
                let found = other.join().unwrap_or_else(|_| Ok(Found::default()))?;
                all.changes.extend(found.changes);
                all.listed.extend(found.listed);
            }
            Ok(all)
        })
    }

    fn work(&self) -> Result<Found, Error> {
        let (mut reader, mut found) = (Reader::new(), Found::default());
        while self.step(&mut reader, &mut found)? {}
        Ok(found)
    }

    /// Looks at a few directories; says whether there were any left.
    fn step(&self, reader: &mut Reader, found: &mut Found) -> Result<bool, Error> {
        let Some(batch) = self.take() else { return Ok(false) };
        let (mut more, mut files) = (Vec::new(), 0);
        let looked = batch.into_iter().try_for_each(|todo| {
            files += self.look(todo, reader, found, &mut more)?;
            Ok(())
        });
        self.give(more, files, looked.is_err());
        looked.map(|()| true)
    }

    /// Compares a directory with what is known of it. How many files it has.
    fn look(
        &self,
        Todo { path, is_other, touched }: Todo,
        reader: &mut Reader,
        found: &mut Found,
        more: &mut Vec<Todo>,
    ) -> Result<usize, Error> {
        let Some(dir) = reader.read(self.root, &path, self.skip, self.threads)? else {
            // Whoever removed it meanwhile is gone by now; what was in it is.
            found.listed.push((path, Listing::default()));
            return Ok(0);
        };
        let was = self.known.dirs.get(&path);
        let is_same = self.compare(&path, was, reader, &mut found.changes, more)?;
        if is_same && !is_other {
            return Ok(was.map_or(0, Listing::len));
        }
        let has_xattrs = has_xattrs(dir.as_fd(), &path)?;
        found.changes.extend(touched.filter(|_| has_xattrs || was.is_some_and(|was| was.has_xattrs)));
        let listing = reader.listing(has_xattrs);
        let files = listing.len();
        found.listed.push((path, listing));
        Ok(files)
    }

    /// Compares what was read with what is known; says whether it is the same.
    fn compare(
        &self,
        dir: &EntryPath,
        was: Option<&Listing>,
        reader: &Reader,
        changes: &mut Vec<Change>,
        more: &mut Vec<Todo>,
    ) -> Result<bool, Error> {
        let mut is_same = was.is_some();
        let mut old = was.into_iter().flat_map(Listing::iter).peekable();
        let gone =
            |name: &[u8], was: &Stamp| Ok::<_, Error>(Change { path: dir.join(name)?, was: Some(*was), now: None });
        for (name, meta) in reader.iter() {
            while let Some((name, was)) = old.next_if(|(old, _)| *old < name) {
                is_same = false;
                changes.push(gone(name, was)?);
            }
            let was = old.next_if(|(old, _)| *old == name).map(|(_, was)| *was);
            let now = Stamp::of(meta);
            let is_other = was != Some(now);
            is_same &= !is_other;
            if !is_other && !now.is_dir() {
                continue;
            }
            let path = dir.join(name)?;
            let mut change =
                (is_other && self.differences).then(|| Change { path: path.clone(), was, now: Some(*meta) });
            if now.is_dir() {
                let touched = change.take_if(|_| was.is_some_and(|was| was.is_only_touched(&now)));
                more.push(Todo { path, is_other, touched });
            }
            changes.extend(change);
        }
        for (name, was) in old {
            is_same = false;
            changes.push(gone(name, was)?);
        }
        Ok(is_same)
    }

    fn take(&self) -> Option<Vec<Todo>> {
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

    fn give(&self, found: Vec<Todo>, files: usize, failed: bool) {
        let mut state = self.lock();
        state.busy = state.busy.saturating_sub(1);
        state.failed |= failed;
        state.files += files;
        state.todo.extend(found);
        self.more.notify_all();
    }

    /// Whether there is something for more threads to do.
    fn is_long(&self) -> bool {
        let state = self.lock();
        state.files >= WORTHWHILE || state.todo.len() >= 4 * BATCH
    }

    fn lock(&self) -> MutexGuard<'_, WalkState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::clock;
    use std::fs;
    use std::path::Path;

    const TWO: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1);

    fn skipping(paths: &[&str]) -> Excluded {
        let mut skip = Excluded::none();
        for path in paths {
            let path = EntryPath::parse(path.as_bytes()).unwrap();
            skip.add(path.parent().unwrap(), path.file_name().unwrap().to_vec());
        }
        skip
    }

    fn index(folder: &Path, skip: &[&str]) -> Index {
        Index::of(at::open_root(folder).unwrap().as_fd(), &skipping(skip), TWO).unwrap()
    }

    /// What changed since, in the order that it is told in.
    fn changes(known: &mut Index, folder: &Path) -> Vec<String> {
        let changes = known.changes(at::open_root(folder).unwrap().as_fd(), &Excluded::none(), TWO).unwrap();
        changes.iter().map(|c| format!("{}{}", if c.now.is_some() { '+' } else { '-' }, c.path)).collect()
    }

    fn wait(index: &Index, folder: &Path) {
        if !clock::is_fine(folder) {
            index.wait_for_the_clock();
        }
    }

    fn touch(path: &Path) {
        let times = fs::metadata(path).unwrap().modified().unwrap();
        fs::write(path.join("new"), "").unwrap();
        fs::remove_file(path.join("new")).unwrap();
        fs::File::open(path).unwrap().set_modified(times).unwrap();
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
        let mut known = index(dir.path(), &[]);
        assert_eq!(known.len(), 12);
        assert_eq!(changes(&mut known, dir.path()), [""; 0]);
        wait(&known, dir.path());
        fs::write(at("a/b/edited"), "y").unwrap();
        fs::remove_file(at("a/b/c/gone")).unwrap();
        fs::remove_dir_all(at("gone")).unwrap();
        fs::remove_dir_all(at("turned")).unwrap();
        fs::write(at("turned"), "").unwrap();
        fs::remove_file(at("file")).unwrap();
        fs::create_dir_all(at("file/new")).unwrap();
        fs::write(at("file/new/f"), "").unwrap();
        let expected =
            ["+/a/b/c", "-/a/b/c/gone", "+/a/b/edited", "+/file", "+/file/new", "+/file/new/f", "-/gone", "+/turned"];
        assert_eq!(changes(&mut known, dir.path()), expected);
        assert_eq!(changes(&mut known, dir.path()), [""; 0]);
        assert_eq!((known.len(), known.dirs.len()), (index(dir.path(), &[]).len(), index(dir.path(), &[]).dirs.len()));
        assert_eq!(index(dir.path(), &["a", "file"]).len(), 1);
        assert_eq!(index(dir.path(), &["a/b"]).len() + 3, known.len());
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
        known.look_again(root.as_fd(), &Excluded::none(), dirs).unwrap();
        assert_eq!(changes(&mut known, dir.path()), [""; 0]);
        assert_eq!(known.dirs.len(), 3);
    }

    #[test]
    fn a_folder_in_which_all_was_undone_is_no_change() {
        let dir = tempfile::tempdir().unwrap();
        let (plain, marked) = (dir.path().join("plain"), dir.path().join("marked"));
        for folder in [&plain, &marked] {
            fs::create_dir(folder).unwrap();
        }
        if rustix::fs::setxattr(&marked, "user.mark", b"1", rustix::fs::XattrFlags::empty()).is_err() {
            eprintln!("skipped: no attributes of users' here");
            return;
        }
        let mut known = index(dir.path(), &[]);
        wait(&known, dir.path());
        touch(&plain);
        touch(&marked);
        // Whether its attributes are the same isn't known.
        assert_eq!(changes(&mut known, dir.path()), ["+/marked"]);
        wait(&known, dir.path());
        rustix::fs::removexattr(&marked, "user.mark").unwrap();
        rustix::fs::setxattr(&plain, "user.mark", b"1", rustix::fs::XattrFlags::empty()).unwrap();
        assert_eq!(changes(&mut known, dir.path()), ["+/marked", "+/plain"]);
        assert_eq!(changes(&mut known, dir.path()), [""; 0]);
    }

    #[test]
    fn many_files_are_looked_at_by_several_threads() {
        let dir = tempfile::tempdir().unwrap();
        for folder in 0..3 {
            let folder = dir.path().join(folder.to_string());
            fs::create_dir(&folder).unwrap();
            for file in 0..WORTHWHILE + 1 {
                fs::write(folder.join(file.to_string()), "").unwrap();
            }
        }
        let mut known = index(dir.path(), &[]);
        assert_eq!(known.len(), 3 * (WORTHWHILE + 2));
        wait(&known, dir.path());
        fs::write(dir.path().join("1/7"), "x").unwrap();
        assert_eq!(changes(&mut known, dir.path()), ["+/1/7"]);
    }
}
