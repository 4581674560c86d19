//! A step's work: a process or files to a layer, kept under the step's keys.

use super::chain::{Chain, Layer, Origin, StoredLayer};
use super::file;
use super::inputs::{Inputs, Keys, Source};
use super::key::{Key, named, pair};
use super::problem::{self, Result};
use super::record::remember;
use super::worker::{Forms, Worker, is_linked};
use super::{Read, ReadKind, exec, lookup, pack, reads, selecting};
use crate::layer::{EntrySink, Packer};
use crate::plan::op::{ExecOp, FileAction, FileOp, Op, VertexId};
use crate::report::{Kind, Problem};
use crate::snapshot::{EmptyTree, FolderWriter, Layers, NewLayer, Tee, Tree};
use crate::store::{SnapshotInfo, TempSnapshot};
use tokio::sync::OnceCell;

/// A layer that was just made.
struct Made {
    identity: Key,
    snapshot: Option<TempSnapshot>,
    stored: Option<StoredLayer>,
}

impl Worker {
    /// Makes a step's layer on `base` and keeps it.
    pub fn make(&self, id: VertexId, base: &Layers, inputs: &Inputs, keys: Keys) -> Result<Chain> {
        let op = &self.plan.vertices[id].op;
        let mut made = match op {
            Op::Exec(exec) => self.exec(id, exec, base, &inputs.sources, keys)?,
            Op::File(file) => self.file(id, file, base, &inputs.sources, keys)?,
            Op::Image(_) | Op::Local(_) | Op::Git(_) | Op::Http(_) => {
                return Err(Problem::new(Kind::Build, "not a step that makes a layer"));
            }
        };
        let mut files = None;
        if let Some(snapshot) = made.snapshot.take() {
            let note = self.plan.vertices[id].name.clone();
            let info = SnapshotInfo { driver: "overlay".into(), size: None, note };
            let kept = self.env.store.commit_snapshot(snapshot, &made.identity, info).map_err(problem::from)?;
            // What a linked layer stands on is nobody's business yet.
            files = (!is_linked(op)).then(|| base.push(&kept.folder));
            drop(self.env.store.settle_ahead());
        }
        let layer = Layer {
            identity: lookup::identity_on(op, &inputs.base, made.identity),
            own: made.identity,
            origin: Origin::Step,
            keys: keys.all().collect(),
            claimed: keys.all().collect(),
            name: self.plan.vertices[id].name.clone(),
            created: Some(super::time::rfc3339(self.env.options.time())),
            made: Some(self.env.options.now.secs),
            stored: OnceCell::new_with(made.stored),
            files: OnceCell::new_with(files),
        };
        remember(&self.env, &layer)?;
        Ok(inputs.base.push(layer))
    }

    fn exec(&self, id: VertexId, op: &ExecOp, base: &Layers, sources: &[Source], keys: Keys) -> Result<Made> {
        let mut mounts = Vec::new();
        let mut held = Vec::new();
        for (read, source) in reads(&Op::Exec(op.clone())).iter().zip(sources) {
            let ReadKind::Mount(number) = read.what else { continue };
            let layers = match &source.layers {
                Some(layers) => layers.clone(),
                None => match self.materialise(op, read, source)? {
                    Some(copy) => {
                        let folder = copy.folder().to_owned();
                        held.push(copy);
                        Layers::default().push(&folder)
                    }
                    None => Layers::default(),
                },
            };
            mounts.push((number, exec::MountTree { layers, content: source.content() }));
        }
        let snapshot = exec::run(&self.env, id, op, base, &mounts)?;
        Ok(Made { identity: run_identity(keys.content)?, snapshot: Some(snapshot), stored: None })
    }

    /// A folder with what a mount shows of a context: without what is ignored, and everything root's. `None` where
    /// nothing was selected.
    fn materialise(&self, op: &ExecOp, read: &Read, source: &Source) -> Result<Option<TempSnapshot>> {
        let Some(selection) = &source.selection else { return Ok(None) };
        let Some(copy) = selecting::as_copy(&Op::Exec(op.clone()), read) else {
            return Err(Problem::new(Kind::Build, "not a mount"));
        };
        let action = FileAction::Copy(copy);
        let op = FileOp { base: None, actions: vec![action], link: false, workdir: false };
        let input = file::Input { tree: source.tree.tree(), selection };
        let made = self.env.options.time();
        let folder = self.fill_snapshot(&Layers::default(), &mut |writer| {
            file::write(&op, &EmptyTree, &[input], made, writer).map_err(problem::from)
        });
        folder.map(Some)
    }

    fn file(&self, id: VertexId, op: &FileOp, base: &Layers, sources: &[Source], keys: Keys) -> Result<Made> {
        let view = base.view();
        let inputs: Vec<file::Input<'_>> = sources
            .iter()
            .filter_map(|source| {
                source.selection.as_ref().map(|selection| file::Input { tree: source.tree.tree(), selection })
            })
            .collect();
        let base_tree: &dyn Tree = if base.is_empty() { &EmptyTree } else { &view };
        let write = |sink: &mut dyn EntrySink| {
            file::write(op, base_tree, &inputs, self.env.options.time(), sink).map_err(problem::from)
        };
        let Forms { snapshot, blob } = self.forms[id];
        let mut made = Made { identity: keys.content, snapshot: None, stored: None };
        match (snapshot, blob) {
            (false, true) => {
                let mut packer = pack::packer(&self.env)?;
                write(&mut packer)?;
                made.stored = Some(pack::finish(&self.env, packer)?);
            }
            (_, false) => made.snapshot = Some(self.fill_snapshot(base, &mut |writer| write(writer))?),
            (true, true) => {
                let mut packer: pack::Dated<Packer<_>> = pack::packer(&self.env)?;
                made.snapshot = Some(
                    self.fill_snapshot(base, &mut |writer| write(&mut Tee { sink: &mut packer, folder: writer }))?,
                );
                made.stored = Some(pack::finish(&self.env, packer)?);
            }
        }
        Ok(made)
    }

    /// A new snapshot on `base` that `write` fills.
    fn fill_snapshot(
        &self,
        base: &Layers,
        write: &mut dyn FnMut(&mut FolderWriter) -> Result<usize>,
    ) -> Result<TempSnapshot> {
        let layer = self.env.store.new_snapshot().map_err(problem::from)?;
        let active = NewLayer::prepare(layer.folder(), base, layer.form()).map_err(problem::snapshot)?;
        let mut writer = active.writer(self.env.options.time()).map_err(problem::snapshot)?;
        write(&mut writer)?;
        writer.finish().map_err(problem::snapshot)?;
        Ok(layer)
    }
}

/// An identity that no other run has.
fn run_identity(key: Key) -> Result<Key> {
    let mut bits = [0u8; 16];
    rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| Problem::new(Kind::Environment, "the kernel gives no random numbers").because(&e))?;
    Ok(pair(key, named("run", &u128::from_ne_bytes(bits).to_string())))
}
