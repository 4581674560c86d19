//! The main context of a command, brought here where it is no folder.

use super::build;
use crate::cli::Env;
use crate::cli::progress::Style;
use crate::cli::request::{DockerfileAt, NamedContext, Place, RegistryRequest, SourceRequest};
use crate::cli::session::{Failure, Session, failure};
use crate::plan::op::Op;
use crate::plan::{BuildPlan, context_name, go_bool};
use crate::registry::shown;
use crate::report::{Event, Kind, Problem};
use crate::source::{Buckets, Error, Fetched, ObjectUrl, unpacked};
use crate::store::Store;
use crate::sys::input::open_regular;
use std::collections::BTreeMap;
use std::path::Path;

/// A request whose context is a folder.
pub struct Ready {
    /// What is built from.
    pub source: SourceRequest,
    /// What must stay until the command is over.
    kept: Option<(Fetched, Store)>,
}

impl Ready {
    /// Whether the folder is the store's rather than the user's.
    pub fn is_fetched(&self) -> bool {
        self.kept.is_some()
    }
}

/// Fetches and unpacks what isn't a folder yet. A folder of that name goes first, as in buildx.
pub fn ready(
    source: &SourceRequest,
    registry: &RegistryRequest,
    style: Style,
    store: &Path,
    env: &Env,
) -> Result<Ready, Failure> {
    let is_folder = source.place != Place::Stdin && source.context.is_dir();
    if is_folder || (source.place == Place::Path && !source.context.is_file()) {
        return Ok(Ready { source: source.clone(), kept: None });
    }
    // With a session of its own, that the command's end doesn't end.
    let kept = Store::open(store).map_err(failure)?;
    let session = Session::start(store, registry, style, None, env)?;
    let fetched = session.run(async |session| session.stoppable(fetch(session, source, &kept, env)).await);
    let source = fetched.and_then(|fetched| Ok((inside(source, &fetched)?, fetched)));
    match source {
        Ok((source, fetched)) => Ok(Ready { source, kept: Some((fetched, kept)) }),
        Err(problem) => {
            // Somebody may still be reading standard input for it.
            let _ = kept.end();
            Err(problem.into())
        }
    }
}

async fn fetch(session: &Session, source: &SourceRequest, kept: &Store, env: &Env) -> Result<Fetched, Problem> {
    let remotes = build::remotes(session, source, env);
    let fetching = |url: &str| note(session, &shown(url));
    let (store, cancel, path) = (kept.clone(), session.cancel.clone(), source.context.clone());
    let unpacking = match &source.place {
        Place::Git(url) => {
            fetching(&url.remote);
            return Ok(remotes.git_context(url, keeps_git_dir(source)?).await?);
        }
        Place::Http(url) => {
            fetching(url);
            return remotes.http_context(kept, url).await.map_err(|e| azure_hint(url, e.into()));
        }
        Place::Object(url) => {
            note(session, &url.to_string());
            return Ok(buckets(session, env).context(&session.store, kept, url, &session.cancel).await?);
        }
        Place::Stdin => {
            tokio::task::spawn_blocking(move || unpacked(&store, std::io::stdin(), "standard input", &cancel))
        }
        Place::Path => tokio::task::spawn_blocking(move || {
            let file = open_regular(&path);
            let file = file.map_err(|source| Error::Io { what: "open", path: path.clone(), source })?;
            unpacked(&store, file, &path.display().to_string(), &cancel)
        }),
    };
    Ok(unpacking.await.map_err(Error::from)??)
}

fn note(session: &Session, context: &str) {
    session.reporter.send(Event::Note(format!("fetching the context {context}")));
}

/// Objects of clouds.
fn buckets(session: &Session, env: &Env) -> Buckets {
    Buckets::new(session.registry.clone(), &|name| env.var(name).map(str::to_owned))
}

/// An address of Azure's that a web server's way didn't open.
fn azure_hint(url: &str, problem: Problem) -> Problem {
    match ObjectUrl::parse(url) {
        Some(_) => problem.hint("set AZURE_STORAGE_ACCESS_KEY, where the container isn't public"),
        None => problem,
    }
}

/// The named contexts of buckets that the plan takes files from, by the names that it uses.
pub async fn objects(
    session: &Session,
    source: &SourceRequest,
    plan: &BuildPlan,
    env: &Env,
) -> Result<BTreeMap<String, Fetched>, Problem> {
    let is_used = |name: &str| plan.vertices.iter().any(|v| matches!(&v.op, Op::Local(local) if local.name == name));
    let mut fetched = BTreeMap::new();
    for (name, context) in &source.named_contexts {
        let (NamedContext::Object(url), name) = (context, context_name(name)) else { continue };
        if is_used(&name) {
            note(session, &url.to_string());
            let context = buckets(session, env).context(&session.store, &session.store, url, &session.cancel).await?;
            if context.dockerfile.is_some() {
                return Err(Problem::new(Kind::Usage, format!("the build context {url} is no tar")));
            }
            fetched.insert(name, context);
        }
    }
    Ok(fetched)
}

/// What BuildKit's own build argument says about `.git`.
fn keeps_git_dir(source: &SourceRequest) -> Result<bool, Problem> {
    let name = "BUILDKIT_CONTEXT_KEEP_GIT_DIR";
    match source.build_args.iter().rev().find(|(n, _)| n == name) {
        None => Ok(false),
        Some((_, value)) => go_bool(value).ok_or_else(|| {
            Problem::new(Kind::Usage, format!("the build argument {name} is {value:?}: want true or false"))
        }),
    }
}

/// The request with the folder, and its Dockerfile inside.
fn inside(source: &SourceRequest, fetched: &Fetched) -> Result<SourceRequest, Problem> {
    let typed = source.file.as_deref();
    let elsewhere = source.dockerfile == DockerfileAt::Stdin
        || (matches!(source.place, Place::Git(_) | Place::Http(_) | Place::Object(_))
            && typed.is_some_and(Path::is_absolute));
    let dockerfile = match (&fetched.dockerfile, typed) {
        (None, _) | (_, Some(_)) if elsewhere => source.dockerfile.clone(),
        (Some(path), None) if source.place != Place::Path => {
            DockerfileAt::Path { path: path.clone(), shown: "Dockerfile".into() }
        }
        (Some(_), _) if source.place == Place::Path => {
            let message = format!("the context {} is neither a folder nor a tar", source.context.display());
            return Err(Problem::new(Kind::Usage, message));
        }
        (Some(_), _) => {
            let message = "the context is a Dockerfile, and -f names another";
            return Err(Problem::new(Kind::Usage, message).hint("leave -f away, or give a tar"));
        }
        (None, typed) => dockerfile_in(fetched, typed.unwrap_or(Path::new("Dockerfile")))?,
    };
    let context = fetched.folder.clone();
    Ok(SourceRequest { context, context_time: fetched.time, dockerfile, ..source.clone() })
}

fn dockerfile_in(fetched: &Fetched, name: &Path) -> Result<DockerfileAt, Problem> {
    Ok(DockerfileAt::Path { path: fetched.file(name)?, shown: name.display().to_string() })
}
