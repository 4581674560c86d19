//! Waiting for a build to be stopped.

use crate::sys::Cancel;
use std::os::fd::AsFd as _;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;

/// How often the flag is looked at where its descriptor can't be waited for.
const LOOK: Duration = Duration::from_millis(20);

/// Ends once the flag is set.
pub async fn stopped(cancel: &Cancel) {
    if cancel.is_cancelled() {
        return;
    }
    // A descriptor of its own for each who waits: epoll takes none twice. It is an event's and no pipe's, which is the same
    // to whoever only waits until it is readable (tokio's way for any descriptor, `AsyncFd`, is unsafe to make).
    let own = cancel.as_fd().try_clone_to_owned();
    if let Ok(event) = own.and_then(Receiver::from_owned_fd_unchecked) {
        let _ = event.readable().await;
    }
    // No descriptor is left, or the runtime ends.
    while !cancel.is_cancelled() {
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everybody_who_waits_is_woken() {
        let cancel = Cancel::new().unwrap();
        let both = async { tokio::join!(stopped(&cancel), stopped(&cancel)) };
        let stop = async {
            tokio::task::yield_now().await;
            cancel.cancel();
        };
        tokio::time::timeout(Duration::from_secs(60), async { tokio::join!(both, stop) }).await.unwrap();
        stopped(&cancel).await;
    }
}
