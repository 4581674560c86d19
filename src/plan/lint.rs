//! The lints that need expansion, under BuildKit's names and in its words.

use super::env::Env;
use super::globals::Globals;
use super::suggest;
use crate::dockerfile::ast::{Dockerfile, Stage, Word};
use crate::dockerfile::expand::{Expanded, Lex};
use crate::dockerfile::quote::quoted;
use crate::oci::{Platform, Reference};
use crate::report::{Diagnostic, Span};
use std::collections::BTreeSet;

/// What was found so far: errors and warnings.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) errors: Vec<Diagnostic>,
    pub(super) warnings: Vec<Diagnostic>,
}

impl Findings {
    pub(super) fn error(&mut self, error: Diagnostic) {
        if !self.errors.contains(&error) {
            self.errors.push(error);
        }
    }

    /// Everything, in the order of the file.
    pub(super) fn in_order(mut self) -> Vec<Diagnostic> {
        self.errors.append(&mut self.warnings);
        self.errors.sort_by_key(|found| found.span.start);
        self.errors
    }

    /// Adds a warning, once: the platforms of a build mostly find the same.
    pub(super) fn warn(&mut self, rule: &'static str, span: Span, message: String) {
        self.warn_once(Diagnostic::warning(rule, span, message));
    }

    /// The same for any warning.
    pub(super) fn warn_once(&mut self, warning: Diagnostic) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

fn did_you_mean(sign: &str, name: Option<&str>) -> String {
    name.map(|n| format!(" (did you mean {sign}{n}?)")).unwrap_or_default()
}

/// `UndefinedVar`: variables that nothing sets. ARGs without a value are declared, and so no mistake.
pub(super) fn undefined(
    unmatched: &BTreeSet<String>,
    declared: impl Fn(&str) -> bool,
    env: &Env,
    span: Span,
    findings: &mut Findings,
) {
    for name in unmatched.iter().filter(|name| !declared(name) && !is_scan_argument(name)) {
        let near = suggest::nearest(name, env.names());
        let message = format!("Usage of undefined variable '${name}'{}", did_you_mean("$", near));
        findings.warn("UndefinedVar", span, message);
    }
}

/// ARGs that speak to the SBOM scanner and never become variables.
pub(super) fn is_scan_argument(name: &str) -> bool {
    matches!(name, "BUILDKIT_SBOM_SCAN_CONTEXT" | "BUILDKIT_SBOM_SCAN_STAGE")
}

/// `UndefinedArgInFrom`.
pub(super) fn undeclared_in_from(expanded: &Expanded, span: Span, globals: &Globals, findings: &mut Findings) {
    for name in &expanded.unmatched {
        if globals.names().any(|known| known == name) {
            continue;
        }
        let near = suggest::nearest(name, globals.names());
        let message = format!("FROM argument '{name}' is not declared{}", did_you_mean("", near));
        findings.warn("UndefinedArgInFrom", span, message);
    }
}

/// `RedundantTargetPlatform` and `FromPlatformFlagConstDisallowed`.
pub(super) fn from_platform(
    word: &Word,
    stage: &Stage,
    expanded: &Expanded,
    globals: &Globals,
    findings: &mut Findings,
) {
    const TARGET: &str = "TARGETPLATFORM";
    let only_target = expanded.unmatched.is_empty() && expanded.matched.iter().eq([TARGET]);
    if only_target && globals.env.get(TARGET).unwrap_or_default() == expanded.text {
        let message = format!(
            "Setting platform to predefined {} in FROM is redundant as this is the default behavior",
            word.text
        );
        findings.warn("RedundantTargetPlatform", word.span, message);
    }
    let constant = expanded.matched.is_empty() && expanded.unmatched.is_empty();
    let Some(platform) = expanded.text.parse::<Platform>().ok().filter(|_| constant) else { return };
    let name = stage.from.name.as_ref().map(|n| n.text.to_lowercase()).unwrap_or_default();
    if !name.contains(&platform.os) && !name.contains(&platform.arch) {
        let message = format!("FROM --platform flag should not use constant value {}", quoted(&expanded.text));
        findings.warn("FromPlatformFlagConstDisallowed", word.span, message);
    }
}

/// `InvalidDefaultArgInFrom`: what the defaults alone make of a FROM must be a name.
pub(super) fn defaults_in_from(file: &Dockerfile, defaults: &Globals, findings: &mut Findings) {
    let lex = Lex::new(file.directives.escape.char());
    for stage in &file.stages {
        let word = &stage.from.image;
        let Ok(name) = lex.word(&word.text, &defaults.env) else { return };
        if name.parse::<Reference>().is_err() {
            let message = format!("Default value for ARG {} results in empty or invalid base image name", word.text);
            findings.warn("InvalidDefaultArgInFrom", word.span, message);
        }
    }
}

/// `InvalidBaseImagePlatform`.
pub(super) fn base_platform(name: &str, wanted: &Platform, actual: &Platform, span: Span, findings: &mut Findings) {
    if (&wanted.os, &wanted.arch) != (&actual.os, &actual.arch) {
        let message =
            format!("Base image {name} was pulled with platform \"{actual}\", expected \"{wanted}\" for current build");
        findings.warn("InvalidBaseImagePlatform", span, message);
    }
}

/// `WorkdirRelativePath`.
pub(super) fn relative_workdir(path: &str, span: Span, findings: &mut Findings) {
    let message = format!("Relative workdir {} can have unexpected results if the base image changes", quoted(path));
    findings.warn("WorkdirRelativePath", span, message);
}
