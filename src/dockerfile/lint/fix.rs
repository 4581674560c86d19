//! Mending: edits of the text, each safe by itself.

use super::{Finding, lint};
use crate::dockerfile::parse;
use crate::report::Span;

/// A part of the text and what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What is replaced.
    pub span: Span,
    /// What with.
    pub text: String,
}

impl Edit {
    /// Puts `text` in the place of `span`.
    pub fn new(span: Span, text: impl Into<String>) -> Self {
        Self { span, text: text.into() }
    }
}

/// Makes edits; those that touch one made before are left for another time.
pub fn apply(text: &str, edits: &[Edit]) -> String {
    let mut edits: Vec<&Edit> = edits.iter().collect();
    edits.sort_by_key(|edit| (edit.span.start, edit.span.end));
    let (mut out, mut at) = (String::with_capacity(text.len()), 0);
    for edit in edits {
        let range = edit.span.range();
        let Some(between) = text.get(at..range.start).filter(|_| text.is_char_boundary(range.end)) else { continue };
        out.push_str(between);
        out.push_str(&edit.text);
        at = range.end;
    }
    out.push_str(text.get(at..).unwrap_or_default());
    out
}

/// The rule that says how keywords are written.
const KEYWORDS: &str = "ConsistentInstructionCasing";

/// How often a text is mended again: a mend can bring up another finding (`from x AS y` gets its `FROM`, and then its
/// `AS` is right as it was), but no chain of them is longer than this.
const ROUNDS: usize = 4;

/// Mends what can be mended of the findings that `allow` lets count, until nothing is left to mend; says how many there
/// were at first.
pub fn fix(text: &str, allow: impl Fn(&str) -> bool) -> (String, usize) {
    let (mut mended, count) = mend(text, &allow, 0);
    for round in 1..ROUNDS {
        let (next, again) = mend(&mended, &allow, round);
        if again == 0 {
            break;
        }
        mended = next;
    }
    (mended, count)
}

/// Mends once. In the first round only keywords' casing is mended where it is wrong, since other rules compare with it.
fn mend(text: &str, allow: &impl Fn(&str) -> bool, round: usize) -> (String, usize) {
    let (file, _) = parse(text);
    let mends = |finding: &Finding| !finding.edits.is_empty() && finding.diagnostic.rule.is_some_and(allow);
    let findings: Vec<_> = lint(text, &file).into_iter().filter(mends).collect();
    let casing = |finding: &&Finding| finding.diagnostic.rule == Some(KEYWORDS);
    let first = round == 0 && findings.iter().any(|f| casing(&f));
    let edits: Vec<_> =
        findings.iter().filter(|f| !first || casing(f)).flat_map(|finding| finding.edits.iter().cloned()).collect();
    (apply(text, &edits), findings.len())
}
