//! What a registry's `WWW-Authenticate` asks for (RFC 9110, section 11.6.1; the distribution token protocol).

/// One way to authenticate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Challenge {
    /// A user name and a password with each request.
    Basic,
    /// A token from another server.
    Bearer {
        /// The address to ask for the token.
        realm: String,
        /// The registry's name there; often empty.
        service: String,
        /// The scopes that the refused request needs, separated by spaces; often empty.
        scope: String,
    },
}

impl Challenge {
    /// The same for any other request.
    pub(crate) fn without_scope(&self) -> Self {
        match self {
            Self::Basic => Self::Basic,
            Self::Bearer { realm, service, .. } => {
                Self::Bearer { realm: realm.clone(), service: service.clone(), scope: String::new() }
            }
        }
    }
}

/// The challenges in one header value that kiln can answer, in order. Whatever else stands there is passed over.
pub(crate) fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, Vec<(String, String)>)> = Vec::new();
    let mut rest = header;
    while let Some((word, after)) = token(rest) {
        if let Some(value) = after.trim_start().strip_prefix('=') {
            let (value, after) = parameter(value.trim_start());
            if let Some((_, parameters)) = found.last_mut() {
                parameters.push((word.to_ascii_lowercase(), value));
            }
            rest = after;
        } else {
            found.push((word.to_ascii_lowercase(), Vec::new()));
            rest = after;
        }
    }
    found.into_iter().filter_map(|(scheme, parameters)| challenge(&scheme, &parameters)).collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let get = |name: &str| parameters.iter().find(|(n, _)| n == name).map(|(_, v)| v.clone());
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: get("realm")?,
            service: get("service").unwrap_or_default(),
            scope: get("scope").unwrap_or_default(),
        }),
        _ => None,
    }
}

/// The next token and what follows it; separators and anything that can't start a token are skipped.
fn token(text: &str) -> Option<(&str, &str)> {
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/".contains(c);
    let start = text.find(is_token)?;
    let text = &text[start..];
    let end = text.find(|c| !is_token(c)).unwrap_or(text.len());
    Some(text.split_at(end))
}

/// A parameter's value, a token or a quoted string, and what follows it.
fn parameter(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut chars = quoted.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            _ => value.push(c),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str) -> Challenge {
        Challenge::Bearer { realm: realm.into(), service: service.into(), scope: scope.into() }
    }

    #[test]
    fn challenges() {
        for (header, want) in [
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer("https://auth.docker.io/token", "registry.docker.io", "repository:a/b:pull,push")],
            ),
            (r#"BEARER Realm = "r" , SERVICE=s"#, vec![bearer("r", "s", "")]),
            (r#"Bearer realm="a\"b",error="invalid_token""#, vec![bearer("a\"b", "", "")]),
            (r#"Negotiate, Bearer realm="r", Basic realm="x, y=z""#, vec![bearer("r", "", ""), Challenge::Basic]),
            (r#"Bearer service="no realm""#, vec![]),
            (r#"Bearer realm="never closed"#, vec![bearer("never closed", "", "")]),
            (r#"Digest qop="auth", realm="#, vec![]),
            ("", vec![]),
            ("=,=,\"", vec![]),
            (r#"realm="no scheme""#, vec![]),
        ] {
            assert_eq!(parse(header), want, "{header}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_parsed(header in r#"[ -~é]{0,80}"#) {
            let _ = parse(&header);
        }
    }
}
