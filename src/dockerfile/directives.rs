//! `# name=value` lines above everything else.

use super::ast::{Directives, Escape, Word};
use super::lines::Physical;
use crate::report::{Diagnostic, Span};

/// Takes the directives from the top of a file; the first line that is none ends them.
#[derive(Debug, Default)]
pub(super) struct Taker {
    /// What was found.
    pub found: Directives,
    seen: Vec<&'static str>,
    done: bool,
}

impl Taker {
    /// Whether `line` is a directive; if so, it is taken.
    pub(super) fn take(&mut self, line: Physical<'_>, errors: &mut Vec<Diagnostic>) -> bool {
        if self.done || self.shebang(line) {
            return false;
        }
        let Some((name, value)) = parse(line) else {
            self.done = true;
            return false;
        };
        if self.seen.contains(&name) {
            let message = format!("only one {name} parser directive can be used");
            errors.push(Diagnostic::error(line.span(), message));
        } else {
            self.seen.push(name);
            self.set(name, value, errors);
        }
        true
    }

    /// A `#!` line may stand above `syntax` and `check`, which are looked for by themselves; not above `escape`.
    fn shebang(&mut self, line: Physical<'_>) -> bool {
        let shebang = self.seen.is_empty() && line.start <= '\u{feff}'.len_utf8() && line.content.starts_with("#!");
        if shebang {
            self.seen.push("escape");
        }
        shebang
    }

    fn set(&mut self, name: &str, value: Word, errors: &mut Vec<Diagnostic>) {
        match (name, value.text.as_str()) {
            ("syntax", _) => self.found.syntax = Some(value),
            ("check", _) => self.found.check = Some(value),
            (_, "\\") => self.found.escape = Escape::Backslash,
            (_, "`") => self.found.escape = Escape::Backtick,
            (_, other) => {
                let message = format!("invalid escape token '{other}' does not match ` or \\");
                errors.push(Diagnostic::error(value.span, message));
            }
        }
    }
}

/// `# name = value`, if the name is a directive's.
fn parse(line: Physical<'_>) -> Option<(&'static str, Word)> {
    let text = line.content.trim_start().strip_prefix('#')?.trim_start();
    let (name, value) = text.split_once('=')?;
    let name = name.trim_end_matches(BLANKS);
    let name = ["syntax", "escape", "check"].into_iter().find(|known| known.eq_ignore_ascii_case(name))?;
    let value = value.trim_matches(BLANKS);
    if value.is_empty() {
        return None;
    }
    let start = line.start + (value.as_ptr() as usize - line.content.as_ptr() as usize);
    Some((name, Word { text: value.to_owned(), span: Span::new(start, start + value.len()) }))
}

const BLANKS: [char; 5] = [' ', '\t', '\n', '\x0c', '\r'];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::lines::Reader;

    fn take(text: &str) -> (Directives, Vec<Diagnostic>) {
        let (mut taker, mut errors, mut reader) = (Taker::default(), Vec::new(), Reader::new(text));
        while let Some(line) = reader.next() {
            taker.take(line, &mut errors);
        }
        (taker.found, errors)
    }

    #[test]
    fn directives_stand_at_the_top() {
        let (found, errors) = take("\u{feff}# Syntax = docker/dockerfile:1 \r\n#escape=`\n#  check=skip=all\n");
        assert_eq!(found.syntax.unwrap().text, "docker/dockerfile:1");
        assert_eq!(found.escape, Escape::Backtick);
        assert_eq!(found.check.unwrap().text, "skip=all");
        assert!(errors.is_empty());
        for text in ["\n# escape=`", "# c\n# escape=`", "FROM a\n# escape=`", "# esc=`\n# escape=`", "#!x\n#escape=`\n"]
        {
            assert_eq!(take(text).0.escape, Escape::Backslash, "{text:?}");
        }
        assert_eq!(take("#!/usr/bin/env kiln\n# check=error=true").0.check.unwrap().text, "error=true");
    }

    #[test]
    fn wrong_directives_are_errors() {
        assert_eq!(take("# escape=x").1[0].message, "invalid escape token 'x' does not match ` or \\");
        assert_eq!(take("#syntax=a\n#syntax=b").1[0].message, "only one syntax parser directive can be used");
    }
}
