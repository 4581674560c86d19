//! A stage while its instructions are gone through.

use super::env::{self, Env};
use super::names::Counter;
use super::op::{CopyAction, FileAction, FileOp, HistoryEntry, Op, Target, Vertex, VertexId};
use super::paths;
use super::vertices::Vertices;
use crate::oci::{ContainerConfig, ImageConfig, Platform, RootFs};
use crate::report::Span;

/// The PATH of images that set none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a stage has become so far.
#[derive(Debug, Clone)]
pub(super) struct State {
    /// Its files.
    pub(super) root: Root,
    /// The variables that instructions see and processes get: ENV and ARG.
    pub(super) env: Env,
    /// The configuration of the image that it would make.
    pub(super) image: ImageConfig,
    /// Its history.
    pub(super) history: Vec<HistoryEntry>,
    /// What it runs on.
    pub(super) platform: Platform,
    /// Its ARGs and those of the stages below, in order.
    pub(super) args: Vec<(String, Option<String>)>,
    /// Whether a WORKDIR of this file has been seen.
    pub(super) workdir_set: bool,
    /// Whether a CMD of this very stage has been seen: ENTRYPOINT drops inherited ones only.
    pub(super) cmd_set: bool,
    /// Its name, for `Vertex::stage`: its own or its number.
    pub(super) stage: String,
    /// What its steps are called.
    pub(super) names: Counter,
    /// Run its steps although the cache may know them.
    pub(super) no_cache: bool,
    /// Whether it stands on an image that nothing is known of, so that any variable may be set.
    pub(super) guessed: bool,
}

/// The files of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// None.
    Empty,
    /// A root filesystem.
    Layers(VertexId),
    /// A tree that is no root filesystem yet: a named context.
    Tree(VertexId),
}

impl State {
    /// Nothing but a platform: `FROM scratch`.
    pub(super) fn scratch(platform: &Platform) -> Self {
        let config = ContainerConfig { working_dir: "/".into(), ..ContainerConfig::default() };
        Self::new(Root::Empty, ImageConfig { config, ..ImageConfig::scratch(platform) }, platform)
    }

    /// What stands on an image.
    pub(super) fn new(root: Root, mut image: ImageConfig, platform: &Platform) -> Self {
        // Triggers run in the child and are not handed on.
        image.config.on_build.clear();
        Self {
            root,
            env: Env::default(),
            history: image.history.iter().cloned().map(HistoryEntry::Base).collect(),
            image: ImageConfig { created: None, history: Vec::new(), rootfs: RootFs::default(), ..image },
            platform: platform.clone(),
            args: Vec::new(),
            workdir_set: false,
            cmd_set: false,
            stage: String::new(),
            names: Counter::default(),
            no_cache: false,
            guessed: false,
        }
    }

    /// About how many bytes of memory a copy takes.
    pub(super) fn weight(&self) -> usize {
        let config = &self.image.config;
        let history = self.history.iter().map(|entry| entry.weight());
        let labels = config.labels.iter().map(|(name, value)| name.len() + value.len() + 100);
        let args = self.args.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, String::len) + 100);
        // The image's own variables are about the same again.
        2 * self.env.weight() + history.chain(labels).chain(args).sum::<usize>()
    }

    /// A stage that stands on this one.
    pub(super) fn into_child(mut self) -> Self {
        self.image.config.on_build.clear();
        self.cmd_set = false;
        self
    }

    /// Takes over what the image's configuration says, before the first instruction.
    pub(super) fn begin(&mut self) {
        let config = &mut self.image.config;
        if !config.env.iter().any(|pair| env::split(pair).0 == "PATH") {
            config.env.push(format!("PATH={DEFAULT_PATH}"));
        }
        for pair in &config.env {
            let (name, value) = env::split(pair);
            self.env.set(name, value);
        }
        let dir = config.working_dir.clone();
        if !dir.is_empty() {
            self.set_workdir(&dir);
        }
    }

    /// Sets the folder that instructions start from. BuildKit cleans relative paths and keeps absolute ones as written.
    pub(super) fn set_workdir(&mut self, path: &str) {
        let dir = &mut self.image.config.working_dir;
        *dir = if path.starts_with('/') { path.to_owned() } else { paths::join(dir, path) };
    }

    /// The folder that instructions start from, clean.
    pub(super) fn dir(&self) -> String {
        paths::join("/", &self.image.config.working_dir)
    }

    /// Its files, for reading.
    pub(super) fn tree(&self) -> Option<VertexId> {
        match self.root {
            Root::Empty => None,
            Root::Layers(id) | Root::Tree(id) => Some(id),
        }
    }

    /// Its root filesystem: a context's files become one layer.
    pub(super) fn layers(&mut self, vertices: &mut Vertices) -> Option<VertexId> {
        if let Root::Tree(tree) = self.root {
            let copy = CopyAction::plain(Some(tree), &["/"], "/");
            let op = FileOp { base: None, actions: vec![FileAction::Copy(copy)], link: false, workdir: false };
            let name = "[internal] copy the context that the stage stands on".to_owned();
            self.root = Root::Layers(vertices.add(self.vertex(Op::File(op), name, Span::default())));
        }
        self.tree()
    }

    /// A step of this stage.
    pub(super) fn vertex(&self, op: Op, name: String, span: Span) -> Vertex {
        Vertex { op, name, span, stage: self.stage.clone(), no_cache: false }
    }

    /// Notes an instruction that made a layer on top of the files.
    pub(super) fn add_layer(&mut self, layer: VertexId, created_by: String) {
        self.root = Root::Layers(layer);
        self.history.push(HistoryEntry::Instruction { created_by, layer: Some(layer) });
    }

    /// Notes an instruction that changed the configuration only.
    pub(super) fn add_change(&mut self, created_by: String) {
        self.history.push(HistoryEntry::Instruction { created_by, layer: None });
    }

    /// The image that it makes. An explicit platform is what the image says of itself.
    pub(super) fn into_target(mut self, explicit: Option<&Platform>, vertices: &mut Vertices) -> Target {
        let root = self.layers(vertices);
        if let Some(platform) = explicit {
            let same = (&platform.os, &platform.arch) == (&self.image.os, &self.image.architecture);
            self.image.os.clone_from(&platform.os);
            self.image.architecture.clone_from(&platform.arch);
            if !platform.variant.is_empty() || !same {
                self.image.variant.clone_from(&platform.variant);
            }
        }
        let platform = self.image.platform();
        self.image.os.clone_from(&platform.os);
        self.image.architecture.clone_from(&platform.arch);
        self.image.variant.clone_from(&platform.variant);
        Target { platform, root, config: self.image, history: self.history }
    }
}
