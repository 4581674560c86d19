//! The command line: flags to requests, events to the terminal. The only module that prints.
//!
//! [`parse`] turns what was typed into a [`request::Request`] in two steps: [`args`] is the text in clap's structures,
//! [`request`] is checked data. [`progress`] draws events on standard error, [`failure`] draws what went wrong.

pub mod args;
mod commands;
mod credentials;
mod env;
pub mod failure;
mod in_place;
mod in_place_lock;
mod isolation;
mod own_program;
pub mod progress;
mod refusal;
mod remedy;
pub mod request;
mod rootless;
mod session;
mod signals;
mod supervision;

pub use env::{Env, NameFiles, Terminal};
pub use rootless::Rootless;

use crate::report::{Kind, Problem};
use clap::Parser as _;
use clap::error::ErrorKind;
use commands::Done;
use request::Request;
use session::Failure;
use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

/// What a command line asks for.
#[derive(Debug)]
pub enum Wanted {
    /// A text for standard output: help or the version.
    Text(String),
    /// Work.
    Request(Box<Request>),
}

/// The program: does what its command line says, and tells what went wrong.
pub fn main() -> ExitCode {
    let done =
        Env::current().map_err(|e| Failure::from(session::cannot("find the working directory", &e))).and_then(|env| {
            match parse(std::env::args_os(), &env)? {
                Wanted::Text(text) => Ok(Done::from(text)),
                Wanted::Request(request) => work(&request, env),
            }
        });
    match done {
        Ok(Done { text, code }) => print(&text, code),
        Err(Failure { problem, source, code }) => {
            let _ = std::io::stderr().write_all(failure::problem(&problem, source.as_deref()).as_bytes());
            ExitCode::from(code)
        }
    }
}

/// Does what is asked for. A command that may run processes in place waits for others in this container, and is supervised.
fn work(request: &Request, env: Env) -> Result<Done, Failure> {
    let env = in_place::guard(request, env);
    let rootless = rootless::prepare(request, &env);
    let env = own_program::protect(request, Env { rootless, ..env });
    let Some(_lock) = in_place_lock::acquire(request, &env)? else { return run(request, env) };
    supervision::supervised(&in_place::work_directory(&request.store, &env), |supervisor| {
        // The lock may have come with a working directory that is back in its own place, and so are the files named relative to it.
        let cwd = std::env::current_dir().map_err(|e| session::cannot("find the working directory", &e))?;
        // From here on a RUN's files may be in `/`, also while kiln pushes.
        let env = Env { cwd, supervisor: Some(supervisor), name_files: Some(NameFiles::read()), ..env };
        match parse(std::env::args_os(), &env)? {
            Wanted::Text(text) => Ok(Done::from(text)),
            Wanted::Request(request) => run(&request, env),
        }
    })
}

fn run(request: &Request, env: Env) -> Result<Done, Failure> {
    let network = isolation::network(request, &env)?;
    commands::run(request, &Env { network, ..env })
}

/// Writes what was asked for. A reader who has gone away (`kiln images | head -1`) is no failure.
fn print(text: &str, code: u8) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            let _ = writeln!(std::io::stderr(), "error: can't write to standard output: {e}");
            ExitCode::from(Kind::Environment.exit_code())
        }
        _ => ExitCode::from(code),
    }
}

/// Makes sense of a command line, the program's name first. Everything wrong with it is a problem of [`Kind::Usage`].
pub fn parse(argv: impl IntoIterator<Item = OsString>, env: &Env) -> Result<Wanted, Problem> {
    match args::Cli::try_parse_from(argv) {
        Ok(cli) => request::resolve(cli, env).map(|r| Wanted::Request(Box::new(r))),
        Err(e) if matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            Ok(Wanted::Text(e.render().to_string()))
        }
        Err(e) if e.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            Err(Problem::new(Kind::Usage, "no command is given").hint("kiln --help lists them"))
        }
        Err(e) => Err(usage_problem(&e.render().to_string())),
    }
}

/// A problem out of clap's text: `error: what`, then `tip:` lines, then the usage.
fn usage_problem(text: &str) -> Problem {
    let (head, usage) = text.split_once("Usage:").unwrap_or((text, ""));
    let mut lines = head.lines().map(str::trim).filter(|l| !l.is_empty());
    let (tips, said): (Vec<&str>, Vec<&str>) = lines.by_ref().partition(|l| l.starts_with("tip: "));
    let said = said.join(" ");
    let mut problem = Problem::new(Kind::Usage, said.strip_prefix("error: ").unwrap_or(&said));
    for tip in tips {
        problem = problem.hint(tip.trim_start_matches("tip: "));
    }
    match usage.lines().next().map(str::trim) {
        Some(line) if !line.is_empty() => problem.hint(format!("usage: {line}")),
        _ => problem,
    }
}

#[cfg(test)]
mod tests;
