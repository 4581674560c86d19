//! A root filesystem as a chain of layers, each known by what it is before anybody has its files.

use super::cache::Source;
use super::key::{Key, chain_id};
use crate::oci::Digest;
pub use crate::oci::assemble::Layer as StoredLayer;
use crate::plan::op::ImageOp;
use crate::report::Step;
use crate::snapshot::Layers;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Where a layer comes from when it has to be had.
#[derive(Debug, Clone)]
pub enum Origin {
    /// A base image: its blob can be fetched.
    Base {
        /// The image.
        image: Arc<BaseImage>,
        /// Which of its layers.
        index: usize,
    },
    /// A step of this or an earlier build, whose layer is in the store.
    Step,
    /// A step that a cache knows: its blob can be fetched from there.
    Cached {
        /// The cache.
        cache: Arc<Source>,
        /// The step: its download is told as that step's.
        step: Step,
    },
}

/// A base image, and its layers once they are unpacked.
#[derive(Debug)]
pub struct BaseImage {
    /// The image.
    pub op: ImageOp,
    /// The step that it is: its downloads are told as that step's.
    pub step: Step,
    /// Its layers.
    pub files: OnceCell<Layers>,
}

/// One layer, standing on those before it in its [`Chain`].
#[derive(Debug)]
pub struct Layer {
    /// What the root filesystem is up to and including this layer.
    pub identity: Key,
    /// What the layer itself is; names its snapshot. Differs from `identity` only for linked layers, which are the same
    /// wherever they stand.
    pub own: Key,
    /// Where it comes from.
    pub origin: Origin,
    /// The keys of the step that made it; none for a base image's.
    pub keys: Vec<Key>,
    /// Those, and others that its record says lead to it: they are given on as hearsay, and never used here.
    pub claimed: Vec<Key>,
    /// That step as it was shown.
    pub name: String,
    /// When it was made, RFC 3339; a base image's layers don't say.
    pub created: Option<String>,
    /// When it was made by the clock, seconds since 1970; a base image's layers don't say.
    pub made: Option<i64>,
    /// Its blob, once there is one.
    pub stored: OnceCell<StoredLayer>,
    /// It and those below it, once they are known to be unpacked; a base image has those of its layers together.
    pub files: OnceCell<Layers>,
}

/// Layers from the lowest up; cheap to clone. Empty is `FROM scratch`.
#[derive(Debug, Clone, Default)]
pub struct Chain(Arc<[Arc<Layer>]>);

impl Chain {
    /// The layers of a base image.
    pub fn of_image(op: ImageOp, step: Step) -> Self {
        let image = Arc::new(BaseImage { op, step, files: OnceCell::new() });
        let diff_ids: Vec<Digest> = image.op.layers.iter().map(|l| l.diff_id.clone()).collect();
        let layers = image.op.layers.iter().enumerate().map(|(index, layer)| {
            let stored = StoredLayer { descriptor: layer.descriptor.clone(), diff_id: layer.diff_id.clone() };
            let identity = image_identity(&diff_ids[..=index]);
            Arc::new(Layer {
                identity,
                own: identity,
                origin: Origin::Base { image: image.clone(), index },
                keys: Vec::new(),
                claimed: Vec::new(),
                name: String::new(),
                created: None,
                made: None,
                stored: OnceCell::new_with(Some(stored)),
                files: OnceCell::new(),
            })
        });
        Self(layers.collect())
    }

    /// This chain with a layer on top.
    pub fn push(&self, layer: Layer) -> Self {
        Self(self.0.iter().cloned().chain([Arc::new(layer)]).collect())
    }

    /// What the root filesystem is; `None` is the empty one.
    pub fn identity(&self) -> Option<Key> {
        self.0.last().map(|l| l.identity)
    }

    /// Whether a step of it was looked for by what stages really gave, and so those upon it have to be, too.
    pub fn is_by_content(&self) -> bool {
        self.0.iter().any(|l| l.keys.len() > 1)
    }

    /// The layers, lowest first.
    pub fn layers(&self) -> &[Arc<Layer>] {
        &self.0
    }

    /// The chain without its top layer.
    pub fn below(&self) -> Self {
        let n = self.0.len().saturating_sub(1);
        Self(self.0[..n].iter().cloned().collect())
    }
}

/// The identity of a root filesystem made of layers with these diff ids, wherever they came from: its chain id.
pub fn image_identity(diff_ids: &[Digest]) -> Key {
    chain_id(diff_ids).as_ref().map_or_else(|| Key::of(b""), Key::from)
}
