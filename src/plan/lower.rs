//! The two questions that the planner answers: what must be known, and what is to be done.

use super::args::BuildArgs;
use super::budget::Budget;
use super::globals::Globals;
use super::lint::{self, Findings};
use super::op::{BuildPlan, Target};
use super::outline::Outline;
use super::resolved::{ResolvedBases, Wanted};
use super::stages::{StageId, Stages};
use super::vertices::Vertices;
use super::walk::Walk;
use super::{dispatch, epoch};
use crate::dockerfile::ast::{Dockerfile, Kind};
use crate::oci::Platform;
use crate::report::{Diagnostic, Span};
use std::collections::BTreeSet;

/// Everything that the platforms of a build share.
pub(super) struct Shared<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) args: &'a BuildArgs,
    pub(super) known: &'a ResolvedBases,
    pub(super) vertices: Vertices,
    pub(super) wanted: Wanted,
    pub(super) findings: Findings,
    /// What the plan may still take of memory.
    pub(super) budget: Budget,
    /// Go on although something is wanted.
    pub(super) guess: bool,
    /// `SOURCE_DATE_EPOCH`.
    pub(super) epoch: Option<i64>,
    /// The ARGs that stages declared, those of triggers among them.
    pub(super) declared: BTreeSet<String>,
}

/// What a build needs to know before [`lower`] can plan it, apart from what is `known` already.
///
/// # Errors
/// Every mistake of the file that shows without knowing more, with the warnings found until then.
pub fn bases(file: &Dockerfile, args: &BuildArgs, known: &ResolvedBases) -> Result<Wanted, Vec<Diagnostic>> {
    let mut shared = Shared::new(file, args, known);
    shared.targets();
    if shared.findings.errors.is_empty() { Ok(shared.wanted) } else { Err(shared.findings.in_order()) }
}

/// Plans a build: the plan, and what the lints that need expansion found.
///
/// # Errors
/// Every mistake of the file, with the warnings found until then. Something that [`bases`] wants and `known` doesn't
/// have is a mistake, too.
pub fn lower(
    file: &Dockerfile,
    known: &ResolvedBases,
    args: &BuildArgs,
) -> Result<(BuildPlan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut shared = Shared::new(file, args, known);
    let targets = shared.targets();
    let mut warnings = shared.finish()?;
    warnings.extend(shared.unused_values());
    Ok((shared.vertices.into_plan(targets, shared.epoch), warnings))
}

/// Looks for mistakes without knowing everything: nothing that depends on an image that isn't `known` is reported.
/// Errors and warnings in the order of the file; for all stages, set [`BuildArgs::all_stages`].
pub fn check(file: &Dockerfile, known: &ResolvedBases, args: &BuildArgs) -> Vec<Diagnostic> {
    let mut shared = Shared { guess: true, ..Shared::new(file, args, known) };
    shared.targets();
    shared.findings.in_order()
}

impl<'a> Shared<'a> {
    pub(super) fn new(file: &'a Dockerfile, args: &'a BuildArgs, known: &'a ResolvedBases) -> Self {
        Self {
            file,
            args,
            known,
            vertices: Vertices::default(),
            wanted: Wanted::default(),
            findings: Findings::default(),
            budget: Budget::default(),
            guess: false,
            epoch: None,
            declared: BTreeSet::new(),
        }
    }

    fn targets(&mut self) -> Vec<Target> {
        let args = self.args;
        args.targets().iter().filter_map(|platform| self.target(platform)).collect()
    }

    /// Plans one platform; `None` when something is wrong or wanted.
    fn target(&mut self, platform: &'a Platform) -> Option<Target> {
        let (walk, target) = self.walk(platform)?;
        walk.run(target)
    }

    /// What the target can be given.
    pub(super) fn outline(&mut self, platform: &'a Platform) -> Option<Outline> {
        let (walk, target) = self.walk(platform)?;
        walk.outline(target)
    }

    /// Reads what stands above the instructions of one platform: the global scope and the stages.
    fn walk<'s>(&'s mut self, platform: &'a Platform) -> Option<(Walk<'s, 'a>, StageId)> {
        let mut globals = Globals::read(self.file, self.args, platform).map_err(|e| self.findings.error(e)).ok()?;
        if let Ok(defaults) = Globals::of_defaults(self.file, self.args, platform) {
            lint::defaults_in_from(self.file, &defaults, &mut self.findings);
        }
        match epoch::find(self, &globals) {
            Ok(epoch) => {
                self.epoch = epoch;
                globals.date(epoch);
            }
            Err(error) => self.findings.error(error),
        }
        let stages = Stages::read(self.file, &globals, self.args, platform, &mut self.findings);
        let target = stages.target(self.args.target.as_deref()).map_err(|e| self.findings.error(e)).ok()?;
        Some((Walk::new(self, globals, stages, platform), target))
    }

    /// The warnings of a build for which everything is known; otherwise everything that is wrong.
    pub(super) fn finish(&mut self) -> Result<Vec<Diagnostic>, Vec<Diagnostic>> {
        self.refuse_wanted();
        let findings = std::mem::take(&mut self.findings);
        if findings.errors.is_empty() { Ok(findings.warnings) } else { Err(findings.in_order()) }
    }

    /// In [`lower`] everything must be known.
    fn refuse_wanted(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        let images = wanted.images.iter().map(|(key, at)| (*at, format!("{} for {}", key.name, key.platform)));
        let git = wanted.git.iter().map(|(key, at)| (*at, format!("{}#{}", key.remote, key.reference)));
        let http = wanted.http.iter().map(|(key, at)| (*at, key.url.clone()));
        for (at, what) in images.chain(git).chain(http) {
            self.findings.error(Diagnostic::error(at, format!("{what} is not resolved")));
        }
    }

    /// `--build-arg`s that no ARG declares.
    fn unused_values(&self) -> Option<Diagnostic> {
        let instructions = self.file.global_args.iter().chain(self.file.stages.iter().flat_map(|s| &s.instructions));
        let mut declared = self.declared.clone();
        for instruction in instructions {
            if let Kind::Arg(pairs) = &instruction.kind {
                declared.extend(pairs.iter().map(|p| p.name.text.clone()));
            }
        }
        let names = self.args.values.keys().map(String::as_str);
        let unused: Vec<&str> = names.filter(|n| !declared.contains(*n) && !dispatch::is_predefined(n)).collect();
        let message = format!("One or more build-args [{}] were not consumed", unused.join(" "));
        let warning = Diagnostic { rule: None, ..Diagnostic::warning("", Span::default(), message) };
        (!unused.is_empty()).then_some(warning)
    }
}
