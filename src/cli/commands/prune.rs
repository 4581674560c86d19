//! `kiln prune`: what nothing needs.

use super::table::size;
use crate::cli::session::{Failure, failure};
use crate::store::{Policy, Store};
use std::path::Path;

/// The records that make up the cache: steps, what tags of base images meant, files of web servers.
const CACHE: &[&str] = &["steps", "tag", "http"];

/// Removes what a crash left and what neither a named image nor the cache needs; with `all`, the cache too.
pub fn prune(all: bool, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(failure)?;
    let policy = Policy { needed_by: if all { &[] } else { CACHE }, ..Policy::default() };
    let pruned = store.prune(&policy).map_err(failure)?;
    let held = match pruned.held.count {
        0 => String::new(),
        n => format!("{n} more, of {}, are in use by running builds\n", size(pruned.held.bytes)),
    };
    Ok(format!("{held}Total reclaimed space: {}\n", size(pruned.removed.bytes)))
}
