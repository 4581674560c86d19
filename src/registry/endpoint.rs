//! Where a registry's name leads: mirrors first, then the registry itself, and how far each is trusted.

use super::Error;
use reqwest::Url;
use std::net::IpAddr;

/// `HOST=URL`: a server that is asked first for what is pulled from a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The registry it stands in for: `docker.io`.
    pub registry: String,
    /// Where it is: `http://127.0.0.1:5001`, `mirror.local/prefix`.
    pub url: String,
}

impl std::str::FromStr for Mirror {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let bad = |why: &str| Error::Setup(format!("mirror {text:?}: {why}"));
        let (registry, url) =
            text.split_once('=').ok_or_else(|| bad("want HOST=URL, as in docker.io=https://mirror.example"))?;
        if registry.is_empty() || registry.contains('/') {
            return Err(bad("what stands before = is not a registry's name"));
        }
        let registry = canonical_name(registry).to_owned();
        let mirror = Self { registry, url: url.to_owned() };
        mirror.endpoint(&[])?;
        Ok(mirror)
    }
}

/// How to speak to a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Scheme {
    /// TLS.
    Https,
    /// No TLS.
    Http,
    /// Whichever answers: plain HTTP is tried first on loopback, where nobody listens in.
    EitherHttpFirst,
    /// Whichever answers: TLS is tried first.
    EitherHttpsFirst,
}

/// A server that speaks the distribution protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Endpoint {
    /// The name for people and for `config.json`: `docker.io`, `127.0.0.1:5000`.
    pub(crate) name: String,
    /// Host and port to connect to.
    pub(crate) host: String,
    /// How to speak to it.
    pub(crate) scheme: Scheme,
    /// Whether its certificate is checked.
    pub(crate) verify: bool,
    /// What stands before repository names, without slashes at its ends.
    pub(crate) prefix: String,
    /// The registry that a mirror stands in for.
    pub(crate) mirror_of: Option<String>,
}

impl Endpoint {
    /// The registry of this name itself.
    pub(crate) fn origin(registry: &str, insecure: &[String]) -> Self {
        let name = canonical_name(registry);
        let host = if name == "docker.io" { "registry-1.docker.io" } else { name };
        let (scheme, verify) = trust(name, insecure);
        Self { name: name.into(), host: host.into(), scheme, verify, prefix: String::new(), mirror_of: None }
    }

    /// The repository's name at this endpoint.
    pub(crate) fn repository(&self, repository: &str) -> String {
        if self.prefix.is_empty() { repository.to_owned() } else { format!("{}/{repository}", self.prefix) }
    }

    /// An address under `/v2/` by a scheme that is known.
    pub(crate) fn url(&self, tls: bool, path: &str) -> Result<Url, Error> {
        let scheme = if tls { "https" } else { "http" };
        let mut url = Url::parse(&format!("{scheme}://{}/v2/{path}", self.host))
            .map_err(|e| Error::Setup(format!("the address of registry {}: {e}", self.name)))?;
        if let Some(registry) = &self.mirror_of {
            url.query_pairs_mut().append_pair("ns", registry);
        }
        Ok(url)
    }
}

impl Mirror {
    /// Where the mirror is. A path after the host stands before repository names, as in containerd's mirrors.
    pub(crate) fn endpoint(&self, insecure: &[String]) -> Result<Endpoint, Error> {
        let bad = |why: String| Error::Setup(format!("mirror {}={}: {why}", self.registry, self.url));
        let has_scheme = self.url.contains("://");
        let full = if has_scheme { self.url.clone() } else { format!("https://{}", self.url) };
        let url = Url::parse(&full).map_err(|e| bad(e.to_string()))?;
        let host = authority(&url).filter(|_| matches!(url.scheme(), "http" | "https"));
        let host = host.ok_or_else(|| bad("want http:// or https:// and a host".into()))?;
        if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
            return Err(bad("credentials belong into config.json, and a query has no meaning here".into()));
        }
        let (guess, verify) = trust(&host, insecure);
        let scheme = match (has_scheme, url.scheme()) {
            (true, "http") => Scheme::Http,
            (true, _) => Scheme::Https,
            (false, _) => guess,
        };
        let path = url.path().trim_matches('/');
        let prefix = path.strip_prefix("v2/").unwrap_or(if path == "v2" { "" } else { path }).to_owned();
        Ok(Endpoint { name: host.clone(), host, scheme, verify, prefix, mirror_of: Some(self.registry.clone()) })
    }
}

/// Docker Hub has several names.
pub(crate) fn canonical_name(registry: &str) -> &str {
    match registry {
        "index.docker.io" | "registry-1.docker.io" | "registry.hub.docker.com" => "docker.io",
        other => other,
    }
}

/// How to speak to a host that nobody gave a scheme for, and whether to check its certificate. As with Docker, a
/// registry on loopback or named insecure may be without TLS, and with TLS its certificate isn't checked.
fn trust(host: &str, insecure: &[String]) -> (Scheme, bool) {
    if is_loopback(host) {
        (Scheme::EitherHttpFirst, false)
    } else if insecure.iter().any(|i| i == host || i == host_name(host)) {
        (Scheme::EitherHttpsFirst, false)
    } else {
        (Scheme::Https, true)
    }
}

/// The host without its port; brackets of an IPv6 address stay.
pub(crate) fn host_name(host: &str) -> &str {
    match host.rfind(':') {
        Some(colon) if !host[colon..].contains(']') => &host[..colon],
        _ => host,
    }
}

/// Whether a host (and port) is this machine: 127.0.0.0/8, `::1`, `localhost`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    let address = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name);
    name == "localhost" || address.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Host and port of an address; the port is left out where it is the scheme's own.
pub(crate) fn authority(url: &Url) -> Option<String> {
    let host = url.host_str()?;
    Some(url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        let insecure = ["old.example:5000".to_owned(), "lab".to_owned()];
        for (name, host, scheme, verify) in [
            ("docker.io", "registry-1.docker.io", Scheme::Https, true),
            ("ghcr.io", "ghcr.io", Scheme::Https, true),
            ("127.0.0.1:5000", "127.0.0.1:5000", Scheme::EitherHttpFirst, false),
            ("127.9.9.9", "127.9.9.9", Scheme::EitherHttpFirst, false),
            ("[::1]:5000", "[::1]:5000", Scheme::EitherHttpFirst, false),
            ("localhost", "localhost", Scheme::EitherHttpFirst, false),
            ("localhost.evil.io", "localhost.evil.io", Scheme::Https, true),
            ("127.0.0.1.evil.io", "127.0.0.1.evil.io", Scheme::Https, true),
            ("old.example:5000", "old.example:5000", Scheme::EitherHttpsFirst, false),
            ("old.example:5001", "old.example:5001", Scheme::Https, true),
            ("lab:80", "lab:80", Scheme::EitherHttpsFirst, false),
        ] {
            let got = Endpoint::origin(name, &insecure);
            assert_eq!((got.host.as_str(), got.scheme, got.verify), (host, scheme, verify), "{name}");
        }
    }

    #[test]
    fn mirrors() {
        for (text, host, scheme, prefix) in [
            ("docker.io=https://m.io", "m.io", Scheme::Https, ""),
            ("docker.io=http://m.io:80/", "m.io", Scheme::Http, ""),
            ("docker.io=m.io/proxy/hub/", "m.io", Scheme::Https, "proxy/hub"),
            ("docker.io=https://m.io/v2/x", "m.io", Scheme::Https, "x"),
            ("docker.io=https://m.io/v2/", "m.io", Scheme::Https, ""),
            ("index.docker.io=localhost:5001", "localhost:5001", Scheme::EitherHttpFirst, ""),
        ] {
            let mirror: Mirror = text.parse().unwrap();
            let got = mirror.endpoint(&[]).unwrap();
            assert_eq!((got.host.as_str(), got.scheme, got.prefix.as_str()), (host, scheme, prefix), "{text}");
            assert_eq!(got.mirror_of.as_deref(), Some("docker.io"));
        }
        let url = "docker.io=localhost:1/x".parse::<Mirror>().unwrap().endpoint(&[]).unwrap();
        let name = url.repository("library/a");
        let url = url.url(false, &format!("{name}/tags")).unwrap();
        assert_eq!(url.as_str(), "http://localhost:1/v2/x/library/a/tags?ns=docker.io");
    }

    #[test]
    fn bad_mirrors() {
        for text in ["", "docker.io", "=x", "a/b=x", "a=ftp://x", "a=http://", "a=https://u:p@x", "a=x?y"] {
            assert!(text.parse::<Mirror>().is_err(), "{text}");
        }
    }
}
