//! What `build`, `check` and `plan` are asked for.

use super::contexts::{self, NamedContext, Place};
use super::{
    CacheAt, CacheMountsAt, CacheTo, CheckFormat, CheckRequest, ProcessRequest, RegistryRequest, Secret, cache,
    cache_mounts, each, mounts, not_yet, process, registry, style, values, word, wrong,
};
use crate::cli::progress::Style;
use crate::cli::{Env, args};
use crate::layer::{Compression, CompressionError};
use crate::oci::{Platform, Reference};
use crate::plan::Entitlements;
use crate::report::{Kind, Problem};
use crate::solve::Required;
use crate::solve::turns::Jobs;
use crate::store::Limit;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is built from.
#[derive(Debug, Clone, PartialEq)]
pub struct SourceRequest {
    /// The folder of the context, absolute; of one that is fetched, once it is there.
    pub context: PathBuf,
    /// What the context is.
    pub place: Place,
    /// Seconds since 1970 of the context's commit, once it was fetched from a repository.
    pub context_time: Option<i64>,
    /// Further contexts by name.
    pub named_contexts: Vec<(String, NamedContext)>,
    /// `-f`, as typed: inside a context that is fetched.
    pub file: Option<PathBuf>,
    /// The Dockerfile.
    pub dockerfile: DockerfileAt,
    /// The stage to build; the last where none is named.
    pub target: Option<String>,
    /// ARG values.
    pub build_args: Vec<(String, String)>,
    /// What to build for, this machine where nothing was said; never empty, no platform twice.
    pub platforms: Vec<Platform>,
}

/// Where a Dockerfile is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DockerfileAt {
    /// At this path, which people know by this name.
    Path {
        /// Absolute.
        path: PathBuf,
        /// As typed.
        shown: String,
    },
    /// On standard input.
    Stdin,
}

/// `kiln build`.
#[derive(Debug, Clone)]
pub struct BuildRequest {
    /// What is built from.
    pub source: SourceRequest,
    /// What its processes may use.
    pub process: ProcessRequest,
    /// How registries are reached.
    pub registry: RegistryRequest,
    /// Names for the image.
    pub tags: Vec<Reference>,
    /// Push to the registries of these names.
    pub push: bool,
    /// `--output`, as typed; `export` knows what they mean.
    pub outputs: Vec<String>,
    /// Caches to ask besides the store.
    pub cache_from: Vec<CacheAt>,
    /// Caches that get the results.
    pub cache_to: Vec<CacheTo>,
    /// No result older than this is used.
    pub cache_ttl: Option<Duration>,
    /// Steps that may not run.
    pub require_cache: Vec<Required>,
    /// Places that have cache mounts of other machines.
    pub cache_mounts_from: Vec<CacheMountsAt>,
    /// Places that get the cache mounts.
    pub cache_mounts_to: Vec<CacheMountsAt>,
    /// Look nothing up in the cache.
    pub no_cache: bool,
    /// Nor anything of these stages.
    pub no_cache_filter: Vec<String>,
    /// Ask the registry what the bases' tags mean, even where the store knows.
    pub pull: bool,
    /// What RUN may ask for beyond the ordinary.
    pub entitlements: Entitlements,
    /// Secrets for RUN.
    pub secrets: Vec<Secret>,
    /// SSH agents for RUN: by name, a socket, or files of keys.
    pub agents: BTreeMap<String, Vec<PathBuf>>,
    /// Labels of the image.
    pub labels: Vec<(String, String)>,
    /// Where the image's id goes.
    pub iidfile: Option<PathBuf>,
    /// Where the account of the build goes.
    pub metadata_file: Option<PathBuf>,
    /// How progress is drawn.
    pub style: Style,
    /// Print the image's id on standard output.
    pub print_id: bool,
    /// How many steps run at once.
    pub jobs: Jobs,
    /// How layers are compressed.
    pub compression: Compression,
    /// What to do with the Dockerfile.
    pub call: Call,
    /// What the store may take.
    pub store_limit: Limit,
}

/// What to do with a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// What.
    pub method: Method,
    /// Print JSON.
    pub json: bool,
    /// Findings don't show in the exit code.
    pub ignore_status: bool,
}

/// The methods of `--call`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Build it.
    Build,
    /// Check it.
    Check,
    /// Say what the target can be given.
    Outline,
    /// List the stages.
    Targets,
}

pub(super) fn build(b: args::Build, env: &Env) -> Result<BuildRequest, Problem> {
    refuse_later(&b.later)?;
    let entitlements = entitlements(&b.allow)?;
    let tags = each("--tag", &b.tag, values::tag)?;
    if b.push && tags.is_empty() {
        return Err(Problem::new(Kind::Usage, "--push needs a name to push to").hint("give one with --tag"));
    }
    Ok(BuildRequest {
        source: source(b.source, env)?,
        process: process::process(&b.process)?,
        registry: registry(&b.registry)?,
        tags,
        push: b.push,
        outputs: b.output,
        cache_from: cache::from(&b.cache_from, b.cache_repo.as_deref(), env)?,
        cache_to: cache::to(&b.cache_to, b.cache_repo.as_deref(), env)?,
        cache_ttl: b.cache_ttl.as_deref().map(cache::ttl).transpose()?,
        require_cache: b.require_cache.iter().map(|text| Required::new(text)).collect(),
        cache_mounts_from: cache_mounts::from(&b.cache_mounts_from, env)?,
        cache_mounts_to: cache_mounts::to(&b.cache_mounts_to, env)?,
        no_cache: b.no_cache,
        no_cache_filter: b.no_cache_filter,
        pull: b.pull,
        entitlements,
        secrets: each("--secret", &b.secret, |t| mounts::secret(t, env))?,
        agents: each("--ssh", &b.ssh, |t| mounts::agent(t, env))?.into_iter().collect(),
        labels: values::pairs_or_empty(&b.label).map_err(|(text, why)| wrong("--label", &text, &why))?,
        iidfile: b.iidfile.map(|f| env.cwd.join(f)),
        metadata_file: b.metadata_file.map(|f| env.cwd.join(f)),
        style: style(&b.progress, b.quiet, env)?,
        print_id: b.quiet || b.progress == "quiet",
        jobs: jobs(b.jobs, env)?,
        compression: compression(&b.compression)?,
        call: call(b.check, b.call.as_deref())?,
        store_limit: store_limit(b.store_limit.as_deref(), env)?,
    })
}

/// A flag that is accepted and does nothing would be a lie. `false` is what kiln does: it attaches nothing.
fn refuse_later(l: &args::Later) -> Result<(), Problem> {
    let wanted = |flag: &Option<String>| flag.as_deref().is_some_and(|v| v != "false");
    let given = [
        ("--annotation", !l.annotation.is_empty()),
        ("--attest", !l.attest.is_empty()),
        ("--provenance", wanted(&l.provenance)),
        ("--sbom", wanted(&l.sbom)),
        ("--cgroup-parent", l.cgroup_parent.is_some()),
    ];
    given.iter().find(|(_, given)| *given).map_or(Ok(()), |(flag, _)| Err(not_yet(flag)))
}

pub(super) fn source(s: args::Source, env: &Env) -> Result<SourceRequest, Problem> {
    let (place, context) = contexts::main(&s.context, env)?;
    if place == Place::Stdin && s.file.as_deref().is_some_and(|f| f.as_os_str() == "-") {
        return Err(Problem::new(Kind::Usage, "standard input can't be both the context and the Dockerfile"));
    }
    let file = s.file.clone();
    let dockerfile = match s.file {
        Some(file) => self::dockerfile(file, env),
        None => beside(&s.context, &context),
    };
    Ok(SourceRequest {
        context,
        place,
        context_time: None,
        file,
        named_contexts: s.build_context.iter().map(|t| contexts::named(t, env)).collect::<Result<_, _>>()?,
        dockerfile,
        target: s.target.filter(|t| !t.is_empty()),
        build_args: build_args(&s.build_arg, env)?,
        platforms: platforms(&s.platform)?,
    })
}

/// The Dockerfile that `-f` names, from the working directory on.
pub(super) fn dockerfile(file: PathBuf, env: &Env) -> DockerfileAt {
    if file.as_os_str() == "-" {
        return DockerfileAt::Stdin;
    }
    DockerfileAt::Path { shown: file.display().to_string(), path: env.cwd.join(file) }
}

/// The Dockerfile of a context.
fn beside(typed: &str, context: &Path) -> DockerfileAt {
    let shown = match typed {
        "." => "Dockerfile".to_owned(),
        dir => Path::new(dir).join("Dockerfile").display().to_string(),
    };
    DockerfileAt::Path { path: context.join("Dockerfile"), shown }
}

/// `--build-arg`, and `$SOURCE_DATE_EPOCH`, which buildx passes on, too.
fn build_args(texts: &[String], env: &Env) -> Result<Vec<(String, String)>, Problem> {
    let mut pairs = values::pairs_from_env(texts, env).map_err(|(text, why)| wrong("--build-arg", &text, &why))?;
    let epoch = "SOURCE_DATE_EPOCH";
    if let Some(value) = env.set_var(epoch)
        && !pairs.iter().any(|(name, _)| name == epoch)
    {
        pairs.push((epoch.into(), value.into()));
    }
    Ok(pairs)
}

pub(super) fn platform(text: &str) -> Result<Platform, Problem> {
    if text == "local" {
        return Ok(Platform::host());
    }
    text.parse().map_err(|e: crate::oci::PlatformError| Problem::new(Kind::Usage, e.to_string()))
}

fn platforms(texts: &[String]) -> Result<Vec<Platform>, Problem> {
    let mut platforms: Vec<Platform> = Vec::new();
    for text in texts.iter().map(|t| t.trim()).filter(|t| !t.is_empty()) {
        let p = platform(text)?;
        if !platforms.contains(&p) {
            platforms.push(p);
        }
    }
    if platforms.is_empty() {
        platforms.push(Platform::host());
    }
    Ok(platforms)
}

/// `--allow`, each one or several with commas between.
fn entitlements(texts: &[String]) -> Result<Entitlements, Problem> {
    let mut allowed = Entitlements::default();
    for text in texts.iter().flat_map(|t| t.split(',')) {
        match text.trim() {
            "network.host" => allowed.network_host = true,
            "security.insecure" => allowed.insecure = true,
            other => return Err(wrong("--allow", other, "want network.host or security.insecure")),
        }
    }
    Ok(allowed)
}

fn jobs(given: Option<usize>, env: &Env) -> Result<Jobs, Problem> {
    let at_once = NonZeroUsize::new(given.unwrap_or(env.cores.max(1)));
    let at_once = at_once.ok_or_else(|| wrong("--jobs", "0", "want at least one"))?;
    Ok(Jobs { at_once, more_when_idle: given.is_none() })
}

fn compression(text: &str) -> Result<Compression, Problem> {
    text.parse().map_err(|e: CompressionError| Problem::new(Kind::Usage, format!("--compression {e}")))
}

/// `--store-limit`, else the variable.
fn store_limit(flag: Option<&str>, env: &Env) -> Result<Limit, Problem> {
    let (from, text) = match (flag, env.set_var("KILN_STORE_LIMIT")) {
        (Some(flag), _) => ("--store-limit", flag),
        (None, Some(variable)) => ("$KILN_STORE_LIMIT", variable),
        (None, None) => return Ok(Limit::Disk),
    };
    match text {
        "none" => Ok(Limit::None),
        text => values::bytes(text).map(Limit::Bytes).map_err(|why| wrong(from, text, &format!("{why}, or none"))),
    }
}

/// `METHOD[,format=text|json][,ignorestatus=BOOL]`.
fn call(check: bool, text: Option<&str>) -> Result<Call, Problem> {
    let methods = [
        ("build", Method::Build),
        ("check", Method::Check),
        ("lint", Method::Check),
        ("outline", Method::Outline),
        ("targets", Method::Targets),
    ];
    let text = text.unwrap_or(if check { "check" } else { "build" });
    let mut parts = text.split(',');
    let method = word("--call", parts.next().unwrap_or_default(), &methods)?;
    let mut call = Call { method, json: false, ignore_status: false };
    for part in parts {
        match part.split_once('=').unwrap_or((part, "true")) {
            ("format", format) => call.json = word("--call format", format, &[("text", false), ("json", true)])?,
            ("ignorestatus", value) => {
                let words = [("true", true), ("1", true), ("false", false), ("0", false)];
                call.ignore_status = word("--call ignorestatus", value, &words)?;
            }
            (other, _) => return Err(wrong("--call", text, &format!("there is no option {other:?}"))),
        }
    }
    Ok(call)
}

impl BuildRequest {
    /// The check that `--check` asks for instead of a build: BuildKit's rules alone.
    pub fn check(&self) -> CheckRequest {
        CheckRequest {
            source: self.source.clone(),
            registry: self.registry.clone(),
            format: if self.call.json { CheckFormat::Json } else { CheckFormat::Text },
            fix: false,
            practices: false,
            ignore_status: self.call.ignore_status,
        }
    }
}
