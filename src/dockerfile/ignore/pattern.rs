//! One pattern. Moby makes a regular expression of it, but for those that a comparison does as well; so does kiln, with
//! the same expression, and with a look at both ends of the path before the expression is asked.

use crate::dockerfile::glob::Glob;
use regex::Regex;

/// A pattern without its `!`.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    /// What every path that matches begins with.
    head: String,
    how: How,
}

/// How a path is compared.
#[derive(Debug, Clone)]
enum How {
    /// It is the head.
    Exact,
    /// It begins with the head.
    Prefix,
    /// It ends so. `**/a` is also the path `a`.
    Suffix(String),
    /// It ends so, and matches where `*` and `?` are all that is special: quicker than the same expression.
    Wild { tail: String, glob: Glob },
    /// It ends so, and the expression matches.
    Regex { tail: String, regex: Regex },
}

impl Pattern {
    /// Reads a cleaned pattern; `None` if it isn't one.
    pub(super) fn new(text: &str) -> Option<Self> {
        // Moby asks Go's filepath.Match for its opinion about the syntax, although it matches otherwise.
        let glob = Glob::new(text).ok()?;
        let translation = translate(text)?;
        let how = match translation.simple {
            Simple::Exact => How::Exact,
            Simple::Prefix => How::Prefix,
            Simple::Suffix => How::Suffix(text.strip_prefix("**").unwrap_or(text).to_owned()),
            Simple::No if !text.contains(['[', '\\', '^']) && !text.contains("**") => {
                How::Wild { tail: translation.tail, glob }
            }
            Simple::No => {
                How::Regex { tail: translation.tail, regex: Regex::new(&format!("^{}$", translation.regex)).ok()? }
            }
        };
        Some(Self { head: translation.head, how })
    }

    pub(super) fn matches(&self, path: &str) -> bool {
        match &self.how {
            How::Exact => path.len() == self.head.len() && begins(path, &self.head),
            How::Prefix => begins(path, &self.head),
            How::Suffix(suffix) => ends(path, suffix) || suffix.strip_prefix('/') == Some(path),
            How::Wild { tail, glob } => begins(path, &self.head) && ends(path, tail) && glob.matches(path.as_bytes()),
            How::Regex { tail, regex } => begins(path, &self.head) && ends(path, tail) && regex.is_match(path),
        }
    }

    /// Whether a path below `dir` may match.
    pub(super) fn may_match_below(&self, dir: &str) -> bool {
        let below = |path: &str| path.strip_prefix(dir).is_some_and(|rest| rest.starts_with('/'));
        match self.how {
            How::Exact => below(&self.head),
            _ => below(&self.head) || dir.starts_with(&self.head),
        }
    }
}

/// `starts_with` byte by byte: most patterns differ from most paths in the first, and a call of the C library's
/// comparison costs more than all the rest (205 ms against 32 for 100,000 paths and 50 patterns).
fn begins(path: &str, head: &str) -> bool {
    path.len() >= head.len() && path.bytes().zip(head.bytes()).all(|(a, b)| a == b)
}

/// `ends_with`, likewise.
fn ends(path: &str, tail: &str) -> bool {
    path.len() >= tail.len() && path.bytes().rev().zip(tail.bytes().rev()).all(|(a, b)| a == b)
}

/// Whether the pattern needs no expression.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Simple {
    Exact,
    Prefix,
    Suffix,
    No,
}

struct Translation {
    simple: Simple,
    /// The literal start.
    head: String,
    /// The literal end.
    tail: String,
    regex: String,
}

impl Translation {
    fn special(&mut self, regex: &str) {
        self.simple = Simple::No;
        self.tail.clear();
        self.regex.push_str(regex);
    }

    fn literal(&mut self, c: char) {
        if self.simple == Simple::Exact {
            self.head.push(c);
        }
        self.tail.push(c);
        self.regex.push_str(&regex::escape(c.encode_utf8(&mut [0; 4])));
    }
}

/// `None` for what is no valid expression.
fn translate(text: &str) -> Option<Translation> {
    let mut out = Translation { simple: Simple::Exact, head: String::new(), tail: String::new(), regex: String::new() };
    let mut chars = text.chars().peekable();
    let mut first = true;
    while let Some(c) = chars.next() {
        match c {
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                double_star(chars.peek().is_none(), first, &mut out);
            }
            '*' => out.special("[^/]*"),
            '?' => out.special("[^/]"),
            '\\' => {
                let escaped = escape(chars.next()?)?;
                out.special(&escaped);
            }
            '[' => {
                let class = class(&mut chars)?;
                out.special(&class);
            }
            ']' => out.special("\\]"),
            // It isn't escaped in moby's expression, where it stands for the start of the path.
            '^' => caret(&mut out),
            c => out.literal(c),
        }
        first = false;
    }
    Some(out)
}

/// `**`, with the slash after it, if there is one.
fn double_star(last: bool, first: bool, out: &mut Translation) {
    match (first, last) {
        // Moby compares ends then, unless something special follows; so `**a` matches `ba`, while `**a?` doesn't `bac`.
        (true, _) => {
            out.special(if last { ".*" } else { "(.*/)?" });
            out.simple = Simple::Suffix;
        }
        (false, true) if out.simple == Simple::Exact => {
            out.regex.push_str(".*");
            out.simple = Simple::Prefix;
        }
        (false, true) => out.special(".*"),
        (false, false) => out.special("(.*/)?"),
    }
}

/// A caret counts as itself where the pattern is compared as text, and can't match where it becomes an expression.
fn caret(out: &mut Translation) {
    if out.simple == Simple::Exact {
        out.head.push('^');
    }
    out.tail.clear();
    out.regex.push('^');
}

/// What a backslash and a character mean in Go's expressions.
fn escape(c: char) -> Option<String> {
    Some(match c {
        'd' => "[0-9]".to_owned(),
        'D' => "[^0-9]".to_owned(),
        's' => "[\\t\\n\\x0C\\r ]".to_owned(),
        'S' => "[^\\t\\n\\x0C\\r ]".to_owned(),
        'w' => "[0-9A-Za-z_]".to_owned(),
        'W' => "[^0-9A-Za-z_]".to_owned(),
        'a' | 'f' | 'n' | 'r' | 't' | 'v' => format!("\\{c}"),
        c if c.is_ascii() && !c.is_ascii_alphanumeric() => regex::escape(c.encode_utf8(&mut [0; 4])),
        _ => return None,
    })
}

/// A class after its `[`, in the syntax of our expressions. A star or question mark in it becomes what it would be
/// outside, as moby's translation has no notion of classes; the first `]` of that then ends the class.
fn class(chars: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Option<String> {
    let mut out = String::from("[");
    if chars.next_if_eq(&'^').is_some() {
        out.push('^');
    }
    loop {
        match chars.next()? {
            ']' => break,
            '-' => out.push('-'),
            '\\' => out.push_str(&escape(chars.next()?)?),
            '*' if chars.next_if_eq(&'*').is_some() => {
                chars.next_if_eq(&'/');
                out.push_str("(.*/)?");
            }
            '*' => {
                // `[a*b]` reads `[a[^/]*b]`: one of `a[^/`, again and again, and `b]`.
                out.push_str("\\[\\^/]*");
                return Some(out);
            }
            '?' => {
                out.push_str("\\[\\^/]");
                return Some(out);
            }
            c => out.push_str(&regex::escape(c.encode_utf8(&mut [0; 4]))),
        }
    }
    out.push(']');
    Some(out)
}

/// A pattern as nothing but its expression.
#[cfg(test)]
pub(super) fn expression(text: &str) -> Option<Regex> {
    Regex::new(&format!("^{}$", translate(text)?.regex)).ok()
}
