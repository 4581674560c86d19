//! `kiln prune` and `kiln du`: what nothing needs, and what takes the space.

use super::table::{size, table};
use crate::cli::request::PruneRequest;
use crate::cli::session::{Failure, failure};
use crate::store::{Policy, Store};
use serde_json::json;
use std::path::Path;
use std::time::SystemTime;

/// The records that make up the cache: steps, what tags of base images meant, files of web servers.
const CACHE: &[&str] = &["steps", "tag", "http"];

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

/// What takes the space, by sort.
pub fn usage(as_json: bool, store: &Path) -> Result<String, Failure> {
    let usage = Store::open(store).and_then(|s| s.usage()).map_err(failure)?;
    let sorts = [
        ("blobs", usage.blobs),
        ("snapshots", usage.snapshots),
        ("cache mounts", usage.cache_mounts),
        ("records", usage.records),
        ("build accounts", usage.builds),
        ("temporary", usage.temporary),
    ];
    let total = sorts.iter().fold(0u64, |sum, (_, amount)| sum.saturating_add(amount.bytes));
    if as_json {
        let one = |(name, amount): &(&str, crate::store::Amount)| {
            (name.replace(' ', "_"), json!({ "count": amount.count, "bytes": amount.bytes }))
        };
        let sorts: serde_json::Map<_, _> = sorts.iter().map(one).collect();
        let images = json!({ "count": usage.named.count, "bytes": usage.named.bytes });
        return Ok(format!("{:#}\n", json!({ "sorts": sorts, "blobs_of_images": images, "total_bytes": total })));
    }
    let row =
        |name: &str, amount: crate::store::Amount| vec![name.into(), amount.count.to_string(), size(amount.bytes)];
    let mut rows = vec![vec!["TYPE".to_owned(), "COUNT".into(), "SIZE".into()]];
    rows.extend(sorts.iter().map(|(name, amount)| row(name, *amount)));
    rows.insert(2, row("  of images", usage.named));
    Ok(format!("{}Total: {}\n", table(&rows), size(total)))
}
