//! Lints: the table of rules, and what can be found by looking at the instructions alone.
//!
//! Rules under BuildKit's names say what BuildKit says. Those that need expanded variables or resolved images are found
//! by `plan`, those that need the context by [`context`]; the table here names them all. The rules of kiln's own are
//! about practices: they show in `kiln check`, and never make a build fail (`check=error=true` is about BuildKit's).

pub mod context;
pub mod fix;
pub mod format;
mod options;
mod practice;
mod rules;
mod shell;
mod table;
#[cfg(test)]
mod tests;

pub use options::Options;
pub use table::{RULES, Rule, Source, rule};

use super::ast::{Dockerfile, Header, Instruction, Stage};
use crate::report::{Diagnostic, Span};
use fix::Edit;
use std::collections::HashMap;

/// A finding, and how to mend it where there is one safe way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was found.
    pub diagnostic: Diagnostic,
    /// The edits that mend it; none where that is for a person to decide.
    pub edits: Vec<Edit>,
}

/// Looks at a file with all rules that need nothing else, in the order of the text. `text` is what it was parsed from.
pub fn lint(text: &str, file: &Dockerfile) -> Vec<Finding> {
    let mut findings = Findings { text, found: Vec::new() };
    let parents = parents(file);
    rules::run(file, &parents, &mut findings);
    practice::run(file, &parents, &mut findings);
    findings.found.sort_by_key(|f| f.diagnostic.span.start);
    findings.found
}

/// Gathers findings.
struct Findings<'t> {
    text: &'t str,
    found: Vec<Finding>,
}

impl Findings<'_> {
    fn add(&mut self, rule: &'static str, span: Span, message: impl Into<String>) {
        self.add_with(rule, span, message, Vec::new());
    }

    fn add_with(&mut self, rule: &'static str, span: Span, message: impl Into<String>, edits: Vec<Edit>) {
        self.found.push(Finding { diagnostic: Diagnostic::warning(rule, span, message), edits });
    }

    /// Adds what helps to the finding that was added last.
    fn hint(&mut self, hint: &str) {
        if let Some(last) = self.found.last_mut() {
            last.diagnostic.hint = Some(hint.to_owned());
        }
    }
}

/// Every instruction's header in order, those of stages included.
pub(super) fn headers(file: &Dockerfile) -> impl Iterator<Item = &Header> {
    let stages = file.stages.iter().flat_map(|stage| {
        std::iter::once(&stage.header).chain(stage.instructions.iter().map(|instruction| &instruction.header))
    });
    file.global_args.iter().map(|instruction| &instruction.header).chain(stages)
}

/// For each stage the one above it that its FROM names, if it is one of the file's.
fn parents(file: &Dockerfile) -> Vec<Option<usize>> {
    let mut named: HashMap<String, usize> = HashMap::new();
    let mut parents = Vec::with_capacity(file.stages.len());
    for (index, stage) in file.stages.iter().enumerate() {
        parents.push(named.get(&stage.from.image.text.to_lowercase()).copied());
        if let Some(name) = &stage.from.name {
            named.insert(name.text.to_lowercase(), index);
        }
    }
    parents
}

/// The instructions of a stage, with what its ONBUILDs would do left out.
fn instructions(stage: &Stage) -> impl Iterator<Item = &Instruction> {
    stage.instructions.iter()
}
