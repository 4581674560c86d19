//! Signals to this process, or to the one that supervises it.

use super::session::cannot;
use crate::report::Problem;
use crate::sys::{Cancel, SignalReceiver};
use std::os::fd::AsFd as _;
use tokio::io::AsyncReadExt as _;
use tokio::net::unix::pipe;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::broadcast::{self, error::RecvError};

/// Where a command gets its signals from.
#[derive(Debug)]
pub struct SignalSource {
    /// Those to the supervisor, where there is one. A signal to this process is then left to it: what a terminal or `kill` sends to
    /// a process group arrives at both, and counts once.
    supervisor: Option<(SignalReceiver, broadcast::Sender<i32>)>,
}

/// The signals of one kind. From the moment that it is made, such a signal does nothing else.
#[derive(Debug)]
pub struct SignalStream {
    own: Signal,
    number: i32,
    forwarded: Option<broadcast::Receiver<i32>>,
}

/// More signals than anybody sends before they are looked at.
const WAITING: usize = 64;

impl SignalSource {
    /// The signals to this process, or those that its supervisor forwards.
    pub fn new(supervisor: Option<SignalReceiver>) -> Self {
        Self { supervisor: supervisor.map(|receiver| (receiver, broadcast::channel(WAITING).0)) }
    }

    /// Begins to take signals of a kind; to be called within the runtime.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn stream(&self, kind: SignalKind) -> Result<SignalStream, Problem> {
        let forwarded = self.supervisor.as_ref().map(|(_, sender)| sender.subscribe());
        let own = signal(kind).map_err(|e| cannot("watch for signals", &e))?;
        Ok(SignalStream { own, number: kind.as_raw_value(), forwarded })
    }

    /// Begins to hand out what the supervisor forwards; its end sets `cancel`. To be called within the runtime.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn start(&self, cancel: &Cancel) -> Result<(), Problem> {
        let Some((receiver, sender)) = &self.supervisor else { return Ok(()) };
        let queue = receiver.as_fd().try_clone_to_owned().and_then(pipe::Receiver::from_owned_fd);
        let mut queue = queue.map_err(|e| cannot("watch for signals", &e))?;
        let (sender, cancel) = (sender.clone(), cancel.clone());
        tokio::spawn(async move {
            while let Ok(number) = queue.read_u8().await {
                // Nobody may want it.
                let _ = sender.send(number.into());
            }
            cancel.cancel();
        });
        Ok(())
    }
}

impl SignalStream {
    /// Waits for the next one.
    pub async fn next(&mut self) -> Option<()> {
        let Some(forwarded) = &mut self.forwarded else { return self.own.recv().await };
        loop {
            match forwarded.recv().await {
                Ok(number) if number == self.number => return Some(()),
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
