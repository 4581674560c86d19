//! The patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` is any text, `?` any character, a backslash takes their meaning.

use super::{MAX_GROWTH, Reason};
use regex::{NoExpand, Regex};

/// Cuts the part at the start (`#`) or end (`%`) of `value` that matches; a doubled sign takes the longest.
pub(super) fn trim(sign: char, word: &str, value: &str) -> Result<String, Reason> {
    let (pattern, greedy) = match word.strip_prefix(sign) {
        Some(rest) => (rest, true),
        None => (word, false),
    };
    if sign == '#' {
        return trim_start(pattern, value, greedy).map(str::to_owned);
    }
    // The end of a text is the start of its reverse.
    let reversed: String = value.chars().rev().collect();
    trim_start(&reverse(pattern), &reversed, greedy).map(|rest| rest.chars().rev().collect())
}

fn trim_start<'v>(pattern: &str, value: &'v str, greedy: bool) -> Result<&'v str, Reason> {
    let found = compile(pattern, greedy, true)?.find(value).map_or(0, |m| m.end());
    Ok(value.get(found..).unwrap_or_default())
}

/// Replaces the first match of `pattern` in `value`, or all of them.
///
/// As in BuildKit, `$1` in the replacement names a group when all are replaced; there are no groups, so it is nothing.
pub(super) fn replace(pattern: &str, replacement: &str, value: &str, all: bool) -> Result<String, Reason> {
    let regex = compile(pattern, true, false)?;
    if !all {
        return Ok(regex.replace(value, NoExpand(replacement)).into_owned());
    }
    let (mut out, mut done) = (String::new(), 0);
    for found in regex.captures_iter(value) {
        let Some(whole) = found.get(0) else { continue };
        out.push_str(value.get(done..whole.start()).unwrap_or_default());
        found.expand(replacement, &mut out);
        done = whole.end();
        if out.len() > MAX_GROWTH {
            return Err(Reason::TooLong);
        }
    }
    out.push_str(value.get(done..).unwrap_or_default());
    Ok(out)
}

fn compile(pattern: &str, greedy: bool, anchored: bool) -> Result<Regex, Reason> {
    let invalid = |why: String| Reason::Pattern { pattern: pattern.to_owned(), why };
    let text = to_regex(pattern, greedy, anchored).map_err(invalid)?;
    Regex::new(&text).map_err(|_| invalid("it is too long".to_owned()))
}

fn to_regex(pattern: &str, greedy: bool, anchored: bool) -> Result<String, String> {
    let mut out = String::from(if anchored { "^" } else { "" });
    let mut chars = pattern.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '*' => out.push_str(if greedy { ".*" } else { ".*?" }),
            '?' => out.push('.'),
            // A slash or brace is escaped for the sake of `${}`; the pattern doesn't see it.
            '\\' if matches!(chars.peek(), Some('}' | '/')) => {}
            '\\' => match chars.next() {
                Some(c @ ('*' | '?' | '\\')) => literal(c, &mut out),
                other => return Err(format!("invalid escape '\\{}'", other.unwrap_or('\u{fffd}'))),
            },
            c => literal(c, &mut out),
        }
    }
    Ok(out)
}

fn literal(c: char, out: &mut String) {
    if regex_syntax_character(c) {
        out.push('\\');
    }
    out.push(c);
}

fn regex_syntax_character(c: char) -> bool {
    matches!(
        c,
        '\\' | '.' | '+' | '*' | '?' | '(' | ')' | '|' | '[' | ']' | '{' | '}' | '^' | '$' | '#' | '&' | '-' | '~'
    )
}

/// A pattern from its end to its start, escapes kept together.
fn reverse(pattern: &str) -> String {
    let mut pieces: Vec<(char, Option<char>)> = Vec::new();
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        pieces.push((c, if c == '\\' { chars.next() } else { None }));
    }
    let mut out = String::with_capacity(pattern.len());
    for (c, escaped) in pieces.into_iter().rev() {
        out.push(c);
        out.extend(escaped);
    }
    out
}
