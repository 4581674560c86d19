//! `--call outline` and `--call targets`, in the text and the JSON that buildx prints.

use crate::plan::outline::{BuildTarget, Outline, OutlineArg, OutlineNeed};
use crate::report::{SourceText, Span};
use base64::Engine as _;
use serde_json::{Map, Value, json};

/// The outline as tables.
pub fn outline_text(outline: &Outline) -> String {
    let mut out = String::new();
    if !outline.name.is_empty() || !outline.description.is_empty() {
        let name = if outline.name.is_empty() { "(default)" } else { &outline.name };
        let mut rows = vec![vec!["TARGET:", name]];
        if !outline.description.is_empty() {
            rows.push(vec!["DESCRIPTION:", &outline.description]);
        }
        out += &table(&rows, 1);
        out.push('\n');
    }
    if !outline.args.is_empty() {
        let mut rows = vec![vec!["BUILD ARG", "VALUE", "DESCRIPTION"]];
        rows.extend(outline.args.iter().map(|a| vec![a.name.as_str(), &a.value, &a.description]));
        out += &table(&rows, 3);
        out.push('\n');
    }
    for (title, needs) in [("SECRET", &outline.secrets), ("SSH", &outline.ssh)] {
        if !needs.is_empty() {
            let mut rows = vec![vec![title, "REQUIRED"]];
            rows.extend(needs.iter().map(|n| vec![n.name.as_str(), if n.required { "true" } else { "" }]));
            out += &table(&rows, 3);
            out.push('\n');
        }
    }
    out
}

/// The stages as a table.
pub fn targets_text(targets: &[BuildTarget]) -> String {
    let names: Vec<String> = targets
        .iter()
        .map(|t| match (t.default, t.name.is_empty()) {
            (true, true) => "(default)".to_owned(),
            (true, false) => format!("{} (default)", t.name),
            (false, _) => t.name.clone(),
        })
        .collect();
    let mut rows = vec![vec!["TARGET", "DESCRIPTION"]];
    rows.extend(names.iter().zip(targets).map(|(name, t)| vec![name.as_str(), t.description.as_str()]));
    table(&rows, 1)
}

/// Go's tabwriter: every column but the last as wide as its widest cell and `padding` more.
fn table(rows: &[Vec<&str>], padding: usize) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |c: usize| rows.iter().filter_map(|r| r.get(c)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(|c| width(c) + padding).collect();
    let mut out = String::new();
    for row in rows {
        for (number, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if number + 1 == row.len() {
                out += cell;
            } else {
                out += &format!("{cell:width$}");
            }
        }
        out.push('\n');
    }
    out
}

/// The outline as JSON, with the Dockerfile in it.
pub fn outline_json(outline: &Outline, source: &SourceText) -> String {
    let mut map = Map::new();
    put(&mut map, "name", json!(outline.name));
    put(&mut map, "description", json!(outline.description));
    put(&mut map, "args", json!(outline.args.iter().map(|a| arg_json(a, source)).collect::<Vec<_>>()));
    put(&mut map, "secrets", json!(outline.secrets.iter().map(|n| need_json(n, source)).collect::<Vec<_>>()));
    put(&mut map, "ssh", json!(outline.ssh.iter().map(|n| need_json(n, source)).collect::<Vec<_>>()));
    put(&mut map, "sources", sources(source));
    format!("{:#}", Value::Object(map))
}

/// The stages as JSON, with the Dockerfile in it.
pub fn targets_json(targets: &[BuildTarget], source: &SourceText) -> String {
    let target = |target: &BuildTarget| {
        let mut map = Map::new();
        put(&mut map, "name", json!(target.name));
        put(&mut map, "default", json!(target.default));
        put(&mut map, "description", json!(target.description));
        put(&mut map, "base", json!(target.base));
        put(&mut map, "platform", json!(target.platform));
        put(&mut map, "location", location(target.span, source));
        Value::Object(map)
    };
    let list: Vec<Value> = targets.iter().map(target).collect();
    format!("{:#}", json!({ "targets": list, "sources": sources(source) }))
}

/// Go's `omitempty`.
fn put(map: &mut Map<String, Value>, key: &str, value: Value) {
    if value != json!("") && value != json!([]) && value != json!(false) {
        map.insert(key.to_owned(), value);
    }
}

fn arg_json(arg: &OutlineArg, source: &SourceText) -> Value {
    let mut map = Map::from_iter([("name".to_owned(), json!(arg.name))]);
    put(&mut map, "description", json!(arg.description));
    put(&mut map, "value", json!(arg.value));
    put(&mut map, "location", location(arg.span, source));
    Value::Object(map)
}

fn need_json(need: &OutlineNeed, source: &SourceText) -> Value {
    let mut map = Map::from_iter([("name".to_owned(), json!(need.name))]);
    put(&mut map, "required", json!(need.required));
    put(&mut map, "location", location(need.span, source));
    Value::Object(map)
}

/// The lines of a span.
fn location(span: Span, source: &SourceText) -> Value {
    let line = |offset| source.position(offset).line;
    let last = span.end.saturating_sub(1).max(span.start);
    json!({ "ranges": [{ "start": { "line": line(span.start) }, "end": { "line": line(last) } }] })
}

fn sources(source: &SourceText) -> Value {
    json!([base64::engine::general_purpose::STANDARD.encode(&source.text)])
}
