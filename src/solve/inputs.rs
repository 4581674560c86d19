//! What a step reads, as files that can be read and as keys.

use super::chain::{Chain, Origin};
use super::file::Selection;
use super::key::{Key, ReadKey, key};
use super::output::Output;
use super::problem::{Result, blocking};
use super::selecting::{self, ReadTree};
use super::worker::Worker;
use super::{lookup, reads, roots};
use crate::plan::op::{Op, VertexId};
use crate::snapshot::{Layers, Tree};
use std::sync::Arc;

/// What a step reads, ready to be used.
pub struct Inputs {
    /// The root filesystem that it stands on.
    pub base: Chain,
    /// What else it reads, in the order of [`reads`].
    pub sources: Vec<Source>,
}

/// A tree that a step reads, and what it takes of it.
#[derive(Clone)]
pub struct Source {
    /// The files.
    pub tree: ReadTree,
    /// Its layers, where it is a root filesystem.
    pub layers: Option<Layers>,
    /// Those layers.
    chain: Option<Chain>,
    /// What is taken; `None` where the tree is known by what it is.
    pub selection: Option<Arc<Selection>>,
}

impl Source {
    /// What it is, where that says as much as its files: the layers of a base image.
    fn image_identity(&self) -> Option<Key> {
        let chain = self.chain.as_ref()?;
        matches!(chain.layers().last()?.origin, Origin::Base { .. }).then(|| chain.identity()).flatten()
    }

    /// What the files are that are taken, whichever folders they are in.
    pub fn content(&self) -> Option<Key> {
        self.selection.as_ref().map(|s| selecting::content(s)).or_else(|| self.image_identity())
    }

    fn key(&self) -> ReadKey {
        match (&self.selection, self.chain.as_ref().and_then(Chain::identity)) {
            (Some(selection), _) => ReadKey::Content(selecting::content(selection)),
            (None, Some(identity)) => ReadKey::Definition(identity),
            (None, None) => ReadKey::Nothing,
        }
    }
}

/// A step's keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keys {
    /// By what its inputs really are.
    pub content: Key,
    /// By what makes its inputs.
    pub definition: Key,
}

impl Keys {
    /// Each of them once, the content key first.
    pub fn all(self) -> impl Iterator<Item = Key> {
        let definition = (self.definition != self.content).then_some(self.definition);
        std::iter::once(self.content).chain(definition)
    }
}

impl Worker {
    /// What a step reads, selected from the results of [`Op::inputs`]: the base first, where there is one.
    pub async fn inputs(self: &Arc<Self>, id: VertexId, results: Vec<Output>) -> Result<Inputs> {
        let mut results = results.into_iter();
        let base = match lookup::base_of(&self.plan.vertices[id].op) {
            Some(_) => results.next().and_then(|o| o.chain().cloned()).unwrap_or_default(),
            None => Chain::default(),
        };
        let mut sources = Vec::new();
        for read in results {
            sources.push(self.source(read).await?);
        }
        if !sources.is_empty() {
            let worker = self.clone();
            sources = blocking(move || worker.select(id, sources)).await?;
        }
        Ok(Inputs { base, sources })
    }

    /// The files of something read.
    async fn source(&self, read: Output) -> Result<Source> {
        match read {
            Output::Tree(tree) => Ok(Source { tree, layers: None, chain: None, selection: None }),
            Output::Root(chain) => {
                let layers = roots::layers(&self.env, &chain).await?;
                let view: Arc<dyn Tree> = Arc::new(layers.view());
                Ok(Source { tree: ReadTree::Other(view), layers: Some(layers), chain: Some(chain), selection: None })
            }
        }
    }

    /// Finds out what a step takes of its reads; nothing of those that are known by what they are.
    fn select(&self, id: VertexId, mut sources: Vec<Source>) -> Result<Vec<Source>> {
        let op = &self.plan.vertices[id].op;
        for (number, (read, source)) in reads(op).iter().zip(&mut sources).enumerate() {
            let known = self.selections.get(&(id, number)).cloned();
            source.selection = match (known, selecting::as_copy(op, read)) {
                (Some(known), _) => Some(known),
                (None, Some(_)) if matches!(op, Op::Exec(_)) && source.image_identity().is_some() => None,
                (None, Some(copy)) => Some(Arc::new(source.tree.select(&copy)?)),
                (None, None) => None,
            };
        }
        Ok(sources)
    }

    /// The keys of a step with these inputs.
    pub fn keys(&self, id: VertexId, inputs: &Inputs) -> Keys {
        let op = &self.plan.vertices[id].op;
        let base = inputs.base.identity();
        let by_content: Vec<ReadKey> = inputs.sources.iter().map(Source::key).collect();
        let by_definition: Vec<ReadKey> = by_content
            .iter()
            .zip(&reads(op))
            .map(|(content, read)| match self.plan.vertices.get(read.from).map(|v| &v.op) {
                Some(Op::Local(_)) => *content,
                _ => selecting::by_definition(&self.known, read),
            })
            .collect();
        Keys { content: key(op, base, &by_content), definition: key(op, base, &by_definition) }
    }
}
