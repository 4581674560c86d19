//! Findings as text for people, and as JSON and SARIF for programs.

use super::{headers, rule};
use crate::dockerfile::ast::Dockerfile;
use crate::report::{Diagnostic, Severity, SourceText, Span, render};
use base64::Engine as _;
use serde_json::{Value, json};

/// As text, one after the other, each with its line.
pub fn text(source: &SourceText, found: &[Diagnostic]) -> String {
    let mut out = String::new();
    for diagnostic in found {
        let heading = match (diagnostic.severity, diagnostic.rule) {
            (Severity::Error, _) => "error".to_owned(),
            (Severity::Warning, Some(rule)) => format!("warning[{rule}]"),
            (Severity::Warning, None) => "warning".to_owned(),
        };
        let page = diagnostic.rule.and_then(rule).map(|rule| rule.page());
        let notes = diagnostic.hint.iter().map(|hint| ("help", hint.as_str()));
        let notes: Vec<_> = notes.chain(page.iter().map(|page| ("see", page.as_str()))).collect();
        out.push_str(&render(&heading, &diagnostic.message, Some((source, diagnostic.span)), &notes));
        out.push('\n');
    }
    out
}

/// As BuildKit's `--call=check,format=json` prints them: a warning stands at all lines of its instruction, and the first
/// error of the file is `buildError`.
pub fn json(source: &SourceText, file: &Dockerfile, found: &[Diagnostic]) -> Value {
    let warning = |diagnostic: &Diagnostic| {
        json!({
            "ruleName": diagnostic.rule.unwrap_or_default(),
            "description": diagnostic.rule.and_then(rule).map_or("", |rule| rule.description),
            "detail": diagnostic.message,
            "location": location(source, file, diagnostic),
        })
    };
    let (errors, warnings): (Vec<_>, Vec<_>) = found.iter().partition(|d| d.severity == Severity::Error);
    let mut out = json!({
        "warnings": warnings.into_iter().map(warning).collect::<Vec<_>>(),
        "sources": [{
            "filename": source.name,
            "language": "Dockerfile",
            "data": base64::engine::general_purpose::STANDARD.encode(&source.text),
        }],
    });
    if let Some(error) = errors.first() {
        out["buildError"] = json!({ "message": error.message, "location": location(source, file, error) });
    }
    out
}

/// The lines of the instruction that a finding is in, one range each; of one with empty lines in it, only the last.
fn location(source: &SourceText, file: &Dockerfile, diagnostic: &Diagnostic) -> Value {
    let span = diagnostic.span;
    let inside = |header: &Span| header.start <= span.start && span.start <= header.end;
    let whole = headers(file).map(|header| header.span).find(inside).unwrap_or(span);
    let (first, last) = (source.position(whole.start).line, source.position(whole.end).line);
    let first = if diagnostic.rule == Some("NoEmptyContinuation") { last } else { first };
    let ranges: Vec<_> =
        (first..=last).map(|line| json!({ "start": { "line": line }, "end": { "line": line } })).collect();
    json!({ "ranges": ranges })
}

/// As SARIF 2.1.0, for code scanning. Errors are results of a rule `Error`.
pub fn sarif(source: &SourceText, found: &[Diagnostic]) -> Value {
    let mut names: Vec<&str> = found.iter().map(|d| d.rule.unwrap_or("Error")).collect();
    names.sort_unstable();
    names.dedup();
    let rules: Vec<_> = names.iter().map(|name| sarif_rule(name)).collect();
    let results: Vec<_> = found.iter().map(|diagnostic| sarif_result(source, diagnostic, &names)).collect();
    json!({
        "$schema": "https://json.schemastore.org/sarif-2.1.0.json",
        "version": "2.1.0",
        "runs": [{
            "tool": { "driver": { "name": "kiln", "version": env!("CARGO_PKG_VERSION"), "rules": rules } },
            "columnKind": "unicodeCodePoints",
            "results": results,
        }],
    })
}

fn sarif_rule(name: &str) -> Value {
    match rule(name) {
        Some(rule) => json!({
            "id": rule.name,
            "name": rule.name,
            "shortDescription": { "text": rule.description },
            "help": { "text": format!("See {}", rule.page()) },
        }),
        None => json!({ "id": name, "name": name, "shortDescription": { "text": "The Dockerfile means nothing" } }),
    }
}

fn sarif_result(source: &SourceText, diagnostic: &Diagnostic, names: &[&str]) -> Value {
    let name = diagnostic.rule.unwrap_or("Error");
    let level = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let (start, end) = (source.position(diagnostic.span.start), source.position(diagnostic.span.end));
    let message = match &diagnostic.hint {
        Some(hint) => format!("{} ({hint})", diagnostic.message),
        None => diagnostic.message.clone(),
    };
    json!({
        "ruleId": name,
        "ruleIndex": names.binary_search(&name).unwrap_or_default(),
        "level": level,
        "message": { "text": message },
        "locations": [{
            "physicalLocation": {
                "artifactLocation": { "uri": source.name },
                "region": {
                    "startLine": start.line,
                    "startColumn": start.column,
                    "endLine": end.line,
                    "endColumn": end.column,
                },
            },
        }],
    })
}
