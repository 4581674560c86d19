//! `kiln plan`, `build --call outline` and `--call targets`: what a build would do, and what it can be given.

use super::{dockerfile, planning};
use crate::cli::Env;
use crate::cli::progress::Style;
use crate::cli::request::{PlanFormat, RegistryRequest, SourceRequest};
use crate::cli::session::{Failure, Session, dockerfile_problem};
use crate::dockerfile::ast::Dockerfile;
use crate::plan::{self, print};
use crate::report::Problem;
use std::path::Path;

/// Prints the steps of a build.
pub fn plan(
    source: &SourceRequest,
    registry: &RegistryRequest,
    format: PlanFormat,
    store: &Path,
    env: &Env,
) -> Result<String, Failure> {
    with_file(source, registry, store, env, async |session, file, _| {
        let (plan, _) = planning::plan(session, file, &planning::args(source), false, env).await?;
        Ok(match format {
            PlanFormat::Text => print::text(&plan),
            PlanFormat::Json => print::json(&plan) + "\n",
            PlanFormat::Dot => print::dot(&plan),
            PlanFormat::Mermaid => print::mermaid(&plan),
        })
    })
}

/// Prints what the target can be given.
pub fn outline(
    source: &SourceRequest,
    registry: &RegistryRequest,
    json: bool,
    store: &Path,
    env: &Env,
) -> Result<String, Failure> {
    with_file(source, registry, store, env, async |session, file, text| {
        let args = planning::args(source);
        let known = planning::resolved(session, file, &args, false, env).await?;
        let outline = plan::outline(file, &known, &args).map_err(dockerfile_problem)?;
        Ok(if json { print::outline_json(&outline, text) + "\n" } else { print::outline_text(&outline) })
    })
}

/// Prints the stages that can be built.
pub fn targets(source: &SourceRequest, json: bool) -> Result<String, Failure> {
    let read = dockerfile::read(&source.context, &source.dockerfile)?;
    let (file, _) = dockerfile::parse(&read.text)?;
    let targets = plan::targets(&file);
    Ok(if json { print::targets_json(&targets, &read.text) + "\n" } else { print::targets_text(&targets) })
}

/// Reads the Dockerfile and works on it; what goes wrong points into it.
fn with_file(
    source: &SourceRequest,
    registry: &RegistryRequest,
    store: &Path,
    env: &Env,
    work: impl AsyncFnOnce(&Session, &Dockerfile, &crate::report::SourceText) -> Result<String, Problem>,
) -> Result<String, Failure> {
    let read = dockerfile::read(&source.context, &source.dockerfile)?;
    let (file, _) = dockerfile::parse(&read.text)?;
    let session = Session::start(store, registry, Style::Plain, Some(read.text.clone()), env)?;
    let done = session.run(async |session| session.stoppable(work(session, &file, &read.text)).await);
    done.map_err(|problem| Failure::of(problem, read.text.clone()))
}
