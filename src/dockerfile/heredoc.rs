//! Heredocs: the markers in an instruction's line, and the bodies below it.

use super::ast::Heredoc;
use super::expand::{Error, Lex, Unset};
use super::lines::Reader;
use crate::report::Span;

/// A marker: `<<NAME`, with all that can be written around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// The line that ends the body, without quotes.
    pub name: String,
    /// The file descriptor before the `<<`; 0 where none stands.
    pub fd: u32,
    /// `<<-`: tabs at the start of lines don't count.
    pub chomp: bool,
    /// No part of the name is quoted.
    pub expand: bool,
}

/// The marker that `word` is, if it is one.
///
/// # Errors
/// Where the name's quotes don't close.
pub fn marker(word: &str) -> Result<Option<Marker>, Error> {
    let after = word.trim_start_matches(|c: char| c.is_ascii_digit());
    let fd = &word[..word.len() - after.len()];
    let Some(after) = after.strip_prefix("<<") else { return Ok(None) };
    let (chomp, after) = match after.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, after),
    };
    let name = after.trim_start_matches([' ', '\t', '\n', '\x0c', '\r']);
    if name.is_empty() || name.contains('<') {
        return Ok(None);
    }
    let fd = if fd.is_empty() { 0 } else { fd.parse().unwrap_or(u32::MAX) };
    named(name, Marker { name: String::new(), fd, chomp, expand: true })
}

/// Fills in the name: the one word that is left of `name` when quotes and escapes are taken away. Whether quotes were
/// among that shows in how many are left when they are kept.
fn named(name: &str, marker: Marker) -> Result<Option<Marker>, Error> {
    let plain = Lex { skip_unset: true, ..Lex::new('\\') };
    let bare = plain.words(name, &Unset)?;
    let [bare] = bare.as_slice() else { return Ok(None) };
    let raw = Lex { raw_quotes: true, ..plain }.words(name, &Unset)?;
    let quotes = |word: &str| word.matches(['\'', '"']).count();
    let expand = raw.first().is_none_or(|raw| quotes(raw) == quotes(bare));
    Ok(Some(Marker { name: bare.clone(), expand, ..marker }))
}

/// The markers in an instruction's line, in order. A line whose quotes don't close has none.
pub(super) fn markers(line: &str) -> Result<Vec<Marker>, Error> {
    if !line.contains("<<") {
        return Ok(Vec::new());
    }
    let lex = Lex { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lex::new('\\') };
    let words = lex.words(line, &Unset).unwrap_or_default();
    words.iter().filter_map(|word| marker(word).transpose()).collect()
}

/// Reads a heredoc's body and the line that ends it; `None` if no line does.
pub(super) fn body(marker: Marker, reader: &mut Reader<'_>) -> Option<Heredoc> {
    let start = reader.offset();
    let mut raw = String::new();
    loop {
        let line = reader.next()?;
        let content = if marker.chomp { line.content.trim_start_matches('\t') } else { line.content };
        if content == marker.name {
            let content = if marker.chomp { chomped(&raw) } else { raw.clone() };
            let span = Span::new(start, line.start);
            let Marker { name, fd, chomp, expand } = marker;
            return Some(Heredoc { name, fd, content, raw, expand, chomp, span });
        }
        raw.push_str(line.whole);
    }
}

/// A body without the tabs at the start of its lines.
fn chomped(body: &str) -> String {
    body.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, fd: u32, chomp: bool, expand: bool) -> Option<Marker> {
        Some(Marker { name: name.to_owned(), fd, chomp, expand })
    }

    #[test]
    fn markers_in_all_forms() {
        for (word, want) in [
            ("<<EOF", of("EOF", 0, false, true)),
            ("<<-EOF", of("EOF", 0, true, true)),
            ("3<<EOF", of("EOF", 3, false, true)),
            ("99999999999<<EOF", of("EOF", u32::MAX, false, true)),
            ("<<'EOF'", of("EOF", 0, false, false)),
            ("<<\"EOF\"", of("EOF", 0, false, false)),
            ("<<E'O'F", of("EOF", 0, false, false)),
            ("<<E\\'F", of("E'F", 0, false, true)),
            ("<<'one two'", of("one two", 0, false, false)),
            ("<< EOF", of("EOF", 0, false, true)),
            ("<<$EOF", of("$EOF", 0, false, true)),
            ("<<${EOF}", of("${EOF}", 0, false, true)),
            ("<<one two", None),
            ("<<", None),
            ("<<-", None),
            ("<<<EOF", None),
            ("<<EOF<", None),
            ("a<<EOF", None),
            ("<EOF", None),
            ("<<''", None),
        ] {
            assert_eq!(marker(word).unwrap(), want, "{word}");
        }
        assert!(marker("<<'EOF").is_err());
    }

    #[test]
    fn several_in_a_line() {
        let names = |line: &str| markers(line).unwrap().into_iter().map(|m| m.name).collect::<Vec<_>>();
        assert_eq!(names("COPY <<a <<-'b' /x"), ["a", "b"]);
        assert_eq!(names("RUN cat << a > x"), ["a"]);
        assert_eq!(names("RUN cat \"<<a\" '<<b' \\<<c"), [""; 0]);
        assert_eq!(names("RUN echo $((1<<2))"), [""; 0]);
        assert_eq!(names("RUN it's <<a"), [""; 0]);
    }

    #[test]
    fn bodies_end_at_their_own_name() {
        let mut reader = Reader::new("\tb\nEOF \n\tEOF\nrest");
        let found = body(marker("<<-EOF").unwrap().unwrap(), &mut reader).unwrap();
        assert_eq!((found.content.as_str(), found.raw.as_str()), ("b\nEOF \n", "\tb\nEOF \n"));
        assert_eq!(found.span, Span::new(0, 8));
        assert_eq!(reader.next().unwrap().content, "rest");
        assert!(body(marker("<<EOF").unwrap().unwrap(), &mut Reader::new("a\n")).is_none());
    }
}
