//! Everything that a Dockerfile's plan has to know of the world, asked for at once.

use super::error::{Error, Result};
use super::{git, http, image};
use crate::plan::{ResolvedBases, Wanted};
use crate::registry::Client;
use crate::report::{Problem, Span};
use crate::store::Store;
use crate::sys::Cancel;
use futures_util::future::join_all;

/// Where names are looked up.
#[derive(Debug, Clone)]
pub struct Resolver {
    /// The store, whose images and kept answers come first.
    pub store: Store,
    /// For what the store can't answer.
    pub registry: Client,
    /// Whether the store's own images don't count (`--pull`).
    pub pull: bool,
    /// For repositories.
    pub git: git::Git,
    /// Stops what is running.
    pub cancel: Cancel,
}

impl Resolver {
    /// Asks for everything that is wanted, all at once, and adds the answers to `known`.
    ///
    /// # Errors
    /// The first, in the order of `wanted`, at its place in the Dockerfile.
    pub async fn resolve(&self, wanted: &Wanted, known: &mut ResolvedBases) -> std::result::Result<(), Problem> {
        let images = join_all(
            wanted
                .images
                .iter()
                .map(|(key, _)| self.stoppable(image::resolve(&self.store, &self.registry, self.pull, key))),
        );
        let files = join_all(
            wanted.http.iter().map(|(key, _)| self.stoppable(http::resolve(&self.store, &self.registry, key))),
        );
        let repositories = join_all(wanted.git.iter().map(|(key, _)| self.stoppable(self.git.resolve(key))));
        let (images, files, repositories) = tokio::join!(images, files, repositories);
        add(&mut known.images, &wanted.images, images)?;
        add(&mut known.http, &wanted.http, files)?;
        add(&mut known.git, &wanted.git, repositories)
    }

    async fn stoppable<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = super::stopped(&self.cancel) => Err(Error::Cancelled),
        }
    }
}

/// Adds answers under their questions.
fn add<K: Clone + std::hash::Hash + Eq, V>(
    known: &mut std::collections::HashMap<K, V>,
    wanted: &[(K, Span)],
    answers: Vec<Result<V>>,
) -> std::result::Result<(), Problem> {
    for ((key, span), answer) in wanted.iter().zip(answers) {
        known.insert(key.clone(), answer.map_err(|e| Problem::from(e).at(*span))?);
    }
    Ok(())
}
