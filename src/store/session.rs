//! A process's presence in the store: its folder under `tmp/`, and the gate between builds and pruning.

use super::error::{At as _, Result};
use super::{Inner, Store, tree};
use rustix::fs::{FlockOperation, Timespec, flock, fstat};
use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};
use std::fs::File;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A moment in nanoseconds since 1970, on the clock that file times are taken from.
pub(super) type Moment = i64;

/// Locks a mutex whose data is whole even after a panic elsewhere.
pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Now. Coarse, as file times are: a file written after this call has no earlier time.
pub(super) fn now() -> Moment {
    moment(clock_gettime(ClockId::RealtimeCoarse))
}

fn moment(t: Timespec) -> Moment {
    t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec)
}

/// The moment at which a file was last used: its modification time.
pub(super) fn last_used(stat: &rustix::fs::Stat) -> Moment {
    moment(Timespec { tv_sec: stat.st_mtime, tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0) })
}

/// Sixteen random letters and digits.
pub(super) fn random_name() -> String {
    let mut bits = [0; 10];
    // getrandom fails only before the machine's entropy pool is ready, and not for so few bytes after that.
    let _ = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty());
    super::key::base32(&bits, 16)
}

/// The folder of one process under `tmp/`, locked as long as this lives, and removed with it.
#[derive(Debug)]
pub(super) struct Session {
    folder: PathBuf,
    start: Moment,
    next: AtomicU64,
    _lock: File,
}

impl Session {
    /// Begins one. To be called inside the gate, so that a pruner either sees it or is done before it starts.
    fn begin(tmp: &Path) -> Result<Self> {
        loop {
            let start = now();
            let folder = tmp.join(format!("{start:x}-{}", random_name()));
            std::fs::DirBuilder::new().mode(0o700).create(&folder).at("make the folder", &folder)?;
            // A sweeper may be quicker, and take the unlocked folder for a dead process's.
            let lock = match File::open(&folder) {
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => continue,
                other => other.at("open", &folder)?,
            };
            lock_whole(&lock, FlockOperation::LockExclusive, &folder)?;
            if fstat(&lock).at("look at", &folder)?.st_nlink > 0 {
                return Ok(Self { folder, start, next: AtomicU64::new(0), _lock: lock });
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // What can't be removed now is the next sweep's.
        let _ = tree::remove(&self.folder);
    }
}

/// When the session with this folder name began.
pub(super) fn start_of(folder: &Path) -> Option<Moment> {
    let (start, _) = folder.file_name()?.to_str()?.split_once('-')?;
    Moment::from_str_radix(start, 16).ok()
}

impl Store {
    /// Ends this process's session: whatever it is still writing is given up and removed, although other threads may
    /// not know yet. For the end of a process that doesn't wait for its threads.
    pub fn end(&self) -> Result<()> {
        match self.inner.session.get() {
            Some(session) => {
                // Under another name first: who still writes finds no place any more, and makes nothing while it is emptied.
                let ended = session.folder.with_extension("ended");
                match std::fs::rename(&session.folder, &ended) {
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(()),
                    other => other.at("rename", &session.folder).and_then(|()| tree::remove(&ended)),
                }
            }
            None => Ok(()),
        }
    }
}

impl Inner {
    /// This process's session, begun when first needed.
    pub(super) fn session(&self) -> Result<&Session> {
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let _once = locked(&self.beginning);
        if let Some(session) = self.session.get() {
            return Ok(session);
        }
        let begun = {
            let _inside = self.gate.enter(&self.root)?;
            Session::begin(&self.root.join("tmp"))?
        };
        Ok(self.session.get_or_init(|| begun))
    }

    /// A path under `tmp/` that nothing else uses.
    pub(super) fn temp_path(&self) -> Result<PathBuf> {
        let session = self.session()?;
        Ok(session.folder.join(session.next.fetch_add(1, Ordering::Relaxed).to_string()))
    }

    /// Finds something and marks it as used, so that no pruner takes it away while this session lives. `find` opens
    /// the file whose time counts; `None` is passed on.
    pub(super) fn hold(&self, path: &Path, find: impl FnOnce() -> Result<Option<File>>) -> Result<Option<File>> {
        // A store that can't be written to can be read all the same; nobody prunes it either.
        let start = self.session().map(|s| s.start).ok();
        let _inside = self.gate.enter(&self.root)?;
        let Some(file) = find()? else { return Ok(None) };
        if let Some(start) = start {
            self.mark(&file, path, start)?;
        }
        Ok(Some(file))
    }

    /// Marks a file that this session has just made as used by it, whatever the clock did meanwhile.
    pub(super) fn mark_new(&self, file: &File, path: &Path) -> Result<()> {
        let start = self.session()?.start;
        self.mark(file, path, start)
    }

    fn mark(&self, file: &File, path: &Path, start: Moment) -> Result<()> {
        if last_used(&fstat(file).at("look at", path)?) >= start {
            return Ok(());
        }
        let time = Timespec { tv_sec: start.div_euclid(1_000_000_000), tv_nsec: start.rem_euclid(1_000_000_000) };
        let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
        rustix::fs::futimens(file, &times).at("mark as used", path)
    }

    /// Removes what dead processes left: their folders under `tmp/`, and locks that nobody holds.
    pub(super) fn sweep(&self) -> Result<()> {
        for folder in entries(&self.root.join("tmp"))? {
            if let Some(_lock) = abandoned(&folder)? {
                tree::remove(&folder)?;
            }
        }
        for file in entries(&self.root.join("locks"))? {
            if let Some(_lock) = abandoned(&file)? {
                std::fs::remove_file(&file).at("remove", &file)?;
            }
        }
        Ok(())
    }

    /// The start of the oldest session that runs, or now where none does. To be called inside the closed gate.
    pub(super) fn oldest_start(&self) -> Result<Moment> {
        let now = now();
        let mut oldest = now;
        for folder in entries(&self.root.join("tmp"))? {
            if abandoned(&folder)?.is_none() {
                oldest = oldest.min(start_of(&folder).unwrap_or(Moment::MIN));
            }
        }
        Ok(oldest)
    }
}

/// The lock on a file or folder under `tmp/`, `locks/` or `caches/` that no process holds; `None` where one does, or it is gone.
pub(super) fn abandoned(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.at("open", path)?,
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Ok(None),
        other => other.at("lock", path)?,
    }
    // Its owner may have removed it, and another made a new one of that name, since it was opened.
    Ok(super::locks::is_at(&file, path)?.then_some(file))
}

/// The paths in a folder; none where there is no folder.
pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match std::fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read.and_then(|all| all.map(|e| e.map(|e| e.path())).collect()).at("list", folder),
    }
}

/// The lock between builds that take things up and a pruner that takes them away.
///
/// A `flock` belongs to the open file, which all threads share: so the first one in takes it, the last one out
/// gives it back.
#[derive(Debug)]
pub(super) struct Gate {
    file: File,
    inside: Mutex<u32>,
}

impl Gate {
    pub(super) fn new(file: File) -> Self {
        Self { file, inside: Mutex::new(0) }
    }

    /// Goes in together with others.
    pub(super) fn enter(&self, root: &Path) -> Result<Inside<'_>> {
        let mut inside = locked(&self.inside);
        if *inside == 0 {
            lock_whole(&self.file, FlockOperation::LockShared, root)?;
        }
        *inside += 1;
        Ok(Inside(self))
    }

    /// Runs something while nobody else is inside, in this process or another.
    pub(super) fn alone<T>(&self, root: &Path, work: impl FnOnce() -> Result<T>) -> Result<T> {
        loop {
            let inside = locked(&self.inside);
            if *inside == 0 {
                lock_whole(&self.file, FlockOperation::LockExclusive, root)?;
                let done = work();
                let unlocked = flock(&self.file, FlockOperation::Unlock).at("unlock", root);
                return done.and_then(|d| unlocked.map(|()| d));
            }
            drop(inside);
            std::thread::sleep(std::time::Duration::from_micros(50));
        }
    }
}

/// Waits for a lock through signals.
fn lock_whole(file: &File, how: FlockOperation, path: &Path) -> Result<()> {
    loop {
        match flock(file, how) {
            Err(Errno::INTR) => {}
            other => return other.at("lock", path),
        }
    }
}

/// Being inside the gate.
pub(super) struct Inside<'a>(&'a Gate);

impl Drop for Inside<'_> {
    fn drop(&mut self) {
        let mut inside = locked(&self.0.inside);
        *inside -= 1;
        if *inside == 0 {
            let _ = flock(&self.0.file, FlockOperation::Unlock);
        }
    }
}
