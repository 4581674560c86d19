//! What each command does.

mod agents;
mod archive;
pub mod build;
mod caches;
mod check;
mod context;
pub mod dockerfile;
mod du;
mod explain;
mod images;
mod info;
mod inspect;
mod local;
mod login;
mod outputs;
mod plan;
mod planning;
mod prune;
mod run;
mod secrets;
mod table;
mod transfer;

use super::env::Env;
use super::progress::Style;
use super::request::{BuildRequest, CheckRequest, Command, Method, Request};
use super::session::{Failure, failure};
use crate::cli::in_place_lock;
use crate::report::{Kind, Problem};
use crate::sandbox;
use std::io::Read as _;
use std::path::Path;

/// What a command that went well leaves.
#[derive(Debug, Default)]
pub struct Done {
    /// What was asked for, for standard output.
    pub text: String,
    /// The exit code: that of the process that was run, or what a check found.
    pub code: u8,
}

impl From<String> for Done {
    fn from(text: String) -> Self {
        Self { text, code: 0 }
    }
}

/// Carries a request out.
///
/// # Errors
/// Whatever failed, with its Dockerfile where there is one.
pub fn run(request: &Request, env: &Env) -> Result<Done, Failure> {
    let store = &request.store;
    match &request.command {
        Command::Build(build) => self::build(build, store, env),
        Command::Check(check) => {
            let ready = context::ready(&check.source, &check.registry, Style::Plain, store, env)?;
            if check.fix && ready.is_fetched() {
                let message = "--fix mends a file, and the context is none of this machine's folders";
                return Err(Problem::new(Kind::Usage, message).into());
            }
            check::check(&CheckRequest { source: ready.source.clone(), ..check.clone() }, store, env)
        }
        Command::Plan(source, registry, format) => {
            let ready = context::ready(source, registry, Style::Plain, store, env)?;
            plan::plan(&ready.source, registry, *format, store, env).map(Done::from)
        }
        Command::Run(run) => run::run(run, store, env),
        Command::ForbidDevices(mount) => hook(mount),
        Command::DebugAst(at) => dockerfile::ast(at).map(Done::from),
        Command::Push(push) => transfer::push(push, store, env).map(Done::from),
        Command::Pull(pull, platform) => transfer::pull(pull, platform, store, env).map(Done::from),
        Command::Tag(image, name) => images::tag(image, name, store).map(Done::from),
        Command::Images(listing) => images::list(*listing, store).map(Done::from),
        Command::Rmi { images, force } => images::remove(images, *force, store).map(Done::from),
        Command::Inspect(images) => inspect::inspect(images, store).map(Done::from),
        Command::History { image, whole_lines, json } => {
            inspect::history(image, *whole_lines, *json, store).map(Done::from)
        }
        Command::Login(request) => login::login(request, store, env).map(Done::from),
        Command::Logout(host) => login::logout(host, store, env).map(Done::from),
        Command::Info { json } => info::info(*json, store, env).map(Done::from),
        Command::Save(images, output) => archive::save(images, output.as_deref(), store).map(Done::from),
        Command::Load(input) => archive::load(input.as_deref(), store, env).map(Done::from),
        Command::Explain(request) => explain::run(request, store, env).map(Done::from),
        Command::Prune(request) => {
            in_place_lock::remove_copies(store, env);
            prune::prune(request, store).map(Done::from)
        }
        Command::Du { verbose, json } => du::usage(*verbose, *json, store).map(Done::from),
    }
}

/// What a runtime calls. It writes its state to the hook, and takes it for a failure if nobody reads it.
fn hook(mount: &Path) -> Result<Done, Failure> {
    // What is wrong with the state is the runtime's concern.
    let _ = std::io::copy(&mut std::io::stdin().take(1 << 20), &mut std::io::sink());
    sandbox::forbid_devices(mount).map(|()| Done::default()).map_err(failure)
}

/// `kiln build`, and what `--call` asks for instead.
fn build(request: &BuildRequest, store: &Path, env: &Env) -> Result<Done, Failure> {
    let done = called(request, store, env);
    if let (Err(failure), Method::Build) = (&done, request.call.method) {
        outputs::account_for_failure(request, &failure.problem);
    }
    done
}

fn called(request: &BuildRequest, store: &Path, env: &Env) -> Result<Done, Failure> {
    let ready = context::ready(&request.source, &request.registry, request.style, store, env)?;
    let build = BuildRequest { source: ready.source.clone(), ..request.clone() };
    match build.call.method {
        Method::Build => build::run(&build, store, env).map(Done::from),
        Method::Check => check::check(&build.check(), store, env),
        Method::Outline => plan::outline(&build.source, &build.registry, build.call.json, store, env).map(Done::from),
        Method::Targets => plan::targets(&build.source, build.call.json).map(Done::from),
    }
}
