//! Git repositories, fetched by the git program.
//!
//! What is written in a Dockerfile is hostile, and so is the repository. Nothing of either becomes an option of git:
//! addresses and names stand behind `--`, and neither may begin with a dash. Only the protocols in [`PROTOCOLS`] are
//! spoken, by submodules too. Neither the system's nor the user's configuration is read, no hook of a template is
//! installed, nothing is asked on the terminal. Host keys are checked by ssh as its user has set it up,
//! in files or in `$GIT_SSH_COMMAND`.
//!
//! A tree is a snapshot of the store under a key of address, commit, folder and flags, so that each is fetched once.
//! Its files have the time of the commit, and the modes that a umask of 022 gives.

mod checkout;
mod run;
#[cfg(test)]
mod tests;
mod token;

use super::error::{Error, Result};
use crate::oci::Digest;
use crate::plan::op::GitOp;
use crate::plan::{GitKey, ResolvedGit};
use crate::snapshot::FolderTree;
use crate::store::{Key, Store};
use crate::sys::{Cancel, program};
use std::ffi::OsString;
use std::path::PathBuf;
use token::Token;
use tokio::task::spawn_blocking;

/// What git may speak, as `GIT_ALLOW_PROTOCOL` has it.
pub const PROTOCOLS: &str = "http:https:ssh:git";

/// Variables of the environment that git gets.
const PASSED: [&str; 11] = [
    "HOME",
    "USER",
    "SSH_AUTH_SOCK",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "no_proxy",
    "NO_PROXY",
    "ALL_PROXY",
];

/// The records of when commits were made.
const TIMES: &str = "git-time";

/// The git program, and what it may do. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Git {
    store: Store,
    cancel: Cancel,
    /// Where git is, if it is anywhere.
    program: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    protocols: String,
    token: Token,
    /// How ssh is run.
    ssh: String,
}

impl Git {
    /// Git as it is found in `$PATH`, with the part of the environment that it needs. Programs that git starts (ssh) are looked
    /// for in the same directories.
    pub fn new(store: Store, cancel: Cancel, env: &dyn Fn(&str) -> Option<OsString>) -> Self {
        let path = program::absolute(&env("PATH").unwrap_or_default());
        let passed = PASSED.iter().filter_map(|name| Some((OsString::from(name), env(name)?)));
        let environment = passed.chain([("PATH".into(), path.clone())]).collect();
        let ssh = run::ssh_command(env("GIT_SSH_COMMAND").and_then(|c| c.into_string().ok()));
        let (program, protocols, token) = (program::find("git", &path), PROTOCOLS.into(), Token::new(env));
        Self { store, cancel, program, environment, protocols, token, ssh }
    }

    /// Tells the server of this address, which the user has named, the token of the environment if it asks.
    pub fn trusting(self, remote: &str) -> Self {
        Self { token: self.token.trusting(remote), ..self }
    }

    /// Lets git speak other protocols (`file`), between colons.
    pub fn with_protocols(self, protocols: &str) -> Self {
        Self { protocols: protocols.into(), ..self }
    }

    /// The commit that a branch or tag, or the default branch, means now, and its time where that is known or wanted. A
    /// commit's own name is taken as it is.
    ///
    /// # Errors
    /// [`Error::Git`], [`Error::NoGit`].
    pub async fn resolve(&self, key: &GitKey) -> Result<ResolvedGit> {
        let (git, key) = (self.clone(), key.clone());
        spawn_blocking(move || {
            let commit = match is_commit(&key.reference) {
                true => key.reference.clone(),
                false => git.look_up(&key.remote, &key.reference)?.commit,
            };
            let time = match git.store.record(TIMES, &commit_key(&key.remote, &commit))? {
                None if key.timed => Some(git.fetch_time(&key, &commit)?),
                known => known,
            };
            Ok(ResolvedGit { commit, time })
        })
        .await?
    }

    /// The files of a commit, all of them root's.
    ///
    /// # Errors
    /// As [`Git::resolve`].
    pub async fn tree(&self, op: &GitOp) -> Result<FolderTree> {
        Ok(FolderTree::open(&self.folder(op).await?)?)
    }

    /// Where the files of a commit are in the store.
    ///
    /// # Errors
    /// As [`Git::resolve`].
    pub(super) async fn folder(&self, op: &GitOp) -> Result<PathBuf> {
        let (git, op) = (self.clone(), op.clone());
        Ok(spawn_blocking(move || git.checked_out(&op)).await??.fs)
    }

    /// Asks a repository what a name means.
    fn look_up(&self, remote: &str, name: &str) -> Result<Advertised> {
        self.check(remote, name)?;
        let mut args = vec!["ls-remote", "--", remote];
        let peeled = format!("{name}^{{}}");
        if name.is_empty() {
            args.push("HEAD");
        } else {
            args.extend([name, peeled.as_str()]);
        }
        let listed = self.run(remote, None, &args)?;
        let missing = || {
            let name = if name.is_empty() { "HEAD" } else { name };
            self.failed(remote, format!("the repository does not contain {name:?}"))
        };
        advertised(&listed, name).ok_or_else(missing)
    }

    /// Refuses addresses and names that git could take for anything else.
    fn check(&self, remote: &str, name: &str) -> Result<()> {
        let bad = |why: &str| Err(self.failed(remote, why.to_owned()));
        if remote.starts_with('-') || name.starts_with('-') {
            return bad("addresses and names of references don't begin with a dash");
        }
        if remote.chars().chain(name.chars()).any(char::is_control) {
            return bad("control characters in the address or the reference");
        }
        // ssh's short form has no scheme; what has two colons is a program of git's.
        let scheme = remote.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        let known = match &scheme {
            Some(scheme) => self.protocols.split(':').any(|p| p == scheme),
            None => remote.contains(':') && !remote.contains("::"),
        };
        if known { Ok(()) } else { bad("only http, https, ssh and git addresses are fetched") }
    }

    fn failed(&self, remote: &str, why: String) -> Error {
        Error::Git { remote: crate::registry::shown(remote), why }
    }
}

/// What a repository says that a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Advertised {
    /// The commit, also of an annotated tag.
    commit: String,
    /// The whole name: `refs/heads/main`, or `HEAD`.
    full_name: String,
}

/// Chooses among the lines of `ls-remote`, as git's checkout does: the very name under `refs/`, a branch, a tag.
fn advertised(listed: &str, name: &str) -> Option<Advertised> {
    let full_names = match name {
        "" => vec!["HEAD".to_owned()],
        _ => ["refs/", "refs/heads/", "refs/tags/"]
            .iter()
            .map(|front| if name.starts_with(front) { name.to_owned() } else { format!("{front}{name}") })
            .collect(),
    };
    let of =
        |wanted: &str| listed.lines().find_map(|l| l.split_once('\t').filter(|(_, n)| *n == wanted)).map(|(c, _)| c);
    let found = full_names.into_iter().find_map(|full| {
        // An annotated tag is an object of its own; with `^{}` stands the commit.
        let commit = of(&format!("{full}^{{}}")).or_else(|| of(&full))?;
        Some(Advertised { commit: commit.to_owned(), full_name: full })
    });
    found.filter(|f| is_commit(&f.commit))
}

/// Whether a text is a commit's whole name, in SHA-1 or SHA-256.
fn is_commit(text: &str) -> bool {
    matches!(text.len(), 40 | 64) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn commit_key(remote: &str, commit: &str) -> Key {
    Key::from(&Digest::of(format!("{remote}\0{commit}").as_bytes()))
}
