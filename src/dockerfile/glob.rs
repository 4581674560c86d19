//! Wildcards of COPY and ADD: Go's `filepath.Match`.
//!
//! `*` is any text without a slash, `?` any character but a slash, `[a-z]` and `[^a-z]` are classes (which may be a
//! slash), a backslash takes the meaning from the next character. Nothing else means anything; there is no `**`.

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob {
    tokens: Vec<Token>,
}

/// The pattern's classes or escapes don't close.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern")]
pub struct BadPattern;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    Star,
    Any,
    Literal(char),
    Class { negated: bool, ranges: Vec<(char, char)> },
}

/// Whether `path` has a character in it that makes it a pattern.
pub fn is_pattern(path: &str) -> bool {
    let mut chars = path.chars();
    while let Some(c) = chars.next() {
        match c {
            '*' | '?' | '[' => return true,
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    false
}

impl Glob {
    /// Reads a pattern.
    ///
    /// # Errors
    /// [`BadPattern`], where Go's `filepath.Match` says so.
    pub fn new(pattern: &str) -> Result<Self, BadPattern> {
        let mut tokens = Vec::new();
        let mut rest = pattern.chars().peekable();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' if tokens.last() == Some(&Token::Star) => continue,
                '*' => Token::Star,
                '?' => Token::Any,
                '[' => class(&mut rest)?,
                '\\' => Token::Literal(rest.next().ok_or(BadPattern)?),
                c => Token::Literal(c),
            });
        }
        Ok(Self { tokens })
    }

    /// Whether all of `name` matches. As in Go a star that has found what follows it doesn't look further, unless it is
    /// the last one; so time grows with the product of both lengths at worst.
    pub fn matches(&self, name: &[u8]) -> bool {
        let (mut token, mut at) = (0, 0);
        // The last star, and how far it reaches.
        let mut star = None;
        loop {
            let step = match self.tokens.get(token) {
                Some(Token::Star) => {
                    star = Some((token + 1, at));
                    token += 1;
                    continue;
                }
                Some(other) => name.get(at..).and_then(|rest| accepts(other, rest)),
                None if at == name.len() => return true,
                None => None,
            };
            if let Some(length) = step {
                (token, at) = (token + 1, at + length);
                continue;
            }
            let Some((after, reach)) = star else { return false };
            match name.get(reach) {
                Some(b'/') | None => return false,
                Some(_) => {
                    star = Some((after, reach + 1));
                    (token, at) = (after, reach + 1);
                }
            }
        }
    }
}

/// The rest of a class, after the `[`.
fn class(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Token, BadPattern> {
    let negated = rest.next_if_eq(&'^').is_some();
    let mut ranges = Vec::new();
    loop {
        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
            return Ok(Token::Class { negated, ranges });
        }
        let low = bound(rest)?;
        let high = if rest.next_if_eq(&'-').is_some() { bound(rest)? } else { low };
        ranges.push((low, high));
    }
}

/// One end of a range.
fn bound(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<char, BadPattern> {
    match rest.next() {
        None | Some('-' | ']') => Err(BadPattern),
        Some('\\') => rest.next().ok_or(BadPattern),
        Some(c) => Ok(c),
    }
}

/// How many bytes at the start of `rest` the token takes, if it does.
fn accepts(token: &Token, rest: &[u8]) -> Option<usize> {
    let (c, length) = decode(rest)?;
    let accepted = match token {
        Token::Star => false,
        Token::Any => c != '/',
        Token::Literal(literal) => c == *literal,
        Token::Class { negated, ranges } => ranges.iter().any(|(low, high)| *low <= c && c <= *high) != *negated,
    };
    accepted.then_some(length)
}

/// The first character and its length; a byte that is no UTF-8 is a U+FFFD of its own.
fn decode(bytes: &[u8]) -> Option<(char, usize)> {
    // Most are ASCII, and this is the innermost loop of a walk.
    if let Some(ascii) = bytes.first().filter(|b| b.is_ascii()) {
        return Some((char::from(*ascii), 1));
    }
    let first = bytes.get(..bytes.len().min(4))?.utf8_chunks().next()?;
    let c = first.valid().chars().next();
    Some(c.map_or((char::REPLACEMENT_CHARACTER, 1), |c| (c, c.len_utf8())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_go_does() {
        for (pattern, name, want) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*", "a", true),
            ("a*", "ab/c", false),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("a*b*c*d*e*/f", "axbxcxdxexxx/fff", false),
            ("a*b?c*x", "abxbbxdbxebxczzx", true),
            ("a*b?c*x", "abxbbxdbxebxczzy", false),
            ("ab[c]", "abc", true),
            ("ab[b-d]", "abc", true),
            ("ab[e-g]", "abc", false),
            ("ab[^c]", "abc", false),
            ("ab[^e-g]", "abc", true),
            ("a\\*b", "a*b", true),
            ("a\\*b", "ab", false),
            ("a?b", "aéb", true),
            ("a[^a]b", "aéb", true),
            ("a???b", "aéb", false),
            ("[a-é]*", "b", true),
            ("*[a-é]", "A", false),
            ("a?b", "a/b", false),
            ("a*b", "a/b", false),
            ("a[^x]b", "a/b", true),
            ("[\\]a]", "]", true),
            ("[x\\-]", "-", true),
            ("*x", "xxx", true),
            ("**", "a/b", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("]", "]", true),
        ] {
            assert_eq!(Glob::new(pattern).unwrap().matches(name.as_bytes()), want, "{pattern} {name}");
        }
        assert!(Glob::new("a?").unwrap().matches(b"a\xff"));
        assert!(!Glob::new("a?").unwrap().matches(b"a\xff\xfe"));
    }

    #[test]
    fn bad_patterns() {
        for pattern in ["[", "[]a]", "[-]", "[x-]", "[-x]", "[a-b-c]", "[^", "[^bc", "a[", "\\", "[a\\", "*["] {
            assert_eq!(Glob::new(pattern), Err(BadPattern), "{pattern}");
        }
    }

    #[test]
    fn patterns_are_known_by_their_characters() {
        assert!(is_pattern("a/*.c") && is_pattern("a?") && is_pattern("[a]"));
        assert!(!is_pattern("a/b.c") && !is_pattern("a\\*") && !is_pattern("]"));
    }

    #[test]
    fn many_stars_are_no_danger() {
        let pattern = Glob::new(&"a*".repeat(1000)).unwrap();
        assert!(!pattern.matches(&[b"a".repeat(5000).as_slice(), b"/"].concat()));
    }
}
