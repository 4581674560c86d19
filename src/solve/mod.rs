//! Runs a [`BuildPlan`](crate::plan::BuildPlan): looks up what is known, runs what is missing.
//!
//! [`key`] says when two steps are the same, [`lookup`] what needn't run, [`scheduler`] in which order the rest does.

mod agent;
pub mod cache;
mod cache_mount;
pub mod chain;
pub mod env;
mod exec;
pub mod file;
mod found;
#[cfg(test)]
mod found_tests;
mod inputs;
pub mod journal;
pub mod key;
#[cfg(test)]
mod key_tests;
mod keyer;
pub mod lookup;
#[cfg(test)]
mod lookup_tests;
mod making;
pub mod mounts;
mod output;
mod pack;
mod problem;
pub mod record;
mod redact;
mod require;
mod roots;
mod run;
pub mod scheduler;
mod selecting;
mod time;
pub mod turns;
mod worker;

pub use agent::{Agent, Keys, Unusable};
pub use chain::Origin;
pub use env::{Env, Listed, Options};
pub use exec::{limits, network};
pub use require::Required;
pub use roots::of_image as unpacked;
pub use run::{Built, Solved, run};

use crate::plan::op::{FileAction, MountSource, Op, VertexId};

/// Something that a step reads besides the root filesystem it stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// Whose tree.
    pub from: VertexId,
    /// For what.
    pub what: ReadKind,
}

/// What a step reads a tree for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadKind {
    /// The copy that is this action of a File op.
    Copy(usize),
    /// The mount with this number of an Exec op.
    Mount(usize),
}

/// What a step reads, in the order in which [`key::key`] takes it.
pub fn reads(op: &Op) -> Vec<Read> {
    match op {
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => Vec::new(),
        Op::Exec(e) => {
            let from = |kind: &MountSource| match kind {
                MountSource::Bind { from, .. } | MountSource::Cache { from, .. } => *from,
                MountSource::Tmpfs { .. }
                | MountSource::Secret { .. }
                | MountSource::Ssh { .. }
                | MountSource::Text { .. } => None,
            };
            let mounts = e.mounts.iter().enumerate();
            mounts.filter_map(|(i, m)| Some(Read { from: from(&m.kind)?, what: ReadKind::Mount(i) })).collect()
        }
        Op::File(f) => {
            let actions = f.actions.iter().enumerate();
            actions
                .filter_map(|(i, a)| match a {
                    FileAction::Copy(c) => Some(Read { from: c.from?, what: ReadKind::Copy(i) }),
                    FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => None,
                })
                .collect()
        }
    }
}
