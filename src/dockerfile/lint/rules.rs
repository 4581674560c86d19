//! BuildKit's rules, as far as the instructions alone decide them.

use super::fix::Edit;
use super::{Findings, headers, instructions};
use crate::dockerfile::ast::{Dockerfile, Form, From, Header, Instruction, Kind, Pairs, Stage, Word};
use crate::dockerfile::quote::quoted;
use crate::report::Span;
use std::collections::BTreeSet;

pub(super) fn run(file: &Dockerfile, parents: &[Option<usize>], findings: &mut Findings<'_>) {
    casing(file, findings);
    stage_names(file, findings);
    headers(file).for_each(|header| empty_continuation(header, findings));
    file.global_args.iter().for_each(|instruction| one(instruction, findings));
    // Whether each stage so far ends with a shell of its choice.
    let mut chosen: Vec<bool> = Vec::with_capacity(file.stages.len());
    for (stage, parent) in file.stages.iter().zip(parents) {
        from(&stage.from, &stage.header, findings);
        instructions(stage).for_each(|instruction| one(instruction, findings));
        let inherited = parent.and_then(|parent| chosen.get(parent).copied()).unwrap_or(false);
        chosen.push(json_args(stage, inherited, findings));
        only_the_last_counts(stage, findings);
    }
}

/// Rules that look at one instruction.
fn one(instruction: &Instruction, findings: &mut Findings<'_>) {
    let Instruction { header, kind } = instruction;
    match kind {
        Kind::Arg(pairs) => {
            pairs.iter().for_each(|pair| secret("ARG", &pair.name, findings));
            let names: Vec<_> = pairs.iter().map(|pair| pair.name.text.as_str()).collect();
            description("ARG", &names, header, findings);
        }
        Kind::Env(pairs) => {
            pairs.pairs.iter().for_each(|(name, _)| secret("ENV", name, findings));
            legacy(pairs, header, findings);
        }
        Kind::Label(pairs) => legacy(pairs, header, findings),
        Kind::Maintainer(_) => findings.add(
            "MaintainerDeprecated",
            header.keyword.span,
            "Maintainer instruction is deprecated in favor of using label",
        ),
        Kind::Expose(ports) => ports.iter().for_each(|port| expose(port, findings)),
        Kind::Onbuild { instruction: Some(trigger), .. } => match &trigger.kind {
            Kind::Env(pairs) | Kind::Label(pairs) => legacy(pairs, &trigger.header, findings),
            _ => {}
        },
        _ => {}
    }
}

fn from(from: &From, header: &Header, findings: &mut Findings<'_>) {
    let Some(name) = &from.name else { return };
    let lower = name.text.to_lowercase();
    if lower != name.text {
        let message = format!("Stage name '{}' should be lowercase", name.text);
        findings.add_with("StageNameCasing", name.span, message, vec![Edit::new(name.span, lower.clone())]);
    }
    as_casing(from, &header.keyword, findings);
    description("FROM", &[&lower], header, findings);
}

/// `FromAsCasing`; a FROM in mixed case is a matter of another rule.
fn as_casing(from: &From, keyword: &Word, findings: &mut Findings<'_>) {
    let (Some(word), Some(casing)) = (&from.as_keyword, Casing::of(&keyword.text)) else { return };
    let right = casing.apply(&word.text);
    if right != word.text {
        let message = format!("'{}' and '{}' keywords' casing do not match", word.text, keyword.text);
        findings.add_with("FromAsCasing", word.span, message, vec![Edit::new(word.span, right)]);
    }
}

/// A casing that a keyword can be in as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Casing {
    Lower,
    Upper,
}

impl Casing {
    fn of(keyword: &str) -> Option<Self> {
        [Self::Lower, Self::Upper].into_iter().find(|casing| casing.apply(keyword) == keyword)
    }

    fn apply(self, keyword: &str) -> String {
        match self {
            Self::Lower => keyword.to_lowercase(),
            Self::Upper => keyword.to_uppercase(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Lower => "lowercase",
            Self::Upper => "uppercase",
        }
    }
}

/// `ConsistentInstructionCasing`: the majority decides. ARGs above the first FROM neither vote nor are looked at.
fn casing(file: &Dockerfile, findings: &mut Findings<'_>) {
    let keywords: Vec<&Word> = headers(file).skip(file.global_args.len()).map(|header| &header.keyword).collect();
    let votes = |casing| keywords.iter().filter(|k| Casing::of(&k.text) == Some(casing)).count();
    let right = if votes(Casing::Lower) > votes(Casing::Upper) { Casing::Lower } else { Casing::Upper };
    for keyword in keywords.into_iter().filter(|k| right.apply(&k.text) != k.text) {
        let message =
            format!("Command '{}' should match the case of the command majority ({})", keyword.text, right.name());
        let edit = Edit::new(keyword.span, right.apply(&keyword.text));
        findings.add_with("ConsistentInstructionCasing", keyword.span, message, vec![edit]);
    }
}

/// `DuplicateStageName` and `ReservedStageName`.
fn stage_names(file: &Dockerfile, findings: &mut Findings<'_>) {
    let mut seen = BTreeSet::new();
    for name in file.stages.iter().filter_map(|stage| stage.from.name.as_ref()) {
        let lower = name.text.to_lowercase();
        if matches!(lower.as_str(), "scratch" | "context") {
            let message = format!("Stage name should not use the same name as reserved stage {}", quoted(&lower));
            findings.add("ReservedStageName", name.span, message);
        }
        if seen.contains(&lower) {
            let message = format!("Duplicate stage name {}, stage names should be unique", quoted(&lower));
            findings.add("DuplicateStageName", name.span, message);
        }
        seen.insert(lower);
    }
}

/// `NoEmptyContinuation`.
fn empty_continuation(header: &Header, findings: &mut Findings<'_>) {
    let Some(last) = header.empty_continuation else { return };
    let edits = empty_lines(findings.text, Span { end: last.end, ..header.span });
    findings.add_with("NoEmptyContinuation", last, "Empty continuation line", edits);
}

/// Takes the empty lines in a part of the text out, up to and with the one that it ends in.
fn empty_lines(text: &str, span: Span) -> Vec<Edit> {
    let Some(part) = text.get(span.range()) else { return Vec::new() };
    let mut at = span.start as usize;
    let mut edits = Vec::new();
    for line in part.split('\n') {
        if line.trim().is_empty() {
            let end = at + line.len();
            let newline = usize::from(text.get(end..).is_some_and(|rest| rest.starts_with('\n')));
            let carriage = usize::from(text.get(end..).is_some_and(|rest| rest.starts_with("\r\n"))) * 2;
            edits.push(Edit::new(Span::new(at, end + newline.max(carriage)), ""));
        }
        at += line.len() + 1;
    }
    edits
}

/// `LegacyKeyValueFormat`.
fn legacy(pairs: &Pairs, header: &Header, findings: &mut Findings<'_>) {
    let ([(name, value)], true) = (pairs.pairs.as_slice(), pairs.legacy) else { return };
    let command = header.keyword.text.to_uppercase();
    let message = format!("\"{command} key=value\" should be used instead of legacy \"{command} key value\" format");
    let edits = modern(name, value).map(|text| Edit::new(name.span.to(value.span), text)).into_iter().collect();
    findings.add_with("LegacyKeyValueFormat", header.keyword.span.to(value.span), message, edits);
}

/// The pair in the modern form, where it is on one line and nothing in it would mean something else between quotes.
fn modern(name: &Word, value: &Word) -> Option<String> {
    let plain = |word: &Word| !word.text.contains(['"', '\'', '\\', '`', '=']);
    let in_place = |word: &Word| (word.span.end - word.span.start) as usize == word.text.len();
    if !plain(name) || !plain(value) || !in_place(name) || !in_place(value) {
        return None;
    }
    let quote = if value.text.contains(char::is_whitespace) { "\"" } else { "" };
    Some(format!("{}={quote}{}{quote}", name.text, value.text))
}

/// `SecretsUsedInArgOrEnv`: a word of the name, between underscores, speaks of a secret, and none says it isn't one.
fn secret(command: &str, name: &Word, findings: &mut Findings<'_>) {
    const SECRET: [&str; 10] =
        ["apikey", "auth", "credential", "credentials", "key", "password", "pword", "passwd", "secret", "token"];
    const HARMLESS: [&str; 3] = ["public", "file", "version"];
    let lower = name.text.to_lowercase();
    let has = |words: &[&str]| lower.split('_').any(|word| words.contains(&word));
    if has(&SECRET) && !has(&HARMLESS) {
        let message =
            format!("Do not use ARG or ENV instructions for sensitive data ({command} {})", quoted(&name.text));
        findings.add("SecretsUsedInArgOrEnv", name.span, message);
        findings.hint("RUN --mount=type=secret gives a step a secret and leaves nothing of it behind");
    }
}

/// `ExposeProtoCasing` and `ExposeInvalidFormat`, for ports without variables.
fn expose(port: &Word, findings: &mut Findings<'_>) {
    let text = &port.text;
    if text.contains('$') {
        return;
    }
    let lower = text.to_lowercase();
    if text.rsplit_once('/').is_some_and(|(_, protocol)| protocol != protocol.to_lowercase()) {
        let message = format!("Defined protocol '{text}' in EXPOSE instruction should be lowercase");
        findings.add_with("ExposeProtoCasing", port.span, message, vec![Edit::new(port.span, lower)]);
    }
    if text.trim_start_matches(':').contains(':') {
        let message =
            format!("EXPOSE instruction should not define an IP address or host-port mapping, found '{text}'");
        findings.add("ExposeInvalidFormat", port.span, message);
    }
}

/// `InvalidDefinitionDescription`: the comment right above doesn't begin with a name that is defined.
fn description(command: &str, names: &[&str], header: &Header, findings: &mut Findings<'_>) {
    let Some(comment) = header.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.contains(&first) {
        return;
    }
    let example = match names {
        [only] => only,
        _ => "<arg_key>",
    };
    let message = format!("Comment for {command} should follow the format: `# {example} <description>`");
    findings.add("InvalidDefinitionDescription", header.keyword.span, message);
}

/// `JSONArgsRecommended`: not where the stage, or one that it stands on, has chosen its shell. Says whether it has.
fn json_args(stage: &Stage, inherited: bool, findings: &mut Findings<'_>) -> bool {
    let mut chosen = inherited;
    for Instruction { header, kind } in instructions(stage) {
        let command = match kind {
            Kind::Shell(_) => {
                chosen = true;
                continue;
            }
            Kind::Cmd(command) | Kind::Entrypoint(command) => command,
            _ => continue,
        };
        if matches!(command.form, Form::Shell(_)) && !chosen {
            let message = format!(
                "JSON arguments recommended for {} to prevent unintended behavior related to OS signals",
                header.keyword.text
            );
            findings.add("JSONArgsRecommended", header.keyword.span, message);
        }
    }
    chosen
}

/// `MultipleInstructionsDisallowed`: the earlier one is the one that is lost.
fn only_the_last_counts(stage: &Stage, findings: &mut Findings<'_>) {
    let group = |kind: &Kind| match kind {
        Kind::Cmd(_) => Some(0),
        Kind::Entrypoint(_) => Some(1),
        Kind::Healthcheck(_) => Some(2),
        _ => None,
    };
    let mut last: [Option<&Header>; 3] = [None; 3];
    for instruction in instructions(stage) {
        let Some(slot) = group(&instruction.kind).and_then(|group| last.get_mut(group)) else { continue };
        if let Some(lost) = slot.replace(&instruction.header) {
            let message = format!(
                "Multiple {} instructions should not be used in the same stage because only the last one will be used",
                instruction.header.keyword.text
            );
            findings.add("MultipleInstructionsDisallowed", lost.keyword.span, message);
        }
    }
}
