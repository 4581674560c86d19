//! The stages of a file, what each stands on and reads from, and which of them a target needs.

use super::args::{BuildArgs, Context};
use super::env::Env;
use super::globals::Globals;
use super::lint::{self, Findings};
use super::{suggest, words};
use crate::dockerfile::ast::{self, Dockerfile, Escape, Instruction, Kind};
use crate::dockerfile::quote::quoted;
use crate::oci::Platform;
use crate::report::{Diagnostic, Span};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

/// The longest name of a base: of an image, a stage or a context.
const MAX_NAME: usize = 4096;

/// A stage's number in the file.
pub(super) type StageId = usize;

/// The stages in order.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    pub(super) list: Vec<Stage<'a>>,
    by_name: HashMap<String, StageId>,
    escape: Escape,
    args: &'a BuildArgs,
    platform: &'a Platform,
}

/// One stage.
#[derive(Debug)]
pub(super) struct Stage<'a> {
    /// Its name in lower case; empty without one.
    pub(super) name: String,
    /// Its FROM.
    pub(super) span: Span,
    /// What it stands on.
    pub(super) base: Base,
    /// Its instructions, ONBUILD triggers of the base first.
    pub(super) commands: Vec<Command<'a>>,
    /// Whether the triggers of its base are among them already.
    pub(super) triggered: bool,
    /// The global ARGs that its FROM uses.
    pub(super) used_args: BTreeSet<String>,
}

/// What a stage stands on.
#[derive(Debug, Clone)]
pub(super) enum Base {
    /// Another stage.
    Stage(StageId),
    /// Something that isn't in the file.
    External(External),
}

/// The name of something that isn't in the file: an image, a named context or `scratch`.
#[derive(Debug, Clone)]
pub(super) struct External {
    /// The name.
    pub(super) text: String,
    /// Where it stands.
    pub(super) span: Span,
    /// `FROM --platform`.
    pub(super) platform: Option<Platform>,
}

/// An instruction and where it reads from.
#[derive(Debug, Clone)]
pub(super) struct Command<'a> {
    pub(super) instruction: Cow<'a, Instruction>,
    /// COPY: its `--from`. RUN: one for each mount.
    pub(super) sources: Vec<Option<Source>>,
    /// Whether it is an ONBUILD trigger of the base.
    pub(super) onbuild: bool,
    /// The place it is reported at when it isn't from this file: the FROM of a base that has it as a trigger.
    pub(super) reported_at: Option<Span>,
}

/// Where an instruction reads from.
#[derive(Debug, Clone)]
pub(super) enum Source {
    /// A stage.
    Stage(StageId),
    /// Something that isn't in the file.
    External(External),
}

impl<'a> Stages<'a> {
    /// Reads every stage, needed or not: a FROM that makes no sense is an error wherever it stands.
    pub(super) fn read(
        file: &'a Dockerfile,
        globals: &Globals,
        args: &'a BuildArgs,
        platform: &'a Platform,
        findings: &mut Findings,
    ) -> Self {
        let escape = file.directives.escape;
        let mut stages = Self { list: Vec::new(), by_name: HashMap::new(), escape, args, platform };
        for stage in &file.stages {
            let read = stages.stage(stage, globals, findings).unwrap_or_else(|error| {
                findings.error(error);
                Stage::broken(stage)
            });
            if !read.name.is_empty() {
                stages.by_name.insert(read.name.clone(), stages.list.len());
            }
            stages.list.push(read);
        }
        for id in 0..stages.list.len() {
            stages.link(id, findings);
        }
        if let Err(error) = stages.check_cycles() {
            findings.error(error);
        }
        stages
    }

    fn stage(
        &self,
        stage: &'a ast::Stage,
        globals: &Globals,
        findings: &mut Findings,
    ) -> Result<Stage<'a>, Diagnostic> {
        let word = &stage.from.image;
        let image = words::expand(word, self.escape, &globals.env)?;
        lint::undeclared_in_from(&image, word.span, globals, findings);
        if image.text.len() > MAX_NAME {
            return Err(Diagnostic::error(word.span, format!("base name is longer than {MAX_NAME} bytes")));
        }
        if image.text.is_empty() {
            return Err(Diagnostic::error(word.span, format!("base name ({}) should not be blank", word.text)));
        }
        let mut used_args = image.matched;
        let platform = match &stage.from.platform {
            Some(p) => Some(platform(p, stage, self.escape, globals, &mut used_args, findings)?),
            None => None,
        };
        let name = stage.from.name.as_ref().map(|n| n.text.to_lowercase()).unwrap_or_default();
        // A named context of the stage's name stands in for all of it.
        let replaced =
            !name.is_empty() && self.args.context(&name, platform.as_ref().unwrap_or(self.platform)).is_some();
        let base_name = if replaced { &name } else { &image.text };
        let external = External { text: base_name.clone(), span: word.span, platform };
        let base = match self.by_name.get(base_name).copied().filter(|_| !replaced).or_else(|| self.alias(base_name)) {
            Some(id) => Base::Stage(id),
            None => Base::External(external),
        };
        let instructions = if replaced { &[] } else { stage.instructions.as_slice() };
        let commands = instructions.iter().map(|i| Command::new(Cow::Borrowed(i))).collect();
        Ok(Stage { name, span: stage.header.span, base, commands, triggered: false, used_args })
    }

    /// Finds what the instructions of a stage read from.
    fn link(&mut self, id: StageId, findings: &mut Findings) {
        let mut commands = self.list.get_mut(id).map(|s| std::mem::take(&mut s.commands)).unwrap_or_default();
        for command in &mut commands {
            match self.sources(&command.instruction) {
                Ok(sources) => command.sources = sources,
                Err(error) => findings.error(error),
            }
        }
        if let Some(stage) = self.list.get_mut(id) {
            stage.commands = commands;
        }
    }

    /// Where an instruction reads from, apart from the context.
    fn sources(&self, instruction: &Instruction) -> Result<Vec<Option<Source>>, Diagnostic> {
        match &instruction.kind {
            Kind::Copy(copy) => copy.from.iter().map(|from| self.copy_source(from).map(Some)).collect(),
            Kind::Run(run) => {
                Ok(run.mounts.iter().map(|m| m.from.as_ref().and_then(|f| self.mount_source(f))).collect())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn copy_source(&self, from: &ast::Word) -> Result<Source, Diagnostic> {
        if words::expand(from, self.escape, &Env::default())?.text != from.text {
            let message = "variable expansion is not supported for --from, define a new stage with FROM using ARG from \
                           global scope as a workaround";
            return Err(Diagnostic::error(from.span, message));
        }
        match from.text.parse::<i64>() {
            Ok(number) => match usize::try_from(number).ok().filter(|n| *n < self.list.len()) {
                Some(id) => Ok(Source::Stage(id)),
                None => Err(Diagnostic::error(from.span, format!("invalid stage index {number}"))),
            },
            Err(_) => Ok(self.named(from)),
        }
    }

    /// Mounts know stages by name only; an empty `from` is the context.
    fn mount_source(&self, from: &ast::Word) -> Option<Source> {
        (!from.text.is_empty()).then(|| self.named(from))
    }

    fn named(&self, word: &ast::Word) -> Source {
        match self.find(&word.text).or_else(|| self.alias(&word.text)) {
            Some(id) => Source::Stage(id),
            None => Source::External(External { text: word.text.clone(), span: word.span, platform: None }),
        }
    }

    /// The stage that a named context of the kind `target:` stands for.
    fn alias(&self, name: &str) -> Option<StageId> {
        match self.args.context(name, self.platform)? {
            (_, Context::Target(stage)) => self.find(stage),
            _ => None,
        }
    }

    /// The stage of a name, without regard to case.
    pub(super) fn find(&self, name: &str) -> Option<StageId> {
        self.by_name.get(&name.to_lowercase()).copied()
    }

    /// The stage to build.
    pub(super) fn target(&self, wanted: Option<&str>) -> Result<StageId, Diagnostic> {
        let Some(wanted) = wanted.filter(|w| !w.is_empty()) else {
            return self
                .list
                .len()
                .checked_sub(1)
                .ok_or_else(|| Diagnostic::error(Span::default(), "dockerfile contains no stages to build"));
        };
        let number = || wanted.parse().ok().filter(|n| *n < self.list.len());
        self.find(wanted).or_else(number).ok_or_else(|| {
            let shown: Vec<String> = (0..self.list.len()).map(|id| self.shown_name(id)).collect();
            let message = format!("target stage {} could not be found", quoted(wanted));
            let message = suggest::with_suggestion(message, wanted, shown.iter().map(String::as_str));
            Diagnostic::error(Span::default(), message)
        })
    }

    /// A stage's name, or `stage-N`.
    pub(super) fn shown_name(&self, id: StageId) -> String {
        match self.list.get(id) {
            Some(stage) if !stage.name.is_empty() => stage.name.clone(),
            _ => format!("stage-{id}"),
        }
    }

    /// Puts ONBUILD triggers before the instructions of a stage.
    pub(super) fn add_triggers(&mut self, id: StageId, triggers: Vec<Command<'a>>, findings: &mut Findings) {
        let mut commands = triggers;
        for command in &mut commands {
            command.onbuild = true;
            match self.sources(&command.instruction) {
                Ok(sources) => command.sources = sources,
                Err(error) => findings.error(error),
            }
        }
        if let Some(stage) = self.list.get_mut(id) {
            commands.append(&mut stage.commands);
            stage.commands = commands;
            stage.triggered = true;
        }
    }

    /// The stages that a stage reads from, with the place where it says so.
    fn reads(&self, id: StageId) -> impl Iterator<Item = (StageId, Span)> {
        self.list.get(id).into_iter().flat_map(|s| &s.commands).flat_map(|command| {
            let at = command.instruction.header.span;
            command.sources.iter().flatten().filter_map(move |source| match source {
                Source::Stage(id) => Some((*id, at)),
                Source::External(_) => None,
            })
        })
    }

    /// Which stages `target` needs; all of them where `all` is set.
    pub(super) fn reachable(&self, target: StageId, all: bool) -> Vec<bool> {
        let mut needed = vec![all; self.list.len()];
        let mut open = vec![target];
        while let Some(id) = open.pop() {
            match needed.get_mut(id) {
                Some(slot) if !*slot => *slot = true,
                // With `all`, everything is needed from the start and there is nothing to follow.
                _ => continue,
            }
            open.extend(self.reads(id).map(|(stage, _)| stage));
            if let Some(Stage { base: Base::Stage(base), .. }) = self.list.get(id) {
                open.push(*base);
            }
        }
        needed
    }

    /// Refuses stages that read from themselves, in however many steps.
    fn check_cycles(&self) -> Result<(), Diagnostic> {
        let mut done = vec![false; self.list.len()];
        for start in 0..self.list.len() {
            if !done[start] {
                self.visit(start, &mut done)?;
            }
        }
        Ok(())
    }

    /// Depth first, with a stack of its own: a file may have very many stages.
    fn visit(&self, start: StageId, done: &mut [bool]) -> Result<(), Diagnostic> {
        let mut on_path = vec![false; self.list.len()];
        let mut stack = vec![(start, self.reads(start).collect::<Vec<_>>())];
        on_path[start] = true;
        while let Some((id, rest)) = stack.last_mut() {
            let Some((next, at)) = rest.pop() else {
                let id = *id;
                (on_path[id], done[id]) = (false, true);
                stack.pop();
                continue;
            };
            if on_path[next] {
                let name = self.shown_name(next);
                return Err(Diagnostic::error(at, format!("circular dependency detected on stage: {name}")));
            }
            if !done[next] {
                on_path[next] = true;
                stack.push((next, self.reads(next).collect()));
            }
        }
        Ok(())
    }
}

impl<'a> Stage<'a> {
    /// Stands in for a stage whose FROM is wrong, so that the others are still checked.
    fn broken(stage: &'a ast::Stage) -> Self {
        let external = External { text: "scratch".into(), span: stage.header.span, platform: None };
        Self {
            name: stage.from.name.as_ref().map(|n| n.text.to_lowercase()).unwrap_or_default(),
            span: stage.header.span,
            base: Base::External(external),
            commands: Vec::new(),
            triggered: false,
            used_args: BTreeSet::new(),
        }
    }
}

impl<'a> Command<'a> {
    pub(super) fn new(instruction: Cow<'a, Instruction>) -> Self {
        Self { instruction, sources: Vec::new(), onbuild: false, reported_at: None }
    }
}

/// `FROM --platform`.
fn platform(
    word: &ast::Word,
    stage: &ast::Stage,
    escape: Escape,
    globals: &Globals,
    used_args: &mut BTreeSet<String>,
    findings: &mut Findings,
) -> Result<Platform, Diagnostic> {
    let expanded = words::expand(word, escape, &globals.env)?;
    lint::undeclared_in_from(&expanded, word.span, globals, findings);
    lint::from_platform(word, stage, &expanded, globals, findings);
    let suggested = |message: String| {
        let near = expanded.unmatched.iter().find_map(|name| suggest::nearest(name, globals.env.names()));
        let message = match near {
            Some(name) => format!("{message} (did you mean {name}?)"),
            None => message,
        };
        Diagnostic::error(word.span, message)
    };
    if expanded.text.is_empty() {
        return Err(suggested(format!("empty platform value from expression {}", word.text)));
    }
    let parsed =
        expanded.text.parse().map_err(|e| suggested(format!("failed to parse platform {}: {e}", word.text)))?;
    used_args.extend(expanded.matched);
    Ok(parsed)
}
