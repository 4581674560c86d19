//! From a plan to images: the whole of a build but what goes in and what comes out.

use super::cache::{Bundle, Exported, Mode, inline};
use super::chain::{Chain, Origin, StoredLayer, image_identity};
use super::env::{Env, Listed};
use super::journal::{Diary, Journal};
use super::lookup::{self, Known};
use super::output::Output;
use super::problem::{self, Result, blocking};
use super::record::usable;
use super::selecting;
use super::turns::Turns;
use super::worker::{Forms, Worker};
use super::{found, key::Key, require, roots, scheduler};
use crate::oci::{Digest, History, ImageConfig};
use crate::plan::BuildPlan;
use crate::plan::op::{FileOp, HistoryEntry, Op, Target, VertexId};
use crate::report::{Event, Kind, Problem};
use crate::snapshot::Layers;
use crate::source;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use tokio::sync::Semaphore;

/// How many layers are packed at once: each is packed on all cores.
const PACKING: usize = 2;

/// What a build gave.
#[derive(Debug)]
pub struct Built {
    /// One image for each target, in order.
    pub images: Vec<Solved>,
    /// What the caches are to be given.
    pub exported: Vec<Exported>,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct Solved {
    /// Its configuration but for what [`assemble::image`](crate::oci::assemble::image) adds.
    pub config: ImageConfig,
    /// Its history; entries without a time change the configuration alone.
    pub history: Vec<History>,
    /// Its layers, lowest first; empty where no image was asked for.
    pub layers: Vec<StoredLayer>,
    /// Its layers, unpacked; none where no tree was asked for.
    pub files: Layers,
}

/// Builds what the plan says. The result has one image for each of its targets, in order.
///
/// # Errors
/// The first step that failed, with the others that did; those that were only stopped because of it aren't told.
pub async fn run(plan: Arc<BuildPlan>, env: Arc<Env>) -> Result<Built> {
    require::check(&plan, &env.options.required)?;
    let worker = Arc::new(prepare(plan.clone(), env.clone()).await?);
    let journal = Journal::begin(&worker);
    let built = solve(&worker).await;
    journal.end(&worker, built.is_ok()).await;
    built
}

/// Runs what is missing, and puts the images together.
async fn solve(worker: &Arc<Worker>) -> Result<Built> {
    let (plan, env) = (&worker.plan, &worker.env);
    let wanted = lookup::wanted(plan, &worker.known);
    announce(worker, &wanted);
    list_known(worker);
    let ready = worker.known.chains.iter().map(|(v, c)| (*v, Output::Root(c.clone()))).collect();
    let outcome = scheduler::run(&wanted, ready, &env.cancel, |id, inputs| worker.clone().vertex(id, inputs)).await;
    if let Some(problem) = failure(outcome.failed) {
        return Err(problem);
    }
    if env.cancel.is_cancelled() {
        return Err(problem::cancelled());
    }
    let mut solved = Vec::with_capacity(plan.targets.len());
    for target in &plan.targets {
        solved.push(finish(worker, target, &outcome.done).await?);
    }
    let exported = exported(worker, &outcome.done).await;
    Ok(Built { images: solved, exported })
}

/// What the caches are to be given: for each step its own key, and the one by which somebody finds it whose stages were
/// made anew but gave the same files.
async fn exported(worker: &Arc<Worker>, done: &BTreeMap<VertexId, Output>) -> Vec<Exported> {
    let Some(mode) = worker.env.caches.exported() else { return Vec::new() };
    let listed = lookup::in_images(&worker.plan);
    let mut exported = Vec::new();
    for (id, chain) in done.iter().filter_map(|(id, output)| Some((*id, output.chain()?))) {
        let Some(top) = chain.layers().last().filter(|top| !matches!(top.origin, Origin::Base { .. })) else {
            continue;
        };
        if mode == Mode::Min && !listed[id] {
            continue;
        }
        if let Err(problem) = worker.packed(id, chain).await {
            worker.env.reporter.send(Event::Note(format!("warning: a step isn't exported: {}", problem.message)));
            continue;
        }
        let content = top.keys.first().filter(|_| chain.is_by_content());
        for key in std::iter::once(&worker.known.definitions[id]).chain(content) {
            exported.extend(Bundle::of(*key, chain).map(|bundle| Exported { bundle, listed: listed[id] }));
        }
    }
    exported
}

/// Reads the contexts and asks the cache.
async fn prepare(plan: Arc<BuildPlan>, env: Arc<Env>) -> Result<Worker> {
    let runtime = tokio::runtime::Handle::current();
    blocking(move || {
        let selections = selecting::locals(&plan, &|name| env.contexts.get(name).cloned())?;
        for tree in env.contexts.values() {
            // Only a hint for the next build.
            let _ = tree.remember();
        }
        let content = |id: VertexId, read: &super::Read| {
            let number = super::reads(&plan.vertices.get(id)?.op).iter().position(|r| r == read)?;
            selections.get(&(id, number)).map(|s| selecting::content(s))
        };
        let store = |_: VertexId, key: Key| Some((usable(&env, key)?, Origin::Step));
        let known = found::known(&plan, &content, &store, &mut |keys, found| {
            if env.caches.can_be_asked() {
                runtime.block_on(env.ask(keys, found));
            }
        });
        let wanted = lookup::wanted(&plan, &known);
        let forms = forms(&plan, &env, &wanted);
        let jobs = Turns::new(env.options.jobs);
        Ok(Worker {
            selections,
            known,
            forms,
            jobs,
            packing: Semaphore::new(PACKING),
            ran: Mutex::default(),
            diary: Diary::default(),
            plan,
            env,
        })
    })
    .await
}

/// In which form each layer is wanted.
fn forms(plan: &BuildPlan, env: &Env, wanted: &BTreeMap<VertexId, Vec<VertexId>>) -> Vec<Forms> {
    let mut forms = vec![Forms::default(); plan.vertices.len()];
    for (form, listed) in forms.iter_mut().zip(lookup::in_images(plan)) {
        form.blob = listed && env.options.images;
        form.snapshot = listed && env.options.trees;
    }
    for (user, inputs) in wanted {
        let linked = matches!(plan.vertices[*user].op, Op::File(FileOp { link: true, .. }));
        let base = lookup::base_of(&plan.vertices[*user].op);
        for input in inputs.iter().filter(|i| !(linked && base == Some(**i))) {
            // Whoever reads a root filesystem reads all of its layers.
            let mut next = Some(*input);
            while let Some(id) = next {
                forms[id].snapshot = true;
                next = lookup::base_of(&plan.vertices[id].op);
            }
        }
    }
    forms
}

/// Names the steps that the build is about: those that run, and the hits that they and the targets stand on.
fn announce(worker: &Worker, wanted: &BTreeMap<VertexId, Vec<VertexId>>) {
    let mut shown: BTreeSet<VertexId> = wanted.keys().copied().collect();
    shown.extend(wanted.values().flatten());
    let mut next: Vec<VertexId> = worker.plan.targets.iter().filter_map(|t| t.root).chain(shown.clone()).collect();
    while let Some(id) = next.pop() {
        shown.insert(id);
        next.extend(lookup::base_of(&worker.plan.vertices[id].op));
    }
    for id in &shown {
        let name = worker.plan.vertices[*id].name.clone();
        worker.env.reporter.send(Event::Planned { step: *id, name });
    }
    for id in shown.iter().filter(|id| is_hit(&worker.known, &worker.plan, **id)) {
        worker.env.reporter.send(Event::Cached(*id));
    }
}

/// Tells of the layers that the images list and that are known before anything runs.
fn list_known(worker: &Worker) {
    let listed = lookup::in_images(&worker.plan);
    for (_, chain) in worker.known.chains.iter().filter(|(id, _)| worker.env.options.images && listed[**id]) {
        for layer in chain.layers() {
            if let Some(stored) = layer.stored.get() {
                (worker.env.on_layer)(&Listed { layer: stored, origin: &layer.origin, new: false });
            }
        }
    }
}

fn is_hit(known: &Known, plan: &BuildPlan, id: VertexId) -> bool {
    known.chains.contains_key(&id) && !matches!(plan.vertices[id].op, Op::Image(_))
}

/// The failures to tell: the first that isn't only the echo of another, and behind it the others that aren't.
fn failure(failed: Vec<(VertexId, Problem)>) -> Option<Problem> {
    let (echoes, causes): (Vec<Problem>, Vec<Problem>) =
        failed.into_iter().map(|(_, p)| p).partition(|p| p.kind == Kind::Cancelled);
    let mut causes = causes.into_iter();
    let mut first = causes.next().or_else(|| echoes.into_iter().next())?;
    first.others = causes.collect();
    Some(first)
}

/// A target's layers in the forms that were asked for, and its configuration.
async fn finish(worker: &Arc<Worker>, target: &Target, done: &BTreeMap<VertexId, Output>) -> Result<Solved> {
    let chain = match target.root {
        None => Chain::default(),
        Some(root) => done.get(&root).and_then(|o| o.chain().cloned()).unwrap_or_default(),
    };
    let mut layers = Vec::new();
    if worker.env.options.images {
        layers = stored(worker, target, &chain).await?;
        note_snapshots(&worker.env, &chain, &layers)?;
    }
    let files = match worker.env.options.trees {
        true => roots::layers(&worker.env, &chain).await?,
        false => Layers::default(),
    };
    let mut config = target.config.clone();
    let options = &worker.env.options;
    inline::carry(&mut config, options.inline.then_some(&chain), options.epoch.is_some());
    config.created = worker.env.options.epoch.map(|_| super::time::rfc3339(worker.env.options.time()));
    Ok(Solved { config, history: history(target, &chain), layers, files })
}

/// The blobs of all layers; those of base images where they are.
async fn stored(worker: &Arc<Worker>, target: &Target, chain: &Chain) -> Result<Vec<StoredLayer>> {
    let mut below = chain.clone();
    let mut vertex = target.root;
    let mut stored = Vec::with_capacity(chain.layers().len());
    while let Some(layer) = below.layers().last() {
        let id = vertex.unwrap_or(0);
        let one = match layer.stored.get() {
            Some(known) => {
                worker.at_hand(layer).await?;
                (worker.env.on_layer)(&Listed { layer: known, origin: &layer.origin, new: false });
                known.clone()
            }
            None => worker.stored(id, &below, false).await?,
        };
        stored.push(one);
        vertex = vertex.and_then(|v| lookup::base_of(&worker.plan.vertices[v].op)).or(vertex);
        below = below.below();
    }
    stored.reverse();
    Ok(stored)
}

/// Lets the layers of an image that is kept here be found by whoever runs it or builds on it, so that what a step has just
/// written needn't be unpacked once more. Not with `SOURCE_DATE_EPOCH`, where the blob has other times than the snapshot.
fn note_snapshots(env: &Env, chain: &Chain, layers: &[StoredLayer]) -> Result<()> {
    if !env.options.complete || env.options.epoch.is_some() {
        return Ok(());
    }
    let diff_ids: Vec<Digest> = layers.iter().map(|l| l.diff_id.clone()).collect();
    for (index, layer) in chain.layers().iter().enumerate() {
        let made_here = matches!(layer.origin, Origin::Step);
        if made_here && env.store.snapshot(&layer.own).map_err(problem::from)?.is_some() {
            let id = image_identity(&diff_ids[..=index]);
            source::note_same(&env.store, &id, &layer.own).map_err(problem::from)?;
        }
    }
    Ok(())
}

/// The history; a step's time is that of its layer, so that a build that is all cache gives the same image.
fn history(target: &Target, chain: &Chain) -> Vec<History> {
    let own = target.history.iter().filter(|h| matches!(h, HistoryEntry::Instruction { layer: Some(_), .. })).count();
    let mut made = chain.layers().iter().skip(chain.layers().len().saturating_sub(own));
    let mut entry = |entry: &HistoryEntry| match entry {
        HistoryEntry::Base(base) => base.clone(),
        HistoryEntry::Instruction { created_by, layer } => History {
            created: layer.and_then(|_| made.next()).and_then(|l| l.created.clone()),
            created_by: created_by.clone(),
            author: String::new(),
            comment: "buildkit.dockerfile.v0".into(),
            empty_layer: layer.is_none(),
        },
    };
    target.history.iter().map(&mut entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_is_told_but_for_echoes() {
        let failed = |kinds: &[(Kind, &str)]| {
            let failed = kinds.iter().enumerate().map(|(i, (kind, text))| (i, Problem::new(*kind, *text))).collect();
            let problem = failure(failed)?;
            let others: Vec<String> = problem.others.into_iter().map(|p| p.message).collect();
            Some((problem.message, others))
        };
        let told =
            |first: &str, others: &[&str]| Some((first.to_owned(), others.iter().map(|o| o.to_string()).collect()));
        use Kind::{Build, Cancelled, Network};
        assert_eq!(failed(&[]), None);
        assert_eq!(failed(&[(Cancelled, "a"), (Cancelled, "b")]), told("a", &[]));
        assert_eq!(failed(&[(Cancelled, "a"), (Build, "b"), (Cancelled, "c"), (Network, "d")]), told("b", &["d"]));
    }
}
