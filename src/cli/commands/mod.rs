//! What each command does.

pub mod build;
pub mod dockerfile;
mod images;
mod info;
mod inspect;
mod local;
mod outputs;
mod run;
mod table;
mod transfer;

use super::env::Env;
use super::request::{Command, Request};
use super::session::Failure;
use crate::report::{Kind, Problem};

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
        Command::Build(build) => build::run(build, store, env).map(Done::from),
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
        Command::Info { json } => info::info(*json, store, env).map(Done::from),
        other => Err(Problem::new(Kind::Usage, format!("not supported yet: {other:?}")).into()),
    }
}
