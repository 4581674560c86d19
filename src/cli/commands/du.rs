//! `kiln du`: what takes the space.

use super::prune::CACHE;
use super::table::{duration, size, table};
use crate::cli::session::{Failure, failure};
use crate::store::{Amount, Content, Store, Usage};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::time::SystemTime;

/// What takes the space: by sort, and one by one where that is asked for.
pub fn usage(verbose: bool, as_json: bool, store: &Path) -> Result<String, Failure> {
    let store = Store::open(store).map_err(failure)?;
    let usage = store.usage().map_err(failure)?;
    let contents = if verbose { store.contents(CACHE).map_err(failure)? } else { Vec::new() };
    if as_json {
        let mut whole = summary(&usage);
        if verbose {
            whole.insert("items".into(), contents.iter().map(item).collect());
        }
        return Ok(format!("{:#}\n", Value::Object(whole)));
    }
    let listed = if verbose { format!("{}\n", list(&contents, SystemTime::now())) } else { String::new() };
    let total = format!("Total: {}\nReclaimable: {}\n", size(total(&usage)), size(reclaimable(&usage)));
    Ok(format!("{listed}{}{total}", by_sort(&usage)))
}

fn sorts(usage: &Usage) -> [(&'static str, Amount); 6] {
    [
        ("blobs", usage.blobs),
        ("snapshots", usage.snapshots),
        ("cache mounts", usage.cache_mounts),
        ("records", usage.records),
        ("build accounts", usage.builds),
        ("temporary", usage.temporary),
    ]
}

fn total(usage: &Usage) -> u64 {
    sorts(usage).iter().fold(0, |sum, (_, amount)| amount.bytes.saturating_add(sum))
}

/// What `kiln prune --all` would take if nothing was running.
fn reclaimable(usage: &Usage) -> u64 {
    [usage.named, usage.builds, usage.temporary].iter().fold(total(usage), |left, kept| left.saturating_sub(kept.bytes))
}

fn summary(usage: &Usage) -> Map<String, Value> {
    let amount = |a: Amount| json!({ "count": a.count, "bytes": a.bytes });
    let sorts: Map<_, _> = sorts(usage).iter().map(|(name, a)| (name.replace(' ', "_"), amount(*a))).collect();
    let mut whole = Map::new();
    whole.insert("sorts".into(), Value::Object(sorts));
    whole.insert("blobs_of_images".into(), amount(usage.named));
    whole.insert("total_bytes".into(), total(usage).into());
    whole.insert("reclaimable_bytes".into(), reclaimable(usage).into());
    whole
}

fn item(content: &Content) -> Value {
    let Content { sort, id, bytes, used, images, note } = content;
    let used = jiff::Timestamp::try_from(*used).map(|t| t.to_string()).ok();
    json!({ "type": sort, "id": id, "bytes": bytes, "last_used": used, "images": images, "what": note })
}

fn by_sort(usage: &Usage) -> String {
    let row = |name: &str, amount: Amount| vec![name.into(), amount.count.to_string(), size(amount.bytes)];
    let mut rows = vec![vec!["TYPE".to_owned(), "COUNT".into(), "SIZE".into()]];
    rows.extend(sorts(usage).iter().map(|(name, amount)| row(name, *amount)));
    rows.insert(2, row("  of images", usage.named));
    table(&rows)
}

fn list(contents: &[Content], now: SystemTime) -> String {
    let mut rows = vec![["TYPE", "ID", "SIZE", "LAST USED", "WHAT"].map(str::to_owned).to_vec()];
    rows.extend(contents.iter().map(|content| {
        let ago = now.duration_since(content.used).unwrap_or_default().as_secs();
        let ago = format!("{} ago", duration(i64::try_from(ago).unwrap_or(i64::MAX)));
        vec![content.sort.to_owned(), content.id.clone(), size(content.bytes), ago, what(content)]
    }));
    table(&rows)
}

/// Who made it, and which images need it.
fn what(content: &Content) -> String {
    match (content.note.as_str(), content.images.join(", ")) {
        (note, images) if images.is_empty() => note.to_owned(),
        ("", images) => format!("of {images}"),
        (note, images) => format!("{note} (of {images})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_images_need_is_not_reclaimable() {
        let amount = |bytes| Amount { count: 1, bytes };
        let usage = Usage {
            blobs: amount(100),
            named: amount(40),
            snapshots: amount(10),
            records: amount(5),
            cache_mounts: amount(7),
            builds: amount(3),
            temporary: amount(2),
        };
        assert_eq!((total(&usage), reclaimable(&usage)), (127, 82));
    }

    #[test]
    fn who_made_it_and_who_needs_it() {
        let content = |note: &str, images: &[&str]| Content {
            sort: "blob",
            id: "0123".into(),
            bytes: 5,
            used: SystemTime::UNIX_EPOCH,
            images: images.iter().map(|i| i.to_string()).collect(),
            note: note.into(),
        };
        assert_eq!(what(&content("", &[])), "");
        assert_eq!(what(&content("", &["a:1", "b:1"])), "of a:1, b:1");
        assert_eq!(what(&content("RUN x", &["a:1"])), "RUN x (of a:1)");
        let now = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(7200);
        let text = list(&[content("RUN \u{1b}[2Jx", &[])], now);
        assert_eq!(text, "TYPE   ID     SIZE   LAST USED     WHAT\nblob   0123   5B     2 hours ago   RUN x\n");
    }
}
