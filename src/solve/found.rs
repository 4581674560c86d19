//! What is known before anything runs, where caches are asked besides the store.
//!
//! All keys to ask for follow from the plan, so two rounds of questions are enough: first the targets' own keys, whose
//! records bring those of all steps below; then, if that isn't everything, all steps that would run, at once.

use super::cache::Found;
use super::chain::Origin;
use super::key::Key;
use super::lookup::{self, Known};
use super::record::Record;
use super::{Read, lookup::wanted};
use crate::plan::BuildPlan;
use crate::plan::op::{Op, VertexId};

/// The record of a key, for one vertex.
pub fn of(found: &Found, id: VertexId, key: Key) -> Option<(Record, Origin)> {
    let (record, origin) = found.get(&key).filter(|(record, _)| record.key == key)?;
    let origin = match origin {
        Origin::Cached { cache, .. } => Origin::Cached { cache: cache.clone(), step: id },
        other => other.clone(),
    };
    Some((record.clone(), origin))
}

/// As [`lookup::known`], with what the caches know where the store doesn't know all. `ask` adds the records of keys.
pub fn known(
    plan: &BuildPlan,
    content: &dyn Fn(VertexId, &Read) -> Option<Key>,
    store: &dyn Fn(VertexId, Key) -> Option<(Record, Origin)>,
    ask: &mut dyn FnMut(&[Key], &mut Found),
) -> Known {
    let mut best = lookup::known(plan, content, store);
    let mut found = Found::new();
    let mut asked: Vec<Key> = Vec::new();
    for targets_only in [true, false] {
        let keys: Vec<Key> = missing(plan, &best, targets_only).into_iter().filter(|k| !asked.contains(k)).collect();
        if keys.is_empty() {
            continue;
        }
        ask(&keys, &mut found);
        asked.extend(keys);
        // A step that ran twice has two results, and what was made on one isn't good on the other: either the store's
        // lead further, or the caches'.
        let caches_last = |id, key| store(id, key).or_else(|| of(&found, id, key));
        let caches_first = |id, key| of(&found, id, key).or_else(|| store(id, key));
        for known in [lookup::known(plan, content, &caches_last), lookup::known(plan, content, &caches_first)] {
            if wanted(plan, &known).len() < wanted(plan, &best).len() {
                best = known;
            }
        }
    }
    best.found = found;
    best
}

/// The keys of steps that would run, the last ones first: their records say most.
fn missing(plan: &BuildPlan, known: &Known, targets_only: bool) -> Vec<Key> {
    let is_target = |id: &VertexId| plan.targets.iter().any(|t| t.root == Some(*id));
    let steps = wanted(plan, known).into_keys().rev().filter(|id| {
        let is_step = matches!(plan.vertices[*id].op, Op::Exec(_) | Op::File(_));
        is_step && !known.forced[*id] && (!targets_only || is_target(id))
    });
    steps.map(|id| known.definitions[id]).collect()
}
