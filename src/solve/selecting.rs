//! What steps read: the files that a copy or a mount takes, and their content as a key.

use super::file::{self, Fingerprints, Selection};
use super::key::{Key, ReadKey};
use super::lookup::Known;
use super::problem::{self, Result};
use super::{Read, ReadKind};
use crate::layer::EntryPath;
use crate::plan::BuildPlan;
use crate::plan::glob::is_pattern;
use crate::plan::op::{CopyAction, FileAction, MountSource, Op, VertexId};
use crate::snapshot::{self, Fingerprint, Meta, Tree};
use crate::source::LocalTree;
use std::sync::Arc;

/// A tree that a step reads.
#[derive(Clone)]
pub enum ReadTree {
    /// A context, whose files' contents the store remembers.
    Local(Arc<LocalTree>),
    /// Another.
    Other(Arc<dyn Tree>),
}

impl ReadTree {
    /// As a tree.
    pub fn tree(&self) -> &dyn Tree {
        match self {
            Self::Local(tree) => &**tree,
            Self::Other(tree) => &**tree,
        }
    }

    /// What `copy` takes from it.
    pub fn select(&self, copy: &CopyAction) -> Result<Selection> {
        let selected = match self {
            Self::Local(local) => {
                prefetch(copy, local)?;
                file::select(copy, &**local, &Remembered(local))
            }
            Self::Other(tree) => file::select(copy, &**tree, &file::Read),
        };
        selected.map_err(problem::from)
    }
}

/// Has what a copy names walked on all threads. What a pattern may match isn't known before.
fn prefetch(copy: &CopyAction, tree: &LocalTree) -> Result<()> {
    for source in copy.sources.iter().filter(|s| !copy.parents && !is_pattern(s)) {
        // What isn't a path is the selection's to tell.
        if let Ok(path) = EntryPath::parse(source.as_bytes()) {
            tree.prefetch(&path).map_err(problem::from)?;
        }
    }
    Ok(())
}

/// The fingerprints of a context's files, most of which a former build has read.
struct Remembered<'a>(&'a LocalTree);

impl Fingerprints for Remembered<'_> {
    fn of(&self, _: &dyn Tree, files: &[(EntryPath, Meta)]) -> std::result::Result<Vec<Fingerprint>, snapshot::Error> {
        self.0.fingerprints(files).map_err(|e| match e {
            crate::source::Error::Snapshot(e) => e,
            other => snapshot::Error::inside("read", &EntryPath::root(), std::io::Error::other(other)),
        })
    }
}

/// A selection's content as a key.
pub fn content(selection: &Selection) -> Key {
    Key::new(selection.content)
}

/// What a step takes for one of its reads, as a copy: a mount takes what is at its path, to the same path.
pub fn as_copy(op: &Op, read: &Read) -> Option<CopyAction> {
    match (op, read.what) {
        (Op::File(file), ReadKind::Copy(action)) => match file.actions.get(action) {
            Some(FileAction::Copy(copy)) => Some(copy.clone()),
            _ => None,
        },
        (Op::Exec(exec), ReadKind::Mount(number)) => match &exec.mounts.get(number)?.kind {
            MountSource::Bind { source, .. } | MountSource::Cache { source, .. } => Some(mounted(source)),
            _ => None,
        },
        _ => None,
    }
}

/// What a mount of `source` takes.
pub fn mounted(source: &str) -> CopyAction {
    let path = if source.is_empty() { "/" } else { source };
    // Some tree; which one is known where this is used.
    CopyAction::plain(Some(0), &[path], path)
}

/// The key of a read before its tree is there: the definition of what makes it.
pub fn by_definition(known: &Known, read: &Read) -> ReadKey {
    known.definitions.get(read.from).map_or(ReadKey::Nothing, |d| ReadKey::Definition(*d))
}

/// The contexts' selections for all steps of a plan, by step and the number of the read.
pub fn locals(
    plan: &BuildPlan,
    contexts: &dyn Fn(&str) -> Option<Arc<LocalTree>>,
) -> Result<std::collections::HashMap<(VertexId, usize), Arc<Selection>>> {
    let mut selections = std::collections::HashMap::new();
    for (id, vertex) in plan.vertices.iter().enumerate() {
        for (number, read) in super::reads(&vertex.op).iter().enumerate() {
            let Some(Op::Local(local)) = plan.vertices.get(read.from).map(|v| &v.op) else { continue };
            let (Some(tree), Some(copy)) = (contexts(&local.name), as_copy(&vertex.op, read)) else { continue };
            let selection = ReadTree::Local(tree).select(&copy).map_err(|p| p.at(vertex.span))?;
            selections.insert((id, number), Arc::new(selection));
        }
    }
    Ok(selections)
}
