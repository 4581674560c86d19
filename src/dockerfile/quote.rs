//! Text in quotes as Go's `%q` prints it: the form of syntax trees and of several messages.

use std::fmt::Write as _;

/// `text` in double quotes, with Go's escapes.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    text.chars().for_each(|c| escaped(c, &mut out));
    out.push('"');
    out
}

fn escaped(c: char, out: &mut String) {
    match c {
        '"' => out.push_str("\\\""),
        '\\' => out.push_str("\\\\"),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        ' '..='~' => out.push(c),
        c => unusual(c, out),
    }
}

/// Control characters and everything beyond ASCII.
fn unusual(c: char, out: &mut String) {
    let code = u32::from(c);
    // Writing to a String can't fail.
    let _ = match code {
        0..0x80 => write!(out, "\\x{code:02x}"),
        _ if is_printable(c) => write!(out, "{c}"),
        0x80..0x1_0000 => write!(out, "\\u{code:04x}"),
        _ => write!(out, "\\U{code:08x}"),
    };
}

/// Whether `c` is a letter, mark, number, punctuation or symbol. The standard library knows that only inside of its own
/// quoting, which also escapes marks, but only where nothing stands before them.
fn is_printable(c: char) -> bool {
    let mut text = String::from("a");
    text.push(c);
    text.escape_debug().nth(1) == Some(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        for (text, want) in [
            ("a b", r#""a b""#),
            ("a\"\\\t\r\n", r#""a\"\\\t\r\n""#),
            ("\x00\x7f\x1b", r#""\x00\x7f\x1b""#),
            ("é世\u{301}", "\"é世\u{301}\""),
            ("\u{a0}\u{200b}\u{feff}", r#""\u00a0\u200b\ufeff""#),
            ("\u{e0001}", r#""\U000e0001""#),
            ("'", r#""'""#),
        ] {
            assert_eq!(quoted(text), want);
        }
    }
}
