//! What is done for one vertex: its key, the cache, and if that knows nothing, the work.

use super::chain::{Chain, Layer, Origin, StoredLayer};
use super::env::{Env, Listed};
use super::file::{self, Selection};
use super::key::{Key, ReadKey, key, named};
use super::lookup::{self, Known};
use super::output::Output;
use super::problem::{self, Result, blocking};
use super::record::{Record, remember, usable};
use super::selecting::{self, ReadTree};
use super::{cache, exec, found, pack, reads, roots};
use crate::layer::Packer;
use crate::plan::BuildPlan;
use crate::plan::op::{ExecOp, FileOp, GitOp, HttpOp, Op, VertexId};
use crate::report::{Event, Kind, Problem};
use crate::snapshot::{EmptyTree, Tee, Tree};
use crate::store::{KeyLock, SnapshotInfo, TempSnapshot};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{OnceCell, Semaphore};

/// One build: the plan, what is known of it, and the world.
pub struct Worker {
    /// The plan.
    pub plan: Arc<BuildPlan>,
    /// The world.
    pub env: Arc<Env>,
    /// What is known before anything runs.
    pub known: Known,
    /// What was selected from contexts, by step and number of the read.
    pub selections: HashMap<(VertexId, usize), Arc<Selection>>,
    /// In which form each vertex's layer is wanted.
    pub forms: Vec<Forms>,
    /// How many processes and copies may run.
    pub jobs: Semaphore,
    /// How many layers may be packed at once.
    pub packing: Semaphore,
}

/// In which form a layer is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// Unpacked, because another step stands on it or reads it.
    pub snapshot: bool,
    /// As a blob, because an image lists it.
    pub blob: bool,
}

/// What a step reads, ready to be used.
struct Inputs {
    base: Chain,
    reads: Vec<Output>,
}

impl Worker {
    /// Does what a vertex says. `inputs` are the results of [`Op::inputs`], in order.
    pub async fn vertex(self: Arc<Self>, id: VertexId, inputs: Vec<Output>) -> Result<Output> {
        let started = Instant::now();
        self.env.reporter.send(Event::Started(id));
        let vertex = &self.plan.vertices[id];
        let done = match &vertex.op {
            Op::Image(image) => Ok((Output::Root(Chain::of_image(image.clone(), id)), false)),
            Op::Local(local) => self.local(&local.name).map(|tree| (tree, false)),
            Op::Git(op) => self.git(op).await.map(|tree| (tree, false)),
            Op::Http(op) => self.http(op).await.map(|tree| (tree, false)),
            Op::Exec(_) | Op::File(_) => self.clone().step(id, inputs).await,
        };
        match done {
            Ok((output, cached)) => {
                let took = started.elapsed();
                self.env.reporter.send(if cached { Event::Cached(id) } else { Event::Finished { step: id, took } });
                Ok(output)
            }
            Err(problem) => {
                let problem = problem.at(vertex.span);
                self.env.reporter.send(Event::Failed { step: id, error: problem.message.clone() });
                Err(problem)
            }
        }
    }

    fn local(&self, name: &str) -> Result<Output> {
        match self.env.contexts.get(name) {
            Some(tree) => Ok(Output::Tree(ReadTree::Local(tree.clone()))),
            None => Err(Problem::new(Kind::Usage, format!("there is no context named {name}"))),
        }
    }

    async fn git(&self, op: &GitOp) -> Result<Output> {
        let tree = self.env.remotes.git(op).await.map_err(problem::from)?;
        Ok(Output::Tree(ReadTree::Other(tree)))
    }

    async fn http(&self, op: &HttpOp) -> Result<Output> {
        let tree = self.env.remotes.http(op).await.map_err(problem::from)?;
        Ok(Output::Tree(ReadTree::Other(tree)))
    }

    /// A step that makes a layer; says whether the cache had it.
    async fn step(self: Arc<Self>, id: VertexId, inputs: Vec<Output>) -> Result<(Output, bool)> {
        let op = &self.plan.vertices[id].op;
        let inputs = split(op, inputs);
        let trees = self.trees(&inputs.reads).await?;
        let selections = self.selections(id, &trees).await?;
        let keys = self.keys(id, &inputs, &selections);
        let lock = self.lock(keys.content).await?;
        if !self.plan.vertices[id].no_cache
            && let Some((record, origin)) = self.look_up(id, keys, &inputs.base).await
        {
            let chain = lookup::hit(op, &inputs.base, record, keys.all().collect(), origin);
            self.clone().after(id, &chain, true);
            return Ok((Output::Root(chain), true));
        }
        let base = if is_linked(op) { Vec::new() } else { roots::folders(&self.env, &inputs.base).await? };
        let permit = self.jobs.acquire().await;
        let worker = self.clone();
        let below = inputs.base.clone();
        let made = blocking(move || worker.make(id, &base, &trees, &selections, keys, &below)).await?;
        drop((permit, lock));
        self.clone().after(id, &made, true);
        Ok((Output::Root(made), false))
    }

    /// The record of a step whose inputs are there: the store's, or else a cache's where they are what is new, since the
    /// caches were asked for everything that was known before.
    async fn look_up(&self, id: VertexId, keys: Keys, base: &Chain) -> Option<(Record, Origin)> {
        if let Some(record) = usable(&self.env, keys.content) {
            return Some((record, Origin::Step));
        }
        if let Some(known) = found::of(&self.known.found, id, keys.content) {
            return Some(known);
        }
        let on_new = base.layers().last().is_some_and(|l| matches!(l.origin, Origin::Cached { .. }));
        let is_new = keys.content != keys.definition || (on_new && base.is_by_content());
        if !is_new || !self.env.caches.can_be_asked() {
            return None;
        }
        let mut found = cache::Found::new();
        self.env.ask(&[keys.content], &mut found).await;
        found::of(&found, id, keys.content)
    }

    /// What is to be done once a layer is there: it is packed while other steps run.
    fn after(self: Arc<Self>, id: VertexId, chain: &Chain, new: bool) {
        if self.forms[id].blob {
            let chain = chain.clone();
            // Whoever lists the layers waits for the same cell, and is told of what fails here.
            tokio::spawn(async move { drop(self.stored(id, &chain, new).await) });
        }
    }

    /// The blob of a chain's top layer, packed if it wasn't.
    pub async fn stored(&self, id: VertexId, chain: &Chain, new: bool) -> Result<StoredLayer> {
        let Some(top) = chain.layers().last() else {
            return Err(Problem::new(Kind::Build, "an empty root filesystem has no layer"));
        };
        let stored = top.stored.get_or_try_init(|| self.pack(id, chain, top)).await?;
        let is_cached = matches!(top.origin, Origin::Cached { .. });
        if new && !is_cached {
            remember(&self.env, top)?;
        }
        (self.env.on_layer)(&Listed { layer: stored, origin: &top.origin, new: new && !is_cached });
        Ok(stored.clone())
    }

    /// Sees to it that a chain's top layer has a blob, whether or not an image lists it.
    pub async fn packed(&self, id: VertexId, chain: &Chain) -> Result<()> {
        let Some(top) = chain.layers().last().filter(|top| top.stored.get().is_none()) else { return Ok(()) };
        top.stored.get_or_try_init(|| self.pack(id, chain, top)).await?;
        remember(&self.env, top)
    }

    /// Sees to it that a base image's layer is in the store, where all layers are wanted there.
    pub async fn at_hand(&self, layer: &Layer) -> Result<()> {
        match &layer.origin {
            Origin::Base { image, index } if self.env.options.complete => {
                self.env.puller.fetch(image.step, &image.op, *index).await.map_err(problem::from)
            }
            Origin::Cached { cache, step } if self.env.options.complete => match layer.stored.get() {
                Some(stored) => cache.fetch(*step, &stored.descriptor).await.map_err(roots::cached),
                None => Ok(()),
            },
            _ => Ok(()),
        }
    }

    async fn pack(&self, id: VertexId, chain: &Chain, top: &Layer) -> Result<StoredLayer> {
        let folders = roots::folders(&self.env, chain).await?;
        let linked = is_linked(&self.plan.vertices[id].op);
        debug_assert!(matches!(top.origin, Origin::Step));
        let _permit = self.packing.acquire().await;
        let env = self.env.clone();
        blocking(move || {
            let Some((folder, parents)) = folders.split_first() else {
                return Err(Problem::new(Kind::Build, "an empty root filesystem has no layer"));
            };
            pack::pack(&env, folder, if linked { &[] } else { parents })
        })
        .await
    }

    /// The trees of a step's reads.
    async fn trees(&self, reads: &[Output]) -> Result<Vec<Source>> {
        let mut trees = Vec::with_capacity(reads.len());
        for read in reads {
            trees.push(match read {
                Output::Tree(tree) => Source { tree: tree.clone(), layers: None, chain: None },
                Output::Root(chain) => {
                    let layers = roots::folders(&self.env, chain).await?;
                    let view: Arc<dyn Tree> = Arc::new(self.env.snapshots.view(&layers).map_err(problem::snapshot)?);
                    Source { tree: ReadTree::Other(view), layers: Some(layers), chain: Some(chain.clone()) }
                }
            });
        }
        Ok(trees)
    }

    /// What a step takes of its reads; nothing of those that are known by what they are.
    async fn selections(self: &Arc<Self>, id: VertexId, trees: &[Source]) -> Result<Vec<Option<Arc<Selection>>>> {
        let (worker, trees) = (self.clone(), trees.to_vec());
        blocking(move || {
            let op = &worker.plan.vertices[id].op;
            let mut selections = Vec::with_capacity(trees.len());
            for (number, (read, source)) in reads(op).iter().zip(&trees).enumerate() {
                let known = worker.selections.get(&(id, number)).cloned();
                let selection = match (known, selecting::as_copy(op, read)) {
                    (Some(known), _) => Some(known),
                    (None, Some(_)) if matches!(op, Op::Exec(_)) && source.image_identity().is_some() => None,
                    (None, Some(copy)) => Some(Arc::new(source.tree.select(&copy)?)),
                    (None, None) => None,
                };
                selections.push(selection);
            }
            Ok(selections)
        })
        .await
    }

    fn keys(&self, id: VertexId, inputs: &Inputs, selections: &[Option<Arc<Selection>>]) -> Keys {
        let op = &self.plan.vertices[id].op;
        let base = inputs.base.identity();
        let reads = reads(op);
        let by_content: Vec<ReadKey> = selections
            .iter()
            .zip(&inputs.reads)
            .map(|(selection, read)| match (selection, read.chain().and_then(Chain::identity)) {
                (Some(selection), _) => ReadKey::Content(selecting::content(selection)),
                (None, Some(identity)) => ReadKey::Definition(identity),
                (None, None) => ReadKey::Nothing,
            })
            .collect();
        let by_definition: Vec<ReadKey> = by_content
            .iter()
            .zip(&reads)
            .map(|(content, read)| match self.plan.vertices.get(read.from).map(|v| &v.op) {
                Some(Op::Local(_)) => *content,
                _ => selecting::by_definition(&self.known, read),
            })
            .collect();
        Keys { content: key(op, base, &by_content), definition: key(op, base, &by_definition) }
    }

    /// Waits until nobody else makes the same thing.
    async fn lock(&self, key: Key) -> Result<KeyLock> {
        let env = self.env.clone();
        blocking(move || env.store.lock(&key, &env.cancel, &mut || ()).map_err(problem::from)).await
    }

    /// Makes a layer on `base` (folders, topmost first) and keeps it.
    fn make(
        &self,
        id: VertexId,
        base: &[PathBuf],
        trees: &[Source],
        selections: &[Option<Arc<Selection>>],
        keys: Keys,
        below: &Chain,
    ) -> Result<Chain> {
        let op = &self.plan.vertices[id].op;
        let mut made = match op {
            Op::Exec(exec) => self.exec(id, exec, base, trees, selections, keys)?,
            Op::File(file) => self.file(id, file, base, trees, selections, keys)?,
            Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {
                return Err(Problem::new(Kind::Build, "not a step that makes a layer"));
            }
        };
        let mut folder = None;
        if let Some(snapshot) = made.snapshot.take() {
            let note = self.plan.vertices[id].name.clone();
            let info = SnapshotInfo { driver: "overlay".into(), size: None, note };
            let kept = self.env.store.commit_snapshot(snapshot, &made.identity, info).map_err(problem::from)?;
            folder = Some(kept.folder);
            drop(self.env.store.settle_ahead());
        }
        let layer = Layer {
            identity: lookup::identity_on(op, below, made.identity),
            own: made.identity,
            origin: Origin::Step,
            keys: keys.all().collect(),
            name: self.plan.vertices[id].name.clone(),
            created: Some(super::time::rfc3339(self.env.options.time())),
            stored: OnceCell::new_with(made.stored),
            folder: OnceCell::new_with(folder),
        };
        remember(&self.env, &layer)?;
        Ok(below.push(layer))
    }

    fn exec(
        &self,
        id: VertexId,
        op: &ExecOp,
        base: &[PathBuf],
        trees: &[Source],
        selections: &[Option<Arc<Selection>>],
        keys: Keys,
    ) -> Result<Made> {
        let mut mounts = Vec::new();
        let mut held = Vec::new();
        for ((read, source), selection) in reads(&Op::Exec(op.clone())).iter().zip(trees).zip(selections) {
            let super::ReadKind::Mount(number) = read.what else { continue };
            let layers = match (&source.layers, selection) {
                (Some(layers), _) => layers.clone(),
                (None, Some(selection)) => {
                    let copy = self.materialise(op, read, source, selection)?;
                    let folder = copy.folder().to_owned();
                    held.push(copy);
                    vec![folder]
                }
                (None, None) => Vec::new(),
            };
            mounts.push((number, layers));
        }
        let snapshot = exec::run(&self.env, id, op, base, &mounts)?;
        Ok(Made { identity: run_identity(keys.content)?, snapshot: Some(snapshot), stored: None })
    }

    /// A folder with what a mount shows of a context: without what is ignored, and everything root's.
    fn materialise(
        &self,
        op: &ExecOp,
        read: &super::Read,
        source: &Source,
        selection: &Selection,
    ) -> Result<TempSnapshot> {
        let Some(copy) = selecting::as_copy(&Op::Exec(op.clone()), read) else {
            return Err(Problem::new(Kind::Build, "not a mount"));
        };
        let folder = self.env.store.new_snapshot().map_err(problem::from)?;
        let active = self.env.snapshots.prepare(folder.folder(), &[]).map_err(problem::snapshot)?;
        let made = self.env.options.time();
        let mut writer = active.writer(made).map_err(problem::snapshot)?;
        let action = crate::plan::op::FileAction::Copy(copy);
        let op = FileOp { base: None, actions: vec![action], link: false, workdir: false };
        let input = file::Input { tree: source.tree.tree(), selection };
        file::write(&op, &EmptyTree, &[input], made, &mut writer).map_err(problem::from)?;
        writer.finish().map_err(problem::snapshot)?;
        Ok(folder)
    }

    fn file(
        &self,
        id: VertexId,
        op: &FileOp,
        base: &[PathBuf],
        trees: &[Source],
        selections: &[Option<Arc<Selection>>],
        keys: Keys,
    ) -> Result<Made> {
        let nothing: &dyn Tree = &EmptyTree;
        let view = self.env.snapshots.view(base).map_err(problem::snapshot)?;
        let inputs: Vec<file::Input<'_>> = trees
            .iter()
            .zip(selections)
            .filter_map(|(source, selection)| {
                selection.as_ref().map(|selection| file::Input { tree: source.tree.tree(), selection })
            })
            .collect();
        let base_tree: &dyn Tree = if base.is_empty() { nothing } else { &view };
        let write = |sink: &mut dyn crate::layer::EntrySink| {
            file::write(op, base_tree, &inputs, self.env.options.time(), sink).map_err(problem::from)
        };
        let Forms { snapshot, blob } = self.forms[id];
        let mut made = Made { identity: keys.content, snapshot: None, stored: None };
        match (snapshot, blob) {
            (false, true) => {
                let mut packer = pack::packer(&self.env)?;
                write(&mut packer)?;
                made.stored = Some(pack::finish(packer)?);
            }
            (_, false) => made.snapshot = Some(self.fill_snapshot(base, &mut |writer| write(writer))?),
            (true, true) => {
                let mut packer: pack::Dated<Packer<_>> = pack::packer(&self.env)?;
                made.snapshot = Some(
                    self.fill_snapshot(base, &mut |writer| write(&mut Tee { sink: &mut packer, folder: writer }))?,
                );
                made.stored = Some(pack::finish(packer)?);
            }
        }
        Ok(made)
    }

    /// A new snapshot on `base` that `write` fills.
    fn fill_snapshot(
        &self,
        base: &[PathBuf],
        write: &mut dyn FnMut(&mut crate::snapshot::FolderWriter) -> Result<usize>,
    ) -> Result<TempSnapshot> {
        let layer = self.env.store.new_snapshot().map_err(problem::from)?;
        let active = self.env.snapshots.prepare(layer.folder(), base).map_err(problem::snapshot)?;
        let mut writer = active.writer(self.env.options.time()).map_err(problem::snapshot)?;
        write(&mut writer)?;
        writer.finish().map_err(problem::snapshot)?;
        Ok(layer)
    }
}

/// A step's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    content: Key,
    definition: Key,
}

impl Keys {
    fn all(self) -> impl Iterator<Item = Key> {
        let definition = (self.definition != self.content).then_some(self.definition);
        std::iter::once(self.content).chain(definition)
    }
}

/// A tree that a step reads, and the layers that it is made of.
#[derive(Clone)]
struct Source {
    tree: ReadTree,
    layers: Option<Vec<PathBuf>>,
    chain: Option<Chain>,
}

impl Source {
    /// What it is, where that says as much as its files: the layers of a base image.
    fn image_identity(&self) -> Option<Key> {
        let chain = self.chain.as_ref()?;
        matches!(chain.layers().last()?.origin, Origin::Base { .. }).then(|| chain.identity()).flatten()
    }
}

/// A layer that was just made.
struct Made {
    identity: Key,
    snapshot: Option<TempSnapshot>,
    stored: Option<StoredLayer>,
}

/// The base first, where there is one, then the reads.
fn split(op: &Op, inputs: Vec<Output>) -> Inputs {
    let mut inputs = inputs.into_iter();
    let base = match lookup::base_of(op) {
        Some(_) => inputs.next().and_then(|o| o.chain().cloned()).unwrap_or_default(),
        None => Chain::default(),
    };
    Inputs { base, reads: inputs.collect() }
}

fn is_linked(op: &Op) -> bool {
    matches!(op, Op::File(FileOp { link: true, .. }))
}

/// An identity that no other run has.
fn run_identity(key: Key) -> Result<Key> {
    let mut bits = [0u8; 16];
    rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Problem::new(Kind::Environment, "the kernel gives no random numbers").because(&e))?;
    Ok(super::key::pair(key, named("run", &u128::from_ne_bytes(bits).to_string())))
}
