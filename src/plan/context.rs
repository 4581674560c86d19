//! What a plan takes from the main context, for those who can look into it (`CopyIgnoredFile`).

use super::op::{BuildPlan, FileAction, Op, Vertex, VertexId};
use crate::report::Span;

/// A path of the main context that an instruction copies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextSource<'p> {
    /// `Copy` or `Add`, as the lint's message has it.
    pub command: &'static str,
    /// The path, expanded and clean, without a slash in front; wildcards are still in it. Empty is the whole context.
    pub path: &'p str,
    /// Its place in the Dockerfile.
    pub span: Span,
}

/// Everything that COPY and ADD take from the main context, in the order of the plan.
pub fn context_sources(plan: &BuildPlan) -> Vec<ContextSource<'_>> {
    let mut sources = Vec::new();
    for vertex in &plan.vertices {
        let Op::File(file) = &vertex.op else { continue };
        for action in &file.actions {
            let FileAction::Copy(copy) = action else { continue };
            if !copy.from.is_some_and(|id| is_main_context(plan, id)) {
                continue;
            }
            for (path, span) in copy.sources.iter().zip(&copy.source_spans) {
                // Of a path with a pivot, `/./a`, the pivot isn't part.
                let path = path.strip_prefix("/.").filter(|p| p.starts_with('/')).unwrap_or(path);
                let path = path.strip_prefix('/').unwrap_or(path);
                sources.push(ContextSource { command: command(vertex), path, span: *span });
            }
        }
    }
    sources
}

fn is_main_context(plan: &BuildPlan, id: VertexId) -> bool {
    matches!(plan.vertices.get(id), Some(Vertex { op: Op::Local(local), .. }) if local.name == "context")
}

/// The instruction, from the step's name: `[builder 2/5] ONBUILD ADD a b`.
fn command(vertex: &Vertex) -> &'static str {
    let line = vertex.name.split_once("] ").map_or(vertex.name.as_str(), |(_, line)| line);
    let line = line.strip_prefix("ONBUILD ").unwrap_or(line);
    if line.starts_with("ADD") { "Add" } else { "Copy" }
}
