//! The two questions that the planner answers: what must be known, and what is to be done.

use super::args::BuildArgs;
use super::globals::Globals;
use super::lint::{self, Findings};
use super::op::{BuildPlan, Target};
use super::resolved::{ResolvedBases, Wanted};
use super::stages::Stages;
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
    shared.refuse_wanted();
    if !shared.findings.errors.is_empty() {
        return Err(shared.findings.in_order());
    }
    shared.unused_values();
    Ok((shared.vertices.into_plan(targets, shared.epoch), shared.findings.warnings))
}

impl<'a> Shared<'a> {
    fn new(file: &'a Dockerfile, args: &'a BuildArgs, known: &'a ResolvedBases) -> Self {
        Self {
            file,
            args,
            known,
            vertices: Vertices::default(),
            wanted: Wanted::default(),
            findings: Findings::default(),
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
        let mut globals = match Globals::read(self.file, self.args, platform) {
            Ok(globals) => globals,
            Err(error) => {
                self.findings.error(error);
                return None;
            }
        };
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
        let target = match stages.target(self.args.target.as_deref()) {
            Ok(target) => target,
            Err(error) => {
                self.findings.error(error);
                return None;
            }
        };
        Walk::new(self, globals, stages, platform).run(target)
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

    /// `--build-arg`s that no ARG of the file declares.
    fn unused_values(&mut self) {
        let file = self.file;
        let instructions = file.global_args.iter().chain(file.stages.iter().flat_map(|s| &s.instructions));
        let declared: Vec<&str> = instructions
            .filter_map(|i| match &i.kind {
                Kind::Arg(pairs) => Some(pairs.iter().map(|p| p.name.text.as_str())),
                _ => None,
            })
            .flatten()
            .collect();
        let unused: Vec<&str> = self
            .args
            .values
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(name) && !self.declared.contains(*name) && !dispatch::is_predefined(name))
            .collect();
        if !unused.is_empty() {
            let message = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            let warning = Diagnostic { rule: None, ..Diagnostic::warning("", Span::default(), message) };
            self.findings.warnings.push(warning);
        }
    }
}
