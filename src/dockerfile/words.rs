//! The ways in which the arguments of instructions fall into words. Nothing is expanded here.

use std::ops::Range;

/// A word and the part of the text that it comes from. The word is that part, but for what a quote or an escape character
/// at the end of the line takes away.
pub(super) type Found = (String, Range<usize>);

/// What separates words where no quotes are known. Other white space belongs to the words.
pub(super) fn is_blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\x0b' | '\x0c' | '\r')
}

/// The part of `range` in `text` without white space at both ends.
pub(super) fn trimmed(text: &str, range: Range<usize>) -> Range<usize> {
    let part = text.get(range.clone()).unwrap_or_default();
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// The words of `text[range]` between blanks, as parts of `text`.
pub(super) fn between_blanks(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let part = text.get(range.clone()).unwrap_or_default();
    let offset = |word: &str| range.start + (word.as_ptr() as usize - part.as_ptr() as usize);
    part.split(is_blank).filter(|w| !w.is_empty()).map(|w| offset(w)..offset(w) + w.len()).collect()
}

/// The part up to the first blank, and the part after that blank and its like.
pub(super) fn first_word(text: &str, range: Range<usize>) -> (Range<usize>, Range<usize>) {
    let part = text.get(range.clone()).unwrap_or_default();
    let end = part.find(is_blank).unwrap_or(part.len());
    let rest = part[end..].trim_start_matches(is_blank);
    (range.start..range.start + end, range.end - rest.len()..range.end)
}

/// Where a reader of quoted words stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum In {
    Blanks,
    Word,
    Quote(char),
}

/// Words with quotes and escapes in them, as ENV, LABEL and ARG have them: both stay in the words, white space within
/// them doesn't separate.
pub(super) fn quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Found> {
    let mut found = Vec::new();
    let mut state = In::Blanks;
    let (mut word, mut start) = (String::new(), range.start);
    let mut chars = text.get(range.clone()).unwrap_or_default().char_indices();
    while let Some((at, c)) = chars.next() {
        let at = range.start + at;
        if state == In::Blanks {
            if c.is_whitespace() {
                continue;
            }
            (state, start) = (In::Word, at);
        }
        match (state, c) {
            (In::Word, c) if c.is_whitespace() => {
                found.push((std::mem::take(&mut word), start..at));
                state = In::Blanks;
                continue;
            }
            (In::Word, '\'' | '"') => state = In::Quote(c),
            (In::Quote(quote), c) if c == quote => state = In::Word,
            _ => {}
        }
        if c == escape && state != In::Quote('\'') {
            // At the end of the line it is dropped.
            let Some((_, escaped)) = chars.next() else { break };
            word.push(c);
            word.push(escaped);
        } else {
            word.push(c);
        }
    }
    if state != In::Blanks && !word.is_empty() {
        found.push((word, start..range.end));
    }
    found
}

/// The flags at the start of `text[range]`, and where the arguments begin. A flag's quotes and escapes are gone.
pub(super) fn flags(text: &str, range: Range<usize>) -> (Vec<Found>, usize) {
    let mut found = Vec::new();
    let mut at = range.start;
    loop {
        let rest = text.get(at..range.end).unwrap_or_default();
        at += rest.len() - rest.trim_start().len();
        let rest = rest.trim_start();
        if !rest.starts_with("--") {
            return (found, at);
        }
        let (flag, length) = flag(rest);
        let start = at;
        at += length;
        if flag == "--" {
            return (found, at);
        }
        found.push((flag, start..at));
    }
}

/// One flag, and how long it is in the text.
fn flag(text: &str) -> (String, usize) {
    let mut flag = String::new();
    let mut quote = None;
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            c if quote.is_none() && c.is_whitespace() => return (flag, at),
            c if quote == Some(c) => quote = None,
            '\'' | '"' if quote.is_none() => quote = Some(c),
            '\\' => flag.extend(chars.next().map(|(_, escaped)| escaped)),
            c => flag.push(c),
        }
    }
    (flag, text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(found: Vec<Found>) -> Vec<String> {
        found.into_iter().map(|(word, _)| word).collect()
    }

    #[test]
    fn words_between_blanks() {
        let text = "x a  b\tc\u{a0}d ";
        let got: Vec<_> = between_blanks(text, 1..text.len()).into_iter().map(|r| &text[r]).collect();
        assert_eq!(got, ["a", "b", "c\u{a0}d"]);
        assert_eq!(first_word("k  v w", 0..6), (0..1, 3..6));
        assert_eq!(first_word("k", 0..1), (0..1, 1..1));
        assert_eq!(trimmed("x  ab ", 1..6), 3..5);
        assert_eq!(trimmed("   ", 0..3), 3..3);
    }

    #[test]
    fn words_with_quotes() {
        for (text, want) in [
            ("a=1 b=2", vec!["a=1", "b=2"]),
            ("a='x y' b", vec!["a='x y'", "b"]),
            (r#"a="x \" y" b"#, vec![r#"a="x \" y""#, "b"]),
            (r"a='x\' b", vec![r"a='x\'", "b"]),
            (r"a=x\ y b", vec![r"a=x\ y", "b"]),
            (r"a=\'x y'", vec![r"a=\'x", "y'"]),
            (r"a\", vec!["a"]),
            (r"\", vec![]),
            (r#"a="x\"#, vec![r#"a="x"#]),
            (r#""""#, vec![r#""""#]),
            ("  ", vec![]),
            ("a=\"x", vec!["a=\"x"]),
        ] {
            assert_eq!(texts(quoted(text, 0..text.len(), '\\')), want, "{text}");
        }
        assert_eq!(texts(quoted("a=`\" \\ b", 0..8, '`')), ["a=`\"", "\\", "b"]);
    }

    #[test]
    fn flags_end_at_the_first_argument() {
        for (text, want, rest) in [
            ("a --b", vec![], "a --b"),
            ("--a --b=c d", vec!["--a", "--b=c"], "d"),
            ("--a=\"x y\" 'b'", vec!["--a=x y"], "'b'"),
            (r#"--a=x\ y b"#, vec!["--a=x y"], "b"),
            (r#"--a="\"" b"#, vec!["--a=\""], "b"),
            ("-- --b", vec![], " --b"),
            ("--a -- --b", vec!["--a"], " --b"),
            ("-a", vec![], "-a"),
            ("--a", vec!["--a"], ""),
            ("--a=\\", vec!["--a="], ""),
            ("--a='x", vec!["--a=x"], ""),
            ("", vec![], ""),
        ] {
            let (found, at) = flags(text, 0..text.len());
            assert_eq!((texts(found), &text[at..]), (want.iter().map(|s| (*s).to_owned()).collect(), rest), "{text}");
        }
    }
}
