//! A build's account as it is written: noted while steps run, kept at the end. What can't be written is left out: no
//! build fails, or waits, for the sake of its account.

use super::{Build, How, KEPT, KEPT_BYTES, files, sheet};
use crate::plan::op::{Op, VertexId};
use crate::solve::chain::{Chain, Origin};
use crate::solve::file::Selection;
use crate::solve::key::Key;
use crate::solve::worker::Worker;
use crate::store::{self, Store};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Every so many builds, old accounts are taken away.
const TIDY: u64 = 8;

/// What becomes of the steps of a running build.
#[derive(Debug, Default)]
pub struct Diary(Mutex<BTreeMap<VertexId, Note>>);

#[derive(Debug, Default)]
struct Note {
    how: Option<How>,
    took: Duration,
    identity: Option<Key>,
    lists: BTreeMap<usize, Key>,
}

impl Diary {
    fn notes(&self) -> MutexGuard<'_, BTreeMap<VertexId, Note>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A step is over; `chain` is what it gave, where it gave a root filesystem.
    pub fn ended(&self, step: VertexId, how: How, took: Duration, chain: Option<&Chain>) {
        let mut notes = self.notes();
        let note = notes.entry(step).or_default();
        (note.how, note.took, note.identity) = (Some(how), took, chain.and_then(Chain::identity));
    }

    /// What was selected of the trees that a step reads, by the number of the read, is listed in the store.
    pub fn list(&self, store: &Store, step: VertexId, selections: &[(usize, Arc<Selection>)]) {
        for (read, selection) in selections {
            if let Ok(list) = put_list(store, selection) {
                self.notes().entry(step).or_default().lists.insert(*read, list);
            }
        }
    }
}

/// How a step that was found was found.
pub fn found(chain: Option<&Chain>) -> How {
    match chain.and_then(|c| c.layers().last()).map(|l| &l.origin) {
        Some(Origin::Cached { .. }) => How::Cached,
        _ => How::Hit,
    }
}

fn put_list(store: &Store, selection: &Selection) -> store::Result<Key> {
    let id = files::id(selection);
    if !store.has_build_part(&id)? {
        store.put_build_part(&id, &files::encode(selection))?;
    }
    Ok(id)
}

/// A build's account in the making.
pub struct Journal {
    began: Instant,
    sheet: JoinHandle<Option<Kept>>,
}

/// The sheet that a build speaks of, and its lists.
struct Kept {
    sheet: Key,
    parts: BTreeSet<Key>,
}

impl Journal {
    /// Sees to it, beside the build, that the sheet and the lists of what is to be built are in the store.
    pub fn begin(worker: &Arc<Worker>) -> Self {
        let worker = worker.clone();
        let sheet = tokio::task::spawn_blocking(move || keep_sheet(&worker).ok());
        Self { began: Instant::now(), sheet }
    }

    /// Keeps the account of a build that is over.
    pub async fn end(self, worker: &Arc<Worker>, ok: bool) {
        let took = self.began.elapsed();
        let Ok(Some(kept)) = self.sheet.await else { return };
        let worker = worker.clone();
        let written = tokio::task::spawn_blocking(move || {
            let store = &worker.env.store;
            let build = account(&worker, kept.sheet, took, ok);
            let lists = build.lists.values().flat_map(|l| l.values().copied());
            let parts: BTreeSet<Key> = kept.parts.into_iter().chain(lists).collect();
            let number = store.add_build(parts.into_iter().collect(), &build)?;
            if number % TIDY == 0 { store.forget_builds(KEPT, KEPT_BYTES) } else { Ok(()) }
        });
        let _ = written.await;
    }
}

fn keep_sheet(worker: &Worker) -> store::Result<Kept> {
    let store = &worker.env.store;
    let lists = sheet::lists(&worker.selections);
    let id = sheet::id(&worker.plan, &worker.known, &lists);
    let parts: BTreeSet<Key> = lists.values().flat_map(|l| l.values().copied()).chain([id]).collect();
    for selection in worker.selections.values() {
        put_list(store, selection)?;
    }
    if !store.has_build_part(&id)? {
        let sheet = sheet::of(&worker.plan, &worker.known, lists);
        store.put_build_part(&id, &serde_json::to_vec(&sheet).unwrap_or_default())?;
    }
    Ok(Kept { sheet: id, parts })
}

/// What can be told of a build once it is over.
fn account(worker: &Worker, sheet: Key, took: Duration, ok: bool) -> Build {
    let notes = worker.diary.notes();
    let mut build = Build {
        about: worker.env.about.clone(),
        started: crate::solve::time::rfc3339(worker.env.options.now),
        took_ms: millis(took),
        ok,
        sheet,
        how: String::new(),
        identities: Vec::new(),
        took: BTreeMap::new(),
        forced: Vec::new(),
        lists: BTreeMap::new(),
    };
    for (id, vertex) in worker.plan.vertices.iter().enumerate() {
        let note = notes.get(&id);
        let known = worker.known.chains.get(&id);
        let how = note.and_then(|n| n.how).or_else(|| known.map(|chain| found(Some(chain))));
        let how = how.unwrap_or(How::NotReached);
        build.how.push(how.letter());
        let identity = note.and_then(|n| n.identity).or_else(|| known.and_then(Chain::identity));
        build.identities.push(identity.map(|key| short(&key)).unwrap_or_default());
        if let Some(note) = note.filter(|_| how.is_run() && is_step(&vertex.op)) {
            build.took.insert(id, millis(note.took));
        }
        if let Some(note) = note.filter(|n| !n.lists.is_empty()) {
            build.lists.insert(id, note.lists.clone());
        }
        if vertex.no_cache && is_step(&vertex.op) {
            build.forced.push(id);
        }
    }
    build
}

fn is_step(op: &Op) -> bool {
    matches!(op, Op::Exec(_) | Op::File(_))
}

/// Enough digits to tell two apart.
fn short(key: &Key) -> String {
    key.to_string().chars().take(16).collect()
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
