//! .dockerignore files, and the patterns of `COPY --exclude`: which paths are left out.
//!
//! The rules are those of moby's `patternmatcher`. Patterns count in order, the last that matches decides, and `!` lets
//! back in. A pattern that matches a directory matches what is in it. Paths are relative, with slashes, without `.` and
//! `..`.
//!
//! There are two ways to ask, which differ where exceptions stand above what they make an exception from:
//! [`Matcher::matches`] looks at a path and its parents, and [`Matcher::enter`] walks down a tree and hands each
//! directory's answer to its entries. BuildKit walks when it sends a context or copies, so kiln does too.

mod pattern;
#[cfg(test)]
mod tests;

use pattern::Pattern;

/// The most patterns of one matcher. Some become regular expressions of several kilobytes.
pub const MAX_PATTERNS: usize = 10_000;

/// A pattern that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// `!` alone.
    #[error("illegal exclusion pattern: \"!\"")]
    Empty,
    /// A class or an escape that doesn't close.
    #[error("syntax error in pattern {}", super::quote::quoted(.0))]
    Syntax(String),
    /// More than [`MAX_PATTERNS`].
    #[error("there are more than {MAX_PATTERNS} patterns")]
    TooMany,
}

/// The patterns in the text of a .dockerignore file: one a line, comments and empty lines left out, paths cleaned and
/// without the slash at their start.
pub fn patterns(text: &str) -> Vec<String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = text.lines().filter(|line| !line.starts_with('#')).map(str::trim);
    lines.filter(|line| !line.is_empty()).map(line).collect()
}

fn line(line: &str) -> String {
    let (sign, path) = match line.strip_prefix('!') {
        Some(path) => ("!", path.trim()),
        None => ("", line),
    };
    if path.is_empty() {
        return sign.to_owned();
    }
    let cleaned = clean(path);
    let relative = cleaned.strip_prefix('/').filter(|rest| !rest.is_empty()).unwrap_or(&cleaned);
    format!("{sign}{relative}")
}

/// Patterns, ready to match.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    patterns: Vec<Rule>,
}

#[derive(Debug, Clone)]
struct Rule {
    /// A `!` stood before it.
    exception: bool,
    pattern: Pattern,
}

/// What [`Matcher::enter`] found out about a path.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// The path is left out.
    pub excluded: bool,
    /// The numbers of the patterns that matched, in order.
    matched: Box<[u32]>,
}

impl Verdict {
    /// How many patterns it remembers.
    pub fn weight(&self) -> usize {
        self.matched.len()
    }
}

impl Matcher {
    /// Reads patterns, as [`patterns`] gives them or as `--exclude` has them.
    ///
    /// # Errors
    /// [`Error`] for the first one that means nothing, or where there are too many.
    pub fn new<P: AsRef<str>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, Error> {
        let rules = patterns.into_iter().filter_map(|p| rule(p.as_ref()).transpose());
        let patterns = rules.take(MAX_PATTERNS + 1).collect::<Result<Vec<_>, _>>()?;
        if patterns.len() > MAX_PATTERNS { Err(Error::TooMany) } else { Ok(Self { patterns }) }
    }

    /// Whether there is nothing to leave out.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// Whether `path` is left out, by itself or by one of its parents.
    pub fn matches(&self, path: &str) -> bool {
        self.enter(path, None).excluded
    }

    /// Whether the entry `path` of a directory is left out, with the directory's own verdict; `None` where that isn't
    /// known, and the path's parents are looked at instead (nothing else is right for entries of the root).
    pub fn enter(&self, path: &str, parent: Option<&Verdict>) -> Verdict {
        let mut excluded = false;
        let mut matched = Vec::new();
        let mut above = parent.map(|p| p.matched.iter()).unwrap_or_default().peekable();
        for (i, rule) in (0..).zip(&self.patterns) {
            let inherited = above.next_if_eq(&&i).is_some();
            // A rule that can't change the answer isn't asked.
            if !inherited && rule.exception != excluded {
                continue;
            }
            let hit = inherited
                || rule.pattern.matches(path)
                || (parent.is_none() && parents(path).any(|parent| rule.pattern.matches(parent)));
            if hit {
                matched.push(i);
                excluded = !rule.exception;
            }
        }
        Verdict { excluded, matched: matched.into_boxed_slice() }
    }

    /// Whether nothing below the excluded directory `dir` can be let back in, so that a walk needn't enter it.
    pub fn can_prune_dir(&self, dir: &str) -> bool {
        !self.patterns.iter().any(|rule| rule.exception && rule.pattern.may_match_below(dir))
    }
}

/// Reads one pattern; `None` if it is empty.
fn rule(text: &str) -> Result<Option<Rule>, Error> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let cleaned = clean(text);
    let (exception, path) = match cleaned.strip_prefix('!') {
        Some("") => return Err(Error::Empty),
        Some(path) => (true, path),
        None => (false, cleaned.as_str()),
    };
    let pattern = Pattern::new(path).ok_or_else(|| Error::Syntax(path.to_owned()))?;
    Ok(Some(Rule { exception, pattern }))
}

/// The directories above a path, from the top.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    path.match_indices('/').map(|(at, _)| &path[..at]).filter(|parent| !parent.is_empty())
}

/// The shortest path that means the same: no `.`, no doubled slashes, `..` only at the start; `.` for nothing.
pub fn clean(path: &str) -> String {
    let absolute = path.starts_with('/');
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => {
                parts.pop();
            }
            ".." if absolute => {}
            part => parts.push(part),
        }
    }
    match (absolute, parts.join("/")) {
        (true, joined) => format!("/{joined}"),
        (false, joined) if joined.is_empty() => ".".to_owned(),
        (false, joined) => joined,
    }
}
