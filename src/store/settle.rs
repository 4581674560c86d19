//! What makes a store survive a power cut: one `syncfs`, part of it while the build is still going on.

use super::Store;
use super::error::{At as _, Result};
use super::session::locked;
use std::fs::File;
use std::io::ErrorKind;
use std::sync::atomic::Ordering;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Proof that one `syncfs` has covered everything that this process had stored.
#[derive(Debug)]
pub struct Settled(());

/// How long a build must have been at work since its beginning, or since the last time, to settle ahead. Whatever was
/// written in less is written to the disk soon enough at the end.
const AHEAD: Duration = Duration::from_millis(100);

impl Store {
    /// Makes everything stored so far survive a power cut, by one `syncfs`, and says so in its snapshots. Does nothing
    /// where nothing was stored.
    ///
    /// # Errors
    /// Where the disk can't be written to.
    pub fn settle(&self) -> Result<Settled> {
        let inner = &self.inner;
        // Whoever comes meanwhile needs the other's sync to be over, too.
        let _one = locked(&inner.settling);
        let waiting = std::mem::take(&mut *locked(&inner.unsettled));
        if inner.dirty.swap(false, Ordering::AcqRel) || !waiting.is_empty() {
            let synced = File::open(&inner.root).and_then(|root| Ok(rustix::fs::syncfs(root)?));
            if synced.is_err() {
                inner.dirty.store(true, Ordering::Release);
                locked(&inner.unsettled).extend(waiting.iter().cloned());
            }
            synced.at("sync", &inner.root)?;
        }
        for snapshot in waiting {
            let mark = snapshot.join("settled");
            match File::create(&mark) {
                // It has been removed meanwhile.
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                other => other.map(drop).at("create", &mark)?,
            }
        }
        Ok(Settled(()))
    }

    /// Settles on a thread of its own what is stored by now, so that there is little left to wait for when the build is
    /// done. Only a head start: what goes wrong is told by [`settle`](Self::settle), which does it again.
    /// The thread, where one was begun, needn't be waited for.
    pub fn settle_ahead(&self) -> Option<JoinHandle<Result<Settled>>> {
        let mut last = locked(&self.inner.ahead);
        if last.elapsed() < AHEAD || self.inner.settling.try_lock().is_err() {
            return None;
        }
        *last = Instant::now();
        let store = self.clone();
        // Where no thread can be had, the end of the build settles it all.
        thread::Builder::new().name("settle".into()).spawn(move || store.settle()).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{Key, SnapshotInfo};

    #[test]
    fn a_long_build_settles_ahead() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let info = SnapshotInfo { driver: "overlay".into(), size: None, note: String::new() };
        let kept = store.commit_snapshot(store.new_snapshot().unwrap(), &Key::of(b"1"), info).unwrap();
        let is_settled = || kept.folder.join("settled").exists();
        *locked(&store.inner.ahead) = Instant::now() + Duration::from_secs(3600);
        assert!(store.settle_ahead().is_none() && !is_settled(), "nothing at a build's beginning");
        let Some(begun) = Instant::now().checked_sub(2 * AHEAD) else { return };
        *locked(&store.inner.ahead) = begun;
        store.settle_ahead().unwrap().join().unwrap().unwrap();
        assert!(is_settled());
    }

    #[test]
    fn nobody_settles_while_another_does() {
        let temp = tempfile::tempdir().unwrap();
        let store = Store::open(temp.path()).unwrap();
        let Some(begun) = Instant::now().checked_sub(2 * AHEAD) else { return };
        *locked(&store.inner.ahead) = begun;
        let _busy = locked(&store.inner.settling);
        assert!(store.settle_ahead().is_none());
    }
}
