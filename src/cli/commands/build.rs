//! `kiln build`: the Dockerfile to a plan, the plan to images, the images to where they are wanted.

use super::table::size;
use super::{agents, caches, check, context, dockerfile, outputs, planning, secrets};
use crate::cli::isolation::{self, Together};
use crate::cli::request::{BuildRequest, NamedContext, Place, SourceRequest};
use crate::cli::session::{Failure, Session, cannot, dockerfile_problem};
use crate::cli::{Env, credentials};
use crate::dockerfile::ast::Dockerfile;
use crate::dockerfile::lint::Options as Checks;
use crate::layer::Timestamp;
use crate::plan::op::Op;
use crate::plan::{BuildArgs, BuildPlan, context_name};
use crate::registry::shown;
use crate::report::{Diagnostic, Event, Kind, Problem};
use crate::sandbox::cgroup::Kills;
use crate::solve::cache::{Caches, export};
use crate::solve::journal::About;
use crate::solve::mounts::CacheMounts;
use crate::solve::turns::Jobs;
use crate::solve::{self, Options};
use crate::source::{DockerfileText, Fetched, LocalTree, Puller, Remotes, ignore_rules};
use crate::store::{Key, Limit, Shrunk};
use outputs::{Outputs, Pushing};
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

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
        let built = build(session, request, &read, &file, found, wanted, env).await;
        keep_within(session, request.store_limit).await;
        built
    });
    built.map_err(|problem| Failure::of(problem, read.text.clone()))
}

/// Makes room where the store has grown too large. Whether that can be done is no concern of a build's.
async fn keep_within(session: &Session, limit: Limit) {
    let store = session.store.clone();
    let shrinking = tokio::task::spawn_blocking(move || store.keep_within(limit));
    let shrunk = session.stoppable(async { Ok(shrinking.await) }).await;
    if let Ok(Ok(Ok(Some(Shrunk { was, limit, removed })))) = shrunk {
        let text = format!(
            "the store took {}, its limit is {}: {} of what wasn't used for longest were removed",
            size(was),
            size(limit),
            size(removed.bytes)
        );
        session.reporter.send(Event::Note(text));
    }
}

async fn build(
    session: &Session,
    request: &BuildRequest,
    read: &DockerfileText,
    file: &Dockerfile,
    found: Vec<Diagnostic>,
    wanted: Outputs,
    env: &Env,
) -> Result<String, Problem> {
    let args = build_args(request);
    let (plan, warnings) = planning::plan(session, file, &args, request.pull, env).await?;
    let found = [found, check::of_build(read, file, &request.source)?, warnings].concat();
    warn(session, file, found)?;
    let job = Job { session, request, read, wanted: &wanted, plan: Arc::new(plan), env };
    let caches_if = |asked| Arc::new(caches::of_steps(session, request, &wanted.pushed(), asked));
    let caches = caches_if(true);
    let done = job.run(caches.clone()).await;
    if done.is_ok() || !caches.gave_way() || session.cancel.is_cancelled() {
        return done;
    }
    let why = "warning: a cache had records of layers that it couldn't give; building without it";
    session.reporter.send(Event::Note(why.into()));
    job.run(caches_if(false)).await
}

/// A build that may have to be done twice, since what caches say is believed until it proves wrong.
struct Job<'a> {
    session: &'a Session,
    request: &'a BuildRequest,
    read: &'a DockerfileText,
    wanted: &'a Outputs,
    plan: Arc<BuildPlan>,
    env: &'a Env,
}

impl Job<'_> {
    async fn run(&self, caches: Arc<Caches>) -> Result<String, Problem> {
        let Self { session, request, wanted, plan, .. } = self;
        let pushing = wanted.start(session);
        let objects = context::objects(session, &request.source, plan, self.env).await?;
        let cache_mounts = Arc::new(caches::of_mounts(session, request));
        // Where it is, a stage's files may stand later.
        session.registry.read_credentials().await;
        let place = place(plan, session, request, self.env)?;
        if place.together != Together::Steps {
            // A helper's own files aren't where it looks for them while a process runs.
            for reference in wanted.pushed() {
                session.registry.find_credential(&reference).await;
            }
        }
        let env = Arc::new(self.world(place, &pushing, caches.clone(), cache_mounts.clone(), &objects)?);
        let (oldest, snapshots) = (env.options.oldest, env.snapshots.clone());
        let built = solve::run(plan.clone(), env).await;
        // Also after a failure: nothing of a process's root filesystem is left when this one ends.
        snapshots.end().map_err(|e| cannot("take a root filesystem away", &e))?;
        let built = built?;
        let text = outputs::write(session, request, plan, built.images, wanted, pushing).await?;
        // After the push, so that it isn't delayed, and its layers needn't be sent again.
        let exported = export(&caches, &built.exported, oldest, &session.store, &session.reporter).await;
        cache_mounts.export(&session.store, &session.reporter, &session.cancel, threads(self.env)).await;
        exported.map(|()| text)
    }

    fn world(
        &self,
        place: isolation::Place,
        pushing: &Arc<Pushing>,
        caches: Arc<Caches>,
        cache_mounts: Arc<CacheMounts>,
        objects: &BTreeMap<String, Fetched>,
    ) -> Result<solve::Env, Problem> {
        let Self { session, request, read, wanted, plan, env } = self;
        let on_layer = pushing.clone();
        Ok(solve::Env {
            store: session.store.clone(),
            snapshots: place.snapshots,
            executor: place.executor,
            kills: Kills::find(),
            puller: puller(session),
            remotes: remotes(session, &request.source, env),
            contexts: contexts(session, &request.source, read, objects, env)?,
            secrets: secrets::read(&request.secrets, env)?,
            agents: agents::read(&request.agents)?,
            reporter: session.reporter.clone(),
            cancel: session.cancel.clone(),
            about: about(&request.source, read),
            options: Options { jobs: jobs(request, place.together), ..options(request, plan, wanted, env) },
            on_layer: Box::new(move |layer| on_layer.layer(layer)),
            caches,
            cache_mounts,
        })
    }
}

/// Tells what was found in the Dockerfile, but for what it wants left out; fails where it wants that.
fn warn(session: &Session, file: &Dockerfile, found: Vec<Diagnostic>) -> Result<(), Problem> {
    let checks = Checks::of(&file.directives).map_err(|d| dockerfile_problem(vec![d]))?;
    let found = check::relevant(found, &checks, false);
    let violation = checks.violation(&found);
    for warning in found {
        session.reporter.send(Event::Warning(warning));
    }
    match violation {
        Some(message) => Err(Problem::new(Kind::Usage, message)),
        None => Ok(()),
    }
}

/// Layers from the registries.
pub fn puller(session: &Session) -> Puller {
    Puller::new(session.store.clone(), session.registry.clone(), session.reporter.clone(), session.cancel.clone())
}

/// Repositories and files of web servers.
pub fn remotes(session: &Session, source: &SourceRequest, env: &Env) -> Remotes {
    let contexts = source.named_contexts.iter().filter_map(|(_, context)| match context {
        NamedContext::Planned(context) => Some(context),
        NamedContext::Folder(_) | NamedContext::Object(_) => None,
    });
    let git = planning::git(session, contexts, env);
    let (store, client, cancel) = (session.store.clone(), session.registry.clone(), session.cancel.clone());
    Remotes { store, client, git, cancel }
}

/// The command line as the planner takes it.
fn build_args(request: &BuildRequest) -> BuildArgs {
    BuildArgs {
        labels: request.labels.clone(),
        no_cache: request.no_cache,
        no_cache_filter: request.no_cache_filter.clone(),
        network: request.process.network,
        extra_hosts: request.process.extra_hosts.clone(),
        limits: request.process.limits.clone(),
        not_onbuild: request.secrets.iter().filter(|s| !s.onbuild).map(|s| s.id.clone()).collect(),
        entitlements: request.entitlements,
        ..planning::args(&request.source)
    }
}

/// What runs the plan's processes.
fn place(plan: &BuildPlan, session: &Session, request: &BuildRequest, env: &Env) -> Result<isolation::Place, Problem> {
    let first = plan.vertices.iter().find(|v| matches!(v.op, Op::Exec(_)));
    let credentials = credentials::of_build(request, env);
    let contexts = folders(&request.source);
    let (process, credentials, contexts) = (&request.process, credentials.as_slice(), contexts.as_slice());
    let needs = isolation::Needs { process, runs: first.is_some(), credentials, contexts };
    isolation::place(session, needs, env).map_err(|problem| match first {
        Some(vertex) => problem.at(vertex.span),
        None => problem,
    })
}

/// The directories that the build reads from.
fn folders(source: &SourceRequest) -> Vec<PathBuf> {
    let named = source.named_contexts.iter().filter_map(|(_, context)| match context {
        NamedContext::Folder(folder) => Some(folder.clone()),
        NamedContext::Planned(_) | NamedContext::Object(_) => None,
    });
    named.chain([source.context.clone()]).collect()
}

/// The context and the named folders, by the names that the plan uses.
fn contexts(
    session: &Session,
    source: &SourceRequest,
    read: &DockerfileText,
    objects: &BTreeMap<String, Fetched>,
    env: &Env,
) -> Result<BTreeMap<String, Arc<LocalTree>>, Problem> {
    let open = |folder: &Path, dockerfile: Option<&Path>| -> Result<Arc<LocalTree>, Problem> {
        let rules = ignore_rules(folder, dockerfile)?;
        let tree = LocalTree::open(&session.store, folder, rules, threads(env), &session.cancel)?;
        Ok(Arc::new(tree))
    };
    let mut contexts = BTreeMap::new();
    contexts.insert("context".to_owned(), open(&source.context, read.path.as_deref())?);
    for (name, context) in &source.named_contexts {
        if let NamedContext::Folder(folder) = context {
            contexts.insert(context_name(name), open(folder, None)?);
        }
    }
    for (name, fetched) in objects {
        contexts.insert(name.clone(), open(&fetched.folder, None)?);
    }
    Ok(contexts)
}

/// What is built, as the build's account names it.
fn about(source: &SourceRequest, read: &DockerfileText) -> About {
    let (context, stays) = match &source.place {
        Place::Path => (source.context.display().to_string(), true),
        Place::Git(url) => (shown(&url.remote), false),
        Place::Http(url) => (shown(url), false),
        Place::Object(url) => (url.to_string(), false),
        Place::Stdin => ("-".to_owned(), false),
    };
    let name = read.text.name.clone();
    let path = read.path.as_ref().filter(|_| stays).map_or_else(|| name.clone(), |p| p.display().to_string());
    let text = Key::of(read.text.text.as_bytes());
    About { dockerfile: name, context, target: source.target.clone(), path, text }
}

fn options(request: &BuildRequest, plan: &BuildPlan, wanted: &Outputs, env: &Env) -> Options {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Options {
        jobs: request.jobs,
        threads: threads(env),
        compression: wanted.compression(request.compression),
        images: wanted.images(),
        complete: wanted.complete(),
        trees: wanted.trees(),
        epoch: plan.source_date_epoch,
        oldest: request.cache_ttl.map(|ttl| seconds(now.saturating_sub(ttl))),
        required: request.require_cache.clone(),
        inline: request.cache_to.iter().any(|c| c.at.is_none()),
        now: Timestamp { secs: seconds(now), nanos: now.subsec_nanos() },
    }
}

/// How many steps may be at work; those that wait for the one process that can run keep nobody else from it.
fn jobs(request: &BuildRequest, together: Together) -> Jobs {
    let jobs = request.jobs;
    match together {
        Together::Steps => jobs,
        Together::OneProcess => {
            Jobs { at_once: jobs.at_once.saturating_mul(NonZeroUsize::MIN.saturating_add(7)), ..jobs }
        }
        Together::OneStep => Jobs { at_once: NonZeroUsize::MIN, more_when_idle: false },
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(0)
}

fn threads(env: &Env) -> NonZeroUsize {
    NonZeroUsize::new(env.cores).unwrap_or(NonZeroUsize::MIN)
}
