//! From stages to vertices: resolves what the needed stages stand on, then goes through their instructions.

use super::args::BuildArgs;
use super::dispatch::{self, Cx};
use super::globals::Globals;
use super::lint::{self, Findings};
use super::names::Counter;
use super::op::{BuildPlan, ImageOp, Op, Target};
use super::origin::{self, Origin};
use super::resolved::{ImageKey, ImageName, ResolvedBases, ResolvedImage, Wanted};
use super::stages::{Base, Command, External, Source, StageId, Stages};
use super::state::{Root, State};
use super::vertices::Vertices;
use super::{epoch, triggers};
use crate::dockerfile::ast::{Dockerfile, Kind};
use crate::oci::Platform;
use crate::report::{Diagnostic, Span};

/// Everything that the platforms of a build share.
pub(super) struct Shared<'a> {
    pub(super) file: &'a Dockerfile,
    pub(super) args: &'a BuildArgs,
    pub(super) known: &'a ResolvedBases,
    pub(super) vertices: Vertices,
    pub(super) wanted: Wanted,
    pub(super) findings: Findings,
}

/// What a build needs to know before [`lower`] can plan it, apart from what is `known` already.
///
/// # Errors
/// Every mistake of the file that shows without knowing more.
pub fn bases(file: &Dockerfile, args: &BuildArgs, known: &ResolvedBases) -> Result<Wanted, Vec<Diagnostic>> {
    let mut shared = Shared::new(file, args, known);
    shared.targets();
    if shared.findings.errors.is_empty() { Ok(shared.wanted) } else { Err(shared.findings.errors) }
}

/// Plans a build: the plan, and what the lints that need expansion found.
///
/// # Errors
/// Every mistake of the file; something that [`bases`] wants and `known` doesn't have is one too.
pub fn lower(
    file: &Dockerfile,
    known: &ResolvedBases,
    args: &BuildArgs,
) -> Result<(BuildPlan, Vec<Diagnostic>), Vec<Diagnostic>> {
    let mut shared = Shared::new(file, args, known);
    let targets = shared.targets();
    shared.refuse_wanted();
    if !shared.findings.errors.is_empty() {
        return Err(shared.findings.errors);
    }
    let epoch = shared.epoch();
    shared.unused_values();
    Ok((shared.vertices.into_plan(targets, epoch), shared.findings.warnings))
}

impl<'a> Shared<'a> {
    fn new(file: &'a Dockerfile, args: &'a BuildArgs, known: &'a ResolvedBases) -> Self {
        Self {
            file,
            args,
            known,
            vertices: Vertices::default(),
            wanted: Wanted::default(),
            findings: Findings::default(),
        }
    }

    fn targets(&mut self) -> Vec<Target> {
        let args = self.args;
        args.targets().iter().filter_map(|platform| self.target(platform)).collect()
    }

    /// Plans one platform; `None` when something is wrong or wanted.
    fn target(&mut self, platform: &'a Platform) -> Option<Target> {
        let globals = match Globals::read(self.file, self.args, platform) {
            Ok(globals) => globals,
            Err(error) => {
                self.findings.error(error);
                return None;
            }
        };
        if let Ok(defaults) = Globals::of_defaults(self.file, self.args, platform) {
            lint::defaults_in_from(self.file, &defaults, &mut self.findings);
        }
        if let Err(error) = epoch::check(self.file, self.args, &globals) {
            self.findings.error(error);
        }
        let stages = Stages::read(self.file, &globals, self.args, platform, &mut self.findings);
        let target = match stages.target(self.args.target.as_deref()) {
            Ok(target) => target,
            Err(error) => {
                self.findings.error(error);
                return None;
            }
        };
        Lowering::new(self, globals, stages, platform).run(target)
    }

    /// In [`lower`] everything must be known.
    fn refuse_wanted(&mut self) {
        let wanted = std::mem::take(&mut self.wanted);
        let images = wanted.images.iter().map(|(key, at)| (*at, format!("{} for {}", key.name, key.platform)));
        let git = wanted.git.iter().map(|(key, at)| (*at, format!("{}#{}", key.remote, key.reference)));
        let http = wanted.http.iter().map(|(key, at)| (*at, key.url.clone()));
        for (at, what) in images.chain(git).chain(http) {
            self.findings.error(Diagnostic::error(at, format!("{what} is not resolved")));
        }
    }

    fn epoch(&self) -> Option<i64> {
        let globals = Globals::read(self.file, self.args, self.args.targets().first()?).ok()?;
        epoch::resolve(self.file, self.args, &globals, self.known)
    }

    /// `--build-arg`s that no ARG of the file declares.
    fn unused_values(&mut self) {
        let file = self.file;
        let instructions = file.global_args.iter().chain(file.stages.iter().flat_map(|s| &s.instructions));
        let declared: Vec<&str> = instructions
            .filter_map(|i| match &i.kind {
                Kind::Arg(pairs) => Some(pairs.iter().map(|p| p.name.text.as_str())),
                _ => None,
            })
            .flatten()
            .collect();
        let unused: Vec<&str> = self
            .args
            .values
            .keys()
            .map(String::as_str)
            .filter(|name| !declared.contains(name) && !dispatch::is_predefined(name))
            .collect();
        if !unused.is_empty() {
            let message = format!("One or more build-args [{}] were not consumed", unused.join(" "));
            let warning = Diagnostic { rule: None, ..Diagnostic::warning("", Span::default(), message) };
            self.findings.warnings.push(warning);
        }
    }
}

/// The planning for one platform.
pub(super) struct Lowering<'s, 'a> {
    shared: &'s mut Shared<'a>,
    globals: Globals,
    stages: Stages<'a>,
    platform: &'s Platform,
    /// The stages gone through so far.
    done: Vec<Option<State>>,
}

impl<'s, 'a> Lowering<'s, 'a> {
    pub(super) fn new(
        shared: &'s mut Shared<'a>,
        globals: Globals,
        stages: Stages<'a>,
        platform: &'s Platform,
    ) -> Self {
        let done = vec![None; stages.list.len()];
        Self { shared, globals, stages, platform, done }
    }

    fn run(mut self, target: StageId) -> Option<Target> {
        self.check_names();
        let needed = self.resolve(target)?;
        for id in (0..self.stages.list.len()).filter(|id| needed[*id]) {
            let state = self.stage(id);
            self.done[id] = Some(state);
        }
        let mut state = self.done.get_mut(target)?.take()?;
        for (name, value) in &self.shared.args.labels {
            state.image.config.labels.insert(name.clone(), value.clone());
        }
        let explicit = (!self.shared.args.platforms.is_empty()).then_some(self.platform);
        Some(state.into_target(explicit, &mut self.shared.vertices))
    }

    /// Names that can't be names are errors in stages that nobody needs, too.
    fn check_names(&mut self) {
        for external in self.stages.list.iter().flat_map(externals) {
            if let Err(error) = origin::check_name(external, &self.stages, self.shared.args) {
                self.shared.findings.error(error);
            }
        }
    }

    /// Finds the stages that `target` needs, together with the triggers that their bases bring; `None` when images have
    /// to be resolved first, or something is wrong.
    fn resolve(&mut self, target: StageId) -> Option<Vec<bool>> {
        loop {
            let needed = self.stages.reachable(target, self.shared.args.all_stages);
            let ids: Vec<StageId> = (0..needed.len()).filter(|id| needed[*id]).collect();
            for id in &ids {
                self.want(*id);
            }
            if !self.shared.wanted.is_empty() || !self.shared.findings.errors.is_empty() {
                return None;
            }
            // Not `any`: every stage gets its triggers.
            let new = ids.iter().filter(|id| self.trigger(**id)).count();
            if new == 0 {
                return Some(needed);
            }
        }
    }

    /// Notes the images of a stage that aren't known yet.
    fn want(&mut self, id: StageId) {
        let named: Vec<External> = self.stages.list.get(id).into_iter().flat_map(externals).cloned().collect();
        for external in named {
            match self.origin(&external) {
                Ok(Origin::Image(key, _)) => self.want_image(key, external.span),
                Ok(_) => {}
                Err(error) => self.shared.findings.error(error),
            }
        }
    }

    fn origin(&self, external: &External) -> Result<Origin, Diagnostic> {
        let platform = external.platform.as_ref().unwrap_or(self.platform);
        origin::origin(external, platform, &self.stages, self.shared.args)
    }

    fn want_image(&mut self, key: ImageKey, span: Span) {
        let wanted = &mut self.shared.wanted.images;
        if !self.shared.known.images.contains_key(&key) && !wanted.iter().any(|(k, _)| *k == key) {
            wanted.push((key, span));
        }
    }

    /// Adds the ONBUILD triggers of a stage's base to it; whether there were any.
    fn trigger(&mut self, id: StageId) -> bool {
        let Some(stage) = self.stages.list.get(id).filter(|s| !s.triggered) else { return false };
        let found = match &stage.base {
            Base::Stage(base) => triggers::of_stage(&self.stages.list[*base].commands),
            Base::External(external) => match self.origin(external) {
                Ok(Origin::Image(key, _)) => match self.shared.known.images.get(&key) {
                    Some(image) => triggers::of_image(&image.config.config.on_build, stage.span),
                    None => return false,
                },
                _ => return false,
            },
        };
        let commands = found.unwrap_or_else(|errors| {
            errors.into_iter().for_each(|e| self.shared.findings.error(e));
            Vec::new()
        });
        let any = !commands.is_empty();
        self.stages.add_triggers(id, commands, &mut self.shared.findings);
        any
    }

    /// Goes through a stage.
    fn stage(&mut self, id: StageId) -> State {
        let (base, span) = (self.stages.list[id].base.clone(), self.stages.list[id].span);
        let mut counter = self.counter(id);
        let mut state = match &base {
            Base::Stage(base) => self.child_of(*base, span),
            Base::External(external) => self.on_external(external, &mut counter),
        };
        let name = &self.stages.list[id].name;
        state.stage = if name.is_empty() { id.to_string() } else { name.clone() };
        state.no_cache = self.shared.args.ignores_cache(name);
        counter.platform = counter.platform.map(|_| state.platform.clone());
        state.names = counter;
        let replaced = matches!(&base, Base::External(e) if !name.is_empty() && e.text == *name);
        if !replaced {
            state.begin();
        }
        let commands = std::mem::take(&mut self.stages.list[id].commands);
        for command in &commands {
            self.command(&mut state, command);
        }
        self.stages.list[id].commands = commands;
        state
    }

    fn child_of(&mut self, base: StageId, span: Span) -> State {
        match self.done.get(base).and_then(Option::as_ref) {
            Some(state) => state.child(),
            None => {
                let name = self.stages.shown_name(base);
                let message = format!("stage {name:?} needs to be defined before a stage that stands on it");
                self.shared.findings.error(Diagnostic::error(span, message));
                State::scratch(self.platform)
            }
        }
    }

    /// How the steps of a stage are counted.
    fn counter(&self, id: StageId) -> Counter {
        let stage = &self.stages.list[id];
        let base = usize::from(matches!(&stage.base, Base::External(e) if e.text != "scratch"));
        let counted = |c: &&Command<'_>| {
            matches!(c.instruction.kind, Kind::Add(_) | Kind::Copy(_) | Kind::Run(_) | Kind::Workdir(_))
        };
        // BuildKit counts every trigger, whatever it does.
        let total = base + stage.commands.iter().filter(|c| c.onbuild || counted(c)).count();
        let sources = self.stages.list.iter().flat_map(|s| &s.commands).flat_map(|c| &c.sources).flatten();
        let single = self.stages.list.len() == 1 && sources.clone().all(|s| matches!(s, Source::Stage(_)));
        Counter {
            stage: (!single).then(|| self.stages.shown_name(id)),
            total,
            platform: (self.shared.args.platforms.len() > 1).then(|| self.platform.clone()),
            ..Counter::default()
        }
    }

    /// A stage or a source that stands on something outside of the file.
    fn on_external(&mut self, external: &External, counter: &mut Counter) -> State {
        let platform = external.platform.clone().unwrap_or_else(|| self.platform.clone());
        let origin = match self.origin(external) {
            Ok(origin) => origin,
            Err(error) => {
                self.shared.findings.error(error);
                Origin::Scratch
            }
        };
        match origin {
            // BuildKit forgets the platform of `FROM --platform=… scratch`.
            Origin::Scratch => State::scratch(self.platform),
            Origin::Image(key, context) => self.on_image(&key, context.as_deref(), external, counter),
            Origin::Local(name) => self.on_tree(dispatch::local(&name), &platform),
            Origin::Git(git, name) => {
                let found = dispatch::git(self.shared, &git, git.keep_git_dir.unwrap_or(false), external.span);
                self.on_found(found, format!("[context {name}] {}", git.remote), &platform)
            }
            Origin::Http(key, name) => {
                let found = dispatch::http(self.shared, &key, "context", external.span);
                self.on_found(found, format!("[context {name}] {}", key.url), &platform)
            }
        }
    }

    fn on_found(&mut self, found: Result<Op, Diagnostic>, name: String, platform: &Platform) -> State {
        match found {
            Ok(op) => self.on_tree((op, name), platform),
            Err(error) => {
                self.shared.findings.error(error);
                State::scratch(platform)
            }
        }
    }

    fn on_tree(&mut self, (op, name): (Op, String), platform: &Platform) -> State {
        let mut state = State::scratch(platform);
        let id = self.shared.vertices.add(state.vertex(op, name, Span::default()));
        state.root = Root::Tree(id);
        state
    }

    fn on_image(&mut self, key: &ImageKey, context: Option<&str>, external: &External, counter: &mut Counter) -> State {
        let Some(image) = self.shared.known.images.get(key) else {
            self.want_image(key.clone(), external.span);
            return State::scratch(&key.platform);
        };
        let actual = image.config.platform();
        lint::base_platform(&external.text, &key.platform, &actual, external.span, &mut self.shared.findings);
        let state = State::new(Root::Empty, image.config.clone(), &key.platform);
        if image.layers.is_empty() {
            return state;
        }
        let name = match context {
            Some(context) => format!("[context {context}] {}", image.reference),
            None => counter.next(&format!("FROM {}", image.reference), false, &state.env),
        };
        let op = Op::Image(image_op(key, image));
        let id = self.shared.vertices.add(state.vertex(op, name, external.span));
        State { root: Root::Layers(id), ..state }
    }

    fn command(&mut self, state: &mut State, command: &Command<'a>) {
        let sources = command.sources.iter().map(|source| self.source(source.as_ref())).collect();
        let (errors, warnings) = (self.shared.findings.errors.len(), self.shared.findings.warnings.len());
        let mut cx = Cx { shared: self.shared, globals: &self.globals, onbuild: command.onbuild, sources };
        if let Err(error) = dispatch::instruction(&mut cx, state, &command.instruction) {
            self.shared.findings.error(error);
        }
        if let Some(span) = command.reported_at {
            let findings = &mut self.shared.findings;
            findings.errors[errors..].iter_mut().for_each(|e| e.span = span);
            findings.warnings[warnings..].iter_mut().for_each(|w| w.span = span);
        }
    }

    /// The files that an instruction reads; `None` for the context, an error for a stage that comes later.
    fn source(&mut self, source: Option<&Source>) -> Option<Result<Option<super::op::VertexId>, String>> {
        match source? {
            Source::Stage(id) => match self.done.get(*id).and_then(Option::as_ref) {
                Some(state) => Some(Ok(state.tree())),
                None => Some(Err(self.stages.shown_name(*id))),
            },
            Source::External(external) => Some(Ok(self.on_external(external, &mut Counter::default()).tree())),
        }
    }
}

/// Everything that a stage names outside of the file.
fn externals<'s>(stage: &'s super::stages::Stage<'_>) -> impl Iterator<Item = &'s External> {
    let base = match &stage.base {
        Base::External(external) => Some(external),
        Base::Stage(_) => None,
    };
    let sources = stage.commands.iter().flat_map(|c| &c.sources).flatten();
    base.into_iter().chain(sources.filter_map(|source| match source {
        Source::External(external) => Some(external),
        Source::Stage(_) => None,
    }))
}

fn image_op(key: &ImageKey, image: &ResolvedImage) -> ImageOp {
    let layout = match &key.name {
        ImageName::Layout(path) => Some(path.clone()),
        ImageName::Registry(_) => None,
    };
    ImageOp {
        reference: image.reference.clone(),
        layout,
        manifest: image.manifest.clone(),
        platform: key.platform.clone(),
        layers: image.layers.clone(),
    }
}
