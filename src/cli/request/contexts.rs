//! What a context is, told by its text alone, by buildx' rules and Kaniko's.

use super::{not_yet, wrong};
use crate::cli::Env;
use crate::plan::{Context, GitUrl};
use crate::report::Problem;
use crate::source::{ObjectUrl, has_azure_credentials};
use std::path::PathBuf;

/// What the main context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// A folder, or the file of a tar: which one, the disk tells.
    Path,
    /// Standard input: a tar, or a Dockerfile alone.
    Stdin,
    /// A git repository.
    Git(GitUrl),
    /// A tar or a Dockerfile alone on a web server.
    Http(String),
    /// The same in a bucket.
    Object(ObjectUrl),
}

/// What a named context is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NamedContext {
    /// A folder, absolute.
    Folder(PathBuf),
    /// A tar in a bucket, unpacked.
    Object(ObjectUrl),
    /// Something that the plan knows.
    Planned(Context),
}

/// The main context, and where it is if it is on this machine.
pub(super) fn main(text: &str, env: &Env) -> Result<(Place, PathBuf), Problem> {
    let here = |path: &str| Ok((Place::Path, env.cwd.join(path)));
    let fail = |why: &str| Err(wrong("context", text, why));
    match text {
        "" => return fail("want a folder, a git repository, a tar or -"),
        "-" | "tar://stdin" => return Ok((Place::Stdin, env.cwd.clone())),
        _ => {}
    }
    match repository(text, env) {
        Some(Ok(url)) => return Ok((Place::Git(url), env.cwd.join(text))),
        Some(Err(why)) => return fail(&why),
        None => {}
    }
    match object(text, env) {
        Some(Ok(url)) => return Ok((Place::Object(url), env.cwd.join(text))),
        Some(Err(why)) => return fail(&why),
        None => {}
    }
    match text.split_once("://") {
        Some(("dir" | "tar", "")) => fail("want a path"),
        Some(("dir" | "tar", path)) => here(path),
        Some(("http" | "https", _)) => Ok((Place::Http(text.to_owned()), env.cwd.join(text))),
        Some((scheme, _)) => Err(not_yet(&format!("a context of the kind {scheme}://"))),
        None => here(text),
    }
}

/// `--build-context`: a name, in small letters, and what it stands for.
pub(super) fn named(text: &str, env: &Env) -> Result<(String, NamedContext), Problem> {
    let fail = |why: &str| wrong("--build-context", text, why);
    let (name, place) = text.split_once('=').ok_or_else(|| fail("want NAME=CONTEXT"))?;
    if name.is_empty() || place.is_empty() {
        return Err(fail("want NAME=CONTEXT"));
    }
    let context = match (repository(place, env), object(place, env)) {
        (Some(Ok(url)), _) => NamedContext::Planned(Context::Git(url)),
        (_, Some(Ok(url))) => NamedContext::Object(url),
        (Some(Err(why)), _) | (_, Some(Err(why))) => return Err(fail(&why)),
        (None, None) => other(place, env)?.ok_or_else(|| fail("there is something to name behind the colon"))?,
    };
    Ok((name.to_ascii_lowercase(), context))
}

/// Hosts that have ended git's own protocol, so that `git://` can only be Kaniko's there.
const WEB_ONLY: [&str; 3] = ["github.com", "gitlab.com", "bitbucket.org"];

/// A repository. `git://` is git's own protocol, as in `docker build`; Kaniko's meaning, HTTP, is taken where nothing
/// else can be meant: on [`WEB_ONLY`], and where Kaniko's `$GIT_PULL_METHOD` says so.
fn repository(text: &str, env: &Env) -> Option<Result<GitUrl, String>> {
    let Some(rest) = text.strip_prefix("git://") else { return GitUrl::context(text) };
    let authority = rest.split(['/', '#', '?']).next().unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match env.set_var("GIT_PULL_METHOD") {
        Some(method @ ("http" | "https")) => GitUrl::known(&format!("{method}://{rest}")),
        Some(_) => Some(Err("$GIT_PULL_METHOD is neither http nor https".into())),
        None if WEB_ONLY.contains(&host) => GitUrl::known(&format!("https://{rest}")),
        None => GitUrl::context(text),
    }
}

/// Something in a bucket. Azure's addresses are a web server's, too: they are objects where there is a credential for
/// them.
fn object(text: &str, env: &Env) -> Option<Result<ObjectUrl, String>> {
    let is_azure = text.starts_with("https://");
    if is_azure && !has_azure_credentials(&|name| env.var(name).map(str::to_owned)) {
        return None;
    }
    ObjectUrl::parse(text)
}

/// A named context that is no repository; `None` where its kind says what it is and nothing follows.
fn other(place: &str, env: &Env) -> Result<Option<NamedContext>, Problem> {
    if let Some(stage) = place.strip_prefix("target:") {
        return Ok((!stage.is_empty()).then(|| NamedContext::Planned(Context::Target(stage.to_owned()))));
    }
    let context = match place.split_once("://") {
        Some((_, "")) => return Ok(None),
        Some(("docker-image", image)) => Context::Image(image.to_owned()),
        Some(("oci-layout", path)) => Context::OciLayout(env.cwd.join(path).to_string_lossy().into_owned()),
        Some(("http" | "https", _)) => Context::Http(place.to_owned()),
        Some(("dir", path)) => return Ok(Some(NamedContext::Folder(env.cwd.join(path)))),
        Some((scheme, _)) => return Err(not_yet(&format!("a --build-context of the kind {scheme}://"))),
        None if place == "-" => return Err(not_yet("a --build-context on standard input")),
        None => return Ok(Some(NamedContext::Folder(env.cwd.join(place)))),
    };
    Ok(Some(NamedContext::Planned(context)))
}
