//! What happens during a build, as a closed set of events from the workers to the one thread that draws.

use super::Diagnostic;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// The number of a step in a build: the index of its vertex in the plan.
pub type Step = usize;

/// One thing that happened. Steps are named once, by [`Event::Planned`].
#[derive(Debug, Clone)]
pub enum Event {
    /// The build has this step; `name` is what is shown, as in `[builder 2/5] RUN make`.
    Planned {
        /// The step.
        step: Step,
        /// Its name.
        name: String,
    },
    /// A worker took the step up.
    Started(Step),
    /// The step's result was in the cache.
    Cached(Step),
    /// The step's process wrote these bytes.
    Output {
        /// The step.
        step: Step,
        /// Whether they came from standard error.
        stderr: bool,
        /// The bytes as written: not cut at lines, not always UTF-8.
        bytes: Vec<u8>,
    },
    /// A part of the step's work moved on (`sha256:… 3.1 MB / 60 MB`).
    Progress {
        /// The step.
        step: Step,
        /// What moves on.
        what: String,
        /// Bytes done.
        done: u64,
        /// Bytes in all, where known.
        total: Option<u64>,
    },
    /// The step is done.
    Finished {
        /// The step.
        step: Step,
        /// How long it took.
        took: Duration,
    },
    /// The step failed; the reason follows as the command's own error.
    Failed {
        /// The step.
        step: Step,
        /// In one line.
        error: String,
    },
    /// A finding that doesn't stop the build.
    Warning(Diagnostic),
    /// Something worth a line that belongs to no step (`pushed 127.0.0.1:5000/app:1.0@sha256:…`).
    Note(String),
}

/// Where workers send events; cheap to clone. Without a receiver, events are dropped.
///
/// The channel is bounded: a process that writes faster than the terminal shows waits, as it would at a pipe, instead of
/// filling the memory.
#[derive(Debug, Clone, Default)]
pub struct Reporter {
    sender: Option<SyncSender<Event>>,
}

impl Reporter {
    /// Sends to `sender`.
    pub fn new(sender: SyncSender<Event>) -> Self {
        Self { sender: Some(sender) }
    }

    /// Drops everything.
    pub fn silent() -> Self {
        Self::default()
    }

    /// Sends one event; a receiver that has gone away is no error.
    pub fn send(&self, event: Event) {
        if let Some(sender) = &self.sender {
            let _ = sender.send(event);
        }
    }
}
