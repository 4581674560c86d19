//! `kiln info`: what works in this place, found out by trying.

use super::table::size;
use crate::cli::Env;
use crate::cli::isolation;
use crate::cli::session::Failure;
use crate::oci::Platform;
use crate::registry::Config;
use crate::report::Problem;
use crate::sandbox;
use crate::store::{Store, Usage};
use crate::sys::input;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::Path;

/// The largest `config.json` that is read, in bytes.
const MAX_CONFIG: u64 = 16 << 20;

/// What there is to know.
struct Facts {
    store: Store,
    usage: Usage,
    images: usize,
    levels: Vec<sandbox::Level>,
    limits: Vec<sandbox::probe::Limit>,
    kernel: String,
    cores: usize,
    memory: Option<u64>,
    registries: Registries,
}

/// How registries are reached without a flag.
struct Registries {
    config: Option<String>,
    /// Those that `config.json` has credentials for.
    logins: Vec<String>,
    proxies: Vec<&'static str>,
}

/// Prints the facts.
pub fn info(json: bool, store: &Path, env: &Env) -> Result<String, Failure> {
    let facts = gather(store, env)?;
    Ok(if json {
        let text = serde_json::to_string_pretty(&as_json(&facts)).unwrap_or_default();
        format!("{text}\n")
    } else {
        as_text(&facts)
    })
}

fn gather(store: &Path, env: &Env) -> Result<Facts, Problem> {
    let store = Store::open(store)?;
    let uname = rustix::system::uname();
    let memory = std::fs::read_to_string("/proc/meminfo").ok().and_then(|t| total_memory(&t));
    Ok(Facts {
        usage: store.usage()?,
        images: store.names()?.len(),
        levels: isolation::levels(&store, env),
        limits: sandbox::probe::limits(),
        kernel: format!("{} {}", uname.sysname().to_string_lossy(), uname.release().to_string_lossy()),
        cores: env.cores,
        memory,
        registries: registries(env),
        store,
    })
}

fn total_memory(meminfo: &str) -> Option<u64> {
    let kilobytes: u64 =
        meminfo.lines().find_map(|l| l.strip_prefix("MemTotal:")?.trim().strip_suffix("kB")?.trim().parse().ok())?;
    kilobytes.checked_mul(1024)
}

fn registries(env: &Env) -> Registries {
    let config = Config::from_env(&|name| env.var(name).map(str::to_owned));
    let path = config.credentials.filter(|p| p.exists());
    let logins = path.as_ref().and_then(|p| read_config(p).ok()).map(|t| logins(&t)).unwrap_or_default();
    let set = [("HTTP_PROXY", config.proxies.http.is_some()), ("HTTPS_PROXY", config.proxies.https.is_some())];
    Registries {
        config: path.map(|p| p.display().to_string()),
        logins,
        proxies: set.iter().filter(|(_, set)| *set).map(|(name, _)| *name).collect(),
    }
}

fn read_config(path: &Path) -> std::io::Result<Vec<u8>> {
    input::open_regular(path).and_then(|file| input::read_all(file, MAX_CONFIG))
}

/// The registries that a `config.json` has credentials or a helper for.
fn logins(config: &[u8]) -> Vec<String> {
    let config: Value = serde_json::from_slice(config).unwrap_or_default();
    let keys =
        |field: &str| config[field].as_object().map(|m| m.keys().cloned().collect::<Vec<_>>()).unwrap_or_default();
    let mut all: Vec<String> = keys("auths").into_iter().chain(keys("credHelpers")).collect();
    all.sort();
    all.dedup();
    all
}

fn as_text(facts: &Facts) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // A write to a String can't fail.
        let _ = writeln!(text, "{}", format!("{label:<16}{value}").trim_end());
    };
    line("Version:", env!("CARGO_PKG_VERSION").into());
    line("Store:", facts.store.root().display().to_string());
    let Usage { blobs, named, snapshots, records, cache_mounts, builds: _, temporary } = facts.usage;
    line("  Images:", format!("{}, of {} in {} blobs", facts.images, size(named.bytes), named.count));
    line("  Blobs:", format!("{}, {}", blobs.count, size(blobs.bytes)));
    line("  Snapshots:", format!("{}, {}", snapshots.count, size(snapshots.bytes)));
    line("  Records:", format!("{}, {}", records.count, size(records.bytes)));
    line("  Cache mounts:", format!("{}, {}", cache_mounts.count, size(cache_mounts.bytes)));
    line("  Temporary:", format!("{}, {}", temporary.count, size(temporary.bytes)));
    line("Isolation:", String::new());
    for level in &facts.levels {
        let why = level.why_not.as_ref().map(|why| format!("no: {why}"));
        let works = || level.remark.as_ref().map_or("works".to_owned(), |remark| format!("works, {remark}"));
        line(&format!("  {}:", level.name), why.unwrap_or_else(works));
    }
    line("Limits:", String::new());
    for limit in &facts.limits {
        let why = limit.why_not.as_ref().map(|why| format!("no: {why}"));
        line(&format!("  {}:", limit.name), why.unwrap_or_else(|| "work".into()));
    }
    line("Registries:", String::new());
    line("  Config:", facts.registries.config.clone().unwrap_or_else(|| "none".into()));
    line("  Logins:", or_none(&facts.registries.logins));
    line("  Proxies:", or_none(&facts.registries.proxies));
    line("Kernel:", facts.kernel.clone());
    line("Platform:", Platform::host().to_string());
    line("CPUs:", facts.cores.to_string());
    line("Memory:", facts.memory.map_or_else(|| "unknown".into(), size));
    text
}

fn or_none<T: AsRef<str>>(all: &[T]) -> String {
    let all: Vec<&str> = all.iter().map(AsRef::as_ref).collect();
    if all.is_empty() { "none".into() } else { all.join(", ") }
}

fn level_as_json(level: &sandbox::Level) -> Value {
    let sandbox::Level { name, works, why_not, remark } = level;
    json!({ "name": name, "works": works, "whyNot": why_not, "remark": remark })
}

fn as_json(facts: &Facts) -> Value {
    let amount = |a: crate::store::Amount| json!({ "count": a.count, "bytes": a.bytes });
    let found =
        |name: &str, why_not: &Option<String>| json!({ "name": name, "works": why_not.is_none(), "whyNot": why_not });
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "store": {
            "root": facts.store.root(),
            "images": facts.images,
            "blobs": amount(facts.usage.blobs),
            "named": amount(facts.usage.named),
            "snapshots": amount(facts.usage.snapshots),
            "records": amount(facts.usage.records),
            "cacheMounts": amount(facts.usage.cache_mounts),
            "temporary": amount(facts.usage.temporary),
        },
        "isolation": facts.levels.iter().map(level_as_json).collect::<Vec<_>>(),
        "limits": facts.limits.iter().map(|l| found(l.name, &l.why_not)).collect::<Vec<_>>(),
        "registries": {
            "config": facts.registries.config,
            "logins": facts.registries.logins,
            "proxies": facts.registries.proxies,
        },
        "kernel": facts.kernel,
        "platform": Platform::host().to_string(),
        "cpus": facts.cores,
        "memory": facts.memory,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_others_wrote() {
        assert_eq!(total_memory("MemFree: 1 kB\nMemTotal:  2048 kB\n"), Some(2 << 20));
        assert_eq!(total_memory("MemTotal: much\n"), None);
        let config = br#"{"auths":{"b":{},"a":{"auth":"x"}},"credHelpers":{"c":"x","a":"y"}}"#;
        assert_eq!(logins(config), ["a", "b", "c"]);
        assert!(logins(b"[").is_empty() && logins(b"{\"auths\":3}").is_empty());
    }
}
