//! Whose turn it is: how many processes and copies run at once.

use crate::sys::ProcessorTime;
use std::num::NonZeroUsize;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many processes and copies run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Jobs {
    /// So many.
    pub at_once: NonZeroUsize,
    /// And more while those leave the processors idle, as ones that wait for a server do.
    pub more_when_idle: bool,
}

/// How long the processors are watched.
const MOMENT: Duration = Duration::from_millis(40);

/// Gives steps their turns.
#[derive(Debug)]
pub struct Turns {
    permits: Semaphore,
    more_when_idle: bool,
}

impl Turns {
    /// For a build.
    pub fn new(jobs: Jobs) -> Self {
        Self { permits: Semaphore::new(jobs.at_once.get()), more_when_idle: jobs.more_when_idle }
    }

    /// Waits for a turn, which lasts until what comes back is dropped.
    pub async fn next(&self) -> Option<SemaphorePermit<'_>> {
        tokio::select! {
            // Who gets a permit at once needn't know what the processors do.
            biased;
            permit = self.permits.acquire() => permit.ok(),
            () = idle(), if self.more_when_idle => None,
        }
    }
}

/// Comes back when the machine's processors had little to do for a moment.
async fn idle() {
    let mut before = ProcessorTime::now();
    loop {
        tokio::time::sleep(MOMENT).await;
        let now = ProcessorTime::now();
        if let (Some(before), Some(now)) = (before, now)
            && now.is_idle_since(before)
        {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turns(more_when_idle: bool) -> Turns {
        Turns::new(Jobs { at_once: NonZeroUsize::MIN, more_when_idle })
    }

    #[tokio::test]
    async fn a_number_that_was_given_is_kept_to() {
        let turns = turns(false);
        let first = turns.next().await;
        assert!(first.is_some());
        assert!(tokio::time::timeout(MOMENT * 4, turns.next()).await.is_err());
        drop(first);
        assert!(turns.next().await.is_some());
    }

    #[tokio::test]
    async fn who_waits_gets_the_turn_that_is_given_back() {
        let turns = turns(true);
        let first = turns.next().await;
        let (second, ()) = tokio::join!(turns.next(), async move { drop(first) });
        assert!(second.is_some());
    }
}
