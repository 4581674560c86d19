//! Wildcards in a COPY's sources, by the rules of Go's `filepath.Match` on Unix.

/// Whether `pattern` has a wildcard that isn't escaped.
pub(super) fn has_wildcard(pattern: &[u8]) -> bool {
    let mut bytes = pattern.iter();
    while let Some(b) = bytes.next() {
        match b {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Whether `pattern` matches the whole of one component `name`: `*`, `?`, `[a-z]`, `[^a-z]`, `\c`. A broken pattern
/// matches nothing, as BuildKit takes it.
pub(super) fn matches(pattern: &[u8], name: &[u8]) -> bool {
    // The place to go on from when what follows the last `*` fits nowhere yet.
    let mut retry: Option<(usize, usize)> = None;
    let (mut p, mut n) = (0, 0);
    loop {
        let rest = name.get(n..).unwrap_or_default();
        let step = match pattern.get(p..).unwrap_or_default() {
            [] => rest.is_empty().then_some((0, 0)),
            [b'*', ..] => {
                retry = Some((p, n));
                Some((1, 0))
            }
            pattern => one(pattern, rest),
        };
        match (step, retry) {
            (Some((0, 0)), _) => return true,
            (Some((by, taken)), _) => (p, n) = (p + by, n + taken),
            (None, Some((star, from))) if from < name.len() => {
                retry = Some((star, from + width(name.get(from..).unwrap_or_default())));
                (p, n) = (star + 1, from + width(name.get(from..).unwrap_or_default()));
            }
            (None, _) => return false,
        }
    }
}

/// How many bytes of pattern and name one element takes, if it fits.
fn one(pattern: &[u8], name: &[u8]) -> Option<(usize, usize)> {
    let taken = width(name);
    if taken == 0 {
        return None;
    }
    match pattern {
        [b'?', ..] => Some((1, taken)),
        [b'[', rest @ ..] => class(rest, char_of(name)).map(|by| (by + 1, taken)),
        [b'\\', c, ..] => (name.first() == Some(c)).then_some((2, 1)),
        [b'\\'] => None,
        [c, ..] => (name.first() == Some(c)).then_some((1, 1)),
        [] => None,
    }
}

/// The length of a class after its `[`, if it is well-formed and holds `c`.
fn class(pattern: &[u8], c: u32) -> Option<usize> {
    let (negated, mut at) = if pattern.first() == Some(&b'^') { (true, 1) } else { (false, 0) };
    let mut found = false;
    let first = at;
    loop {
        if pattern.get(at) == Some(&b']') && at > first {
            return (found != negated).then_some(at + 1);
        }
        let (low, next) = class_char(pattern, at)?;
        at = next;
        let mut high = low;
        if pattern.get(at) == Some(&b'-') {
            (high, at) = class_char(pattern, at + 1)?;
        }
        found |= (low..=high).contains(&c);
    }
}

/// One end of a range in a class: `-` and `]` only with a backslash in front.
fn class_char(pattern: &[u8], at: usize) -> Option<(u32, usize)> {
    let at = match pattern.get(at)? {
        b'-' | b']' => return None,
        b'\\' => at + 1,
        _ => at,
    };
    let rest = pattern.get(at..).filter(|r| !r.is_empty())?;
    let next = at + width(rest);
    // A class must go on after each character.
    pattern.get(next).map(|_| (char_of(rest), next))
}

/// The bytes of the first character; a byte that is none counts as one, as in Go.
fn width(text: &[u8]) -> usize {
    text.utf8_chunks().next().map_or(0, |chunk| chunk.valid().chars().next().map_or(1, char::len_utf8)).min(text.len())
}

fn char_of(text: &[u8]) -> u32 {
    let first = text.get(..text.len().min(4)).unwrap_or_default();
    first.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next()).map_or(0xfffd, u32::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*", "", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("*a*a*a*b", "aaaaaaaaaaaaaaaaaaaa", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^b-d]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "a\u{263a}b", true),
            ("a[^a]b", "a\u{263a}b", true),
            ("a???b", "a\u{263a}b", false),
            ("[a-\u{3b6}]*", "\u{3b1}", true),
            ("*[a-\u{3b6}]", "A", false),
            ("[\\]a]", "]", true),
            ("[\\-]", "-", true),
            ("[x\\-]", "x", true),
            ("[]a]", "]", false),
            ("[-]", "-", false),
            ("[x-]", "x", false),
            ("[-x]", "x", false),
            ("[a-b-d]", "a", false),
            ("[", "a", false),
            ("[^", "a", false),
            ("a[", "ab", false),
            ("*x", "xxx", true),
            ("a\\", "a", false),
            ("", "", true),
            ("", "a", false),
            (".*", ".a", true),
            ("*.txt", ".txt", true),
        ] {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), want, "{pattern} {name}");
        }
    }

    #[test]
    fn names_that_are_no_text() {
        assert!(matches(b"a?b", b"a\xffb"));
        assert!(matches(b"a*b", b"a\xff\xfeb"));
        assert!(!matches(b"a?b", b"a\xff\xfeb"));
    }

    #[test]
    fn escapes_hide_wildcards() {
        for (text, want) in [("a*", true), ("a\\*", false), ("a\\\\*", true), ("[", true), ("?", true), ("a", false)] {
            assert_eq!(has_wildcard(text.as_bytes()), want, "{text}");
        }
    }
}
