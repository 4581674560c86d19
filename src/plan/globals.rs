//! The global scope: the platform's variables and the `ARG`s before the first `FROM`.

use super::args::BuildArgs;
use super::budget::Budget;
use super::env::Env;
use super::{epoch, words};
use crate::dockerfile::ast::{ArgPair, Dockerfile, Escape, Instruction, Kind};
use crate::oci::Platform;
use crate::report::{Diagnostic, Span};
use std::collections::{BTreeMap, BTreeSet};

/// What is known before the first stage.
#[derive(Debug, Clone, Default)]
pub(super) struct Globals {
    /// The variables of FROM lines.
    pub(super) env: Env,
    /// The ARGs by name; a later one replaces an earlier one.
    pub(super) args: BTreeMap<String, ArgInfo>,
    /// What `SOURCE_DATE_EPOCH` is as a number, whatever was given for it.
    epoch: Option<String>,
}

/// An ARG for the outline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct ArgInfo {
    /// Its value; empty without one.
    pub(super) value: String,
    /// What the comment above it says of it.
    pub(super) description: String,
    /// Its instruction.
    pub(super) span: Span,
    /// The global ARGs that its default uses.
    pub(super) uses: BTreeSet<String>,
}

impl Globals {
    /// Reads the ARGs before the first FROM, with the defaults of `platform` under them.
    pub(super) fn read(file: &Dockerfile, args: &BuildArgs, platform: &Platform) -> Result<Self, Diagnostic> {
        let mut globals = Self { env: predefined(args, platform, &target_name(file, args)), ..Self::default() };
        globals.declare(&file.global_args, &args.values, file.directives.escape)?;
        Ok(globals)
    }

    /// The same as if no `--build-arg` had been given: what the defaults alone make of the file.
    pub(super) fn of_defaults(file: &Dockerfile, args: &BuildArgs, platform: &Platform) -> Result<Self, Diagnostic> {
        let mut globals = Self { env: predefined(args, platform, &target_name(file, args)), ..Self::default() };
        globals.declare(&file.global_args, &BTreeMap::new(), file.directives.escape)?;
        Ok(globals)
    }

    fn declare(
        &mut self,
        instructions: &[Instruction],
        values: &BTreeMap<String, String>,
        escape: Escape,
    ) -> Result<(), Diagnostic> {
        let mut budget = Budget::default();
        for instruction in instructions {
            let Kind::Arg(pairs) = &instruction.kind else { continue };
            for pair in pairs {
                let info = self.evaluate(pair, instruction, values, escape)?;
                budget.take(2 * info.value.len(), pair.name.span)?;
                self.args.insert(pair.name.text.clone(), info);
            }
        }
        Ok(())
    }

    fn evaluate(
        &mut self,
        pair: &ArgPair,
        instruction: &Instruction,
        values: &BTreeMap<String, String>,
        escape: Escape,
    ) -> Result<ArgInfo, Diagnostic> {
        let name = pair.name.text.as_str();
        let mut info = ArgInfo {
            description: comment_on(&instruction.header.comments, name),
            span: instruction.header.span,
            ..ArgInfo::default()
        };
        let value = match (values.get(name), &pair.default) {
            (Some(given), _) => Some(given.clone()),
            (None, None) => None,
            (None, Some(default)) => {
                let expanded = words::expand(default, escape, &self.env)?;
                info.uses = expanded.matched;
                if info.uses.remove(name) {
                    info.uses.extend(self.args.get(name).into_iter().flat_map(|old| old.uses.iter().cloned()));
                }
                Some(expanded.text)
            }
        };
        if let Some(value) = value {
            self.env.set(name, value.as_str());
            info.value = value;
        }
        Ok(info)
    }

    /// Puts the number of `SOURCE_DATE_EPOCH` in the place of what was given for it.
    pub(super) fn date(&mut self, epoch: Option<i64>) {
        self.epoch = epoch.map(|seconds| seconds.to_string());
        if self.env.get(epoch::NAME).is_some() {
            self.env.set_or_remove(epoch::NAME, self.epoch.clone());
        }
    }

    /// What `--build-arg` gives for `name`.
    pub(super) fn given<'v>(&'v self, args: &'v BuildArgs, name: &str) -> Option<&'v str> {
        let given = args.values.get(name)?;
        if name == epoch::NAME { self.epoch.as_deref() } else { Some(given) }
    }

    /// The names that a FROM line may use.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.env.names().chain(self.args.keys().map(String::as_str))
    }
}

/// What the target is called in TARGETSTAGE.
fn target_name(file: &Dockerfile, args: &BuildArgs) -> String {
    let last = || file.stages.last().and_then(|s| s.from.name.as_ref()).map(|n| n.text.to_lowercase());
    args.target.clone().or_else(last).filter(|name| !name.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// The variables of the platforms and the target; `--build-arg` goes before.
fn predefined(args: &BuildArgs, target: &Platform, stage: &str) -> Env {
    let build = &args.build_platform;
    let (build_text, target_text) = (build.to_string(), target.to_string());
    let mut env = Env::default();
    for (name, value) in [
        ("BUILDPLATFORM", build_text.as_str()),
        ("BUILDOS", &build.os),
        ("BUILDOSVERSION", ""),
        ("BUILDARCH", &build.arch),
        ("BUILDVARIANT", &build.variant),
        ("TARGETPLATFORM", &target_text),
        ("TARGETOS", &target.os),
        ("TARGETOSVERSION", ""),
        ("TARGETARCH", &target.arch),
        ("TARGETVARIANT", &target.variant),
        ("TARGETSTAGE", stage),
    ] {
        env.set(name, args.values.get(name).map_or(value, String::as_str));
    }
    env
}

/// What a comment of the form `# NAME what it is` says of `name`.
pub(super) fn comment_on(comments: &[String], name: &str) -> String {
    comments
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .filter(|_| !name.is_empty())
        .unwrap_or_default()
        .to_owned()
}
