//! What needs the build context to be found: functions for those who have it.

use crate::dockerfile::ast::{Dockerfile, FileSource, Files, Kind};
use crate::dockerfile::ignore::{Matcher, clean};
use crate::dockerfile::quote::quoted;
use crate::report::{Diagnostic, Span};

/// `CopyIgnoredFile`: sources of COPY and ADD that the context's ignore file leaves out. Sources with variables in them
/// aren't looked at here; see [`ignored_source`].
pub fn ignored_sources(file: &Dockerfile, ignore: &Matcher) -> Vec<Diagnostic> {
    let instructions = file.stages.iter().flat_map(|stage| &stage.instructions);
    let from_context = instructions.filter_map(|instruction| match &instruction.kind {
        Kind::Copy(copy) if copy.from.is_none() => Some(("Copy", &copy.files)),
        Kind::Add(add) => Some(("Add", &add.files)),
        _ => None,
    });
    from_context.flat_map(|(command, files)| ignored(command, files, ignore)).collect()
}

fn ignored(command: &str, files: &Files, ignore: &Matcher) -> Vec<Diagnostic> {
    let paths = files.sources.iter().filter_map(|source| match source {
        FileSource::Path(word) if !word.text.contains('$') && !word.text.contains("://") => Some(word),
        _ => None,
    });
    paths.filter_map(|word| ignored_source(command, &word.text, word.span, ignore)).collect()
}

/// `CopyIgnoredFile` for one expanded source of a `command` (`Copy` or `Add`) that takes from the context.
pub fn ignored_source(command: &str, source: &str, span: Span, ignore: &Matcher) -> Option<Diagnostic> {
    let path = clean(source);
    let relative = path.trim_start_matches('/');
    ignore.matches(relative).then(|| {
        let message = format!("Attempting to {command} file {} that is excluded by .dockerignore", quoted(&path));
        Diagnostic::warning("CopyIgnoredFile", span, message)
    })
}

/// `NoIgnoreFile`: the context has no ignore file, but one of these at its top.
pub fn no_ignore_file<'n>(top: impl IntoIterator<Item = &'n str>) -> Option<Diagnostic> {
    let heavy = top.into_iter().find(|name| matches!(*name, ".git" | "node_modules" | ".venv" | "target"))?;
    let message = format!("The context has no .dockerignore, so that {heavy} is part of every COPY of the whole");
    let hint = format!("write a .dockerignore with a line `{heavy}`");
    Some(Diagnostic::warning("NoIgnoreFile", Span::default(), message).hint(hint))
}
