//! What can be said of a plan before anything runs: which steps the cache knows, and which must run for the target.

use super::cache::Found;
use super::chain::{Chain, Layer, Origin, image_identity};
use super::key::{Key, ReadKey, key, pair};
use super::record::Record;
use super::{Read, reads};
use crate::oci::Digest;
use crate::plan::BuildPlan;
use crate::plan::op::{FileOp, Op, Vertex, VertexId};
use std::collections::BTreeMap;
use tokio::sync::OnceCell;

/// What is known of each vertex before anything runs.
#[derive(Debug, Default)]
pub struct Known {
    /// The definition keys.
    pub definitions: Vec<Key>,
    /// Whether the vertex or one that it depends on runs whatever the cache says.
    pub forced: Vec<bool>,
    /// The root filesystems of base images and of hits.
    pub chains: BTreeMap<VertexId, Chain>,
    /// What the caches gave: a linked layer's record is good on whatever will be below it.
    pub found: Found,
}

/// Goes through a plan in order. `content` gives the digest of what a step reads from a tree that needs no building
/// (a context), `record` looks a usable record of a vertex up.
pub fn known(
    plan: &BuildPlan,
    content: &dyn Fn(VertexId, &Read) -> Option<Key>,
    record: &dyn Fn(VertexId, Key) -> Option<(Record, Origin)>,
) -> Known {
    let mut known = Known::default();
    for (id, vertex) in plan.vertices.iter().enumerate() {
        let reads = reads(&vertex.op);
        let read_keys: Vec<ReadKey> = reads
            .iter()
            .map(|r| content(id, r).map_or_else(|| ReadKey::Definition(known.definitions[r.from]), ReadKey::Content))
            .collect();
        let base = base_of(&vertex.op);
        let forced = vertex.no_cache || vertex.op.inputs().iter().any(|i| known.forced[*i]);
        let definition = definition(&vertex.op, base.map(|b| known.definitions[b]), &read_keys);
        known.definitions.push(definition);
        known.forced.push(forced);
        if let Some(chain) = chain(id, vertex, &known, forced, base, &read_keys, record) {
            known.chains.insert(id, chain);
        }
    }
    known
}

/// What a vertex does, by what is known before anything runs. An image's root filesystem is known then, so that whoever asks
/// by what a step really stands on and reads, and whoever asked by its definition, ask for the same as long as nothing ran.
fn definition(op: &Op, base: Option<Key>, reads: &[ReadKey]) -> Key {
    match op {
        Op::Image(image) if !image.layers.is_empty() => {
            let diff_ids: Vec<Digest> = image.layers.iter().map(|l| l.diff_id.clone()).collect();
            image_identity(&diff_ids)
        }
        _ => key(op, base, reads),
    }
}

/// The chain of a vertex that needn't run.
fn chain(
    id: VertexId,
    vertex: &Vertex,
    known: &Known,
    forced: bool,
    base: Option<VertexId>,
    reads: &[ReadKey],
    record: &dyn Fn(VertexId, Key) -> Option<(Record, Origin)>,
) -> Option<Chain> {
    match &vertex.op {
        Op::Image(image) => Some(Chain::of_image(image.clone(), id)),
        Op::Local(_) | Op::Git(_) | Op::Http(_) => None,
        Op::Exec(_) | Op::File(_) if forced => None,
        Op::Exec(_) | Op::File(_) => {
            let below = match base {
                None => Chain::default(),
                Some(b) => known.chains.get(&b)?.clone(),
            };
            let key = key(&vertex.op, below.identity(), reads);
            let (found, origin) = record(id, key)?;
            Some(hit(&vertex.op, &below, found, vec![key], origin))
        }
    }
}

/// A record's layer on top of `below`, found under one of `keys`.
pub fn hit(op: &Op, below: &Chain, record: Record, keys: Vec<Key>, origin: Origin) -> Chain {
    let mut claimed = record.keys;
    claimed.extend(keys.iter().filter(|k| !claimed.contains(k)).copied().collect::<Vec<_>>());
    below.push(Layer {
        claimed,
        identity: identity_on(op, below, record.identity),
        own: record.identity,
        origin,
        keys,
        name: record.name,
        created: Some(record.created),
        made: record.made,
        stored: OnceCell::new_with(record.stored),
        files: OnceCell::new(),
    })
}

/// What a root filesystem is with a layer on top: a linked layer doesn't know what it stands on.
pub fn identity_on(op: &Op, below: &Chain, layer: Key) -> Key {
    match op {
        Op::File(FileOp { link: true, .. }) => below.identity().map_or(layer, |b| pair(b, layer)),
        _ => layer,
    }
}

/// The vertices that must run so that the targets' root filesystems are known, and what each waits for.
///
/// Below a hit nothing runs: its layers are known, whoever made them.
pub fn wanted(plan: &BuildPlan, known: &Known) -> BTreeMap<VertexId, Vec<VertexId>> {
    let mut wanted = BTreeMap::new();
    let mut stack: Vec<VertexId> = plan.targets.iter().filter_map(|t| t.root).collect();
    while let Some(id) = stack.pop() {
        if known.chains.contains_key(&id) || wanted.contains_key(&id) {
            continue;
        }
        let inputs = plan.vertices[id].op.inputs();
        stack.extend(&inputs);
        wanted.insert(id, inputs);
    }
    wanted
}

/// The vertices whose layers the targets' images list.
pub fn in_images(plan: &BuildPlan) -> Vec<bool> {
    let mut listed = vec![false; plan.vertices.len()];
    for target in &plan.targets {
        let mut next = target.root;
        while let Some(id) = next {
            listed[id] = true;
            next = base_of(&plan.vertices[id].op);
        }
    }
    listed
}

/// The vertex whose root filesystem a step stands on.
pub fn base_of(op: &Op) -> Option<VertexId> {
    match op {
        Op::Exec(e) => e.base,
        Op::File(f) => f.base,
        Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => None,
    }
}
