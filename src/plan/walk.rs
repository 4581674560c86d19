//! Goes through the stages of one platform: which are needed, what triggers their bases bring, and then each instruction.

use super::dispatch::{self, Cx};
use super::globals::Globals;
use super::lower::Shared;
use super::names::Counter;
use super::op::{Target, VertexId};
use super::origin::{self, Origin};
use super::outline::{self, Outline, StageOutline};
use super::resolved::ImageKey;
use super::stages::{Base, Command, External, Source, Stage, StageId, Stages};
use super::state::State;
use super::triggers;
use crate::dockerfile::ast::Kind;
use crate::dockerfile::quote::quoted;
use crate::oci::Platform;
use crate::report::{Diagnostic, Span};

/// What a step takes of memory besides its text, and how often the text of a trigger is there, about.
const STEP: usize = 500;
const TRIGGER: usize = 8;

/// The planning for one platform.
pub(super) struct Walk<'s, 'a> {
    pub(super) shared: &'s mut Shared<'a>,
    globals: Globals,
    stages: Stages<'a>,
    pub(super) platform: &'s Platform,
    /// The stages gone through so far.
    done: Vec<Done>,
    /// Whether steps are numbered without naming a stage.
    single: bool,
    /// What they say about themselves.
    outlines: Vec<StageOutline>,
}

/// A stage gone through.
#[derive(Debug, Clone, Default)]
struct Done {
    /// Its files; `None` before it is done.
    tree: Option<Option<VertexId>>,
    /// What it became, for as long as anything stands on it: a long chain of stages must not keep every history.
    state: Option<State>,
    /// What that takes of memory.
    weight: usize,
    /// How many stages will still stand on it, the image that is made counted with them.
    heirs: usize,
}

impl Done {
    /// What it became, for one of those that stand on it.
    fn inherit(&mut self) -> Option<State> {
        self.heirs = self.heirs.saturating_sub(1);
        if self.heirs == 0 { self.state.take() } else { self.state.clone() }
    }
}

impl<'s, 'a> Walk<'s, 'a> {
    pub(super) fn new(
        shared: &'s mut Shared<'a>,
        globals: Globals,
        stages: Stages<'a>,
        platform: &'s Platform,
    ) -> Self {
        let (done, outlines) =
            (vec![Done::default(); stages.list.len()], vec![StageOutline::default(); stages.list.len()]);
        Self { shared, globals, stages, platform, done, single: false, outlines }
    }

    /// Plans everything that `target` needs; `None` when something is wrong or wanted.
    pub(super) fn run(mut self, target: StageId) -> Option<Target> {
        self.stages_for(target)?;
        let mut state = self.done.get_mut(target)?.inherit()?;
        for (name, value) in &self.shared.args.labels {
            state.image.config.labels.insert(name.clone(), value.clone());
        }
        let explicit = (!self.shared.args.platforms.is_empty()).then_some(self.platform);
        Some(state.into_target(explicit, &mut self.shared.vertices))
    }

    /// What `target` can be given; `None` when something is wrong or wanted.
    pub(super) fn outline(mut self, target: StageId) -> Option<Outline> {
        self.stages_for(target)?;
        Some(outline::gather(self.shared.file, target, &self.stages, &self.globals, &self.outlines))
    }

    /// Goes through the stages that `target` needs.
    fn stages_for(&mut self, target: StageId) -> Option<()> {
        self.check_names();
        let needed = self.resolve(target)?;
        let ids: Vec<StageId> = (0..needed.len()).filter(|id| needed[*id]).collect();
        self.done[target].heirs += 1;
        for id in &ids {
            if let Base::Stage(base) = self.stages.list[*id].base {
                self.done[base].heirs += 1;
            }
        }
        // A mount without `from` is a stage of its own to BuildKit, and so is an image that is copied from.
        let mut sources = self.stages.list.iter().flat_map(|s| &s.commands).flat_map(|c| &c.sources);
        self.single = self.stages.list.len() == 1 && sources.all(|s| matches!(s, Some(Source::Stage(_))));
        for id in ids {
            let state = self.stage(id);
            let done = &mut self.done[id];
            done.weight = if done.heirs > 0 { state.weight() } else { 0 };
            if let Err(error) = self.shared.budget.take(done.weight, self.stages.list[id].span) {
                self.shared.findings.error(error);
            }
            done.tree = Some(state.tree());
            done.state = Some(state).filter(|_| done.heirs > 0);
        }
        Some(())
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
            let stop = !self.shared.wanted.is_empty() && !self.shared.guess;
            if stop || !self.shared.findings.errors.is_empty() {
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

    pub(super) fn origin(&self, external: &External) -> Result<Origin, Diagnostic> {
        let platform = external.platform.as_ref().unwrap_or(self.platform);
        origin::origin(external, platform, &self.stages, self.shared.args)
    }

    pub(super) fn want_image(&mut self, key: ImageKey, span: Span) {
        let wanted = &mut self.shared.wanted.images;
        if !self.shared.known.images.contains_key(&key) && !wanted.iter().any(|(k, _)| *k == key) {
            wanted.push((key, span));
        }
    }

    /// Adds the ONBUILD triggers of a stage's base to it; whether there were any.
    fn trigger(&mut self, id: StageId) -> bool {
        let untried = |s: &&Stage<'a>| !s.triggered && !self.shared.budget.is_exhausted();
        let Some(stage) = self.stages.list.get(id).filter(untried) else { return false };
        let span = stage.span;
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
        let weight: usize = commands.iter().map(|c| c.instruction.header.original.len() * TRIGGER + STEP).sum();
        if let Err(error) = self.shared.budget.take(weight, span) {
            self.shared.findings.error(error);
        }
        let any = !commands.is_empty();
        self.stages.add_triggers(id, commands, &mut self.shared.findings);
        any
    }

    /// Goes through a stage.
    fn stage(&mut self, id: StageId) -> State {
        if self.shared.budget.is_exhausted() {
            return State::scratch(self.platform);
        }
        let (base, span) = (self.stages.list[id].base.clone(), self.stages.list[id].span);
        let mut counter = self.counter(id);
        let key = match self.stages.list[id].name.as_str() {
            "" => id.to_string(),
            name => name.to_owned(),
        };
        let mut state = match &base {
            Base::Stage(base) => self.child_of(*base, span),
            Base::External(external) => self.on_external(external, &mut counter),
        };
        let name = &self.stages.list[id].name;
        if let Some(id) = state.tree().filter(|_| matches!(base, Base::External(_))) {
            self.shared.vertices.put_into_stage(id, &key);
        }
        state.stage = key;
        state.no_cache = self.shared.args.ignores_cache(name);
        counter.platform = counter.platform.map(|_| state.platform.clone());
        state.names = counter;
        let replaced = matches!(&base, Base::External(e) if !name.is_empty() && e.text == *name);
        if !replaced {
            state.begin();
        }
        let commands = std::mem::take(&mut self.stages.list[id].commands);
        for command in &commands {
            self.command(id, &mut state, command);
        }
        self.stages.list[id].commands = commands;
        state
    }

    fn child_of(&mut self, base: StageId, span: Span) -> State {
        let inherited = self.done.get_mut(base).and_then(Done::inherit);
        if let Some(done) = self.done.get(base).filter(|done| done.state.is_none()) {
            // It was moved, not copied.
            self.shared.budget.give_back(done.weight);
        }
        match inherited {
            Some(state) => state.into_child(),
            None => {
                let name = self.stages.shown_name(base);
                let message = format!("stage {} needs to be defined before a stage that stands on it", quoted(&name));
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
        Counter {
            stage: (!self.single).then(|| self.stages.shown_name(id)),
            total,
            platform: (self.shared.args.platforms.len() > 1).then(|| self.platform.clone()),
            ..Counter::default()
        }
    }

    fn command(&mut self, id: StageId, state: &mut State, command: &Command<'a>) {
        if self.shared.budget.is_exhausted() {
            return;
        }
        let sources = command.sources.iter().map(|source| self.source(source.as_ref())).collect();
        let foreign = match &self.stages.list[id].base {
            Base::External(base) if command.reported_at.is_some() => Some(base.text.clone()),
            _ => None,
        };
        let (errors, warnings) = (self.shared.findings.errors.len(), self.shared.findings.warnings.len());
        let mut cx = Cx {
            shared: self.shared,
            globals: &self.globals,
            outline: &mut self.outlines[id],
            onbuild: command.onbuild,
            foreign,
            sources,
        };
        let before = state.history.len();
        let done = dispatch::instruction(&mut cx, state, &command.instruction);
        let done = done.and_then(|()| {
            let history = state.history.iter().skip(before).map(|entry| entry.weight()).sum::<usize>();
            let header = &command.instruction.header;
            self.shared.budget.take(history + header.original.len() + STEP, header.span)
        });
        if let Err(error) = done {
            // Without the image, a variable may be unset only because nobody looked.
            if !(state.guessed && command.instruction.header.original.contains('$')) {
                self.shared.findings.error(error);
            }
        }
        if let Some(span) = command.reported_at {
            let findings = &mut self.shared.findings;
            findings.errors[errors..].iter_mut().for_each(|e| e.span = span);
            findings.warnings[warnings..].iter_mut().for_each(|w| w.span = span);
        }
    }

    /// The files that an instruction reads; `None` for the context, an error for a stage that comes later.
    fn source(&mut self, source: Option<&Source>) -> Option<Result<Option<VertexId>, String>> {
        match source? {
            Source::Stage(id) => match self.done.get(*id).and_then(|done| done.tree) {
                Some(tree) => Some(Ok(tree)),
                None => Some(Err(self.stages.shown_name(*id))),
            },
            Source::External(external) => Some(Ok(self.on_external(external, &mut Counter::default()).tree())),
        }
    }
}

/// Everything that a stage names outside of the file.
fn externals<'s>(stage: &'s Stage<'_>) -> impl Iterator<Item = &'s External> {
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
