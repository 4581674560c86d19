//! What the environment says of who is there, for the repositories that the command line names.
//!
//! A Dockerfile may name any server, a repository any submodule, and a server may lead to another one: none of those is
//! told. So the server isn't told either before it asks: git takes a header along to wherever it is sent, but it asks a
//! helper by the address that wants to know.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::Arc;
use url::{Host, Url};

/// A helper of git's, which is run by a shell. It reads what it says from its environment, where nobody else sees it.
const HELPER: &str =
    r#"!f() { test "$1" = get && printf 'username=%s\npassword=%s\n' "$KILN_GIT_USER" "$KILN_GIT_PASSWORD"; }; f"#;

/// User and password, and the addresses whose servers may have them.
#[derive(Clone, Default)]
pub(super) struct Token {
    login: Option<(String, String)>,
    remotes: Arc<BTreeSet<String>>,
}

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Token").field("remotes", &self.remotes.len()).finish_non_exhaustive()
    }
}

impl Token {
    /// `$GIT_AUTH_TOKEN`, as BuildKit's secret is called; Kaniko's `$GIT_TOKEN`; `$GIT_USERNAME` with `$GIT_PASSWORD`.
    pub(super) fn new(env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let set = |name: &str| {
            let text = env(name)?.into_string().ok()?.trim().to_owned();
            (!text.is_empty()).then_some(text)
        };
        let login = if let Some(token) = set("GIT_AUTH_TOKEN") {
            Some(("x-access-token".into(), token))
        } else if let Some(token) = set("GIT_TOKEN") {
            Some((token, String::new()))
        } else {
            match (set("GIT_USERNAME"), set("GIT_PASSWORD")) {
                (None, None) => None,
                (user, password) => Some((user.unwrap_or_default(), password.unwrap_or_default())),
            }
        };
        Self { login, remotes: Arc::default() }
    }

    /// The same, to be told to the server of this address, too.
    pub(super) fn trusting(self, remote: &str) -> Self {
        let mut remotes = self.remotes.as_ref().clone();
        remotes.insert(remote.to_owned());
        Self { remotes: Arc::new(remotes), ..self }
    }

    /// The variables that let git know it, when it asks at an address. None where the address has a user of its own, or
    /// where others could read it on the way. What git runs for submodules doesn't get them.
    pub(super) fn variables(&self, remote: &str) -> Vec<(&'static str, String)> {
        let known = self.login.as_ref().filter(|_| self.remotes.contains(remote)).zip(server(remote));
        let Some(((user, password), server)) = known else { return Vec::new() };
        vec![
            ("GIT_CONFIG_COUNT", "1".into()),
            ("GIT_CONFIG_KEY_0", format!("credential.{server}.helper")),
            ("GIT_CONFIG_VALUE_0", HELPER.into()),
            ("KILN_GIT_USER", user.clone()),
            ("KILN_GIT_PASSWORD", password.clone()),
        ]
    }

    /// A text without what is secret in it.
    pub(super) fn hidden(&self, text: &str) -> String {
        let Some((user, password)) = &self.login else { return text.to_owned() };
        // A token stands where a user does; names are short, and no secret.
        let secrets = [Some(password), Some(user).filter(|_| password.is_empty())].into_iter().flatten();
        secrets.filter(|s| !s.is_empty()).fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "***"))
    }
}

/// Scheme, host and port of an address that a secret may be sent to.
fn server(remote: &str) -> Option<String> {
    let url = Url::parse(remote).ok()?;
    let near = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let private = url.scheme() == "https" || (url.scheme() == "http" && near);
    let own_user = !url.username().is_empty() || url.password().is_some();
    (private && !own_user).then(|| url.origin().ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(vars: &[(&str, &str)]) -> Token {
        Token::new(&|name| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(*v)))
    }

    #[test]
    fn only_the_named_servers_get_it() {
        let token = token(&[("GIT_AUTH_TOKEN", "hush\n")]);
        assert_eq!(token.variables("https://h/r.git"), []);
        let key = |remote: &str| token.clone().trusting(remote).variables(remote).into_iter().nth(1).map(|v| v.1);
        assert_eq!(key("https://h.example/o/r.git").unwrap(), "credential.https://h.example.helper");
        assert_eq!(key("http://127.0.0.1:8080/r.git").unwrap(), "credential.http://127.0.0.1:8080.helper");
        for remote in ["http://h.example/r.git", "https://me@h.example/r.git", "git@h:r", "ssh://h/r", "git://h/r"] {
            assert_eq!(key(remote), None, "{remote}");
        }
        let two = token.clone().trusting("https://a/r.git").trusting("https://b/r.git");
        assert!(!two.variables("https://a/r.git").is_empty() && !two.variables("https://b/r.git").is_empty());
        assert_eq!(two.variables("https://a/other.git"), []);
        assert!(!format!("{token:?}").contains("hush"));
        assert_eq!(token.hidden("no hush"), "no ***");
    }

    #[test]
    fn who_is_there_by_every_name() {
        for (vars, user, password) in [
            (&[("GIT_AUTH_TOKEN", "t"), ("GIT_TOKEN", "k")][..], "x-access-token", "t"),
            (&[("GIT_TOKEN", "k"), ("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")], "k", ""),
            (&[("GIT_USERNAME", "u"), ("GIT_PASSWORD", "p")], "u", "p"),
            (&[("GIT_PASSWORD", "p"), ("GIT_TOKEN", " ")], "", "p"),
        ] {
            assert_eq!(token(vars).login, Some((user.into(), password.into())), "{vars:?}");
        }
        assert_eq!(token(&[("GIT_AUTH_TOKEN", "")]).login, None);
    }
}
