//! `kiln prune`: what nothing needs.

use super::table::size;
use crate::cli::request::PruneRequest;
use crate::cli::session::{Failure, failure};
use crate::store::{Policy, Store};
use std::path::Path;
use std::time::SystemTime;

/// The records that make up the cache: steps, what tags of base images meant, files of web servers.
pub(super) const CACHE: &[&str] = &["steps", "tag", "http"];

/// Removes what a crash left and what neither a named image nor the cache needs; the cache too where that is asked for.
pub fn prune(request: &PruneRequest, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(failure)?;
    let policy = Policy {
        needed_by: if request.all { &[] } else { CACHE },
        // An age beyond all time leaves everything.
        unused_since: request.unused_for.map(|a| SystemTime::now().checked_sub(a).unwrap_or(SystemTime::UNIX_EPOCH)),
        only: request.only,
        keep_bytes: request.keep,
        ..Policy::default()
    };
    let pruned = store.prune(&policy).map_err(failure)?;
    let held = match pruned.held.count {
        0 => String::new(),
        n => format!("{n} more, of {}, are in use by running builds\n", size(pruned.held.bytes)),
    };
    Ok(format!("{held}Total reclaimed space: {}\n", size(pruned.removed.bytes)))
}
