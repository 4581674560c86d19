//! The JSON form of arguments: an array of strings, with the place of each.

use serde::de::IgnoredAny;
use std::ops::Range;

/// What a text is as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// Not a JSON array: it is taken as plain text.
    No,
    /// An array, but not of strings alone.
    Mixed,
    /// The strings, with their places (quotes included) in the text.
    Strings(Vec<(String, Range<usize>)>),
}

/// Reads `text`, in which nothing may stand beside the array.
pub(super) fn strings(text: &str) -> Json {
    if !text.starts_with('[') || serde_json::from_str::<Vec<IgnoredAny>>(text).is_err() {
        return Json::No;
    }
    // The text is valid from here on: what isn't a string, a blank, a comma or the end is another value.
    let mut found = Vec::new();
    let mut at = 1;
    loop {
        match text.as_bytes().get(at) {
            Some(b'"') => {
                let end = string_end(text, at);
                found.push((unescaped(text.get(at + 1..end - 1).unwrap_or_default()), at..end));
                at = end;
            }
            Some(b' ' | b'\t' | b'\n' | b'\r' | b',') => at += 1,
            Some(b']') | None => return Json::Strings(found),
            Some(_) => return Json::Mixed,
        }
    }
}

/// One past the quote that ends the string that starts at `at`.
fn string_end(text: &str, at: usize) -> usize {
    let mut bytes = text.bytes().enumerate().skip(at + 1);
    while let Some((i, b)) = bytes.next() {
        match b {
            b'"' => return i + 1,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
    text.len()
}

/// The text of a string without its quotes. Half a surrogate pair becomes U+FFFD, as in Go.
fn unescaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let escape = rest[at + 1..].chars().next();
        rest = rest.get(at + 2..).unwrap_or_default();
        match escape {
            Some('b') => out.push('\x08'),
            Some('f') => out.push('\x0c'),
            Some('n') => out.push('\n'),
            Some('r') => out.push('\r'),
            Some('t') => out.push('\t'),
            Some('u') => {
                let (c, length) = unicode(rest);
                out.push(c);
                rest = rest.get(length..).unwrap_or_default();
            }
            c => out.extend(c),
        }
    }
    out.push_str(rest);
    out
}

/// The character of `XXXX` or `XXXX\uXXXX`, and how much of the text it takes.
fn unicode(text: &str) -> (char, usize) {
    let unit = |from: usize| text.get(from..from + 4).and_then(|hex| u16::from_str_radix(hex, 16).ok());
    let first = unit(0).unwrap_or(0xfffd);
    let second = if text.get(4..6) == Some("\\u") { unit(6) } else { None };
    let pair = char::decode_utf16([first].into_iter().chain(second)).next();
    match pair {
        Some(Ok(c)) if c.len_utf16() == 2 => (c, 10),
        Some(Ok(c)) => (c, 4),
        _ => (char::REPLACEMENT_CHARACTER, 4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Option<Vec<String>> {
        match strings(text) {
            Json::Strings(found) => Some(found.into_iter().map(|(word, _)| word).collect()),
            _ => None,
        }
    }

    #[test]
    fn arrays_of_strings() {
        assert_eq!(words(r#"["a", "b c" ]"#).unwrap(), ["a", "b c"]);
        assert_eq!(words("[]").unwrap(), [""; 0]);
        assert_eq!(words(r#"["\"\\\/\n\u00e9\ud83d\ude00\ud800x"]"#).unwrap(), ["\"\\/\né😀\u{fffd}x"]);
        assert_eq!(words(r#"["\\"]"#).unwrap(), ["\\"]);
        assert_eq!(words(r#"["\ud800\u0041"]"#).unwrap(), ["\u{fffd}A"]);
        let text = r#"[ "é", "b" ]"#;
        let Json::Strings(found) = strings(text) else { panic!() };
        assert_eq!(&text[found[1].1.clone()], "\"b\"");
    }

    #[test]
    fn everything_else() {
        for text in ["", "a", "[", r#"["a""#, r#"["a",]"#, r#"['a']"#, r#"["a"] b"#, r#"["\x"]"#, "[\"a\tb\"]", "{}"] {
            assert_eq!(strings(text), Json::No, "{text}");
        }
        for text in ["[1]", "[null]", r#"["a", ["b"]]"#, r#"[{"a":"b"}]"#, "[true]"] {
            assert_eq!(strings(text), Json::Mixed, "{text}");
        }
    }

    #[test]
    fn deep_nesting_is_no_danger() {
        let text = format!("{}{}", "[".repeat(1 << 20), "]".repeat(1 << 20));
        assert_eq!(strings(&text), Json::Mixed);
    }
}
