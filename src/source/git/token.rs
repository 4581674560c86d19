//! The token of the environment, for the one server that the command line names.
//!
//! A Dockerfile may name any server, and a repository any submodule: none of those is told the token.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use url::{Host, Url};

/// The variable with the token, as BuildKit's secret is called.
pub(super) const VARIABLE: &str = "GIT_AUTH_TOKEN";

/// A token, and the server that may have it.
#[derive(Clone, Default)]
pub(super) struct Token {
    token: Option<String>,
    /// Scheme and host.
    server: Option<String>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("server", &self.server).finish_non_exhaustive()
    }
}

impl Token {
    pub(super) fn new(token: Option<String>) -> Self {
        Self { token: token.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()), server: None }
    }

    /// The same, to be sent to the server of this address; to none where the address has a user of its own, or where
    /// others could read it on the way.
    pub(super) fn for_server_of(self, remote: &str) -> Self {
        Self { server: server(remote), ..self }
    }

    /// The variables that make git send it. Its own programs for submodules don't get them.
    pub(super) fn variables(&self) -> Vec<(&'static str, String)> {
        let (Some(token), Some(server)) = (&self.token, &self.server) else { return Vec::new() };
        let user = BASE64_STANDARD.encode(format!("x-access-token:{token}"));
        vec![
            ("GIT_CONFIG_COUNT", "1".into()),
            ("GIT_CONFIG_KEY_0", format!("http.{server}.extraheader")),
            ("GIT_CONFIG_VALUE_0", format!("Authorization: Basic {user}")),
        ]
    }
}

fn server(remote: &str) -> Option<String> {
    let url = Url::parse(remote).ok()?;
    let near = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let private = url.scheme() == "https" || (url.scheme() == "http" && near);
    let own_user = !url.username().is_empty() || url.password().is_some();
    (private && !own_user).then(|| format!("{}/", url.origin().ascii_serialization()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_named_server_gets_it() {
        let token = Token::new(Some("hush\n".into()));
        assert_eq!(token.variables(), []);
        let key = |remote: &str| token.clone().for_server_of(remote).variables().into_iter().nth(1).map(|v| v.1);
        assert_eq!(key("https://h.example/o/r.git").unwrap(), "http.https://h.example/.extraheader");
        assert_eq!(key("http://127.0.0.1:8080/r.git").unwrap(), "http.http://127.0.0.1:8080/.extraheader");
        for remote in ["http://h.example/r.git", "https://me@h.example/r.git", "git@h:r", "ssh://h/r", "git://h/r"] {
            assert_eq!(key(remote), None, "{remote}");
        }
        let sent = token.clone().for_server_of("https://h/r.git").variables();
        let want = format!("Authorization: Basic {}", BASE64_STANDARD.encode("x-access-token:hush"));
        assert_eq!(sent[2], ("GIT_CONFIG_VALUE_0", want));
        assert!(!format!("{token:?}").contains("hush"));
        assert_eq!(Token::new(Some(" ".into())).for_server_of("https://h/r.git").variables(), []);
    }
}
