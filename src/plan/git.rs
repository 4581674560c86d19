//! Git sources as ADD and named contexts write them, by the rules of BuildKit's `dfgitutil` and `gitutil`.
//!
//! `https://host/repo.git`, `git://…`, `ssh://…`, `git@host:path`; behind it `?key=value&…` or `#reference:folder`.

use super::op::GitOp;
use super::resolved::GitKey;
use crate::dockerfile::quote::quoted;
use std::collections::BTreeMap;

/// A git source, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GitUrl {
    /// Where to fetch from, without query and fragment.
    pub remote: String,
    /// Branch, tag or commit; empty for the default branch.
    pub reference: String,
    /// The folder inside; empty for the whole.
    pub subdir: String,
    /// The commit that it must be, or the beginning of it.
    pub checksum: String,
    /// `?keep-git-dir`.
    pub keep_git_dir: Option<bool>,
    /// `?submodules`.
    pub submodules: Option<bool>,
}

impl GitUrl {
    /// Reads `text`; `None` when it is no git source at all, an error when it is one with a wrong query.
    pub fn parse(text: &str) -> Option<Result<Self, String>> {
        Self::parse_as(text, false)
    }

    /// The same where a context is named: there `github.com/owner/repo` is a repository, too, and a commit may stand
    /// behind the reference, as Kaniko has it (`#refs/heads/main#COMMIT`).
    pub fn context(text: &str) -> Option<Result<Self, String>> {
        match text.starts_with("github.com/") {
            true => Self::known(&format!("https://{text}")),
            false => Self::parse(text).map(|url| url.map(Self::at_commit)),
        }
    }

    /// The same where somebody has said that it is a repository, whatever it is called.
    pub fn known(text: &str) -> Option<Result<Self, String>> {
        Self::parse_as(text, true).map(|url| url.map(Self::at_commit))
    }

    /// Kaniko takes the commit of the branch; since it names one alone, the branch isn't needed.
    fn at_commit(self) -> Self {
        match self.reference.rsplit_once('#') {
            Some((_, commit)) if commit.len() == 40 && commit.bytes().all(|b| b.is_ascii_hexdigit()) => {
                Self { reference: commit.to_ascii_lowercase(), ..self }
            }
            _ => self,
        }
    }

    /// What is asked of the repository.
    pub fn key(&self) -> GitKey {
        GitKey { remote: self.remote.clone(), reference: self.reference.clone(), timed: false }
    }

    /// The repository's files at the commit that was found for it; none is known yet where `commit` is empty.
    ///
    /// # Errors
    /// Where it isn't the commit that the source asks for.
    pub fn at(&self, commit: &str, keep_git_dir: bool) -> Result<GitOp, String> {
        if !commit.is_empty() && !commit.starts_with(&self.checksum) {
            return Err(format!("expected checksum to match {}, got {commit}", self.checksum));
        }
        Ok(GitOp {
            remote: self.remote.clone(),
            reference: self.reference.clone(),
            commit: commit.to_owned(),
            subdir: self.subdir.clone(),
            keep_git_dir,
            submodules: self.submodules.unwrap_or(true),
        })
    }

    /// The same where a flag has said that it is git (`--keep-git-dir`): an address on a web server needs no `.git`.
    pub(super) fn parse_as(text: &str, known: bool) -> Option<Result<Self, String>> {
        if text.starts_with("./") || text.starts_with("../") {
            return None;
        }
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        match rest.split_once("://") {
            Some((scheme, _)) => Self::with_scheme(scheme, rest, fragment, known),
            None if is_scp_style(rest) => Some(Ok(Self::new(rest, fragment))),
            None => None,
        }
    }

    fn with_scheme(scheme: &str, rest: &str, fragment: &str, known: bool) -> Option<Result<Self, String>> {
        let scheme = scheme.to_ascii_lowercase();
        if !matches!(scheme.as_str(), "http" | "https" | "ssh" | "git") {
            return None;
        }
        let (remote, query) = rest.split_once('?').unwrap_or((rest, ""));
        let web = matches!(scheme.as_str(), "http" | "https");
        if web && !known && !path_of(remote).ends_with(".git") {
            return None;
        }
        let mut url = Self::new(remote, fragment);
        Some(url.read_query(query).map(|()| url))
    }

    fn new(remote: &str, fragment: &str) -> Self {
        let (reference, subdir) = fragment.split_once(':').unwrap_or((fragment, ""));
        Self { remote: remote.to_owned(), reference: decoded(reference), subdir: decoded(subdir), ..Self::default() }
    }

    fn read_query(&mut self, query: &str) -> Result<(), String> {
        let mut fields = BTreeMap::new();
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()).into_owned() {
            if fields.insert(key.clone(), value).is_some() {
                return Err(format!("query {} has multiple values", quoted(&key)));
            }
        }
        for (key, value) in &fields {
            self.set(key, value)?;
        }
        let named = |key: &str, prefix: &str| {
            let name = fields.get(key)?;
            Some(if name.starts_with(prefix) { name.clone() } else { format!("{prefix}{name}") })
        };
        match (named("tag", "refs/tags/"), named("branch", "refs/heads/")) {
            (Some(_), Some(_)) => return Err("branch conflicts with tag".to_owned()),
            (Some(name), None) | (None, Some(name)) => agree("ref", &mut self.reference, &name)?,
            (None, None) => {}
        }
        if self.reference.is_empty() {
            self.reference.clone_from(&self.checksum);
        }
        Ok(())
    }

    fn set(&mut self, key: &str, value: &str) -> Result<(), String> {
        if value.is_empty() && !matches!(key, "submodules" | "keep-git-dir") {
            return Err(format!("query {} has no value", quoted(key)));
        }
        match key {
            "ref" => agree("ref", &mut self.reference, value)?,
            "subdir" => agree("subdir", &mut self.subdir, value)?,
            "checksum" | "commit" => value.clone_into(&mut self.checksum),
            "keep-git-dir" => self.keep_git_dir = Some(flag(key, value)?),
            "submodules" => self.submodules = Some(flag(key, value)?),
            "tag" | "branch" => {}
            _ => return Err(format!("unexpected query {}", quoted(key))),
        }
        Ok(())
    }
}

/// Sets what is unset, or is the same.
fn agree(what: &str, slot: &mut String, value: &str) -> Result<(), String> {
    if !slot.is_empty() && slot != value {
        return Err(format!("{what} conflicts: {} vs {}", quoted(slot), quoted(value)));
    }
    value.clone_into(slot);
    Ok(())
}

fn flag(key: &str, value: &str) -> Result<bool, String> {
    if value.is_empty() {
        Ok(true)
    } else {
        go_bool(value).ok_or_else(|| format!("invalid {key} value: {}", quoted(value)))
    }
}

/// Go's `strconv.ParseBool`.
pub fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn decoded(text: &str) -> String {
    // `+` is itself in a fragment.
    let text = text.replace('+', "%2B");
    url::form_urlencoded::parse(text.as_bytes()).next().map(|(k, _)| k.into_owned()).unwrap_or_default()
}

/// The path of `scheme://host/path`.
fn path_of(remote: &str) -> &str {
    let rest = remote.split_once("://").map_or(remote, |(_, rest)| rest);
    rest.split_once('/').map_or("", |(_, path)| path)
}

/// `user@host:path`, as in ssh.
fn is_scp_style(text: &str) -> bool {
    let is_name = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    let is_host =
        |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.'));
    let parts = text.split_once('@').and_then(|(user, rest)| Some((user, rest.split_once(':')?)));
    parts.is_some_and(|(user, (host, path))| is_name(user) && is_host(host) && !path.is_empty())
}

/// Whether `text` is the address of a file on a web server, and not of a git repository.
pub(super) fn is_web_file(text: &str) -> bool {
    (text.starts_with("http://") || text.starts_with("https://")) && GitUrl::parse(text).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_git_sources_apart() {
        for (text, remote, reference, subdir) in [
            ("https://h/o/r.git", "https://h/o/r.git", "", ""),
            ("https://h/o/r.git#v1", "https://h/o/r.git", "v1", ""),
            ("https://h/o/r.git#v1:a/b", "https://h/o/r.git", "v1", "a/b"),
            ("https://h/o/r.git#:a", "https://h/o/r.git", "", "a"),
            ("git@h:o/r#x", "git@h:o/r", "x", ""),
            ("ssh://git@h/o/r", "ssh://git@h/o/r", "", ""),
            ("https://h/r.git?tag=v1&subdir=d", "https://h/r.git", "refs/tags/v1", "d"),
            ("https://h/r.git?branch=refs/heads/m", "https://h/r.git", "refs/heads/m", ""),
            ("https://h/r.git?commit=abc", "https://h/r.git", "abc", ""),
        ] {
            let url = GitUrl::parse(text).unwrap().unwrap();
            assert_eq!((url.remote.as_str(), url.reference.as_str(), url.subdir.as_str()), (remote, reference, subdir));
        }
        let url = GitUrl::parse("git://h/r?keep-git-dir&submodules=0").unwrap().unwrap();
        assert_eq!((url.keep_git_dir, url.submodules), (Some(true), Some(false)));
    }

    #[test]
    fn refuses_what_contradicts_itself() {
        for (text, want) in [
            ("https://h/r.git?x=1", "unexpected query \"x\""),
            ("https://h/r.git?ref=a&ref=b", "query \"ref\" has multiple values"),
            ("https://h/r.git?ref=#x", "query \"ref\" has no value"),
            ("https://h/r.git?ref=a#b", "ref conflicts: \"b\" vs \"a\""),
            ("https://h/r.git?tag=a&branch=b", "branch conflicts with tag"),
            ("https://h/r.git?submodules=maybe", "invalid submodules value: \"maybe\""),
        ] {
            assert_eq!(GitUrl::parse(text).unwrap().unwrap_err(), want, "{text}");
        }
    }

    #[test]
    fn other_sources_are_none() {
        for text in ["a", "./r.git", "../x", "github.com/o/r", "https://h/file", "C:/x", "a:b", "ftp://h/r.git", "@:"] {
            assert_eq!(GitUrl::parse(text), None, "{text}");
        }
        let github = GitUrl::context("github.com/o/r#v1:d").unwrap().unwrap();
        let GitUrl { remote, reference, subdir, .. } = github;
        assert_eq!([remote.as_str(), &reference, &subdir], ["https://github.com/o/r", "v1", "d"]);
        let commit = "0123456789abcdef0123456789abcdef01234567";
        for text in [format!("https://h/r.git#refs/heads/b#{commit}:d"), format!("git://h/r##{commit}:d")] {
            let url = GitUrl::context(&text).unwrap().unwrap();
            assert_eq!((url.reference.as_str(), url.subdir.as_str()), (commit, "d"), "{text}");
        }
        assert_eq!(GitUrl::context("git://h/r#a#b").unwrap().unwrap().reference, "a#b");
        let known = GitUrl::parse_as("https://h/o/r#v1", true).unwrap().unwrap();
        assert_eq!((known.remote.as_str(), known.reference.as_str()), ("https://h/o/r", "v1"));
        assert!(is_web_file("https://h/a.tar") && !is_web_file("https://h/a.git") && !is_web_file("a"));
    }
}
