//! The values of flags: texts to checked data, by the rules of Docker's command line. Each returns why it can't.

use crate::cli::Env;
use crate::dockerfile::mount::ram_in_bytes;
use crate::oci::Reference;
use std::net::IpAddr;

/// Why a text is no value of its flag, without a full stop.
pub(super) type Why = String;

/// A limit that is none: `RLIM_INFINITY`.
pub const UNLIMITED: u64 = u64::MAX;

/// `K=V`; without `=`, the value is what `missing` says for the name, which may be nothing at all.
pub(super) fn pair(text: &str, missing: impl FnOnce(&str) -> Option<String>) -> Result<Option<(String, String)>, Why> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, missing(text)),
    };
    if name.is_empty() {
        return Err("it has no name before the =".into());
    }
    Ok(value.map(|v| (name.to_owned(), v)))
}

/// All values of a flag whose pairs take the environment's value where none is given, and vanish where it has none.
pub(super) fn pairs_from_env(texts: &[String], env: &Env) -> Result<Vec<(String, String)>, (String, Why)> {
    each(texts, |t| pair(t, |name| env.var(name).map(str::to_owned)))
        .map(|pairs| last_of_each_name(pairs.into_iter().flatten()))
}

/// All values of a flag whose pairs are empty where no value is given: labels.
pub(super) fn pairs_or_empty(texts: &[String]) -> Result<Vec<(String, String)>, (String, Why)> {
    each(texts, |t| pair(t, |_| Some(String::new()))).map(|pairs| last_of_each_name(pairs.into_iter().flatten()))
}

/// A later pair replaces an earlier one of its name, in the earlier one's place.
fn last_of_each_name(pairs: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
    let mut kept: Vec<(String, String)> = Vec::new();
    for (name, value) in pairs {
        match kept.iter_mut().find(|(n, _)| *n == name) {
            Some(old) => old.1 = value,
            None => kept.push((name, value)),
        }
    }
    kept
}

/// Applies `parse` to each text; the first that fails comes back with the reason.
pub(super) fn each<T>(texts: &[String], parse: impl Fn(&str) -> Result<T, Why>) -> Result<Vec<T>, (String, Why)> {
    texts.iter().map(|t| parse(t).map_err(|why| (t.clone(), why))).collect()
}

/// Bytes, as in `64m`.
pub(super) fn bytes(text: &str) -> Result<u64, Why> {
    ram_in_bytes(text).ok_or_else(|| "want a number with b, k, m, g, t or p, as in 64m".into())
}

/// Cores in thousandths, as in `1.5`.
pub(super) fn milli_cpus(text: &str) -> Result<u64, Why> {
    let wrong = || "want a number of cores, as in 1.5".to_owned();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let cpus: f64 = Some(text).filter(|_| plain).and_then(|t| t.parse().ok()).ok_or_else(wrong)?;
    match (cpus * 1000.0).round() {
        m if m < 10.0 => Err("at least a hundredth of a core is needed".into()),
        m if m > 1e9 => Err(wrong()),
        m => Ok(m as u64),
    }
}

/// The limits that `--ulimit` names, as go-units has them.
const ULIMITS: &[&str] = &[
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// `type=soft[:hard]`; -1 is no limit; without a hard one it is the soft one.
pub(super) fn ulimit(text: &str) -> Result<(String, u64, u64), Why> {
    let (name, limits) = text.split_once('=').ok_or("want type=soft or type=soft:hard")?;
    if !ULIMITS.contains(&name) {
        return Err(format!("there is no limit {name:?}; known are {}", ULIMITS.join(", ")));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if soft > hard {
        return Err("the soft limit is above the hard one".into());
    }
    Ok((name.to_owned(), soft, hard))
}

fn limit(text: &str) -> Result<u64, Why> {
    match text {
        "-1" => Ok(UNLIMITED),
        t => t.parse().map_err(|_| format!("{t:?} is no number; -1 is no limit")),
    }
}

/// `host:ip` or `host=ip`; an address may stand in brackets. The name comes back first.
pub(super) fn host(text: &str) -> Result<(String, String), Why> {
    let (name, address) =
        text.split_once('=').or_else(|| text.split_once(':')).ok_or("want HOST:IP, as in db:10.0.0.7")?;
    if name.is_empty() || name.contains(|c: char| c == ':' || c.is_whitespace() || c.is_control()) {
        return Err("want HOST:IP, as in db:10.0.0.7".into());
    }
    if address == "host-gateway" {
        return Err("host-gateway needs a bridge network, which kiln doesn't make".into());
    }
    let bare = address.strip_prefix('[').and_then(|a| a.strip_suffix(']')).unwrap_or(address);
    bare.parse::<IpAddr>().map_err(|_| format!("{bare:?} is no IP address"))?;
    Ok((name.to_owned(), bare.to_owned()))
}

/// A name to give to an image: no digest.
pub(super) fn tag(text: &str) -> Result<Reference, Why> {
    let reference: Reference = text.parse().map_err(|e: crate::oci::ReferenceError| e.to_string())?;
    if reference.digest.is_some() {
        return Err("a name to give has no digest".into());
    }
    Ok(reference)
}

/// A registry's host and port: no scheme, no path.
pub(super) fn registry_host(text: &str) -> Result<String, Why> {
    let host = text.trim_end_matches('/');
    let fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
    if host.is_empty() || !host.chars().all(fine) {
        return Err("want a host, as in registry.example.org or 127.0.0.1:5000".into());
    }
    // Docker Hub has many names; credentials and mirrors go by one.
    Ok(match host {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".into(),
        other => other.to_ascii_lowercase(),
    })
}

/// `HOST=URL`.
pub(super) fn mirror(text: &str) -> Result<(String, url::Url), Why> {
    let (host, address) = text.split_once('=').ok_or("want HOST=URL, as in docker.io=https://mirror.example.org")?;
    let url = url::Url::parse(address).map_err(|e| format!("{address:?} is no URL: {e}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
        return Err(format!("{address:?} is no http or https URL"));
    }
    Ok((registry_host(host)?, url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_in_thousandths() {
        for (text, want) in [("1", 1000), ("1.5", 1500), ("0.25", 250), (".5", 500), ("64", 64_000)] {
            assert_eq!(milli_cpus(text), Ok(want), "{text}");
        }
        for text in ["", "0", "-1", "x", "1e3", "nan", "0.001", "."] {
            assert!(milli_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ulimits() {
        let fine = [
            ("nofile=1024", ("nofile", 1024, 1024)),
            ("nofile=1024:2048", ("nofile", 1024, 2048)),
            ("core=-1", ("core", UNLIMITED, UNLIMITED)),
            ("stack=8:-1", ("stack", 8, UNLIMITED)),
        ];
        for (text, (name, soft, hard)) in fine {
            assert_eq!(ulimit(text), Ok((name.to_owned(), soft, hard)), "{text}");
        }
        for text in
            ["nofile", "nofile=", "nofile=a", "files=1", "nofile=2:1", "nofile=-1:5", "nofile=1:2:3", "nofile=-2"]
        {
            assert!(ulimit(text).is_err(), "{text}");
        }
    }

    #[test]
    fn hosts() {
        let fine = [
            ("db:10.0.0.7", ("db", "10.0.0.7")),
            ("db=10.0.0.7", ("db", "10.0.0.7")),
            ("db:::1", ("db", "::1")),
            ("db=[2001:db8::1]", ("db", "2001:db8::1")),
        ];
        for (text, (name, ip)) in fine {
            assert_eq!(host(text), Ok((name.to_owned(), ip.to_owned())), "{text}");
        }
        for text in
            ["db", ":1.2.3.4", "db:", "db:300.0.0.1", "db:host-gateway", "a b:1.2.3.4", "a\n:1.2.3.4", "a:b=1.2.3.4"]
        {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_take_the_environment_where_no_value_is_given() {
        let mut env = Env::default();
        env.vars.insert("SET".into(), "s".into());
        let texts = ["A=1", "B=x=y", "SET", "UNSET", "C=", "A=2"].map(String::from);
        let got = pairs_from_env(&texts, &env).unwrap();
        let want = [("A", "2"), ("B", "x=y"), ("SET", "s"), ("C", "")];
        assert_eq!(got, want.map(|(k, v)| (k.to_owned(), v.to_owned())));
        assert!(pairs_from_env(&["=v".into()], &env).is_err());
        assert_eq!(pairs_or_empty(&["k".into()]), Ok(vec![("k".into(), String::new())]));
    }

    #[test]
    fn mirrors_and_hosts_of_registries() {
        let (host, url) = mirror("index.docker.io=http://127.0.0.1:5000").unwrap();
        assert_eq!((host.as_str(), url.as_str()), ("docker.io", "http://127.0.0.1:5000/"));
        for text in
            ["docker.io", "docker.io=", "docker.io=ftp://x", "docker.io=127.0.0.1:5000", "=http://x", "a/b=http://x"]
        {
            assert!(mirror(text).is_err(), "{text}");
        }
        assert_eq!(registry_host("[::1]:5000"), Ok("[::1]:5000".into()));
        assert!(registry_host("https://x").is_err());
        assert!(tag("a/b:1@sha256:0000000000000000000000000000000000000000000000000000000000000000").is_err());
        assert_eq!(tag("app:1.0").unwrap().repository, "library/app");
    }
}
