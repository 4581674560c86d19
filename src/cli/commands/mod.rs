//! What each command does.

pub mod build;
pub mod dockerfile;
mod local;
mod outputs;
mod run;

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
        other => Err(Problem::new(Kind::Usage, format!("not supported yet: {other:?}")).into()),
    }
}
