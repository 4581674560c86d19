//! Image references, by the grammar of the distribution project's `reference` package.

use super::Digest;
use std::fmt;
use std::str::FromStr;

/// `registry/repository[:tag][@digest]`, with Docker Hub's short names spelled out.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    /// The registry's host and port: `docker.io`, `127.0.0.1:5000`.
    pub registry: String,
    /// The repository: `library/busybox`.
    pub repository: String,
    /// The tag, where one was given.
    pub tag: Option<String>,
    /// The digest, where one was given.
    pub digest: Option<Digest>,
}

/// A text that is no image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an image reference: {why}")]
pub struct ReferenceError {
    text: String,
    why: &'static str,
}

/// The longest repository name that registries take.
const MAX_NAME: usize = 255;

impl Reference {
    /// The tag to ask a registry for: the given one, else `latest` where no digest is given either.
    pub fn tag_or_latest(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(t), _) => Some(t),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    /// What stands behind `/manifests/` in the registry's address: the digest, or the tag.
    pub fn locator(&self) -> &str {
        self.digest.as_ref().map_or_else(|| self.tag_or_latest().unwrap_or("latest"), Digest::as_str)
    }

    /// The same repository at a digest, keeping the tag for show.
    pub fn pinned(&self, digest: Digest) -> Self {
        Self { digest: Some(digest), ..self.clone() }
    }

    /// The short form that people type: `busybox:1.36` for `docker.io/library/busybox:1.36`.
    pub fn familiar(&self) -> String {
        let mut name = self.to_string();
        for prefix in ["docker.io/library/", "docker.io/"] {
            if let Some(rest) = name.strip_prefix(prefix) {
                name = rest.to_owned();
                break;
            }
        }
        name
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = |why| ReferenceError { text: text.chars().take(300).collect(), why };
        let (rest, digest) = match text.split_once('@') {
            Some((rest, d)) => (rest, Some(d.parse::<Digest>().map_err(|_| bad("what follows @ is not a digest"))?)),
            None => (text, None),
        };
        // A colon after the last slash starts the tag; before it, a port.
        let (name, tag) = match rest.rfind(':') {
            Some(i) if !rest[i..].contains('/') => (&rest[..i], Some(&rest[i + 1..])),
            _ => (rest, None),
        };
        if tag.is_some_and(|t| !is_tag(t)) {
            return Err(bad("a tag has up to 128 letters, digits, _, . and -, and starts with none of . and -"));
        }
        let (registry, path) = match name.split_once('/') {
            Some((host, path)) if is_host_like(host) => (host, path),
            _ => ("docker.io", name),
        };
        if !is_host(registry) {
            return Err(bad("the registry's name is not a host"));
        }
        let registry = if registry == "index.docker.io" { "docker.io" } else { registry };
        if path.bytes().any(|b| b.is_ascii_uppercase()) {
            return Err(bad("repository names are lower-case"));
        }
        if path.len() > MAX_NAME || !path.split('/').all(is_path_component) {
            return Err(bad(
                "a repository name is parts of lower-case letters and digits, joined inside by one of . _ __ or dashes, between slashes",
            ));
        }
        let repository =
            if registry == "docker.io" && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
        Ok(Self { registry: registry.to_owned(), repository, tag: tag.map(str::to_owned), digest })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(t) = self.tag_or_latest() {
            write!(f, ":{t}")?;
        }
        if let Some(d) = &self.digest {
            write!(f, "@{d}")?;
        }
        Ok(())
    }
}

/// Whether the first part of a name is meant as a host rather than a namespace.
fn is_host_like(part: &str) -> bool {
    part == "localhost" || part.contains(['.', ':']) || part.bytes().any(|b| b.is_ascii_uppercase())
}

fn is_host(host: &str) -> bool {
    let (name, port) = match host.rfind(':') {
        Some(i) if !host[i..].contains(']') => (&host[..i], Some(&host[i + 1..])),
        _ => (host, None),
    };
    let port_ok = port.is_none_or(|p| !p.is_empty() && p.parse::<u16>().is_ok());
    let name_ok = match name.strip_prefix('[').and_then(|n| n.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.split('.').all(|label| {
            !label.is_empty()
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        }),
    };
    port_ok && name_ok
}

fn is_tag(t: &str) -> bool {
    (1..=128).contains(&t.len())
        && !t.starts_with(['.', '-'])
        && t.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(part: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = part.as_bytes();
    if !bytes.first().copied().is_some_and(is_word) || !bytes.last().copied().is_some_and(is_word) {
        return false;
    }
    bytes.split(|b| is_word(*b)).all(|sep| matches!(sep, b"" | b"." | b"_" | b"__") || sep.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_names_are_spelled_out() {
        for (given, want) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("a/b:1", "docker.io/a/b:1"),
            ("localhost/a", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:t", "127.0.0.1:5000/a/b:t"),
            ("index.docker.io/x", "docker.io/library/x:latest"),
            ("[::1]:5000/x", "[::1]:5000/x:latest"),
        ] {
            assert_eq!(given.parse::<Reference>().map(|r| r.to_string()), Ok(want.to_owned()), "{given}");
        }
        let d = Digest::of(b"x");
        let r: Reference = format!("busybox@{d}").parse().unwrap();
        assert_eq!(r.to_string(), format!("docker.io/library/busybox@{d}"));
        assert_eq!(r.familiar(), format!("busybox@{d}"));
        assert_eq!(r.locator(), d.as_str());
    }

    #[test]
    fn refuses() {
        for bad in [
            "",
            "A",
            "a:",
            "a b",
            "platform-",
            "a//b",
            "a/",
            "/a",
            "a@sha256:1",
            "a:-x",
            "h.:80/x",
            "h:99999/x",
            "a/../b",
            "a.-b",
        ] {
            assert!(bad.parse::<Reference>().is_err(), "{bad}");
        }
    }
}
