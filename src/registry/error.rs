//! What can go wrong between kiln and a registry.

use crate::oci::{Digest, Platform};
use crate::report::{Kind, Problem};
use std::fmt;
use std::time::Duration;

/// A failed exchange with a registry. No variant carries a credential, a token or a query string.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection: nothing listens, the name is unknown, the network is down.
    #[error("{host} can't be reached: {why}")]
    Unreachable {
        /// Host and port.
        host: String,
        /// The system's reason.
        why: String,
    },
    /// The TLS handshake failed.
    #[error("no secure connection to {host}: {why}")]
    Tls {
        /// Host and port.
        host: String,
        /// The reason.
        why: String,
    },
    /// The connection ended in the middle of an exchange.
    #[error("{what}: the connection to {host} broke: {why}")]
    Broken {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// The reason.
        why: String,
    },
    /// Nothing came for too long.
    #[error("{what}: no answer from {host} for {} seconds", after.as_secs())]
    Timeout {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// How long kiln waited.
        after: Duration,
    },
    /// An answer that the protocol doesn't foresee here.
    #[error("{what}: {host} answers {status}{said}")]
    Status {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words.
        said: Said,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// There is no such repository, tag, manifest or blob.
    #[error("{what}: not found at {host}{said}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// The registry's own words.
        said: Said,
    },
    /// The registry wants other credentials, or some.
    #[error("{what}: {host} {}{said}", if *with_credentials { "refuses the credentials" } else { "wants credentials" })]
    Unauthorized {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// Whether credentials were sent.
        with_credentials: bool,
        /// The registry's own words.
        said: Said,
    },
    /// Credentials are set up, but can't be had.
    #[error("credentials for {host}: {why}")]
    Credentials {
        /// The registry.
        host: String,
        /// The reason; never holds what a helper printed.
        why: String,
    },
    /// The registry's token server is one that credentials must not go to, or its answer is none.
    #[error("the token server that {host} names: {why}")]
    Realm {
        /// The registry.
        host: String,
        /// The reason.
        why: String,
    },
    /// Content isn't what its digest says.
    #[error("{what}: {host} sent {got} where {want} was asked for")]
    Digest {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// The digest of what came.
        got: Digest,
        /// The digest it should have.
        want: Digest,
    },
    /// Content isn't as long as its descriptor says.
    #[error("{what}: {host} sent {got} bytes where there should be {want}")]
    Size {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// How many came, up to the point where kiln stopped reading.
        got: u64,
        /// How many there should be.
        want: u64,
    },
    /// More bytes than kiln takes of this sort.
    #[error("{what}: larger than the {limit} bytes that kiln takes")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// A manifest or configuration that makes no sense, or none that kiln builds on.
    #[error("{what}: {why}")]
    Content {
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// An index without an image for the platform.
    #[error("{what}: no image for {wanted}")]
    Platform {
        /// What was asked for.
        what: String,
        /// The platform asked for.
        wanted: Platform,
        /// Those that are there, at most a dozen.
        have: Vec<String>,
    },
    /// An answer breaks the protocol (a redirect in circles, an upload without an address).
    #[error("{what}: {host} breaks the protocol: {why}")]
    Protocol {
        /// What was asked for.
        what: String,
        /// Host and port.
        host: String,
        /// The reason.
        why: String,
    },
    /// What is to be uploaded can't be read.
    #[error("{what}: reading what is uploaded: {why}")]
    Source {
        /// What was uploaded.
        what: String,
        /// The reason.
        why: String,
    },
    /// What is downloaded can't be written.
    #[error("{what}: writing what was downloaded: {why}")]
    Sink {
        /// What was downloaded.
        what: String,
        /// The reason.
        why: String,
    },
    /// The client can't be set up (a proxy's address, a certificate file).
    #[error("{0}")]
    Setup(String),
}

impl Error {
    /// Whether the same request may succeed in a moment.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Broken { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// How long the registry asks to wait before the next try.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether it says that there is no such thing, rather than that something failed.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    fn hints(&self) -> Vec<String> {
        match self {
            Self::Unreachable { host, .. } => {
                vec![format!("check the name and port, that the registry at {host} is up, and the proxy settings")]
            }
            Self::Tls { host, .. } => vec![
                format!(
                    "a registry with a certificate of its own: put its CA in /etc/docker/certs.d/{host}/ca.crt or $SSL_CERT_FILE"
                ),
                format!("a registry without TLS that you trust: --insecure-registry {host}"),
            ],
            Self::NotFound { .. } => vec!["check the repository's name and the tag".into()],
            Self::Unauthorized { host, with_credentials: false, .. } => {
                vec![format!(
                    "log in with `kiln login {host}`; registries also say this of a repository that doesn't exist"
                )]
            }
            Self::Unauthorized { host, with_credentials: true, .. } => {
                vec![format!("log in again with `kiln login {host}`, and check that the account may do this")]
            }
            Self::Status { status: 429, .. } => {
                vec!["the registry limits requests: log in, wait, or name a mirror with --registry-mirror".into()]
            }
            Self::Platform { have, .. } if !have.is_empty() => vec![format!("there is: {}", have.join(", "))],
            _ => Vec::new(),
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Source { .. } | Error::Sink { .. } | Error::Setup(_) => Kind::Environment,
            _ => Kind::Network,
        };
        let mut problem = Self::new(kind, error.to_string());
        problem.hints = error.hints();
        problem
    }
}

/// What a registry said of a failure: codes and messages, made safe to print.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Said(Vec<String>);

#[derive(serde::Deserialize)]
struct ErrorBody {
    #[serde(default)]
    errors: Vec<ErrorEntry>,
    // Token servers and proxies have forms of their own.
    #[serde(default)]
    details: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

#[derive(serde::Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    message: Option<String>,
}

impl Said {
    /// Reads an error body of the distribution protocol; whatever else it is, nothing was said.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let Ok(body) = serde_json::from_slice::<ErrorBody>(body) else { return Self::default() };
        let entries = body
            .errors
            .into_iter()
            .map(|e| [e.code, e.message].into_iter().flatten().map(|t| printable(&t)).collect::<Vec<_>>().join(": "));
        let others = [body.details, body.message].into_iter().flatten().map(|t| printable(&t));
        Self(entries.chain(others).filter(|t| !t.is_empty()).take(4).collect())
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " ({})", self.0.join("; ")) }
    }
}

/// A foreign text for a terminal: control characters removed, cut at 200 characters.
pub(crate) fn printable(text: &str) -> String {
    let is_safe = |c: &char| {
        !c.is_control() && !matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    text.chars().filter(is_safe).take(200).collect::<String>().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say() {
        for (body, want) in [
            (
                r#"{"errors":[{"code":"DENIED","message":"no\u001b[31m way","detail":{"a":1}}]}"#,
                " (DENIED: no[31m way)",
            ),
            (r#"{"errors":[{"code":"A"},{"message":"b"}]}"#, " (A; b)"),
            (r#"{"details":"incorrect username or password"}"#, " (incorrect username or password)"),
            (r#"{"errors":null}"#, ""),
            ("<html>", ""),
            ("{}", ""),
        ] {
            assert_eq!(Said::parse(body.as_bytes()).to_string(), want, "{body}");
        }
        assert_eq!(Said::parse(format!(r#"{{"message":"{}"}}"#, "x".repeat(9999)).as_bytes()).to_string().len(), 203);
    }

    #[test]
    fn problems_have_hints() {
        let status = Error::Unauthorized {
            what: "push of a.b/c:1".into(),
            host: "a.b".into(),
            with_credentials: false,
            said: Said::default(),
        };
        let problem = Problem::from(status);
        assert_eq!(problem.message, "push of a.b/c:1: a.b wants credentials");
        assert_eq!(problem.kind.exit_code(), 3);
        assert!(problem.hints[0].contains("kiln login a.b"));
    }

    #[test]
    fn transience() {
        let status = |status| Error::Status {
            what: String::new(),
            host: String::new(),
            status,
            said: Said::default(),
            retry_after: None,
        };
        for (code, want) in [(429, true), (503, true), (501, false), (400, false), (416, false)] {
            assert_eq!(status(code).is_transient(), want, "{code}");
        }
    }
}
