//! Variables, quotes and escapes in a word, as BuildKit's shell lexer treats them.
//!
//! [`Lex::expand`] reads a text once, left to right, and gives both of its readings: the whole as one text, and the words
//! that blanks outside of quotes make of it. Which of the two counts depends on the instruction.

mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// How deep `${a:-${b:-…}}` may nest; far beyond what anybody writes, and far from what a thread's stack holds.
const DEPTH: usize = 128;

/// The most bytes that variables add to one text. Without a limit, forty lines of `ENV A=$A$A` fill any memory. A process takes
/// no variable of more than 128 KiB.
pub const MAX_GROWTH: usize = 1 << 20;

/// How a text is expanded. [`Lex::new`] is how BuildKit expands the arguments of instructions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lex {
    /// The character that takes the meaning from the next one.
    pub escape: char,
    /// Quotes stay in the result.
    pub raw_quotes: bool,
    /// Escape characters stay in the result.
    pub raw_escapes: bool,
    /// Quotes are characters like any other (the bodies of heredocs).
    pub skip_quotes: bool,
    /// Variables that aren't set stay in the result as written.
    pub skip_unset: bool,
}

impl Lex {
    /// The usual way, with the file's escape character.
    pub fn new(escape: char) -> Self {
        Self { escape, raw_quotes: false, raw_escapes: false, skip_quotes: false, skip_unset: false }
    }

    /// How the body of an unquoted heredoc of COPY and ADD is expanded: only variables and escapes mean anything, and
    /// the escape character is the backslash whatever the file says.
    pub fn heredoc_body() -> Self {
        Self { skip_quotes: true, ..Self::new('\\') }
    }

    /// Expands `text` with `variables`.
    ///
    /// # Errors
    /// [`Error`], with BuildKit's wording, where quotes or braces don't close, a modifier isn't known, or `${v:?}` says so.
    pub fn expand(&self, text: &str, variables: &dyn Variables) -> Result<Expanded, Error> {
        lexer::run(*self, text, variables).map_err(|reason| Error { text: shortened(text), reason })
    }

    /// Expands `text` to one text.
    ///
    /// # Errors
    /// As [`Lex::expand`].
    pub fn word(&self, text: &str, variables: &dyn Variables) -> Result<String, Error> {
        self.expand(text, variables).map(|e| e.text)
    }

    /// Expands `text` to the words it falls into.
    ///
    /// # Errors
    /// As [`Lex::expand`].
    pub fn words(&self, text: &str, variables: &dyn Variables) -> Result<Vec<String>, Error> {
        self.expand(text, variables).map(|e| e.words)
    }
}

/// Where values come from.
pub trait Variables {
    /// The value of `name`, if it is set (it may be set to nothing).
    fn get(&self, name: &str) -> Option<Cow<'_, str>>;
}

/// No variable is set.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unset;

impl Variables for Unset {
    fn get(&self, _: &str) -> Option<Cow<'_, str>> {
        None
    }
}

impl Variables for HashMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

impl Variables for BTreeMap<String, String> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.get(name).map(|v| Cow::Borrowed(v.as_str()))
    }
}

/// In a list the last setting of a name counts, as in an environment.
impl Variables for Vec<(String, String)> {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter().rev().find(|(n, _)| n == name).map(|(_, v)| Cow::Borrowed(v.as_str()))
    }
}

/// What a text became.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The whole, blanks kept.
    pub text: String,
    /// The words, split at blanks outside of quotes, those that came out of variables too.
    pub words: Vec<String>,
    /// The variables it names that are set.
    pub matched: BTreeSet<String>,
    /// The variables it names that aren't.
    pub unmatched: BTreeSet<String>,
}

/// Why a text couldn't be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to process {}: {reason}", super::quote::quoted(text))]
pub struct Error {
    /// The text (its beginning, where it is very long).
    pub text: String,
    /// What is wrong with it.
    pub reason: Reason,
}

/// What is wrong with a text, in BuildKit's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// A quote or brace doesn't close.
    #[error("unexpected end of statement while looking for matching {0}")]
    Unclosed(&'static str),
    /// `${v` at the end.
    #[error("syntax error: missing '}}'")]
    MissingBrace,
    /// `${v/p` at the end.
    #[error("syntax error: missing '/' in ${{}}")]
    MissingSlash,
    /// `${}`, `${:…`, `${{`.
    #[error("syntax error: bad substitution")]
    BadSubstitution,
    /// `${v:=w}` and the like.
    #[error("unsupported modifier ({0}) in substitution")]
    Modifier(String),
    /// The pattern of `#`, `%` or `/` is none.
    #[error("invalid pattern ({pattern}) in substitution: {why}")]
    Pattern {
        /// The pattern.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// `${v?message}`, or one of the messages for an empty one.
    #[error("{name}: {message}")]
    Required {
        /// The variable.
        name: String,
        /// What its author says about that.
        message: String,
    },
    /// Deeper nesting than kiln follows.
    #[error("variables are nested deeper than {DEPTH}")]
    TooDeep,
    /// More bytes than [`MAX_GROWTH`].
    #[error("variables add more than {} MiB to it, the most that kiln takes", MAX_GROWTH >> 20)]
    TooLong,
}

/// The beginning of a text that may be megabytes long.
fn shortened(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text.to_owned(),
    }
}
