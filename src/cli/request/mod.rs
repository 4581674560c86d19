//! The command line resolved and checked: what to do, as data. Nothing here reads a file or asks a registry.

mod build;
mod cache;
mod cache_mounts;
mod contexts;
mod mounts;
mod process;
mod prune;
mod values;

pub use build::{BuildRequest, Call, DockerfileAt, Method, SourceRequest};
pub use cache::{CacheAt, CacheTo, one_compression};
pub use cache_mounts::CacheMountsAt;
pub use contexts::{NamedContext, Place};
pub use mounts::{Secret, SecretFrom};
pub use process::{Isolation, ProcessRequest};
pub use prune::PruneRequest;
pub use values::UNLIMITED;

use super::progress::Style;
use super::{Env, args};
use crate::oci::{Platform, Reference};
use crate::report::{Kind, Problem};
use crate::store;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use values::Why;

/// One run of the program.
#[derive(Debug, Clone)]
pub struct Request {
    /// The folder of the local store.
    pub store: PathBuf,
    /// What to do.
    pub command: Command,
}

/// What to do.
#[derive(Debug, Clone)]
pub enum Command {
    /// Build an image.
    Build(Box<BuildRequest>),
    /// Check a Dockerfile.
    Check(CheckRequest),
    /// Show the steps of a build.
    Plan(SourceRequest, RegistryRequest, PlanFormat),
    /// Run a process in an image.
    Run(RunRequest),
    /// Push an image of the store.
    Push(TransferRequest),
    /// Pull an image into the store, for a platform.
    Pull(TransferRequest, Platform),
    /// Name an image, the old name first.
    Tag(ImageName, Reference),
    /// List the images: ids alone, or all as JSON or a table.
    Images(Listing),
    /// Remove names.
    Rmi {
        /// The images.
        images: Vec<ImageName>,
        /// Names in several repositories too.
        force: bool,
    },
    /// Print what images say about themselves.
    Inspect(Vec<ImageName>),
    /// Print an image's history.
    History {
        /// The image.
        image: ImageName,
        /// Whether long lines stay whole.
        whole_lines: bool,
        /// As JSON rather than a table.
        json: bool,
    },
    /// Write images to an archive, standard output where there is none.
    Save(Vec<ImageName>, Option<PathBuf>),
    /// Read images from an archive, standard input where there is none.
    Load(Option<PathBuf>),
    /// Store credentials.
    Login(LoginRequest),
    /// Forget the credentials of a registry's host.
    Logout(String),
    /// Say why steps ran.
    Explain(ExplainRequest),
    /// Remove what nothing needs.
    Prune(PruneRequest),
    /// Show what takes the space.
    Du {
        /// Each thing by itself.
        verbose: bool,
        /// As JSON rather than a table.
        json: bool,
    },
    /// Print what was found out about this place.
    Info {
        /// As JSON rather than text.
        json: bool,
    },
    /// Print a Dockerfile's syntax tree.
    DebugAst(DockerfileAt),
    /// Forbid devices in a mount.
    ForbidDevices(PathBuf),
}

impl Command {
    /// What is said of processes, by a command that knows of any.
    pub fn process(&self) -> Option<&ProcessRequest> {
        match self {
            Self::Build(build) => Some(&build.process),
            Self::Run(run) => Some(&run.process),
            _ => None,
        }
    }

    /// The same, unless the command only says something about a build (`--check`, `--call`).
    pub fn runs(&self) -> Option<&ProcessRequest> {
        match self {
            Self::Build(build) if build.call.method != Method::Build => None,
            other => other.process(),
        }
    }
}

/// `kiln check`, or a build's `--check`.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    /// What is checked.
    pub source: SourceRequest,
    /// How registries are reached.
    pub registry: RegistryRequest,
    /// How findings are printed.
    pub format: CheckFormat,
    /// Mend what can be mended.
    pub fix: bool,
    /// With kiln's own rules, which are about practices.
    pub practices: bool,
    /// Warnings don't show in the exit code.
    pub ignore_status: bool,
}

/// How findings are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckFormat {
    /// For people.
    Text,
    /// As BuildKit's.
    Json,
    /// SARIF, for code scanning.
    Sarif,
}

/// How a plan is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlanFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// For Graphviz.
    Dot,
    /// For Markdown.
    Mermaid,
}

/// The words for each.
const PLANS: &[(&str, PlanFormat)] = &[
    ("text", PlanFormat::Text),
    ("json", PlanFormat::Json),
    ("dot", PlanFormat::Dot),
    ("mermaid", PlanFormat::Mermaid),
];

/// `kiln push` and `kiln pull`.
#[derive(Debug, Clone)]
pub struct TransferRequest {
    /// The image.
    pub image: Reference,
    /// How registries are reached.
    pub registry: RegistryRequest,
    /// How progress is drawn.
    pub style: Style,
}

/// How registries are reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RegistryRequest {
    /// Host and mirror, in the order to try.
    pub mirrors: Vec<(String, url::Url)>,
    /// Hosts that may speak plain HTTP or show any certificate.
    pub insecure: Vec<String>,
}

/// `kiln run`.
#[derive(Debug, Clone)]
pub struct RunRequest {
    /// The image.
    pub image: ImageName,
    /// Arguments instead of the image's own; empty for those.
    pub args: Vec<String>,
    /// Instead of the image's entrypoint; an empty one is none.
    pub entrypoint: Option<Vec<String>>,
    /// Variables on top of the image's.
    pub env: Vec<(String, String)>,
    /// Instead of the image's user.
    pub user: Option<String>,
    /// Instead of the image's working folder.
    pub workdir: Option<String>,
    /// What it may use.
    pub process: ProcessRequest,
}

/// An image of the local store as a person names it: a reference or (the beginning of) an id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageName {
    /// As typed.
    pub typed: String,
    /// As a reference; `None` for a whole id.
    pub reference: Option<Reference>,
}

/// What `kiln images` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// Columns for a person.
    Table,
    /// A JSON object a line, as docker's.
    Json,
    /// Ids.
    Ids,
}

/// `kiln login`.
#[derive(Debug, Clone)]
pub struct LoginRequest {
    /// The registry's host.
    pub host: String,
    /// The user; asked for where there is none.
    pub username: Option<String>,
    /// The password.
    pub password: PasswordFrom,
    /// How registries are reached.
    pub registry: RegistryRequest,
}

/// Where a password comes from.
#[derive(Clone, PartialEq, Eq)]
pub enum PasswordFrom {
    /// The command line.
    Given(String),
    /// Standard input, without its last line end.
    Stdin,
    /// The terminal, asked for.
    Prompt,
}

impl std::fmt::Debug for PasswordFrom {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Given(_) => "Given(…)",
            Self::Stdin => "Stdin",
            Self::Prompt => "Prompt",
        })
    }
}

/// `kiln explain`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExplainRequest {
    /// The build's number; `None` is the last.
    pub build: Option<u64>,
    /// List the builds instead.
    pub list: bool,
    /// Name every file.
    pub all: bool,
    /// As JSON rather than text.
    pub json: bool,
}

/// A value that its flag doesn't take.
fn wrong(flag: &str, text: &str, why: &str) -> Problem {
    Problem::new(Kind::Usage, format!("{flag} {text:?}: {why}"))
}

/// A flag whose work isn't done yet.
fn not_yet(what: &str) -> Problem {
    Problem::new(Kind::Usage, format!("not supported yet: {what}"))
}

/// One of a closed set of words.
fn word<T: Copy>(flag: &str, text: &str, words: &[(&str, T)]) -> Result<T, Problem> {
    words.iter().find(|(w, _)| *w == text).map(|(_, t)| *t).ok_or_else(|| {
        let known: Vec<&str> = words.iter().map(|(w, _)| *w).collect();
        wrong(flag, text, &format!("want one of {}", known.join(", ")))
    })
}

/// Values of a flag that comes several times.
fn each<T>(flag: &str, texts: &[String], parse: impl Fn(&str) -> Result<T, Why>) -> Result<Vec<T>, Problem> {
    values::each(texts, parse).map_err(|(text, why)| wrong(flag, &text, &why))
}

/// Resolves a command line.
pub fn resolve(cli: args::Cli, env: &Env) -> Result<Request, Problem> {
    Ok(Request { store: place(cli.root.as_deref(), env)?, command: command(cli.command, env)? })
}

/// Where the store is, absolute.
fn place(given: Option<&Path>, env: &Env) -> Result<PathBuf, Problem> {
    if given.is_some_and(|g| g.as_os_str().is_empty()) {
        return Err(wrong("--root", "", "want a folder"));
    }
    Ok(env.cwd.join(store::place(given, &|name| env.vars.get(OsStr::new(name)).cloned(), env.uid)?))
}

fn command(command: args::Command, env: &Env) -> Result<Command, Problem> {
    use args::Command as A;
    Ok(match command {
        A::Build(b) => Command::Build(Box::new(build::build(b, env)?)),
        A::Check(c) => Command::Check(check(c, env)?),
        A::Plan(p) => {
            Command::Plan(build::source(p.source, env)?, registry(&p.registry)?, word("--format", &p.format, PLANS)?)
        }
        A::Run(r) => Command::Run(run(r, env)?),
        A::Push(p) => Command::Push(transfer(&p.transfer, env)?),
        A::Pull(p) => Command::Pull(transfer(&p.transfer, env)?, platform(p.platform.as_deref())?),
        A::Tag(t) => Command::Tag(image(&t.source)?, values::tag(&t.name).map_err(|w| wrong("name", &t.name, &w))?),
        A::Images(i) => Command::Images(listing(&i)?),
        A::Rmi(r) => Command::Rmi { images: images(&r.images)?, force: r.force },
        A::Inspect(i) => Command::Inspect(images(&i.images)?),
        A::History(h) => Command::History {
            image: image(&h.image)?,
            whole_lines: h.no_trunc,
            json: word("--format", &h.format, &[("table", false), ("json", true)])?,
        },
        A::Save(s) => Command::Save(images(&s.images)?, s.output.map(|f| env.cwd.join(f))),
        A::Load(l) => Command::Load(l.input.map(|f| env.cwd.join(f))),
        A::Login(l) => Command::Login(login(l)?),
        A::Logout(l) => Command::Logout(host(l.registry.as_deref())?),
        A::Explain(e) => Command::Explain(ExplainRequest {
            build: e.build,
            list: e.list,
            all: e.all,
            json: word("--format", &e.format, &[("text", false), ("json", true)])?,
        }),
        A::Prune(p) => Command::Prune(prune::prune(&p)?),
        A::Du(d) => {
            Command::Du { verbose: d.verbose, json: word("--format", &d.format, &[("table", false), ("json", true)])? }
        }
        A::Info(i) => Command::Info { json: word("--format", &i.format, &[("text", false), ("json", true)])? },
        A::Debug(args::Debug::ForbidDevices { mount }) => Command::ForbidDevices(mount),
        A::Debug(args::Debug::Ast { file }) => Command::DebugAst(build::dockerfile(file, env)),
    })
}

fn check(c: args::Check, env: &Env) -> Result<CheckRequest, Problem> {
    let formats = [("text", CheckFormat::Text), ("json", CheckFormat::Json), ("sarif", CheckFormat::Sarif)];
    Ok(CheckRequest {
        source: build::source(c.source, env)?,
        registry: registry(&c.registry)?,
        format: word("--format", &c.format, &formats)?,
        fix: c.fix,
        practices: true,
        ignore_status: false,
    })
}

fn run(r: args::Run, env: &Env) -> Result<RunRequest, Problem> {
    let variables = values::pairs_from_env(&r.env, env).map_err(|(text, why)| wrong("--env", &text, &why))?;
    let mut words = r.image_and_args.into_iter();
    Ok(RunRequest {
        image: image(&words.next().unwrap_or_default())?,
        args: words.collect(),
        entrypoint: r.entrypoint.map(|e| if e.is_empty() { Vec::new() } else { vec![e] }),
        env: variables,
        user: r.user,
        workdir: r.workdir,
        process: process::process(&r.process)?,
    })
}

fn listing(i: &args::Images) -> Result<Listing, Problem> {
    if i.quiet {
        return Ok(Listing::Ids);
    }
    word("--format", &i.format, &[("table", Listing::Table), ("json", Listing::Json)])
}

fn login(l: args::Login) -> Result<LoginRequest, Problem> {
    let password = match l.password {
        Some(given) => PasswordFrom::Given(given),
        None if l.password_stdin => PasswordFrom::Stdin,
        None => PasswordFrom::Prompt,
    };
    if password == PasswordFrom::Stdin && l.username.is_none() {
        return Err(Problem::new(Kind::Usage, "--password-stdin needs --username"));
    }
    let registry = registry(&l.registry_flags)?;
    Ok(LoginRequest { host: host(l.registry.as_deref())?, username: l.username, password, registry })
}

/// A registry's host as typed, docker.io where none is.
fn host(typed: Option<&str>) -> Result<String, Problem> {
    let typed = typed.unwrap_or("docker.io");
    // People paste `https://host/`; the scheme says nothing that loopback and --insecure-registry don't.
    let bare = typed.trim_start_matches("https://").trim_start_matches("http://");
    values::registry_host(bare).map_err(|why| wrong("registry", typed, &why))
}

fn registry(r: &args::Registry) -> Result<RegistryRequest, Problem> {
    Ok(RegistryRequest {
        mirrors: each("--registry-mirror", &r.registry_mirror, values::mirror)?,
        insecure: each("--insecure-registry", &r.insecure_registry, values::registry_host)?,
    })
}

fn reference(text: &str) -> Result<Reference, Problem> {
    text.parse().map_err(|e: crate::oci::ReferenceError| Problem::new(Kind::Usage, e.to_string()))
}

/// An image of the store. A whole id is no reference, though its letters would be one; of a shorter one the store tells.
fn image(text: &str) -> Result<ImageName, Problem> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    let id = digits.len() == 64 && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let reference = if id { None } else { Some(reference(text)?) };
    Ok(ImageName { typed: text.to_owned(), reference })
}

fn images(texts: &[String]) -> Result<Vec<ImageName>, Problem> {
    texts.iter().map(|t| image(t)).collect()
}

fn transfer(t: &args::Transfer, env: &Env) -> Result<TransferRequest, Problem> {
    let style = style(&t.progress, t.quiet, env)?;
    Ok(TransferRequest { image: reference(&t.image)?, registry: registry(&t.registry)?, style })
}

fn platform(text: Option<&str>) -> Result<Platform, Problem> {
    text.map_or_else(|| Ok(Platform::host()), build::platform)
}

/// How progress is drawn: what `--progress` says, as far as the place allows.
fn style(progress: &str, quiet: bool, env: &Env) -> Result<Style, Problem> {
    let words = [
        ("auto", None),
        ("tty", None),
        ("plain", Some(Style::Plain)),
        ("rawjson", Some(Style::RawJson)),
        ("quiet", Some(Style::Quiet)),
    ];
    let chosen = word("--progress", progress, &words)?;
    if quiet && !matches!(progress, "auto" | "quiet") {
        return Err(Problem::new(Kind::Usage, format!("--quiet and --progress {progress} contradict each other")));
    }
    Ok(match (chosen, env.terminal) {
        _ if quiet => Style::Quiet,
        (Some(style), _) => style,
        (None, None) => Style::Plain,
        (None, Some(_)) if env.var("TERM") == Some("dumb") => Style::Plain,
        (None, Some(terminal)) => Style::Tty { terminal, colours: env.set_var("NO_COLOR").is_none() },
    })
}
