//! What each command does.

pub mod build;
pub mod dockerfile;
mod outputs;

use super::env::Env;
use super::request::{Command, Request};
use super::session::Failure;
use crate::report::{Kind, Problem};

/// Carries a request out; text that was asked for is returned for standard output.
///
/// # Errors
/// Whatever failed, with its Dockerfile where there is one.
pub fn run(request: &Request, env: &Env) -> Result<String, Failure> {
    match &request.command {
        Command::Build(build) => build::run(build, &request.store, env),
        Command::DebugAst(at) => dockerfile::ast(at),
        other => Err(Problem::new(Kind::Usage, format!("not supported yet: {other:?}")).into()),
    }
}
