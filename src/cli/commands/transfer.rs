//! `kiln push` and `kiln pull`: images between the local store and registries.

use super::{build, local};
use crate::cli::Env;
use crate::cli::request::{ImageName, TransferRequest};
use crate::cli::session::{Failure, Session};
use crate::export::{self, PushBlob, Pusher};
use crate::oci::{Descriptor, Digest, Platform, Reference};
use crate::plan::op::{BaseLayer, ImageOp};
use crate::registry::{self, Content};
use crate::report::{Event, Kind, Problem, Step};
use crate::source::{self, Puller};
use futures_util::future::try_join_all;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;
use tokio::runtime::Handle;

/// Pushes an image of the store, for all platforms it is there for.
pub fn push(request: &TransferRequest, store: &Path, env: &Env) -> Result<String, Failure> {
    if request.image.digest.is_some() {
        return Err(Problem::new(Kind::Usage, "a name to push to has no digest").into());
    }
    let session = Session::start(store, &request.registry, request.style, None, env)?;
    Ok(session.run(async |session| session.stoppable(push_image(session, &request.image)).await)?)
}

async fn push_image(session: &Session, name: &Reference) -> Result<String, Problem> {
    let started = Instant::now();
    let reporter = &session.reporter;
    reporter.send(Event::Planned { step: 0, name: format!("push {}", name.familiar()) });
    reporter.send(Event::Started(0));
    let typed = ImageName { typed: name.familiar(), reference: Some(name.clone()) };
    let image = local::assembled(&session.store, &local::find(&session.store, &typed)?)?;
    let pusher =
        Pusher::new(session.registry.clone(), vec![name.clone()], Handle::current(), session.reporter.clone(), Some(0));
    let layers: Vec<&Descriptor> = image.images.iter().flat_map(|i| &i.layers).map(|l| &l.descriptor).collect();
    for layer in &layers {
        pusher.layer_ready(blob(session, layer, name)?)?;
    }
    let pushed = pusher.finish(&image, false).await?;
    for layer in &layers {
        source::note_repository(&session.store, &local::digest(layer)?, name)?;
    }
    reporter.send(Event::Finished { step: 0, took: started.elapsed() });
    let size = image.top().map_or(0, |top| top.descriptor.size());
    let tag = name.tag_or_latest().unwrap_or_default();
    Ok(pushed.iter().map(|p| format!("{tag}: digest: {} size: {size}\n", p.digest)).collect())
}

/// A layer of the store, and the repository of the same registry that it can be mounted from.
fn blob(session: &Session, layer: &Descriptor, to: &Reference) -> Result<PushBlob, Problem> {
    let digest = local::digest(layer)?;
    let found = session.store.blob(&digest, Some(layer.size()))?.ok_or(export::Error::Missing(digest.clone()))?;
    let known = source::repositories(&session.store, &digest)?;
    let here = |r: &&Reference| r.registry == to.registry && r.repository == to.repository;
    // Where it is there already, asking for it costs less than mounting it.
    let elsewhere = known.iter().find(|r| r.registry == to.registry && known.iter().find(here).is_none());
    Ok(PushBlob {
        descriptor: layer.clone(),
        content: Content::File(Arc::new(found.into_file())),
        source: elsewhere.cloned(),
    })
}

/// Pulls an image for one platform, whole.
pub fn pull(request: &TransferRequest, platform: &Platform, store: &Path, env: &Env) -> Result<String, Failure> {
    let session = Session::start(store, &request.registry, request.style, None, env)?;
    Ok(session.run(async |session| session.stoppable(pull_image(session, &request.image, platform)).await)?)
}

async fn pull_image(session: &Session, name: &Reference, platform: &Platform) -> Result<String, Problem> {
    let image = session.registry.image(name, platform).await?;
    let op = ImageOp {
        reference: name.pinned(image.top.digest()?),
        layout: None,
        manifest: image.manifest.digest()?,
        platform: image.config.platform(),
        layers: layers(&image),
    };
    let puller = build::puller(session);
    for (step, layer) in op.layers.iter().enumerate() {
        let name = format!("pull {}", layer.descriptor.digest());
        session.reporter.send(Event::Planned { step, name });
    }
    try_join_all((0..op.layers.len()).map(|index| fetch(session, &puller, &op, index))).await?;
    for bytes in [&image.manifest.bytes, &image.config_bytes] {
        session.store.write_blob(bytes)?;
    }
    keep(session, name, &image, &op.manifest)
}

fn layers(image: &registry::Image) -> Vec<BaseLayer> {
    let layers = image.parsed.layers().iter().zip(&image.config.rootfs.diff_ids);
    layers.map(|(d, id)| BaseLayer { descriptor: d.clone(), diff_id: id.clone() }).collect()
}

async fn fetch(session: &Session, puller: &Puller, op: &ImageOp, step: Step) -> Result<(), Problem> {
    let (started, reporter) = (Instant::now(), &session.reporter);
    reporter.send(Event::Started(step));
    match puller.fetch(step, op, step).await {
        Ok(()) => {
            reporter.send(Event::Finished { step, took: started.elapsed() });
            Ok(())
        }
        Err(e) => {
            reporter.send(Event::Failed { step, error: e.to_string() });
            Err(e.into())
        }
    }
}

/// Names what was pulled; a name by its digest alone leads to nothing but the id.
fn keep(session: &Session, name: &Reference, image: &registry::Image, manifest: &Digest) -> Result<String, Problem> {
    local::note_id(&session.store, &image.manifest.descriptor)?;
    if name.tag.is_none() && name.digest.is_some() {
        session.store.settle()?;
        return Ok(format!("{}\n", local::id(&session.store, &image.manifest.descriptor)?));
    }
    let tagged = Reference { digest: None, ..name.clone() };
    local::publish(&session.store, &tagged, &image.manifest.descriptor)?;
    session.reporter.send(Event::Note(format!("stored {} at {manifest}", tagged.familiar())));
    let tag = tagged.tag_or_latest().map(str::to_owned);
    Ok(format!("{}\n", Reference { tag, ..tagged }))
}
