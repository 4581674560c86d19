//! What a person is told when something went wrong.

use super::progress::harmless_line;
use crate::report::{Diagnostic, Problem, Severity, SourceText, render};

/// A problem as text: the findings that led to it, what failed at which line, why, and what helps. Others that happened
/// with it follow in the same form.
pub fn problem(problem: &Problem, source: Option<&SourceText>) -> String {
    let mut text = String::new();
    for found in &problem.diagnostics {
        text.push_str(&finding(found, source));
        text.push('\n');
    }
    let place = source.zip(problem.span);
    let causes = problem.causes.iter().map(|c| ("because", harmless_line(c)));
    let hints = problem.hints.iter().map(|h| ("help", harmless_line(h)));
    let notes: Vec<(&str, String)> = match problem.hints_first {
        true => hints.chain(causes).collect(),
        false => causes.chain(hints).collect(),
    };
    let notes: Vec<(&str, &str)> = notes.iter().map(|(label, note)| (*label, note.as_str())).collect();
    text.push_str(&render("error", &harmless_line(&problem.message), place, &notes));
    for other in &problem.others {
        text.push('\n');
        text.push_str(&self::problem(other, source));
    }
    text
}

/// A finding as text.
pub fn finding(found: &Diagnostic, source: Option<&SourceText>) -> String {
    let severity = match found.severity {
        Severity::Warning => "warning",
        Severity::Error => "error",
    };
    let heading = found.rule.map_or_else(|| severity.to_owned(), |rule| format!("{severity}[{rule}]"));
    let hint = found.hint.as_deref().map(harmless_line);
    let notes: Vec<(&str, &str)> = hint.iter().map(|h| ("help", h.as_str())).collect();
    render(&heading, &harmless_line(&found.message), source.map(|s| (s, found.span)), &notes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Kind, Span};

    #[test]
    fn says_what_where_why_and_what_helps() {
        let source = SourceText::new("Dockerfile", "FROM a\nRUN mkae\n");
        let p = Problem::new(Kind::Build, "the command failed with exit code 127")
            .at(Span::new(7, 15))
            .cause("/bin/sh: mkae: not found")
            .hint("is it installed in this stage?");
        let want = "\
error: the command failed with exit code 127
 --> Dockerfile:2:1
  |
2 | RUN mkae
  | ^^^^^^^^
  = because: /bin/sh: mkae: not found
  = help: is it installed in this stage?
";
        assert_eq!(problem(&p, Some(&source)), want);
        let first = problem(&Problem { hints_first: true, ..p }, Some(&source));
        assert!(first.find("= help").unwrap() < first.find("= because").unwrap(), "{first}");
    }

    #[test]
    fn a_registry_cannot_write_to_the_terminal() {
        let p = Problem::new(Kind::Network, "denied\x1b[2J").cause("\x1b]0;title\x07no\nsuch");
        assert_eq!(problem(&p, None), "error: denied\n  = because: no such\n");
    }

    #[test]
    fn every_failure_is_told() {
        let mut p = Problem::new(Kind::Build, "one failed");
        p.others =
            vec![Problem::new(Kind::Network, "two failed").cause("no route"), Problem::new(Kind::Build, "three")];
        let want = "error: one failed\n\nerror: two failed\n  = because: no route\n\nerror: three\n";
        assert_eq!(problem(&p, None), want);
    }

    #[test]
    fn findings_come_first() {
        let source = SourceText::new("D", "FORM a\n");
        let mut p = Problem::new(Kind::Usage, "the Dockerfile has an error");
        p.diagnostics.push(Diagnostic::error(Span::new(0, 4), "unknown instruction FORM").hint("did you mean FROM?"));
        let text = problem(&p, Some(&source));
        assert!(text.starts_with("error: unknown instruction FORM\n"), "{text}");
        assert!(text.ends_with("\nerror: the Dockerfile has an error\n"), "{text}");
    }
}
