//! A file that one task writes while others read it already.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The writer's side. Dropped without [`Grower::finish`], it tells the readers that the rest won't come.
#[derive(Debug)]
pub(super) struct Grower(Arc<Growth>);

/// A reader's side: gives what is there, waits for what isn't yet.
#[derive(Debug)]
pub(super) struct Follower {
    growth: Arc<Growth>,
    at: u64,
}

/// Tells how a file's growth ended.
#[derive(Debug, Clone)]
pub(super) struct Watch(Arc<Growth>);

#[derive(Debug, Default)]
struct Growth {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    file: Option<Arc<File>>,
    size: u64,
    end: Option<End>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// A writer and its reader.
pub(super) fn growing() -> (Grower, Follower) {
    let growth = Arc::<Growth>::default();
    (Grower(growth.clone()), Follower { growth, at: 0 })
}

impl Growth {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }
}

impl Grower {
    /// Says in which file the bytes are, none so far.
    pub(super) fn start(&self, file: File) {
        self.0.change(|s| s.file = Some(Arc::new(file)));
    }

    /// Says how many bytes the file has now.
    pub(super) fn grown(&self, size: u64) {
        self.0.change(|s| s.size = size);
    }

    /// Says that nothing more comes, and that what came is right.
    pub(super) fn finish(self) {
        self.0.change(|s| s.end = Some(End::Whole));
    }

    /// Says that it is all there, in this file.
    pub(super) fn complete(self, file: File, size: u64) {
        self.start(file);
        self.grown(size);
        self.finish();
    }
}

impl Drop for Grower {
    fn drop(&mut self) {
        self.0.change(|s| s.end = s.end.or(Some(End::Broken)));
    }
}

impl Watch {
    /// Whether the writer gave up.
    pub(super) fn is_broken(&self) -> bool {
        self.0.lock().end == Some(End::Broken)
    }
}

impl Follower {
    /// Something that outlives the reader.
    pub(super) fn watch(&self) -> Watch {
        Watch(self.growth.clone())
    }

    /// Waits until there is something to read: the file and how many bytes; none at the end.
    fn wait(&self) -> io::Result<Option<(Arc<File>, u64)>> {
        let mut state = self.growth.lock();
        loop {
            match (&state.file, state.end) {
                (_, Some(End::Broken)) => return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the download failed")),
                (Some(file), _) if state.size > self.at => return Ok(Some((file.clone(), state.size - self.at))),
                (_, Some(End::Whole)) => return Ok(None),
                _ => state = self.growth.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }
}

impl Read for Follower {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let Some((file, ready)) = self.wait()? else { return Ok(0) };
        let most = usize::try_from(ready).unwrap_or(usize::MAX).min(buf.len());
        let n = file.read_at(buf.get_mut(..most).unwrap_or_default(), self.at)?;
        if n == 0 && most > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn a_reader_sees_everything_whenever_it_comes() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        let (grower, mut follower) = growing();
        let reader = std::thread::spawn(move || {
            let mut all = Vec::new();
            follower.read_to_end(&mut all).map(|_| all)
        });
        let mut file = temp.reopen().unwrap();
        grower.start(temp.reopen().unwrap());
        for round in 1..=50u64 {
            file.write_all(&[u8::try_from(round).unwrap(); 100]).unwrap();
            grower.grown(100 * round);
        }
        grower.finish();
        let all = reader.join().unwrap().unwrap();
        assert_eq!((all.len(), all[4999]), (5000, 50));
    }

    #[test]
    fn a_writer_that_gives_up_is_no_end() {
        let (grower, mut follower) = growing();
        assert!(!follower.watch().is_broken());
        drop(grower);
        assert!(follower.watch().is_broken());
        assert_eq!(follower.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }

    #[test]
    fn a_finished_file_is_followed_to_its_end() {
        let temp = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(temp.path(), "abc").unwrap();
        let (grower, mut follower) = growing();
        grower.complete(temp.reopen().unwrap(), 3);
        let mut all = String::new();
        follower.read_to_string(&mut all).unwrap();
        assert_eq!(all, "abc");
    }
}
