//! What is done for one vertex: its key, the cache, and if that knows nothing, the work.

use super::chain::{Chain, Origin};
use super::env::Env;
use super::file::Selection;
use super::inputs::{Inputs, Keys};
use super::journal::{self, Diary, How};
use super::key::Key;
use super::lookup::{self, Known};
use super::output::Output;
use super::problem::{self, Result, blocking};
use super::record::{Record, usable};
use super::selecting::ReadTree;
use super::turns::Turns;
use super::{cache, found, require, roots};
use crate::plan::BuildPlan;
use crate::plan::op::{FileOp, GitOp, HttpOp, Op, VertexId};
use crate::report::{Event, Kind, Problem};
use crate::snapshot::Layers;
use crate::store::KeyLock;
use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

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
    pub jobs: Turns,
    /// How many layers may be packed at once.
    pub packing: Semaphore,
    /// The steps that ran.
    pub ran: Mutex<BTreeSet<VertexId>>,
    /// What is noted for the build's account.
    pub diary: Diary,
}

/// In which form a layer is wanted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Forms {
    /// Unpacked, because another step stands on it or reads it.
    pub snapshot: bool,
    /// As a blob, because an image lists it.
    pub blob: bool,
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
                let how = if cached { journal::found(output.chain()) } else { How::Ran };
                self.diary.ended(id, how, took, output.chain());
                self.env.reporter.send(if cached { Event::Cached(id) } else { Event::Finished { step: id, took } });
                Ok(output)
            }
            Err(problem) => {
                let problem = problem.at(vertex.span);
                let how = if problem.kind == Kind::Cancelled { How::Stopped } else { How::Failed };
                self.diary.ended(id, how, started.elapsed(), None);
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
    async fn step(self: Arc<Self>, id: VertexId, results: Vec<Output>) -> Result<(Output, bool)> {
        let op = &self.plan.vertices[id].op;
        let inputs = self.inputs(id, results).await?;
        let noted = self.clone().note(id, &inputs);
        let keys = self.keys(id, &inputs);
        let lock = self.lock(keys.content).await?;
        if !self.plan.vertices[id].no_cache
            && let Some((record, origin)) = self.look_up(id, keys, &inputs.base).await
        {
            let chain = lookup::hit(op, &inputs.base, record, keys.all().collect(), origin);
            self.clone().after(id, &chain, true);
            ended(noted).await;
            return Ok((Output::Root(chain), true));
        }
        self.may_run(id)?;
        let base = if is_linked(op) { Layers::default() } else { roots::layers(&self.env, &inputs.base).await? };
        let permit = self.jobs.next().await;
        let worker = self.clone();
        let made = blocking(move || worker.make(id, &base, &inputs, keys)).await?;
        drop((permit, lock));
        ended(noted).await;
        self.clone().after(id, &made, true);
        Ok((Output::Root(made), false))
    }

    /// Notes that a step runs, unless it may not.
    fn may_run(&self, id: VertexId) -> Result<()> {
        let mut ran = self.ran.lock().unwrap_or_else(PoisonError::into_inner);
        require::refuse(&self.plan, id, &self.env.options.required, &ran)?;
        ran.insert(id);
        Ok(())
    }

    /// Lists, beside the work, what a step takes of stages, so that the next build can be told what is new.
    fn note(self: Arc<Self>, id: VertexId, inputs: &Inputs) -> Option<JoinHandle<()>> {
        let of_stages = |number: &usize| !self.selections.contains_key(&(id, *number));
        let sources = inputs.sources.iter().enumerate().filter(|(number, _)| of_stages(number));
        let selections: Vec<_> = sources.filter_map(|(number, s)| Some((number, s.selection.clone()?))).collect();
        (!selections.is_empty())
            .then(|| tokio::task::spawn_blocking(move || self.diary.list(&self.env.store, id, &selections)))
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

    /// Waits until nobody else makes the same thing.
    async fn lock(&self, key: Key) -> Result<KeyLock> {
        // Hardly ever does anybody, and a thread takes longer to be woken than this.
        if let Some(lock) = self.env.store.try_lock(&key).map_err(problem::from)? {
            return Ok(lock);
        }
        let env = self.env.clone();
        blocking(move || env.store.lock(&key, &env.cancel, &mut || ()).map_err(problem::from)).await
    }
}

/// Waits for something done beside the work, if there was anything; what it was for is told where it fails.
async fn ended(beside: Option<JoinHandle<()>>) {
    if let Some(beside) = beside {
        let _ = beside.await;
    }
}

/// Whether a step's layer doesn't depend on what it stands on.
pub fn is_linked(op: &Op) -> bool {
    matches!(op, Op::File(FileOp { link: true, .. }))
}
