//! The vertices of a plan while it grows: equal steps are one, and what no target needs goes at the end.

use super::op::{BuildPlan, FileAction, MountSource, Op, Target, Vertex, VertexId};
use crate::oci::Digest;
use std::collections::HashMap;

/// A growing list of vertices without doubles.
#[derive(Debug, Default)]
pub(super) struct Vertices {
    list: Vec<Vertex>,
    by_identity: HashMap<Digest, VertexId>,
}

impl Vertices {
    /// The vertex that does what `vertex` does, which becomes it when there is none yet.
    pub(super) fn add(&mut self, vertex: Vertex) -> VertexId {
        let next = self.list.len();
        let id = *self.by_identity.entry(identity(&vertex.op)).or_insert(next);
        match self.list.get_mut(id) {
            Some(known) => known.no_cache |= vertex.no_cache,
            None => self.list.push(vertex),
        }
        id
    }

    /// Says that a step belongs to a stage, unless one has it already.
    pub(super) fn put_into_stage(&mut self, id: VertexId, stage: &str) {
        if let Some(vertex) = self.list.get_mut(id).filter(|v| v.stage.is_empty() && matches!(v.op, Op::Image(_))) {
            stage.clone_into(&mut vertex.stage);
        }
    }

    /// The plan that makes `targets`: needed vertices in their order, numbered anew.
    pub(super) fn into_plan(self, targets: Vec<Target>, source_date_epoch: Option<i64>) -> BuildPlan {
        let needed = self.needed(targets.iter().filter_map(|t| t.root));
        let mut new_ids = vec![None; self.list.len()];
        let mut vertices = Vec::new();
        for (old, mut vertex) in self.list.into_iter().enumerate() {
            if needed.get(old) == Some(&true) {
                for_each_input(&mut vertex.op, |input| {
                    *input = new_ids.get(*input).copied().flatten().unwrap_or(*input)
                });
                if let Some(slot) = new_ids.get_mut(old) {
                    *slot = Some(vertices.len());
                }
                vertices.push(vertex);
            }
        }
        let renumber = |id: VertexId| new_ids.get(id).copied().flatten();
        let targets = targets.into_iter().map(|t| t.renumbered(renumber)).collect();
        BuildPlan { vertices, targets, source_date_epoch }
    }

    /// Which vertices `roots` need. Inputs come before their users, so one pass from the end is enough.
    fn needed(&self, roots: impl Iterator<Item = VertexId>) -> Vec<bool> {
        let mut needed = vec![false; self.list.len()];
        for root in roots {
            mark(&mut needed, root);
        }
        for (id, vertex) in self.list.iter().enumerate().rev() {
            if needed.get(id) == Some(&true) {
                vertex.op.inputs().into_iter().for_each(|input| mark(&mut needed, input));
            }
        }
        needed
    }
}

fn mark(needed: &mut [bool], id: VertexId) {
    if let Some(slot) = needed.get_mut(id) {
        *slot = true;
    }
}

impl Target {
    fn renumbered(mut self, new_id: impl Fn(VertexId) -> Option<VertexId>) -> Self {
        self.root = self.root.and_then(&new_id);
        for entry in &mut self.history {
            if let super::op::HistoryEntry::Instruction { layer, .. } = entry {
                *layer = layer.and_then(&new_id);
            }
        }
        self
    }
}

/// What makes two steps the same: everything that they do, but not where they stand in the Dockerfile.
fn identity(op: &Op) -> Digest {
    let text = match op {
        Op::File(file) if file.actions.iter().any(|a| matches!(a, FileAction::Copy(_))) => {
            let mut file = file.clone();
            for action in &mut file.actions {
                if let FileAction::Copy(copy) = action {
                    copy.source_spans.clear();
                }
            }
            format!("{:?}", Op::File(file))
        }
        other => format!("{other:?}"),
    };
    Digest::of(text.as_bytes())
}

/// Visits every reference of an op to another vertex.
fn for_each_input(op: &mut Op, mut visit: impl FnMut(&mut VertexId)) {
    match op {
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {}
        Op::Exec(exec) => {
            exec.base.iter_mut().for_each(&mut visit);
            for mount in &mut exec.mounts {
                if let MountSource::Bind { from, .. } | MountSource::Cache { from, .. } = &mut mount.kind {
                    from.iter_mut().for_each(&mut visit);
                }
            }
        }
        Op::File(file) => {
            file.base.iter_mut().for_each(&mut visit);
            for action in &mut file.actions {
                if let FileAction::Copy(copy) = action {
                    copy.from.iter_mut().for_each(&mut visit);
                }
            }
        }
    }
}
