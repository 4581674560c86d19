//! Accounts read back.

use super::{About, Build, How, Sheet, StepKind};
use crate::report::{Kind, Problem};
use crate::solve::key::Key;
use crate::solve::problem::{self, Result};
use crate::store::{BuildNumber, Store};
use serde::Serialize;

/// A build in short.
#[derive(Debug, Clone, Serialize)]
pub struct Head {
    /// Its number.
    pub build: BuildNumber,
    /// Of what.
    #[serde(flatten)]
    pub about: About,
    /// When it began, RFC 3339.
    pub started: String,
    /// How long its steps took, in milliseconds.
    pub took_ms: u64,
    /// Whether all of them went well.
    pub ok: bool,
    /// How many steps it has.
    pub steps: usize,
}

/// A build in a list.
#[derive(Debug, Clone, Serialize)]
pub struct Numbered {
    /// The build.
    #[serde(flatten)]
    pub head: Head,
    /// How many of its steps ran.
    pub ran: usize,
}

impl Build {
    pub(super) fn into_head(self, build: BuildNumber, steps: usize) -> Head {
        let Self { about, started, took_ms, ok, .. } = self;
        Head { build, about, started, took_ms, ok, steps }
    }
}

/// The builds that are remembered, the newest first.
///
/// # Errors
/// Where the store can't be read.
pub fn list(store: &Store) -> Result<Vec<Numbered>> {
    let mut list = Vec::new();
    for number in store.builds().map_err(problem::from)?.into_iter().rev() {
        let Some(build) = store.build::<Build>(number).map_err(problem::from)? else { continue };
        let Some(sheet) = sheet(store, &build.sheet)? else { continue };
        let (steps, ran) = counted(&build, &sheet);
        list.push(Numbered { head: build.into_head(number, steps), ran });
    }
    Ok(list)
}

/// How many steps a build has, and how many of them ran.
pub(super) fn counted(build: &Build, sheet: &Sheet) -> (usize, usize) {
    let is_step = |kind: StepKind| matches!(kind, StepKind::Process | StepKind::Files);
    let hows = sheet.steps.iter().enumerate().filter(|(_, s)| is_step(s.kind)).map(|(id, _)| build.how(id));
    hows.fold((0, 0), |(all, ran), how: How| (all + 1, ran + usize::from(how.is_run())))
}

/// The newest build's number, or the one that was asked for, with its account.
pub(super) fn build(store: &Store, number: Option<BuildNumber>) -> Result<(BuildNumber, Build)> {
    let numbers = store.builds().map_err(problem::from)?;
    let Some(wanted) = number.or_else(|| numbers.last().copied()) else {
        let none = Problem::new(Kind::Usage, "no build is remembered");
        return Err(none.hint("build something first; the folder of the store is --root DIR or $KILN_ROOT"));
    };
    match store.build::<Build>(wanted).map_err(problem::from)? {
        Some(build) => Ok((wanted, build)),
        None => Err(Problem::new(Kind::Usage, format!("build {wanted} isn't remembered"))
            .hint("kiln explain --list shows those that are")),
    }
}

/// A sheet; `None` where it isn't there or of another form.
pub(super) fn sheet(store: &Store, key: &Key) -> Result<Option<Sheet>> {
    let bytes = store.build_part(key).map_err(problem::from)?;
    Ok(bytes.and_then(|b| serde_json::from_slice(&b).ok()))
}
