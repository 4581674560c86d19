//! ONBUILD triggers: instructions of a base that its children run first.

use super::stages::Command;
use crate::dockerfile::ast::{Dockerfile, Instruction, Kind};
use crate::report::{Diagnostic, Severity, Span};
use std::borrow::Cow;

/// The triggers that a stage of this file declares.
pub(super) fn of_stage<'a>(commands: &[Command<'a>]) -> Result<Vec<Command<'a>>, Vec<Diagnostic>> {
    let mut triggers = Vec::new();
    for command in commands {
        let Kind::Onbuild { text, instruction } = &command.instruction.kind else { continue };
        triggers.push(match instruction {
            Some(instruction) => Command::new(Cow::Owned((**instruction).clone())),
            None => Command::new(Cow::Owned(parse(text, command.instruction.header.span)?)),
        });
    }
    Ok(triggers)
}

/// The triggers that an image's configuration lists, reported at the FROM that names the image.
pub(super) fn of_image<'a>(texts: &[String], from: Span) -> Result<Vec<Command<'a>>, Vec<Diagnostic>> {
    let command = |text: &String| {
        let instruction = parse(text, from)?;
        Ok(Command { reported_at: Some(from), ..Command::new(Cow::Owned(instruction)) })
    };
    texts.iter().map(command).collect()
}

/// Reads a trigger. Its text is an image's: hostile, and with places of its own that mean nothing here.
fn parse(text: &str, at: Span) -> Result<Instruction, Vec<Diagnostic>> {
    let (file, diagnostics) = crate::dockerfile::parse(&format!("FROM scratch\n{text}"));
    let errors: Vec<Diagnostic> = diagnostics
        .into_iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| Diagnostic { span: at, message: format!("ONBUILD {text}: {}", d.message), ..d })
        .collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    single(file).ok_or_else(|| vec![Diagnostic::error(at, "onbuild trigger should be a single expression")])
}

fn single(file: Dockerfile) -> Option<Instruction> {
    let [stage] = <[_; 1]>::try_from(file.stages).ok()?;
    let [instruction] = <[_; 1]>::try_from(stage.instructions).ok()?;
    (!matches!(instruction.kind, Kind::Onbuild { .. } | Kind::Maintainer(_))).then_some(instruction)
}
