//! The Dockerfile language: text to [`ast::Dockerfile`], word expansion, ignore rules, lints. Pure.
//!
//! Reading goes in three steps, none of which stops at an error:
//!
//! 1. `lines`: physical lines to logical ones; directives, comments, continuations and heredocs are dealt with here.
//! 2. `node`: a logical line to keyword, flags and words, as BuildKit's parser does. [`ast_dump`] prints this tree.
//! 3. `instruction`: nodes to the instructions of [`ast`], with all that BuildKit checks before it builds.
//!
//! Everything has a [`Span`] in the text. Time and memory grow with the text's length and nothing else, and nothing
//! calls itself as deep as the text says; only [`expand`] nests, to a fixed depth.
//! BuildKit refuses lines of more than 65,535 bytes; kiln reads them.

pub mod ast;
mod directives;
mod dump;
pub mod duration;
pub mod expand;
mod flags;
pub mod glob;
pub mod heredoc;
pub mod ignore;
mod instruction;
mod json;
mod keyword;
mod lines;
pub mod lint;
pub mod mount;
mod node;
pub(crate) mod quote;
mod suggest;
#[cfg(test)]
mod tests;
mod words;

pub use dump::ast_dump;

use crate::report::{Diagnostic, Severity, Span};
use ast::{Dockerfile, Instruction, Kind, Stage};
use instruction::Said;

/// Reads a Dockerfile. Instructions with errors are left out of the result, and the errors stand in the order of the
/// text; where none is of [`Severity::Error`], the file means something.
pub fn parse(text: &str) -> (Dockerfile, Vec<Diagnostic>) {
    let (tree, mut errors) = node::read(text);
    let mut file = Dockerfile { directives: tree.directives, ..Dockerfile::default() };
    let mut stray = None;
    for node in tree.nodes {
        match instruction::read(&node, &mut errors) {
            Some(Said::From(from, header)) => file.stages.push(Stage { from, header, instructions: Vec::new() }),
            Some(Said::Instruction(instruction)) => place(instruction, &mut file, &mut stray),
            None => {}
        }
    }
    if let Some(span) = stray {
        let error = Diagnostic::error(span, "no build stage in current context");
        errors.push(error.hint("the first instruction that isn't an ARG must be FROM"));
    } else if file.stages.is_empty() && !errors.iter().any(|e| e.severity == Severity::Error) {
        errors.push(Diagnostic::error(Span::new(text.len(), text.len()), "dockerfile contains no stages to build"));
    }
    errors.sort_by_key(|e| e.span.start);
    (file, errors)
}

/// Puts an instruction into its stage. The first one that has none is `stray`.
fn place(instruction: Instruction, file: &mut Dockerfile, stray: &mut Option<Span>) {
    match file.stages.last_mut() {
        Some(stage) => stage.instructions.push(instruction),
        None if matches!(instruction.kind, Kind::Arg(_)) => file.global_args.push(instruction),
        None => {
            stray.get_or_insert(instruction.header.keyword.span);
        }
    }
}
