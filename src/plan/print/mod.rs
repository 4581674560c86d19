//! A plan for people and programs: text, JSON, DOT and Mermaid. Pure.

mod calls;
mod details;
mod graph;

pub use calls::{outline_json, outline_text, targets_json, targets_text};
pub use graph::{dot, mermaid};

use super::op::{BuildPlan, HistoryEntry, Target, Vertex, VertexId};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// The steps with their inputs and what they do, then the images with their configuration and history, as text:
///
/// ```text
/// 0 [internal] load build context
///   local: context
/// 1 [1/1] COPY . /
///   file: layer
///   actions: {"copy":["/"],"from":0,"to":"/"}
/// image linux/amd64: 1
///   config: {"WorkingDir":"/"}
///   history: COPY . / # buildkit (1)
/// ```
pub fn text(plan: &BuildPlan) -> String {
    let mut out = String::new();
    for (id, vertex) in plan.vertices.iter().enumerate() {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{id} {}", vertex.name.replace('\n', "\\n"));
        for (key, value) in details::of(vertex) {
            line(&mut out, &key, &value);
        }
    }
    for target in &plan.targets {
        let _ = writeln!(out, "image {}: {}", target.platform, root(target.root));
        for (key, value) in image(target) {
            line(&mut out, &key, &value);
        }
    }
    if let Some(seconds) = plan.source_date_epoch {
        let _ = writeln!(out, "dated {seconds}");
    }
    out
}

/// One line for a value, or one for each item of a list of them.
fn line(out: &mut String, key: &str, value: &Value) {
    let _ = match value {
        Value::String(text) => writeln!(out, "  {key}: {}", text.replace('\n', "\\n")),
        Value::Array(items)
            if items.iter().all(Value::is_object) || matches!(key, "history" | "actions" | "mounts") =>
        {
            items.iter().for_each(|item| line(out, key, item));
            Ok(())
        }
        other => writeln!(out, "  {key}: {other}"),
    };
}

fn root(id: Option<VertexId>) -> String {
    id.map_or_else(|| "empty".to_owned(), |id| id.to_string())
}

/// The plan as JSON, indented: `vertices` with `id`, `name`, `inputs` and what they do, `images`.
pub fn json(plan: &BuildPlan) -> String {
    let vertices: Vec<Value> = plan.vertices.iter().enumerate().map(|(id, vertex)| vertex_json(id, vertex)).collect();
    let images: Vec<Value> = plan.targets.iter().map(target_json).collect();
    let mut all = json!({ "vertices": vertices, "images": images });
    if let (Some(seconds), Some(map)) = (plan.source_date_epoch, all.as_object_mut()) {
        map.insert("sourceDateEpoch".into(), json!(seconds));
    }
    format!("{all:#}")
}

fn vertex_json(id: VertexId, vertex: &Vertex) -> Value {
    let mut map = Map::new();
    map.insert("id".into(), json!(id));
    map.insert("name".into(), json!(vertex.name));
    map.insert("stage".into(), json!(vertex.stage));
    map.insert("inputs".into(), json!(vertex.op.inputs()));
    map.insert("op".into(), Value::Object(details::of(vertex)));
    Value::Object(map)
}

fn target_json(target: &Target) -> Value {
    let mut map = Map::new();
    map.insert("platform".into(), json!(target.platform.to_string()));
    map.insert("root".into(), json!(target.root));
    map.extend(image(target));
    Value::Object(map)
}

/// What is worth saying of an image: its configuration and the history that this file adds.
fn image(target: &Target) -> Map<String, Value> {
    let mut map = Map::new();
    if !target.config.author.is_empty() {
        map.insert("author".into(), json!(target.config.author));
    }
    // What can't be put into JSON can't be in a configuration.
    map.insert("config".into(), serde_json::to_value(&target.config.config).unwrap_or_default());
    let history: Vec<Value> = target
        .history
        .iter()
        .filter_map(|entry| match entry {
            HistoryEntry::Base(_) => None,
            HistoryEntry::Instruction { created_by, layer: Some(id) } => Some(json!(format!("{created_by} ({id})"))),
            HistoryEntry::Instruction { created_by, layer: None } => Some(json!(created_by)),
        })
        .collect();
    map.insert("history".into(), json!(history));
    map
}
