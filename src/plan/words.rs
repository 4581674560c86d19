//! Expansion of variables as the planner needs it.

use super::env::Env;
use crate::dockerfile::ast::{Escape, Word};
use crate::dockerfile::expand::{Expanded, Lex, Variables};
use crate::report::Diagnostic;
use std::borrow::Cow;

impl Variables for Env {
    fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        Self::get(self, name).map(Cow::Borrowed)
    }
}

/// Expands an argument; the error is at its place.
pub(super) fn expand(word: &Word, escape: Escape, env: &Env) -> Result<Expanded, Diagnostic> {
    Lex::new(escape.char()).expand(&word.text, env).map_err(|e| Diagnostic::error(word.span, e.to_string()))
}

/// A command line as it is shown; as written where it can't be expanded.
pub(super) fn shown(text: &str, lex: Lex, variables: &dyn Variables) -> String {
    lex.word(text, variables).unwrap_or_else(|_| text.to_owned())
}
