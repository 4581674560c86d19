//! Physical lines, and the logical lines that continuations make of them.
//!
//! A [`Line`] knows where each of its pieces stands in the file, so that every range of its text has a [`Span`].

use super::ast::{Escape, Word};
use crate::report::Span;
use std::ops::Range;

/// Reads a text line by line.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    text: &'a str,
    at: usize,
}

/// A physical line: its content without the line ending, and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Physical<'a> {
    /// Without `\n`, or any `\r` before it.
    pub content: &'a str,
    /// With the line ending.
    pub whole: &'a str,
    /// Where it begins.
    pub start: usize,
}

impl Physical<'_> {
    /// The place of its content.
    pub(super) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.content.len())
    }

    /// Whether nothing but a comment stands on it.
    pub(super) fn is_comment(&self) -> bool {
        self.content.trim_start().starts_with('#')
    }
}

impl<'a> Reader<'a> {
    /// Starts behind a byte order mark.
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: if text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 } }
    }

    /// Where the next line begins.
    pub(super) fn offset(&self) -> usize {
        self.at
    }

    /// The next line.
    pub(super) fn next(&mut self) -> Option<Physical<'a>> {
        let rest = self.text.get(self.at..).filter(|rest| !rest.is_empty())?;
        let whole = rest.split_inclusive('\n').next()?;
        let line = Physical { content: whole.trim_end_matches(['\r', '\n']), whole, start: self.at };
        self.at += whole.len();
        Some(line)
    }
}

/// A logical line: an instruction without its heredocs.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// The text, continuations joined and comments dropped.
    pub text: String,
    /// The last empty line within.
    pub empty: Option<Span>,
    pieces: Vec<Piece>,
}

/// From `at` on, the text stands at `source` in the file.
#[derive(Debug)]
struct Piece {
    at: usize,
    source: usize,
}

impl Line {
    /// Reads on from `first` while lines end in the escape character.
    pub(super) fn read(first: Physical<'_>, reader: &mut Reader<'_>, escape: Escape) -> Self {
        let mut line = Self::default();
        let start = first.content.len() - first.content.trim_start().len();
        let mut open = line.push(&first.content[start..], first.start + start, escape);
        while open {
            let Some(next) = reader.next() else { break };
            if next.is_comment() {
                continue;
            }
            if next.content.trim_start().is_empty() {
                line.empty = Some(next.span());
                continue;
            }
            open = line.push(next.content, next.start, escape);
        }
        line
    }

    /// Adds a piece; says whether it goes on in the next line.
    fn push(&mut self, content: &str, source: usize, escape: Escape) -> bool {
        let continued = continued(content, escape);
        self.pieces.push(Piece { at: self.text.len(), source });
        self.text.push_str(continued.unwrap_or(content));
        continued.is_some()
    }

    /// The place of a part of the text.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        if range.is_empty() {
            let at = self.source(range.start);
            return Span::new(at, at);
        }
        Span::new(self.source(range.start), self.source(range.end - 1) + 1)
    }

    /// A part of the text with its place.
    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word { text: self.text.get(range.clone()).unwrap_or_default().to_owned(), span: self.span(range) }
    }

    fn source(&self, at: usize) -> usize {
        let after = self.pieces.partition_point(|p| p.at <= at);
        after.checked_sub(1).and_then(|i| self.pieces.get(i)).map_or(0, |p| p.source + (at - p.at))
    }
}

/// The line without its continuation mark, if it has one: an escape character that is the last thing on the line but
/// for blanks, and isn't itself escaped.
fn continued(line: &str, escape: Escape) -> Option<&str> {
    let before = line.trim_end_matches([' ', '\t']).strip_suffix(escape.char())?;
    (!before.ends_with(escape.char())).then_some(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Line {
        let mut reader = Reader::new(text);
        let first = reader.next().unwrap();
        Line::read(first, &mut reader, Escape::Backslash)
    }

    #[test]
    fn joins_continuations_and_drops_comments() {
        for (text, want) in [
            ("a b\nc", "a b"),
            ("  a \\\n  b", "a   b"),
            ("a \\  \nb", "a b"),
            ("a \\\n# no\n  # neither\nb", "a b"),
            ("a \\\n\n  \\\nb", "a   b"),
            ("a \\\r\nb\r\n", "a b"),
            ("a \\\\\nb", "a \\\\"),
            ("a \\x\nb", "a \\x"),
            ("\\\nb", "b"),
            ("a \\", "a "),
            ("\u{feff}a", "a"),
        ] {
            assert_eq!(read(text).text, want, "{text:?}");
        }
    }

    #[test]
    fn spans_point_into_the_file() {
        let text = "RUN a \\\n# c\n  bc \\\n d";
        let line = read(text);
        assert_eq!(line.text, "RUN a   bc  d");
        let of = |range: Range<usize>| &text[line.span(range).range()];
        assert_eq!(of(0..3), "RUN");
        assert_eq!(of(8..10), "bc");
        assert_eq!(of(12..13), "d");
        assert_eq!(of(4..10), "a \\\n# c\n  bc");
        assert_eq!(of(13..13), "");
        assert_eq!(line.span(13..13).start as usize, text.len());
    }

    #[test]
    fn empty_lines_within_are_noted() {
        let text = "a \\\n\n b";
        assert_eq!(read(text).empty, Some(Span::new(4, 4)));
        assert_eq!(read("a \\\n b").empty, None);
    }
}
