//! From a Dockerfile to a plan, for all who need one.

use crate::cli::Env;
use crate::cli::request::{NamedContext, SourceRequest};
use crate::cli::session::{Session, dockerfile_problem};
use crate::dockerfile::ast::Dockerfile;
use crate::oci::Platform;
use crate::plan::{self, BuildArgs, BuildPlan, ImageKey, ResolvedBases, Wanted, context_name};
use crate::report::{Diagnostic, Event, Problem, Span};
use crate::source::{Git, Resolver};
use futures_util::future::join_all;

/// What the flags say of the source, as the planner takes it.
pub fn args(source: &SourceRequest) -> BuildArgs {
    BuildArgs {
        target: source.target.clone(),
        values: source.build_args.iter().cloned().collect(),
        platforms: source.platforms.clone(),
        contexts: source.named_contexts.iter().map(|(name, context)| (context_name(name), planned(context))).collect(),
        context_time: source.context_time,
        ..BuildArgs::new(Platform::host())
    }
}

fn planned(context: &NamedContext) -> plan::Context {
    match context {
        NamedContext::Folder(_) | NamedContext::Object(_) => plan::Context::Local,
        NamedContext::Planned(context) => context.clone(),
    }
}

/// Repositories by the git program. The servers of those among `contexts` may know who asks.
pub fn git<'a>(session: &Session, contexts: impl IntoIterator<Item = &'a plan::Context>, env: &Env) -> Git {
    let var = |name: &str| env.vars.get(std::ffi::OsStr::new(name)).cloned();
    let git = Git::new(session.store.clone(), session.cancel.clone(), &var);
    contexts.into_iter().fold(git, |git, context| match context {
        plan::Context::Git(url) => git.trusting(&url.remote),
        _ => git,
    })
}

fn resolver(session: &Session, args: &BuildArgs, pull: bool, env: &Env) -> Resolver {
    Resolver {
        store: session.store.clone(),
        registry: session.registry.clone(),
        pull,
        git: git(session, args.contexts.values(), env),
        cancel: session.cancel.clone(),
    }
}

/// Asks for what the Dockerfile names until nothing is unknown.
///
/// # Errors
/// What is wrong with the Dockerfile, or what somebody who was asked says.
pub async fn resolved(
    session: &Session,
    file: &Dockerfile,
    args: &BuildArgs,
    pull: bool,
    env: &Env,
) -> Result<ResolvedBases, Problem> {
    let resolver = resolver(session, args, pull, env);
    let mut known = ResolvedBases::default();
    loop {
        let wanted = plan::bases(file, args, &known).map_err(dockerfile_problem)?;
        if wanted.is_empty() {
            return Ok(known);
        }
        resolver.resolve(&wanted, &mut known).await?;
    }
}

/// The plan, and what the lints that need expansion found.
///
/// # Errors
/// As [`resolved`].
pub async fn plan(
    session: &Session,
    file: &Dockerfile,
    args: &BuildArgs,
    pull: bool,
    env: &Env,
) -> Result<(BuildPlan, Vec<Diagnostic>), Problem> {
    let known = resolved(session, file, args, pull, env).await?;
    plan::lower(file, &known, args).map_err(dockerfile_problem)
}

/// As much as can be known of the images that the Dockerfile names; says of each other one why not. Nothing else is asked
/// for, and nothing that is wrong with the Dockerfile is an error here.
pub async fn guessed(session: &Session, file: &Dockerfile, args: &BuildArgs, env: &Env) -> ResolvedBases {
    let resolver = Resolver { registry: session.registry.impatient(), ..resolver(session, args, false, env) };
    let mut known = ResolvedBases::default();
    let mut given_up: Vec<ImageKey> = Vec::new();
    while let Ok(wanted) = plan::bases(file, args, &known) {
        let open: Vec<(ImageKey, Span)> =
            wanted.images.into_iter().filter(|(key, _)| !given_up.contains(key)).collect();
        if open.is_empty() {
            break;
        }
        let answers = join_all(open.into_iter().map(|image| one(&resolver, image))).await;
        for (key, answer) in answers {
            match answer {
                Ok(answer) => known.images.extend(answer.images),
                Err(problem) => {
                    let note = format!("{} can't be looked at, so what depends on it isn't checked", key.name);
                    session.reporter.send(Event::Note(format!("{note}: {}", problem.message)));
                    given_up.push(key);
                }
            }
        }
    }
    known
}

async fn one(resolver: &Resolver, (key, span): (ImageKey, Span)) -> (ImageKey, Result<ResolvedBases, Problem>) {
    let mut known = ResolvedBases::default();
    let wanted = Wanted { images: vec![(key.clone(), span)], ..Wanted::default() };
    let answer = resolver.resolve(&wanted, &mut known).await;
    (key, answer.map(|()| known))
}
