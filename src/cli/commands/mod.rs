//! What each command does.

mod archive;
pub mod build;
mod check;
pub mod dockerfile;
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
use super::request::{Command, Method, Request};
use super::session::Failure;

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
        Command::Build(build) => match build.call.method {
            Method::Build => build::run(build, store, env).map(Done::from),
            Method::Check => check::check(&build.check(), store, env),
            Method::Outline => {
                plan::outline(&build.source, &build.registry, build.call.json, store, env).map(Done::from)
            }
            Method::Targets => plan::targets(&build.source, build.call.json).map(Done::from),
        },
        Command::Check(check) => check::check(check, store, env),
        Command::Plan(source, registry, format) => plan::plan(source, registry, *format, store, env).map(Done::from),
        Command::Run(run) => run::run(run, store, env),
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
        Command::Prune(request) => prune::prune(request, store).map(Done::from),
        Command::Du { json } => prune::usage(*json, store).map(Done::from),
    }
}
