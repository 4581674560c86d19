//! Where a build's images go: `--tag`, `--push`, `--output`, `--iidfile`, `--metadata-file`.

use crate::cli::request::{BuildRequest, one_compression};
use crate::cli::session::{Failure, Session, cannot, failure};
use crate::export::annotations::{of_image, of_index};
use crate::export::spec::{Destination, Kind as Output, Place, Spec};
use crate::export::{self, Folder, Layout, Named, PushBlob, Pusher, RootTar, Under, folder_name};
use crate::layer::Compression;
use crate::oci::assemble::{self, Assembled, Image, Layer};
use crate::oci::{Digest, Reference};
use crate::plan::BuildPlan;
use crate::registry::Content;
use crate::report::{Event, Kind, Problem};
use crate::snapshot;
use crate::solve::{Listed, Origin, Solved};
use crate::source::Puller;
use crate::store::Store;
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::runtime::Handle;

/// What is wanted of a build.
pub struct Outputs {
    specs: Vec<Spec>,
    tags: Vec<Reference>,
    compression: Option<Compression>,
}

impl Outputs {
    /// Reads `--output`, `--push` and `--tag`. With none, the image goes into the local store.
    pub fn of(request: &BuildRequest) -> Result<Self, Failure> {
        let mut specs: Vec<Spec> = Vec::new();
        for text in &request.outputs {
            specs.push(text.parse::<Spec>().map_err(failure)?);
        }
        if request.push {
            specs.push(Spec::push());
        }
        if specs.is_empty() {
            specs.push(Spec::of(Output::Image { push: false, by_digest: false, store: true }));
        }
        let of_caches = request.cache_to.iter().filter_map(|c| c.compression);
        let compression = one_compression(specs.iter().filter_map(|s| s.compression).chain(of_caches))?;
        let outputs = Self { specs, tags: request.tags.clone(), compression };
        outputs.check()?;
        if !outputs.images() && request.cache_to.iter().any(|c| c.at.is_none()) {
            let problem = Problem::new(Kind::Usage, "--cache-to type=inline rides in an image, and none is written");
            return Err(problem.hint("with -o type=image, oci or registry, or with --push").into());
        }
        Ok(outputs)
    }

    fn check(&self) -> Result<(), Problem> {
        let usage = |what: &str| Problem::new(Kind::Usage, what);
        for spec in &self.specs {
            if matches!(spec.kind, Output::Image { push: true, .. }) && self.names(spec).is_empty() {
                return Err(usage("a push needs a name to push to").hint("give one with --tag"));
            }
        }
        let streams = self.specs.iter().filter(|s| writes_to_stdout(&s.kind)).count();
        if streams > 1 {
            return Err(usage("only one output can go to standard output"));
        }
        Ok(())
    }

    /// The names that are pushed to.
    pub fn pushed(&self) -> Vec<Reference> {
        let pushed = self.specs.iter().filter(|s| matches!(s.kind, Output::Image { push: true, .. }));
        pushed.flat_map(|s| self.names(s)).cloned().collect()
    }

    fn names<'a>(&'a self, spec: &'a Spec) -> &'a [Reference] {
        if spec.names.is_empty() { &self.tags } else { &spec.names }
    }

    /// How layers are compressed.
    pub fn compression(&self, otherwise: Compression) -> Compression {
        self.compression.unwrap_or(otherwise)
    }

    /// Whether anything wants layers.
    pub fn images(&self) -> bool {
        self.specs.iter().any(|s| matches!(s.kind, Output::Image { .. } | Output::Oci(_) | Output::Docker(_)))
    }

    /// Whether anything wants the layers of base images too, on this machine.
    pub fn complete(&self) -> bool {
        self.specs
            .iter()
            .any(|s| matches!(s.kind, Output::Image { store: true, .. } | Output::Oci(_) | Output::Docker(_)))
    }

    /// Whether anything wants the root filesystem.
    pub fn trees(&self) -> bool {
        self.specs.iter().any(|s| matches!(s.kind, Output::Local { .. } | Output::Tar { .. }))
    }

    /// Starts what can begin before the build ends.
    pub fn start(&self, session: &Session) -> Arc<Pushing> {
        let pushers = self.specs.iter().filter(|s| matches!(s.kind, Output::Image { push: true, .. })).map(|spec| {
            let runtime = Handle::current();
            let names = self.names(spec).to_vec();
            Pusher::new(session.registry.clone(), names, runtime, session.reporter.clone(), None)
        });
        Arc::new(Pushing {
            pushers: Mutex::new(pushers.collect()),
            store: session.store.clone(),
            puller: super::build::puller(session),
            runtime: Handle::current(),
            failed: Mutex::default(),
        })
    }
}

fn writes_to_stdout(kind: &Output) -> bool {
    matches!(
        kind,
        Output::Tar { dest: Destination::Stdout, .. }
            | Output::Oci(Place::Archive(Destination::Stdout))
            | Output::Docker(Place::Archive(Destination::Stdout))
    )
}

/// The pushes of a build, which begin while it runs.
pub struct Pushing {
    pushers: Mutex<Vec<Pusher>>,
    store: Store,
    puller: Puller,
    runtime: Handle,
    failed: Mutex<Option<Problem>>,
}

impl Pushing {
    /// Takes a layer that is ready.
    pub fn layer(&self, listed: &Listed<'_>) {
        let pushers = self.pushers.lock().unwrap_or_else(PoisonError::into_inner);
        for pusher in pushers.iter() {
            if let Err(problem) = self.give(pusher, listed) {
                self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(problem);
            }
        }
    }

    fn give(&self, pusher: &Pusher, listed: &Listed<'_>) -> Result<(), Problem> {
        let descriptor = listed.layer.descriptor.clone();
        let digest = Digest::try_from(descriptor.digest()).map_err(|e| Problem::new(Kind::Build, e.to_string()))?;
        let content = match self.store.blob(&digest, Some(descriptor.size()))? {
            Some(blob) => Content::File(Arc::new(blob.into_file())),
            None => self.later(listed.layer.clone(), digest, listed.origin),
        };
        let source = match listed.origin {
            Origin::Base { image, .. } => Some(image.op.reference.clone()),
            Origin::Cached { cache, .. } => cache.repository().cloned(),
            Origin::Step => None,
        };
        let blob = PushBlob { descriptor, content, source };
        if listed.new {
            pusher.layer_ready(blob)?
        } else {
            pusher.layer_known(blob)?
        }
        Ok(())
    }

    /// A base image's or a cache's layer, fetched if the registry that it goes to lacks it.
    fn later(&self, layer: Layer, digest: Digest, origin: &Origin) -> Content {
        let (store, puller, runtime, origin) =
            (self.store.clone(), self.puller.clone(), self.runtime.clone(), origin.clone());
        Content::Later(Arc::new(move || {
            match &origin {
                Origin::Base { image, index } => {
                    runtime.block_on(puller.fetch(image.step, &image.op, *index)).map_err(|e| e.to_string())?;
                }
                Origin::Cached { cache, step } => {
                    runtime.block_on(cache.fetch_layer(*step, &layer, &store)).map_err(|e| e.to_string())?;
                }
                Origin::Step => {}
            }
            match store.blob(&digest, None) {
                Ok(Some(blob)) => Ok(blob.into_file()),
                Ok(None) => Err(format!("{digest} is gone from the store")),
                Err(e) => Err(e.to_string()),
            }
        }))
    }

    /// The pushers, once the build is done.
    fn finish(&self) -> Result<Vec<Pusher>, Problem> {
        if let Some(problem) = self.failed.lock().unwrap_or_else(PoisonError::into_inner).take() {
            return Err(problem);
        }
        Ok(std::mem::take(&mut *self.pushers.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Writes everything that is wanted; the text is what standard output gets.
pub async fn write(
    session: &Session,
    request: &BuildRequest,
    plan: &BuildPlan,
    solved: Vec<Solved>,
    wanted: &Outputs,
    pushing: Arc<Pushing>,
) -> Result<String, Problem> {
    let mut pushers = pushing.finish()?.into_iter();
    drop(session.store.settle_ahead());
    let mut id = None;
    for spec in &wanted.specs {
        let names = wanted.names(spec);
        match &spec.kind {
            Output::Image { push, by_digest, store } => {
                let image = assembled(&solved, spec)?;
                if *store {
                    keep(session, &image, names)?;
                }
                if let (true, Some(pusher)) = (*push, pushers.next()) {
                    pusher.finish(&image, *by_digest).await?;
                }
                id = Some(image);
            }
            Output::Oci(place) | Output::Docker(place) => {
                let image = assembled(&solved, spec)?;
                let docker = matches!(spec.kind, Output::Docker(_));
                let created = created(&image);
                let named = Named { image: &image, names, created: &created };
                let layout = Layout { images: &[named], docker };
                layout.write(place, &session.store, stdout())?;
                id = Some(image);
            }
            Output::Local { dest, platform_split } => local(plan, &solved, dest, split(*platform_split, plan))?,
            Output::Tar { dest, platform_split } => tar(plan, &solved, dest, split(*platform_split, plan))?,
        }
    }
    // What the cache knows must outlive a power cut, whatever the outputs were.
    session.store.settle()?;
    account(request, wanted, id.as_ref())
}

fn stdout() -> Box<dyn Write + Send> {
    Box::new(std::io::stdout())
}

/// The images of a build as an output wants them.
fn assembled(solved: &[Solved], spec: &Spec) -> Result<Assembled, Problem> {
    let index = of_index(&spec.annotations, solved.len())?;
    let image = |one: &Solved| -> Result<Image, Problem> {
        let annotations = of_image(&spec.annotations, &one.config.platform());
        assemble::image(one.config.clone(), &one.layers, one.history.clone(), &annotations, spec.flavor)
            .map_err(|e| Problem::new(Kind::Build, e.to_string()))
    };
    let images = solved.iter().map(image).collect::<Result<_, _>>()?;
    Ok(assemble::join(images, &index, spec.flavor))
}

/// When the image says that it was made.
fn created(image: &Assembled) -> String {
    let config = image.images.first().and_then(|i| serde_json::from_slice::<Value>(&i.config.bytes).ok());
    config.and_then(|c| c["created"].as_str().map(str::to_owned)).unwrap_or_default()
}

/// Puts the image into the local store, under its names.
fn keep(session: &Session, image: &Assembled, names: &[Reference]) -> Result<(), Problem> {
    export::keep(&session.store, image)?;
    let Some(top) = image.top() else { return Ok(()) };
    super::local::note_id(&session.store, &top.descriptor)?;
    let settled = session.store.settle()?;
    for name in names {
        session.store.publish(&settled, name, &top.descriptor, &created(image))?;
        session.reporter.send(Event::Note(format!("stored {}", name.familiar())));
    }
    Ok(())
}

/// Whether an output has a folder for each platform.
fn split(asked: Option<bool>, plan: &BuildPlan) -> bool {
    asked.unwrap_or(plan.targets.len() > 1)
}

fn local(plan: &BuildPlan, solved: &[Solved], dest: &Path, split: bool) -> Result<(), Problem> {
    for (target, one) in plan.targets.iter().zip(solved) {
        let dest = if split { dest.join(folder_name(&target.platform)) } else { dest.to_owned() };
        let mut folder = Folder::create(&dest)?;
        flatten(one, &mut folder)?;
        folder.finish()?;
    }
    Ok(())
}

fn tar(plan: &BuildPlan, solved: &[Solved], dest: &Destination, split: bool) -> Result<(), Problem> {
    let mut tar = RootTar::new(export::Output::open(dest, stdout())?);
    for (target, one) in plan.targets.iter().zip(solved) {
        if split {
            let mut under = Under::new(&mut tar, &folder_name(&target.platform)).map_err(export::Error::from)?;
            flatten(one, &mut under)?;
        } else {
            flatten(one, &mut tar)?;
        }
    }
    Ok(tar.finish()?)
}

/// The files of an image, through all of its layers.
fn flatten(one: &Solved, sink: &mut dyn crate::layer::EntrySink) -> Result<(), Problem> {
    snapshot::flatten(&one.files.view(), sink).map_err(|e| cannot("write the result", &e))
}

/// Writes `--iidfile` and `--metadata-file`; the text is the image's id where it was asked for.
fn account(request: &BuildRequest, wanted: &Outputs, image: Option<&Assembled>) -> Result<String, Problem> {
    let Some(image) = image else { return Ok(String::new()) };
    let Some(top) = image.top() else { return Ok(String::new()) };
    let config = match (&image.index, image.images.first()) {
        (None, Some(one)) => Some(one.config.descriptor.digest().to_string()),
        _ => None,
    };
    let digest = top.descriptor.digest().to_string();
    let id = config.clone().unwrap_or_else(|| digest.clone());
    if let Some(path) = &request.iidfile {
        write_file(path, id.as_bytes())?;
    }
    let mut account = Map::new();
    if let Some(config) = config {
        account.insert("containerimage.config.digest".into(), json!(config));
    }
    account.insert("containerimage.descriptor".into(), assemble::value(&top.descriptor));
    account.insert("containerimage.digest".into(), json!(digest));
    let names: Vec<String> = wanted.specs.iter().flat_map(|s| wanted.names(s)).map(ToString::to_string).collect();
    if !names.is_empty() {
        account.insert("image.name".into(), json!(names.join(",")));
    }
    write_account(request, &account)?;
    Ok(if request.print_id { format!("{id}\n") } else { String::new() })
}

/// Says in `--metadata-file` why a build failed; a RUN's own exit code is there.
pub fn account_for_failure(request: &BuildRequest, problem: &Problem) {
    let mut error = Map::new();
    error.insert("message".into(), json!(problem.message));
    error.insert("exitCode".into(), json!(problem.run_exit_code));
    let mut account = Map::new();
    account.insert("kiln.error".into(), Value::Object(error));
    // The build has failed already, and that is what a person must be told.
    let _ = write_account(request, &account);
}

fn write_account(request: &BuildRequest, account: &Map<String, Value>) -> Result<(), Problem> {
    match &request.metadata_file {
        None => Ok(()),
        Some(path) => {
            let text = serde_json::to_string_pretty(account).unwrap_or_default();
            write_file(path, text.as_bytes())
        }
    }
}

/// Writes a file beside its place and renames it.
fn write_file(path: &PathBuf, bytes: &[u8]) -> Result<(), Problem> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let refused = |e: std::io::Error| cannot(&format!("write {}", path.display()), &e);
    let mut file = tempfile::NamedTempFile::new_in(folder).map_err(refused)?;
    file.write_all(bytes).map_err(refused)?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(refused)?;
    file.persist(path).map(drop).map_err(|e| refused(e.error))
}
