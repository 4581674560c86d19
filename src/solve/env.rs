//! Everything a build uses of the world, as arguments.

use super::agent::Agent;
use super::cache::{Caches, Found};
use super::chain::{Origin, StoredLayer};
use super::journal::About;
use super::mounts::CacheMounts;
use super::require::Required;
use super::turns::Jobs;
use crate::layer::{Compression, Timestamp};
use crate::report::Reporter;
use crate::sandbox::Executor;
use crate::sandbox::cgroup::Kills;
use crate::snapshot::Snapshotter;
use crate::source::{LocalTree, Puller, Remotes, stopped};
use crate::store::{Key, Store};
use crate::sys::Cancel;
use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

/// What a build has at hand.
pub struct Env {
    /// Where results are kept.
    pub store: Store,
    /// How root filesystems are kept.
    pub snapshots: Arc<dyn Snapshotter>,
    /// How processes are run.
    pub executor: Arc<dyn Executor>,
    /// The kills for want of memory where it runs.
    pub kills: Kills,
    /// Where layers come from.
    pub puller: Puller,
    /// Caches besides the store.
    pub caches: Arc<Caches>,
    /// Where cache mounts come from and go to.
    pub cache_mounts: Arc<CacheMounts>,
    /// Where repositories and files of web servers come from.
    pub remotes: Remotes,
    /// The contexts by the names that [`LocalOp`](crate::plan::op::LocalOp) uses.
    pub contexts: BTreeMap<String, Arc<LocalTree>>,
    /// Secrets by id.
    pub secrets: BTreeMap<String, Vec<u8>>,
    /// SSH agents by id.
    pub agents: BTreeMap<String, Agent>,
    /// Where events go.
    pub reporter: Reporter,
    /// Stops everything.
    pub cancel: Cancel,
    /// What is built, for the build's account.
    pub about: About,
    /// What is wanted of the build.
    pub options: Options,
    /// Told of each layer of an image as soon as it is stored, perhaps more than once.
    pub on_layer: Box<dyn Fn(&Listed<'_>) + Send + Sync>,
}

impl Env {
    /// Asks the caches, unless the build is stopped before they answer.
    pub async fn ask(&self, keys: &[Key], found: &mut Found) {
        tokio::select! {
            () = self.caches.ask(keys, found, self.options.oldest, &self.reporter) => {}
            () = stopped(&self.cancel) => {}
        }
    }
}

impl std::fmt::Debug for Env {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Env").field("options", &self.options).finish_non_exhaustive()
    }
}

/// A layer that an image lists.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// Its blob.
    pub layer: &'a StoredLayer,
    /// Where it comes from: a base image's may not be in the store.
    pub origin: &'a Origin,
    /// Whether this build made it, or found it in the cache or a base.
    pub new: bool,
}

/// What is wanted of a build beyond its plan.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many processes and copies run at once.
    pub jobs: Jobs,
    /// How many threads compress one layer.
    pub threads: NonZeroUsize,
    /// How new layers are compressed.
    pub compression: Compression,
    /// Whether the images' layers are stored as blobs.
    pub images: bool,
    /// Whether the layers of base images are wanted in the store too, though no step reads them.
    pub complete: bool,
    /// Whether the targets' root filesystems are read afterwards (`-o type=local`).
    pub trees: bool,
    /// `SOURCE_DATE_EPOCH`: no file in a new layer is younger, and new layers say that they were made then.
    pub epoch: Option<i64>,
    /// The time of the build.
    pub now: Timestamp,
    /// No result made before this time is used, whoever kept it: seconds since 1970.
    pub oldest: Option<i64>,
    /// Steps that may not run.
    pub required: Vec<Required>,
    /// Whether the images carry the records of their steps.
    pub inline: bool,
}

impl Options {
    /// The time that new files and layers get.
    pub fn time(&self) -> Timestamp {
        self.epoch.map_or(self.now, Timestamp::from_secs)
    }
}
