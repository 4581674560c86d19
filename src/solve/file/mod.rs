//! COPY, ADD and WORKDIR: what they take, where it goes, and the layer that comes of it.
//!
//! In two halves, so that a step whose files didn't change is found in the cache before anything is written:
//!
//! 1. [`select`] reads the source tree: which files, and their [content](Selection::content) as a key.
//! 2. [`write`] places them on the base, in memory, by the rules of BuildKit's copy, and streams the new layer to a sink:
//!    a packer, a folder, or [both at once](crate::snapshot::Tee).

mod archive;
mod chmod;
mod draft;
mod emit;
mod error;
mod place;
mod select;
#[cfg(test)]
mod tests;

use crate::layer::{EntryPath, EntrySink, Timestamp};
use crate::plan::op::{FileAction, FileOp};
use crate::snapshot::{self, EmptyTree, Fingerprint, Meta, Tree, fingerprint};
use draft::Draft;
use place::How;
use std::num::NonZero;
use std::thread;

pub use error::Error;
pub use select::{Selection, Taken, patterns, select};

/// Knows what is in files, because it reads them or because it remembers.
pub trait Fingerprints {
    /// The fingerprints of regular files, as [`fingerprint`] defines them, in the order of `files`.
    fn of(&self, tree: &dyn Tree, files: &[(EntryPath, Meta)]) -> Result<Vec<Fingerprint>, snapshot::Error>;
}

/// Reads every file, on all cores.
#[derive(Debug, Clone, Copy, Default)]
pub struct Read;

/// Fewer files than this aren't worth a thread.
const FILES_PER_THREAD: usize = 64;

impl Fingerprints for Read {
    fn of(&self, tree: &dyn Tree, files: &[(EntryPath, Meta)]) -> Result<Vec<Fingerprint>, snapshot::Error> {
        let cores = thread::available_parallelism().map_or(1, NonZero::get);
        let share = files.len().div_ceil(cores).max(FILES_PER_THREAD);
        let read = |files: &[(EntryPath, Meta)]| -> Result<Vec<_>, _> {
            files.iter().map(|(path, _)| fingerprint(tree, path)).collect()
        };
        if files.len() <= share {
            return read(files);
        }
        thread::scope(|scope| {
            let start = |part| (part, thread::Builder::new().spawn_scoped(scope, move || read(part)));
            let parts: Vec<_> = files.chunks(share).map(start).collect();
            let mut all = Vec::with_capacity(files.len());
            for (part, reading) in parts {
                all.extend(match reading {
                    // A panic in the thread goes on here.
                    Ok(reading) => reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?,
                    // There may be no PID left for a thread.
                    Err(_) => read(part)?,
                });
            }
            Ok(all)
        })
    }
}

/// What one action of a step reads: a tree, and what was selected from it.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The tree of [`CopyAction::from`](crate::plan::op::CopyAction::from).
    pub tree: &'a dyn Tree,
    /// What [`select`] took from it.
    pub selection: &'a Selection,
}

/// Writes the layer that `op` makes on `base` to `sink`, and says how many entries it has: with none, nothing changed.
///
/// `inputs` are those of the copies among the actions that copy from a vertex, in order. What is made rather than
/// copied, directories on the way and heredocs, gets the time `made`. With `--link` the base isn't looked at.
pub fn write(
    op: &FileOp,
    base: &dyn Tree,
    inputs: &[Input<'_>],
    made: Timestamp,
    sink: &mut dyn EntrySink,
) -> Result<usize, Error> {
    let base: &dyn Tree = if op.link { &EmptyTree } else { base };
    let mut draft = Draft::new(base, made);
    let mut archives = archive::Archives::default();
    let mut inputs = inputs.iter();
    let mut trees = Vec::with_capacity(op.actions.len());
    for (number, action) in op.actions.iter().enumerate() {
        let mut tree = None;
        match action {
            FileAction::Copy(copy) => {
                let how = How::new(number, copy.owner.as_ref(), copy.mode.as_ref(), base)?;
                if copy.from.is_none() {
                    draft.copy(copy, &how, &EmptyTree, &select(copy, &EmptyTree, &Read)?, &mut archives)?;
                } else if let Some(input) = inputs.next() {
                    draft.copy(copy, &how, input.tree, input.selection, &mut archives)?;
                    tree = Some(input.tree);
                }
            }
            FileAction::Mkdir { path, mode, owner } => draft.mkdir(path, *mode, owner.as_ref())?,
            FileAction::Mkfile { path, name, content, mode, owner } => {
                let how = How::new(number, owner.as_ref(), mode.as_ref(), base)?;
                draft.text(path, name, content.len() as u64, &how)?;
            }
        }
        trees.push(tree);
    }
    emit::emit(&draft, op, &trees, &archives, sink)
}
