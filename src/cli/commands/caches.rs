//! The caches that a command line names, opened.

use crate::cli::request::{BuildRequest, CacheAt, CacheMountsAt, CacheTo};
use crate::cli::session::Session;
use crate::oci::Reference;
use crate::report::Event;
use crate::solve::cache::{self, Actions, CacheStore, Caches, Folder, Registry, Target};
use crate::solve::mounts::{self, CacheMounts};
use crate::source::Puller;
use std::sync::Arc;

/// The caches of steps; asked only if they are to be believed. `images` are names that the build pushes to, which may
/// share blobs with them.
pub fn of_steps(session: &Session, request: &BuildRequest, images: &[Reference], asked: bool) -> Caches {
    let open = |at: &CacheAt| store(session, request, at, images);
    let from = request.cache_from.iter().filter(|_| asked).filter_map(open).collect();
    let target = |to: &CacheTo| Some(Target { store: open(to.at.as_ref()?)?, mode: to.mode, required: to.required });
    Caches::new(from, request.cache_to.iter().filter_map(target).collect())
}

/// Where cache mounts come from and go to.
pub fn of_mounts(session: &Session, request: &BuildRequest) -> CacheMounts {
    let open = |given: &CacheMountsAt| {
        let store = store(session, request, &given.at, &[])?;
        let (ids, max_size, compression) = (given.ids.clone(), given.max_size, given.compression);
        Some(mounts::Place { store, ids, max_size, compression })
    };
    let from = request.cache_mounts_from.iter().filter_map(open).collect();
    CacheMounts::new(from, request.cache_mounts_to.iter().filter_map(open).collect())
}

/// A place of caches, unless it isn't there, which is told.
fn store(session: &Session, request: &BuildRequest, at: &CacheAt, images: &[Reference]) -> Option<Arc<dyn CacheStore>> {
    let Session { store, reporter, cancel, .. } = session;
    let client = cache::client(&session.registry);
    let why = match at {
        CacheAt::Registry(name) => {
            let puller = Puller::new(store.clone(), client.clone(), reporter.clone(), cancel.clone());
            let platforms = request.source.platforms.clone();
            return Some(Arc::new(Registry::new(name, images.to_vec(), platforms, &client, &puller)));
        }
        CacheAt::Local(folder) => return Some(Arc::new(Folder::new(folder.clone(), store.clone()))),
        CacheAt::Actions(at) => match Actions::new(at, &client, store.clone(), reporter.clone(), cancel.clone()) {
            Ok(actions) => return Some(Arc::new(actions)),
            Err(e) => format!("the cache type=gha isn't used: {e}"),
        },
        CacheAt::Missing(why) => why.clone(),
    };
    reporter.send(Event::Note(format!("warning: {why}")));
    None
}
