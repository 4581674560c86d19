//! A plan as a [`Sheet`]: named before it is made, so that one that is there already costs nothing.

use super::files;
use super::{Input, Sheet, Step, StepKind};
use crate::plan::BuildPlan;
use crate::plan::op::{Op, VertexId};
use crate::solve::file::Selection;
use crate::solve::key::{Key, Keyer, parts};
use crate::solve::lookup::{Known, base_of};
use crate::solve::reads;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What was selected from contexts, by step and number of the read.
pub type Selections = HashMap<(VertexId, usize), Arc<Selection>>;

/// The lists that a plan's steps take of contexts.
pub fn lists(selections: &Selections) -> BTreeMap<VertexId, BTreeMap<usize, Key>> {
    let mut lists: BTreeMap<VertexId, BTreeMap<usize, Key>> = BTreeMap::new();
    for ((step, read), selection) in selections {
        lists.entry(*step).or_default().insert(*read, files::id(selection));
    }
    lists
}

/// The key of a plan's sheet.
pub fn id(plan: &BuildPlan, known: &Known, lists: &BTreeMap<VertexId, BTreeMap<usize, Key>>) -> Key {
    let mut k = Keyer::new("sheet 1");
    for (id, vertex) in plan.vertices.iter().enumerate() {
        k.text(&vertex.name);
        k.option(known.definitions.get(id), |k, d| k.key(*d));
        for (read, list) in lists.get(&id).into_iter().flatten() {
            k.number(*read as u64);
            k.key(*list);
        }
    }
    k.finish()
}

/// A plan's sheet.
pub fn of(plan: &BuildPlan, known: &Known, mut lists: BTreeMap<VertexId, BTreeMap<usize, Key>>) -> Sheet {
    let step = |(id, vertex): (VertexId, &crate::plan::op::Vertex)| {
        let base = base_of(&vertex.op).map(|step| Input { step, read: None });
        let reads = reads(&vertex.op);
        let reads = reads.iter().enumerate().map(|(number, read)| Input { step: read.from, read: Some(number) });
        Some(Step {
            name: vertex.name.clone(),
            kind: kind(&vertex.op),
            definition: *known.definitions.get(id)?,
            inputs: base.into_iter().chain(reads).collect(),
            parts: parts(&vertex.op),
            lists: lists.remove(&id).unwrap_or_default(),
        })
    };
    Sheet { steps: plan.vertices.iter().enumerate().filter_map(step).collect() }
}

fn kind(op: &Op) -> StepKind {
    match op {
        Op::Image(_) => StepKind::Image,
        Op::Local(_) | Op::Git(_) | Op::Http(_) => StepKind::Source,
        Op::Exec(_) => StepKind::Process,
        Op::File(_) => StepKind::Files,
    }
}
