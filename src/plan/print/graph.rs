//! Plans as graphs: Graphviz' DOT and Mermaid, a box around each stage.

use crate::plan::op::{BuildPlan, Op, Vertex, VertexId};
use std::collections::HashMap;
use std::fmt::Write as _;

/// The longest label; command lines can be very long.
const LABEL: usize = 80;

/// For `dot -Tsvg`.
pub fn dot(plan: &BuildPlan) -> String {
    let mut out = String::from("digraph plan {\n  rankdir=LR;\n  node [shape=box, fontname=monospace];\n");
    // Writing to a String can't fail.
    for (number, (stage, ids)) in stages(plan).into_iter().enumerate() {
        let indent = if stage.is_empty() { "  " } else { "    " };
        if !stage.is_empty() {
            let _ = writeln!(out, "  subgraph cluster_{number} {{\n    label={};", quoted(&stage));
        }
        for (id, vertex) in ids {
            let _ = writeln!(out, "{indent}v{id} [label={}{}];", quoted(&label(vertex)), shape(&vertex.op));
        }
        if !stage.is_empty() {
            out.push_str("  }\n");
        }
    }
    for (from, to) in edges(plan) {
        let _ = writeln!(out, "  v{from} -> v{to};");
    }
    for (number, target) in plan.targets.iter().enumerate() {
        let name = quoted(&format!("image {}", target.platform));
        let _ = writeln!(out, "  t{number} [label={name}, shape=ellipse];");
        if let Some(root) = target.root {
            let _ = writeln!(out, "  v{root} -> t{number};");
        }
    }
    out.push_str("}\n");
    out
}

fn shape(op: &Op) -> &'static str {
    match op {
        Op::Image(_) => ", shape=cylinder",
        Op::Local(_) | Op::Git(_) | Op::Http(_) => ", shape=folder",
        Op::Exec(_) | Op::File(_) => "",
    }
}

fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// For Markdown that draws Mermaid.
pub fn mermaid(plan: &BuildPlan) -> String {
    let mut out = String::from("flowchart LR\n");
    for (number, (stage, ids)) in stages(plan).into_iter().enumerate() {
        let indent = if stage.is_empty() { "  " } else { "    " };
        if !stage.is_empty() {
            let _ = writeln!(out, "  subgraph s{number} [\"{}\"]", entities(&stage));
        }
        for (id, vertex) in ids {
            let (open, close) = brackets(&vertex.op);
            let _ = writeln!(out, "{indent}v{id}{open}\"{}\"{close}", entities(&label(vertex)));
        }
        if !stage.is_empty() {
            out.push_str("  end\n");
        }
    }
    for (from, to) in edges(plan) {
        let _ = writeln!(out, "  v{from} --> v{to}");
    }
    for (number, target) in plan.targets.iter().enumerate() {
        let _ = writeln!(out, "  t{number}([\"image {}\"])", entities(&target.platform.to_string()));
        if let Some(root) = target.root {
            let _ = writeln!(out, "  v{root} --> t{number}");
        }
    }
    out
}

fn brackets(op: &Op) -> (&'static str, &'static str) {
    match op {
        Op::Image(_) => ("[(", ")]"),
        Op::Local(_) | Op::Git(_) | Op::Http(_) => ("[/", "/]"),
        Op::Exec(_) | Op::File(_) => ("[", "]"),
    }
}

/// Everything but letters, digits and harmless signs as Mermaid's entities.
fn entities(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        if c.is_alphanumeric() || " ./:_-,=+@…".contains(c) {
            out.push(c);
        } else {
            let _ = write!(out, "#{};", u32::from(c));
        }
    }
    out
}

/// The vertices by stage, in order of first appearance; those of no stage first.
fn stages(plan: &BuildPlan) -> Vec<(String, Vec<(VertexId, &Vertex)>)> {
    let mut stages: Vec<(String, Vec<(VertexId, &Vertex)>)> = vec![(String::new(), Vec::new())];
    let mut known = HashMap::from([("", 0)]);
    for (id, vertex) in plan.vertices.iter().enumerate() {
        let at = *known.entry(vertex.stage.as_str()).or_insert_with(|| {
            stages.push((vertex.stage.clone(), Vec::new()));
            stages.len() - 1
        });
        if let Some((_, ids)) = stages.get_mut(at) {
            ids.push((id, vertex));
        }
    }
    stages
}

fn edges(plan: &BuildPlan) -> Vec<(VertexId, VertexId)> {
    let mut edges = Vec::new();
    for (to, vertex) in plan.vertices.iter().enumerate() {
        let mut inputs = vertex.op.inputs();
        inputs.sort_unstable();
        inputs.dedup();
        edges.extend(inputs.into_iter().map(|from| (from, to)));
    }
    edges
}

/// A name on one line, cut where it is long.
fn label(vertex: &Vertex) -> String {
    let line: String = vertex.name.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().nth(LABEL) {
        Some((at, _)) => format!("{}…", &line[..at]),
        None => line,
    }
}
