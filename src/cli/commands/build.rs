//! `kiln build`: the Dockerfile to a plan, the plan to images, the images to where they are wanted.

use super::{dockerfile, outputs};
use crate::cli::Env;
use crate::cli::request::{BuildRequest, Secret, SecretFrom, SourceRequest};
use crate::cli::session::{Failure, Session, cannot, dockerfile_problem};
use crate::dockerfile::ast::Dockerfile;
use crate::layer::Timestamp;
use crate::oci::Platform;
use crate::plan::op::Op;
use crate::plan::{self, BuildArgs, BuildPlan, ResolvedBases, context_name};
use crate::report::{Diagnostic, Event, Kind, Problem};
use crate::sandbox;
use crate::snapshot::Overlay;
use crate::solve::{self, Options};
use crate::source::{DockerfileText, Git, LocalTree, Puller, Remotes, Resolver, ignore_rules};
use outputs::Outputs;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Builds; the text is what standard output gets.
///
/// # Errors
/// Whatever failed, with the Dockerfile that it points into.
pub fn run(request: &BuildRequest, store: &Path, env: &Env) -> Result<String, Failure> {
    let read = dockerfile::read(&request.source.context, &request.source.dockerfile)?;
    let (file, found) = dockerfile::parse(&read.text)?;
    let wanted = Outputs::of(request)?;
    let session = Session::start(store, &request.registry, request.style, Some(read.text.clone()), env)?;
    let built = session.run(async |session| {
        for finding in found {
            session.reporter.send(Event::Warning(finding));
        }
        build(session, request, &read, &file, wanted, env).await
    });
    built.map_err(|problem| {
        outputs::account_for_failure(request, &problem);
        Failure::of(problem, read.text.clone())
    })
}

async fn build(
    session: &Session,
    request: &BuildRequest,
    read: &DockerfileText,
    file: &Dockerfile,
    wanted: Outputs,
    env: &Env,
) -> Result<String, Problem> {
    let args = build_args(request);
    let (plan, warnings) = plan(session, request, file, &args, env).await?;
    for warning in warnings {
        session.reporter.send(Event::Warning(warning));
    }
    let plan = Arc::new(plan);
    let pushing = wanted.start(session);
    let on_layer = pushing.clone();
    let env = Arc::new(solve::Env {
        store: session.store.clone(),
        snapshots: Arc::new(Overlay),
        executor: executor(&plan, session)?,
        puller: puller(session),
        remotes: remotes(session, env),
        contexts: contexts(session, &request.source, read, env)?,
        secrets: secrets(&request.secrets, env)?,
        reporter: session.reporter.clone(),
        cancel: session.cancel.clone(),
        options: options(request, &plan, &wanted, env),
        on_layer: Box::new(move |layer| on_layer.layer(layer)),
    });
    let solved = solve::run(plan.clone(), env.clone()).await?;
    outputs::write(session, request, &plan, solved, wanted, pushing).await
}

/// Layers from the registries.
pub fn puller(session: &Session) -> Puller {
    Puller::new(session.store.clone(), session.registry.clone(), session.reporter.clone(), session.cancel.clone())
}

/// Repositories and files of web servers.
fn remotes(session: &Session, env: &Env) -> Remotes {
    let (store, client, cancel) = (session.store.clone(), session.registry.clone(), session.cancel.clone());
    Remotes { store, client, git: git(session, env), cancel }
}

/// Repositories by the git program.
fn git(session: &Session, env: &Env) -> Git {
    let var = |name: &str| env.vars.get(std::ffi::OsStr::new(name)).cloned();
    Git::new(session.store.clone(), session.cancel.clone(), &var)
}

/// Asks for what the Dockerfile names until nothing is unknown, and plans.
async fn plan(
    session: &Session,
    request: &BuildRequest,
    file: &Dockerfile,
    args: &BuildArgs,
    env: &Env,
) -> Result<(BuildPlan, Vec<Diagnostic>), Problem> {
    let resolver = Resolver {
        store: session.store.clone(),
        registry: session.registry.clone(),
        pull: request.pull,
        git: git(session, env),
        cancel: session.cancel.clone(),
    };
    let mut known = ResolvedBases::default();
    loop {
        let wanted = plan::bases(file, args, &known).map_err(dockerfile_problem)?;
        if wanted.is_empty() {
            return plan::lower(file, &known, args).map_err(dockerfile_problem);
        }
        resolver.resolve(&wanted, &mut known).await?;
    }
}

/// The command line as the planner takes it.
fn build_args(request: &BuildRequest) -> BuildArgs {
    let source = &request.source;
    BuildArgs {
        target: source.target.clone(),
        values: source.build_args.iter().cloned().collect(),
        platforms: source.platforms.clone(),
        labels: request.labels.clone(),
        no_cache: request.no_cache,
        no_cache_filter: request.no_cache_filter.clone(),
        network: request.process.network,
        extra_hosts: request.process.extra_hosts.clone(),
        limits: request.process.limits.clone(),
        contexts: source.named_contexts.iter().map(|(n, _)| (context_name(n), plan::Context::Local)).collect(),
        ..BuildArgs::new(Platform::host())
    }
}

/// What runs the plan's processes.
fn executor(plan: &BuildPlan, session: &Session) -> Result<Arc<dyn sandbox::Executor>, Problem> {
    let first = plan.vertices.iter().find(|v| matches!(v.op, Op::Exec(_)));
    super::run::executor(session, first.is_some()).map_err(|problem| match first {
        Some(vertex) => problem.at(vertex.span),
        None => problem,
    })
}

/// The context and the named ones, by the names that the plan uses.
fn contexts(
    session: &Session,
    source: &SourceRequest,
    read: &DockerfileText,
    env: &Env,
) -> Result<BTreeMap<String, Arc<LocalTree>>, Problem> {
    let open = |folder: &Path, dockerfile: Option<&Path>| -> Result<Arc<LocalTree>, Problem> {
        let rules = ignore_rules(folder, dockerfile)?;
        let tree = LocalTree::open(&session.store, folder, rules, threads(env), &session.cancel)?;
        Ok(Arc::new(tree))
    };
    let mut contexts = BTreeMap::new();
    contexts.insert("context".to_owned(), open(&source.context, read.path.as_deref())?);
    for (name, folder) in &source.named_contexts {
        contexts.insert(context_name(name), open(folder, None)?);
    }
    Ok(contexts)
}

fn secrets(secrets: &[Secret], env: &Env) -> Result<BTreeMap<String, Vec<u8>>, Problem> {
    secrets.iter().map(|secret| Ok((secret.id.clone(), secret_value(secret, env)?))).collect()
}

fn secret_value(secret: &Secret, env: &Env) -> Result<Vec<u8>, Problem> {
    match &secret.from {
        SecretFrom::File(path) => {
            std::fs::read(path).map_err(|e| cannot(&format!("read secret {} from {}", secret.id, path.display()), &e))
        }
        SecretFrom::Env(name) => {
            let value = env.vars.get(std::ffi::OsStr::new(name));
            let value = value.ok_or_else(|| {
                Problem::new(Kind::Usage, format!("secret {}: the variable {name} is not set", secret.id))
            })?;
            Ok(value.as_encoded_bytes().to_vec())
        }
    }
}

fn options(request: &BuildRequest, plan: &BuildPlan, wanted: &Outputs, env: &Env) -> Options {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Options {
        jobs: NonZeroUsize::new(request.jobs).unwrap_or(NonZeroUsize::MIN),
        threads: threads(env),
        compression: wanted.compression(request.compression),
        images: wanted.images(),
        complete: wanted.complete(),
        trees: wanted.trees(),
        epoch: plan.source_date_epoch,
        now: Timestamp { secs: i64::try_from(now.as_secs()).unwrap_or(0), nanos: now.subsec_nanos() },
        hostname: sandbox::spec::HOSTNAME.to_owned(),
    }
}

fn threads(env: &Env) -> NonZeroUsize {
    NonZeroUsize::new(env.cores).unwrap_or(NonZeroUsize::MIN)
}
