//! Findings about a Dockerfile, and how they are drawn.

use super::{SourceText, Span};
use std::fmt::Write as _;

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; the build goes on.
    Warning,
    /// The file means nothing as it stands.
    Error,
}

/// A finding about a place in a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How much it matters.
    pub severity: Severity,
    /// The rule's name (`StageNameCasing`), for findings of a lint.
    pub rule: Option<&'static str>,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// Where.
    pub span: Span,
    /// What to write instead, or where to read more.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a place.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, rule: None, message: message.into(), span, hint: None }
    }

    /// A lint's finding at a place.
    pub fn warning(rule: &'static str, span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, rule: Some(rule), message: message.into(), span, hint: None }
    }

    /// Says what to write instead.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// Draws a finding: a heading, the place, the line with carets under the span, and the hint.
///
/// ```text
/// error: unknown instruction RUNN
///   --> Dockerfile:3:1
///    |
///  3 | RUNN make
///    | ^^^^
///    = help: did you mean RUN?
/// ```
pub fn render(heading: &str, message: &str, place: Option<(&SourceText, Span)>, notes: &[(&str, &str)]) -> String {
    let mut out = format!("{heading}: {message}\n");
    let mut gutter = 1;
    if let Some((source, span)) = place {
        let at = source.position(span.start);
        let line = source.line(at.line);
        gutter = at.line.to_string().len();
        let caret = caret(line, at.column, source.text.get(span.range()).unwrap_or(""));
        // A write to a String can't fail.
        let _ = write!(
            out,
            "{:gutter$}--> {}:{}:{}\n{:gutter$} |\n{} | {}\n{:gutter$} | {caret}\n",
            "",
            source.name,
            at.line,
            at.column,
            "",
            at.line,
            shown(line),
            "",
        );
    }
    for (label, note) in notes {
        let _ = writeln!(out, "{:gutter$} = {label}: {note}", "");
    }
    out
}

/// The longest part of a line that is shown; a 10 MB line must not become a 10 MB message.
const SHOWN: usize = 160;

/// A line as it is shown: tabs as one space, control characters made visible, cut at [`SHOWN`] characters.
fn shown(line: &str) -> String {
    let mut text: String = line
        .chars()
        .take(SHOWN)
        .map(|c| {
            if c == '\t' {
                ' '
            } else if c.is_control() {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    if line.chars().nth(SHOWN).is_some() {
        text.push('…');
    }
    text
}

/// Carets under the part of `spanned` that lies on `line`.
fn caret(line: &str, column: usize, spanned: &str) -> String {
    let first = spanned.split('\n').next().unwrap_or("").trim_end();
    let room = line.chars().count().min(SHOWN).saturating_sub(column - 1);
    let width = first.chars().count().min(room).max(1);
    format!("{}{}", " ".repeat((column - 1).min(SHOWN)), "^".repeat(width))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_a_caret_under_the_span() {
        let s = SourceText::new("Dockerfile", "FROM a\nCOPY --chwon=1 a b\n");
        let got = render(
            "error",
            "unknown flag --chwon",
            Some((&s, Span::new(12, 19))),
            &[("help", "did you mean --chown?")],
        );
        assert_eq!(
            got,
            "error: unknown flag --chwon\n --> Dockerfile:2:6\n  |\n2 | COPY --chwon=1 a b\n  |      ^^^^^^^\n  = help: did you mean --chown?\n"
        );
    }

    #[test]
    fn long_lines_are_cut() {
        let s = SourceText::new("D", "x".repeat(1 << 20));
        assert!(render("error", "m", Some((&s, Span::new(0, 1 << 20))), &[]).len() < 2000);
    }
}
