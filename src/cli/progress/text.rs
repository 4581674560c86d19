//! Bytes from outside made harmless for a terminal.

/// What stands for a character that isn't shown.
const HIDDEN: char = '\u{fffd}';

/// Text that a terminal shows and doesn't obey. Escape sequences vanish; with `colours`, those that only set colours and
/// weights stay, and the line ends with a reset. Other control characters, and the invisible ones that turn text around,
/// become U+FFFD. Tabs stay.
pub(super) fn harmless(line: &[u8], colours: bool) -> String {
    let line = String::from_utf8_lossy(line);
    let mut out = String::with_capacity(line.len());
    let mut coloured = false;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\u{1b}' => {
                if let Some(sequence) = escape(&mut rest).filter(|_| colours) {
                    out.push_str(&sequence);
                    coloured = true;
                }
            }
            '\t' => out.push(c),
            c if c.is_control() || turns_text(c) => out.push(HIDDEN),
            c => out.push(c),
        }
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// Characters that show other characters in another order than they stand in.
fn turns_text(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Eats the sequence behind an ESC (ECMA-48); gives it back where it only sets colours and weights.
fn escape(rest: &mut std::str::Chars<'_>) -> Option<String> {
    match rest.clone().next()? {
        '[' => {
            rest.next();
            control_sequence(rest)
        }
        // Operating system commands and other strings end at BEL or ST.
        ']' | 'P' | 'X' | '^' | '_' => {
            string(rest);
            None
        }
        ' '..='/' => {
            while matches!(rest.next(), Some(' '..='/')) {}
            None
        }
        '0'..='~' => {
            rest.next();
            None
        }
        // Not a sequence at all: what follows is shown.
        _ => None,
    }
}

/// Parameters and a final character; given back if that is `m` with plain numbers.
fn control_sequence(rest: &mut std::str::Chars<'_>) -> Option<String> {
    let mut parameters = String::new();
    loop {
        let mut ahead = rest.clone();
        match ahead.next()? {
            c @ ' '..='?' => parameters.push(c),
            'm' if parameters.chars().all(|c| c.is_ascii_digit() || matches!(c, ';' | ':')) => {
                *rest = ahead;
                return Some(format!("\u{1b}[{parameters}m"));
            }
            '@'..='~' => {
                *rest = ahead;
                return None;
            }
            // Broken off: the character is no part of it.
            _ => return None,
        }
        *rest = ahead;
    }
}

fn string(rest: &mut std::str::Chars<'_>) {
    while let Some(c) = rest.next() {
        if c == '\u{7}' || (c == '\u{1b}' && rest.clone().next() == Some('\\')) {
            if c == '\u{1b}' {
                rest.next();
            }
            return;
        }
    }
}

/// How many cells a character takes: 2 for the wide ones of East Asia and pictures, 1 for all others.
fn cells(c: char) -> usize {
    let wide = matches!(u32::from(c),
        0x1100..=0x115f | 0x2e80..=0xa4cf | 0xac00..=0xd7a3 | 0xf900..=0xfaff | 0xfe30..=0xfe6f
        | 0xff00..=0xff60 | 0xffe0..=0xffe6 | 0x1f300..=0x1f64f | 0x1f680..=0x1f6ff | 0x1f900..=0x1faff | 0x20000..=0x3fffd);
    1 + usize::from(wide)
}

/// The beginning of a harmless text that fits into `width` cells, sequences and all; a cut one ends in `…`.
pub(super) fn fit(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    let mut last = 0;
    let mut coloured = false;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            if let Some(sequence) = escape(&mut rest) {
                coloured = !sequence.ends_with("[0m");
                out.push_str(&sequence);
            }
            continue;
        }
        let c = if c == '\t' { ' ' } else { c };
        if used + cells(c) > width {
            out.truncate(last);
            out.push_str(if width > 0 { "…" } else { "" });
            break;
        }
        if used + cells(c) < width {
            last = out.len() + c.len_utf8();
        }
        used += cells(c);
        out.push(c);
    }
    if coloured {
        out.push_str("\u{1b}[0m");
    }
    out
}

/// How many cells a harmless text takes.
pub(super) fn width(text: &str) -> usize {
    let mut rest = text.chars();
    let mut used = 0;
    while let Some(c) = rest.next() {
        if c == '\u{1b}' {
            escape(&mut rest);
        } else {
            used += cells(c);
        }
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_obeys_nothing_of_it() {
        for (bytes, want) in [
            (&b"plain \xc3\xa9"[..], "plain é"),
            (b"a\tb", "a\tb"),
            (b"\x1b[2J\x1b[Hgone", "gone"),
            (b"\x1b[31mred\x1b[0m", "red"),
            (b"\x1b]0;title\x07after", "after"),
            (b"\x1b]52;c;Y2F0\x1b\\after", "after"),
            (b"\x1bP1$q\x1b\\after", "after"),
            (b"\x1bcreset", "reset"),
            (b"\x1b(Bcharset", "charset"),
            (b"bell\x07 back\x08", "bell\u{fffd} back\u{fffd}"),
            (b"\xc2\x9b31mc1", "\u{fffd}31mc1"),
            (b"\xe2\x80\xaeturned", "\u{fffd}turned"),
            (b"\xff\xfe", "\u{fffd}\u{fffd}"),
            (b"open \x1b[31", "open "),
            (b"open \x1b", "open "),
            (b"open \x1b]0;never closed", "open "),
            (b"broken \x1b[3\x1b[31mred", "broken red"),
        ] {
            assert_eq!(harmless(bytes, false), want, "{bytes:?}");
        }
    }

    #[test]
    fn colours_stay_where_they_are_wanted_and_end_with_the_line() {
        assert_eq!(harmless(b"\x1b[1;31mred", true), "\x1b[1;31mred\x1b[0m");
        assert_eq!(harmless(b"\x1b[2J\x1b[?25lx\x1b[>4mx", true), "xx");
        assert_eq!(harmless(b"\x1b[38:5:1mx", true), "\x1b[38:5:1mx\x1b[0m");
    }

    #[test]
    fn fits_into_cells() {
        for (text, width, want) in [
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("日本語", 6, "日本語"),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
            ("abc", 0, ""),
            ("", 5, ""),
            ("\x1b[31mabcd\x1b[0m", 3, "\x1b[31mab…\x1b[0m"),
        ] {
            assert_eq!(fit(text, width), want, "{text} {width}");
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_but_colours_escapes(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..200), n in 0usize..40) {
            let plain = harmless(&bytes, false);
            proptest::prop_assert!(!plain.chars().any(|c| c.is_control() && c != '\t'));
            let coloured = harmless(&bytes, true);
            let bare: String = harmless(coloured.as_bytes(), false);
            proptest::prop_assert_eq!(bare, plain);
            proptest::prop_assert!(width(&fit(&coloured, n)) <= n);
        }
    }
}
