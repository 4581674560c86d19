//! What a build can be given: `--call outline` and `--call targets`.

use super::args::BuildArgs;
use super::globals::{ArgInfo, Globals, comment_on};
use super::lower::Shared;
use super::resolved::ResolvedBases;
use super::stages::{StageId, Stages};
use crate::dockerfile::ast::Dockerfile;
use crate::report::{Diagnostic, Span};
use std::collections::{BTreeMap, BTreeSet};

/// What a target can be given.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Outline {
    /// The stage's name; empty without one.
    pub name: String,
    /// What the comment above it says.
    pub description: String,
    /// The ARGs that the target and what it needs use, in the order of the file.
    pub args: Vec<OutlineArg>,
    /// The secrets that they mount.
    pub secrets: Vec<OutlineNeed>,
    /// The SSH agents that they mount.
    pub ssh: Vec<OutlineNeed>,
}

/// An ARG.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineArg {
    /// Its name.
    pub name: String,
    /// Its value in this build.
    pub value: String,
    /// What the comment above it says.
    pub description: String,
    /// Its instruction.
    pub span: Span,
}

/// A secret or SSH agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutlineNeed {
    /// Its id.
    pub name: String,
    /// Whether the build fails without it.
    pub required: bool,
    /// The RUN that wants it.
    pub span: Span,
}

/// A stage that can be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildTarget {
    /// Its name; empty without one.
    pub name: String,
    /// Whether it is built when nothing is asked for.
    pub default: bool,
    /// What the comment above it says.
    pub description: String,
    /// What it stands on, as written.
    pub base: String,
    /// `--platform`, as written.
    pub platform: String,
    /// Its FROM.
    pub span: Span,
}

/// The stages of a file.
pub fn targets(file: &Dockerfile) -> Vec<BuildTarget> {
    let stages = file.stages.iter().enumerate();
    let target = |(id, stage): (usize, &crate::dockerfile::ast::Stage)| {
        let name = stage.from.name.as_ref().map(|n| n.text.to_lowercase()).unwrap_or_default();
        BuildTarget {
            description: comment_on(&stage.header.comments, &name),
            name,
            default: id + 1 == file.stages.len(),
            base: stage.from.image.text.clone(),
            platform: stage.from.platform.as_ref().map(|p| p.text.clone()).unwrap_or_default(),
            span: stage.header.span,
        }
    };
    stages.map(target).collect()
}

/// What the target can be given, on the first platform asked for.
///
/// # Errors
/// As [`super::lower`].
pub fn outline(file: &Dockerfile, known: &ResolvedBases, args: &BuildArgs) -> Result<Outline, Vec<Diagnostic>> {
    let mut shared = Shared::new(file, args, known);
    let outline = args.targets().first().and_then(|platform| shared.outline(platform));
    shared.finish()?;
    Ok(outline.unwrap_or_default())
}

/// What one stage says about itself.
#[derive(Debug, Clone, Default)]
pub(super) struct StageOutline {
    args: BTreeMap<String, ArgInfo>,
    used: BTreeSet<String>,
    secrets: BTreeMap<String, (bool, Span)>,
    ssh: BTreeMap<String, (bool, Span)>,
}

impl StageOutline {
    /// Notes an ARG; `info` is `None` when all that is known of it stands in the global scope.
    pub(super) fn arg(&mut self, name: &str, info: Option<ArgInfo>) {
        if let Some(info) = info {
            self.args.insert(name.to_owned(), info);
        }
        self.used.insert(name.to_owned());
    }

    /// Notes a secret; the first mount of it counts.
    pub(super) fn secret(&mut self, id: &str, required: bool, span: Span) {
        self.secrets.entry(id.to_owned()).or_insert((required, span));
    }

    /// Notes an SSH agent; the first mount of it counts.
    pub(super) fn ssh(&mut self, id: &str, required: bool, span: Span) {
        self.ssh.entry(id.to_owned()).or_insert((required, span));
    }
}

/// Puts together what `target` and the stages that it needs say.
pub(super) fn gather(
    file: &Dockerfile,
    target: StageId,
    stages: &Stages<'_>,
    globals: &Globals,
    outlines: &[StageOutline],
) -> Outline {
    let mut outline = Outline::default();
    if let Some(stage) = file.stages.get(target) {
        outline.name = stage.from.name.as_ref().map(|n| n.text.to_lowercase()).unwrap_or_default();
        outline.description = comment_on(&stage.header.comments, &outline.name);
    }
    let (mut args, mut secrets, mut ssh) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    for id in nearest_first(target, stages) {
        let Some(own) = outlines.get(id) else { continue };
        let from = stages.list.get(id).into_iter().flat_map(|s| &s.used_args);
        for name in with_uses(own.used.iter().chain(from), globals) {
            if let Some(info) = own.args.get(name).or_else(|| globals.args.get(name)) {
                args.entry(name.to_owned()).or_insert_with(|| info.clone());
            }
        }
        own.secrets.iter().for_each(|(id, need)| *secrets.entry(id.clone()).or_insert(*need) = *need);
        own.ssh.iter().for_each(|(id, need)| *ssh.entry(id.clone()).or_insert(*need) = *need);
    }
    outline.args = args
        .into_iter()
        .map(|(name, ArgInfo { value, description, span, .. })| OutlineArg { name, value, description, span })
        .collect();
    outline.args.sort_by_key(|arg| arg.span.start);
    outline.secrets = needs(secrets);
    outline.ssh = needs(ssh);
    outline
}

fn needs(map: BTreeMap<String, (bool, Span)>) -> Vec<OutlineNeed> {
    let need = |(name, (required, span))| OutlineNeed { name, required, span };
    let mut needs: Vec<OutlineNeed> = map.into_iter().map(need).collect();
    needs.sort_by_key(|need| need.span.start);
    needs
}

/// The stages that `target` needs, itself first.
fn nearest_first(target: StageId, stages: &Stages<'_>) -> Vec<StageId> {
    let needed = stages.reachable(target, false);
    let others = (0..needed.len()).rev().filter(|id| *id != target && needed[*id]);
    std::iter::once(target).chain(others).collect()
}

/// Names, and the global ARGs that their defaults use.
fn with_uses<'n>(names: impl Iterator<Item = &'n String>, globals: &'n Globals) -> BTreeSet<&'n str> {
    let mut all = BTreeSet::new();
    let mut open: Vec<&str> = names.map(String::as_str).collect();
    while let Some(name) = open.pop() {
        if all.insert(name) {
            open.extend(globals.args.get(name).into_iter().flat_map(|info| &info.uses).map(String::as_str));
        }
    }
    all
}
