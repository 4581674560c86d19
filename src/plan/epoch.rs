//! `SOURCE_DATE_EPOCH`: the time that everything in the image is dated with.
//!
//! A number, or the name of something whose time is known: `context`, or a stage that is nothing but one remote ADD.

use super::args::BuildArgs;
use super::env::Env;
use super::git::{self, GitUrl};
use super::globals::Globals;
use super::lower::Shared;
use super::resolved::{GitKey, HttpKey, ResolvedBases};
use super::{dispatch, words};
use crate::dockerfile::ast::{Add, Dockerfile, Escape, FileSource, Kind, Stage};
use crate::report::{Diagnostic, Span};

/// The variable.
pub(super) const NAME: &str = "SOURCE_DATE_EPOCH";

/// What it means.
enum Epoch<'a> {
    /// Nothing: it isn't given, or empty.
    Unset,
    /// Seconds since 1970.
    Seconds(i64),
    /// The main context's time.
    Context,
    /// The time of what a stage adds.
    Stage(&'a Stage),
}

fn given<'a>(file: &'a Dockerfile, args: &BuildArgs, globals: &Globals) -> Result<Epoch<'a>, Diagnostic> {
    let argument = args.values.get(NAME).map(String::as_str);
    let value = argument.or_else(|| globals.env.get(NAME)).unwrap_or_default();
    let span = globals.args.get(NAME).map_or(Span::default(), |arg| arg.span);
    if value.is_empty() {
        return Ok(Epoch::Unset);
    }
    if let Ok(seconds) = value.parse() {
        return Ok(Epoch::Seconds(seconds));
    }
    if value == "context" {
        return Ok(Epoch::Context);
    }
    let named = |s: &&Stage| s.from.name.as_ref().is_some_and(|n| n.text.eq_ignore_ascii_case(value));
    match file.stages.iter().find(named) {
        Some(stage) => Ok(Epoch::Stage(stage)),
        None => Err(Diagnostic::error(span, format!("invalid {NAME}: {value}"))),
    }
}

/// Its value; `None` where the file and the command line say nothing, or the time of what they name isn't known. What
/// has to be resolved for it is wanted.
pub(super) fn find(shared: &mut Shared<'_>, globals: &Globals) -> Result<Option<i64>, Diagnostic> {
    let stage = match given(shared.file, shared.args, globals)? {
        Epoch::Unset => return Ok(None),
        Epoch::Seconds(seconds) => return Ok(Some(seconds)),
        Epoch::Context => return Ok(shared.args.context_time),
        Epoch::Stage(stage) => stage,
    };
    let span = stage.header.span;
    let remote = stage_source(stage, shared.args, globals, shared.file.directives.escape)?;
    match &remote {
        Remote::Git(git) => dispatch::git_by(shared, git, timed(git), false, span)?,
        Remote::Http(key) => dispatch::http(shared, key, "", span)?,
    };
    Ok(time(shared.known, &remote))
}

fn time(known: &ResolvedBases, remote: &Remote) -> Option<i64> {
    match remote {
        Remote::Git(git) => known.git.get(&timed(git))?.time,
        Remote::Http(key) => known.http.get(key)?.time,
    }
}

fn timed(git: &GitUrl) -> GitKey {
    GitKey { timed: true, ..git.key() }
}

enum Remote {
    Git(GitUrl),
    Http(HttpKey),
}

/// What a stage adds, if it is nothing but ARGs and one remote ADD on scratch.
fn stage_source(stage: &Stage, args: &BuildArgs, globals: &Globals, escape: Escape) -> Result<Remote, Diagnostic> {
    let mut env = globals.env.clone();
    env.set_or_remove(NAME, None);
    let wrong = |span, message: &str| Err(Diagnostic::error(span, format!("{NAME} stage {message}")));
    if words::expand(&stage.from.image, escape, &env)?.text != "scratch" {
        return wrong(stage.from.image.span, "must use FROM scratch");
    }
    let mut source = None;
    for instruction in &stage.instructions {
        match &instruction.kind {
            Kind::Arg(pairs) => {
                for pair in pairs {
                    let default = pair.default.as_ref().map(|d| words::expand(d, escape, &env)).transpose()?;
                    let value = args.values.get(&pair.name.text).cloned().or(default.map(|d| d.text));
                    if let Some(value) = value {
                        env.set(pair.name.text.as_str(), value);
                    }
                }
            }
            Kind::Add(add) if source.is_none() => source = Some(remote(add, &env, escape, instruction.header.span)?),
            Kind::Add(_) => return wrong(instruction.header.span, "must contain exactly one remote ADD"),
            _ => {
                let name = instruction.header.keyword.text.to_uppercase();
                let message = format!("does not meet source-only requirements: unsupported {name} instruction");
                return wrong(instruction.header.keyword.span, &message);
            }
        }
    }
    match source {
        Some(source) => Ok(source),
        None => wrong(stage.header.span, "must contain exactly one remote ADD"),
    }
}

fn remote(add: &Add, env: &Env, escape: Escape, span: Span) -> Result<Remote, Diagnostic> {
    let wrong = |message: &str| Diagnostic::error(span, format!("{NAME} stage {message}"));
    let [FileSource::Path(source)] = add.files.sources.as_slice() else {
        return Err(wrong("must contain exactly one remote ADD source"));
    };
    let text = words::expand(source, escape, env)?.text;
    if let Some(git) = GitUrl::parse_as(&text, add.keep_git_dir.is_some()) {
        return git.map(Remote::Git).map_err(|e| Diagnostic::error(source.span, e));
    }
    if !git::is_web_file(&text) {
        return Err(wrong("source must be a single HTTP(S) or Git ADD"));
    }
    let checksum = add.checksum.as_ref().map(|c| {
        let text = words::expand(c, escape, env)?.text;
        text.parse().map_err(|e: crate::oci::DigestError| Diagnostic::error(c.span, e.to_string()))
    });
    Ok(Remote::Http(HttpKey { url: text, checksum: checksum.transpose()? }))
}
