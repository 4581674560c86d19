//! Two builds of a Dockerfile side by side: why a step ran.

use super::align::{align, split};
use super::files::{Difference, decode, difference};
use super::read::{self, Head, counted};
use super::{About, Build, How, Input, Sheet, Step, StepKind};
use crate::plan::op::VertexId;
use crate::report::{Kind, Problem};
use crate::solve::key::{Key, Part, Sort};
use crate::solve::problem::{self, Result};
use crate::store::{BuildNumber, Store};
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// Why the steps of a build ran.
#[derive(Debug, Serialize)]
pub struct Explanation {
    /// The build.
    #[serde(flatten)]
    pub head: Head,
    /// Whether no earlier build of this is remembered.
    pub first: bool,
    /// The steps that ran.
    pub ran: Vec<Explained>,
    /// The newest earlier build of this in which a step ran.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_with_work: Option<BuildNumber>,
}

/// Why a step ran.
#[derive(Debug, Serialize)]
pub struct Explained {
    /// The step as it was shown.
    pub step: String,
    /// What became of it.
    pub how: How,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// The newest build before that had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Since>,
    /// Why; never empty.
    pub causes: Vec<Cause>,
}

/// A build that another is compared with.
#[derive(Debug, Clone, Serialize)]
pub struct Since {
    /// Its number.
    pub build: BuildNumber,
    /// When it began, RFC 3339.
    pub started: String,
}

/// What was new.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "cause", rename_all = "kebab-case")]
pub enum Cause {
    /// A part of the step itself.
    Part(Change),
    /// Files that it reads.
    Files {
        /// The step that has them.
        of: String,
        /// Which.
        #[serde(flatten)]
        difference: Difference,
    },
    /// Files that it reads; which can't be said.
    SomeFiles {
        /// The step that has them.
        of: String,
    },
    /// The result of another step.
    Input {
        /// That step.
        step: String,
        /// Whether the step stands on it, rather than reading it.
        base: bool,
        /// Whether it ran in this build, and so is explained itself.
        ran: bool,
        /// Where it didn't: what is new below.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        roots: Vec<Root>,
    },
    /// `--no-cache` or `--no-cache-filter`.
    NoCache,
    /// No earlier build had it.
    NewStep,
    /// It is what it was, but it failed then.
    FailedBefore,
    /// It is what it was, but its result isn't in the store.
    NoResult,
}

/// A step below that isn't what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Root {
    /// The step.
    pub step: String,
    /// How it differs; nothing where it is the same but was made anew.
    pub causes: Vec<Cause>,
}

/// A part of a key that isn't what it was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Change {
    /// What.
    pub part: Sort,
    /// Which one, where there are several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its value then, or the hash of a value that isn't kept; `None` where there was none.
    pub old: Option<String>,
    /// The same now.
    pub new: Option<String>,
}

/// Explains a build, the newest where none is named.
///
/// # Errors
/// [`Kind::Usage`] for a build that isn't remembered; where the store can't be read.
pub fn explain(store: &Store, number: Option<BuildNumber>) -> Result<Explanation> {
    let (number, build) = read::build(store, number)?;
    let Some(sheet) = read::sheet(store, &build.sheet)? else {
        return Err(Problem::new(Kind::Environment, format!("the account of build {number} is damaged")));
    };
    let earlier = store.builds().map_err(problem::from)?.into_iter().rev().filter(|n| *n < number).collect();
    let mut past = Past { store, of: &build.about, sheet: &sheet, numbers: earlier, builds: Vec::new() };
    let (steps, _) = counted(&build, &sheet);
    let mut ran = Vec::new();
    let is_step = |kind: StepKind| matches!(kind, StepKind::Process | StepKind::Files);
    for (id, step) in sheet.steps.iter().enumerate().filter(|(id, s)| is_step(s.kind) && build.how(*id).is_run()) {
        let had = past.had(id)?;
        let causes = match &had {
            Some((old, at)) => Pair { store, new: &build, sheet: &sheet, old }.causes(id, *at, &mut past)?,
            None => vec![if build.forced.contains(&id) { Cause::NoCache } else { Cause::NewStep }],
        };
        ran.push(Explained {
            step: step.name.clone(),
            how: build.how(id),
            took_ms: build.took.get(&id).copied().unwrap_or(0),
            since: had.map(|(old, _)| Since { build: old.number, started: old.build.started.clone() }),
            causes,
        });
    }
    let first = past.get(0)?.is_none();
    let last_with_work = if ran.is_empty() { past.last_with_work()? } else { None };
    Ok(Explanation { head: build.into_head(number, steps), first, ran, last_with_work })
}

/// The earlier builds of the same thing, the newest first, read as they are needed.
struct Past<'a> {
    store: &'a Store,
    of: &'a About,
    sheet: &'a Sheet,
    /// Those that haven't been looked at.
    numbers: std::collections::VecDeque<BuildNumber>,
    builds: Vec<Rc<Earlier>>,
}

/// An earlier build.
struct Earlier {
    number: BuildNumber,
    build: Build,
    sheet: Rc<Sheet>,
    /// For each step of the build that is explained, which one it is here.
    aligned: Rc<Vec<Option<VertexId>>>,
}

impl Past<'_> {
    /// The build with this place in the order.
    fn get(&mut self, index: usize) -> Result<Option<Rc<Earlier>>> {
        while self.builds.len() <= index {
            let Some(number) = self.numbers.pop_front() else { return Ok(None) };
            let Some(build) = self.store.build::<Build>(number).map_err(problem::from)? else { continue };
            if !self.of.continues(&build.about) {
                continue;
            }
            let known = self.builds.iter().find(|b| b.build.sheet == build.sheet).cloned();
            let (sheet, aligned) = match known {
                Some(known) => (known.sheet.clone(), known.aligned.clone()),
                None => {
                    let Some(sheet) = read::sheet(self.store, &build.sheet)? else { continue };
                    let aligned = align(&sheet.steps, &self.sheet.steps);
                    (Rc::new(sheet), Rc::new(aligned))
                }
            };
            self.builds.push(Rc::new(Earlier { number, build, sheet, aligned }));
        }
        Ok(self.builds.get(index).cloned())
    }

    /// The newest build in which a step came to its turn, and which step it is there.
    fn had(&mut self, step: VertexId) -> Result<Option<(Rc<Earlier>, VertexId)>> {
        for index in 0.. {
            let Some(earlier) = self.get(index)? else { break };
            let reached = |at: &VertexId| !matches!(earlier.build.how(*at), How::NotReached | How::Stopped);
            let at = earlier.aligned.get(step).copied().flatten().filter(reached);
            if let Some(at) = at {
                return Ok(Some((earlier, at)));
            }
        }
        Ok(None)
    }

    fn last_with_work(&mut self) -> Result<Option<BuildNumber>> {
        for index in 0.. {
            let Some(earlier) = self.get(index)? else { break };
            if counted(&earlier.build, &earlier.sheet).1 > 0 {
                return Ok(Some(earlier.number));
            }
        }
        Ok(None)
    }

    /// The list of the files that a step of an earlier build took of a stage: its own, or where it was found that of the
    /// build that made it.
    fn list(&mut self, of: &Earlier, at: VertexId, read: usize) -> Result<Option<Key>> {
        let Some(definition) = of.sheet.steps.get(at).map(|s| s.definition) else { return Ok(None) };
        for index in 0.. {
            let Some(earlier) = self.get(index)? else { break };
            if earlier.number > of.number {
                continue;
            }
            let same = earlier.sheet.steps.iter().position(|s| s.definition == definition);
            if let Some(list) = same.and_then(|s| earlier.build.lists.get(&s)?.get(&read)) {
                return Ok(Some(*list));
            }
        }
        Ok(None)
    }
}

/// A build, and an earlier one that it is compared with.
struct Pair<'a> {
    store: &'a Store,
    new: &'a Build,
    sheet: &'a Sheet,
    old: &'a Earlier,
}

impl Pair<'_> {
    /// Why a step ran that was `at` in the earlier build.
    fn causes(&self, id: VertexId, at: VertexId, past: &mut Past<'_>) -> Result<Vec<Cause>> {
        let (Some(new), Some(old)) = (self.sheet.steps.get(id), self.old.sheet.steps.get(at)) else {
            return Ok(vec![Cause::NewStep]);
        };
        let mut causes = Vec::new();
        if self.new.forced.contains(&id) {
            causes.push(Cause::NoCache);
        }
        let mut listed = true;
        let mut inputs = Vec::new();
        for input in &new.inputs {
            let list = input.read.and_then(|read| self.new_list(id, new, read));
            let before = match (input.read, list) {
                (Some(read), Some(_)) => match old.lists.get(&read) {
                    Some(list) => Some(*list),
                    None => past.list(self.old, at, read)?,
                },
                _ => None,
            };
            match (list, before) {
                (Some(list), Some(before)) => inputs.extend(self.files(input, before, list)?),
                _ => {
                    listed &= input.read.is_none();
                    inputs.extend(self.input(input, old)?);
                }
            }
        }
        // Where files are compared, it is no matter how they were asked for.
        let own = changes(old, new).into_iter().filter(|c| !(listed && c.part == Sort::Sources));
        causes.extend(own.map(Cause::Part));
        causes.extend(inputs);
        if causes.is_empty() {
            let failed = self.old.build.how(at) == How::Failed;
            causes.push(if failed { Cause::FailedBefore } else { Cause::NoResult });
        }
        Ok(causes)
    }

    fn new_list(&self, id: VertexId, step: &Step, read: usize) -> Option<Key> {
        step.lists.get(&read).or_else(|| self.new.lists.get(&id)?.get(&read)).copied()
    }

    fn name(&self, id: VertexId) -> String {
        self.sheet.steps.get(id).map(|s| s.name.clone()).unwrap_or_default()
    }

    /// What differs between two lists of what a step takes of one of its inputs.
    fn files(&self, input: &Input, before: Key, now: Key) -> Result<Option<Cause>> {
        if before == now {
            return Ok(None);
        }
        let of = self.name(input.step);
        let read = |key: &Key| -> Result<_> {
            Ok(self.store.build_part(key).map_err(problem::from)?.as_deref().and_then(decode))
        };
        let (Some(before), Some(now)) = (read(&before)?, read(&now)?) else {
            return Ok(Some(Cause::SomeFiles { of }));
        };
        let difference = difference(&before, &now);
        Ok((!difference.files.is_empty()).then_some(Cause::Files { of, difference }))
    }

    /// How an input that isn't known file by file differs from what it was.
    fn input(&self, input: &Input, old: &Step) -> Result<Option<Cause>> {
        let Some(before) = old.inputs.iter().find(|i| i.read == input.read) else { return Ok(None) };
        if !self.differs(input.step, before.step) {
            return Ok(None);
        }
        let ran = self.new.how(input.step).is_run() && self.is_step(input.step);
        let roots = if ran { Vec::new() } else { self.roots(input.step, before.step)? };
        Ok(Some(Cause::Input { step: self.name(input.step), base: input.read.is_none(), ran, roots }))
    }

    fn is_step(&self, id: VertexId) -> bool {
        self.sheet.steps.get(id).is_some_and(|s| matches!(s.kind, StepKind::Process | StepKind::Files))
    }

    /// Whether a step gave something else than before, or where that isn't known, is something else.
    fn differs(&self, id: VertexId, at: VertexId) -> bool {
        match (self.new.identity(id), self.old.build.identity(at)) {
            (Some(new), Some(old)) => new != old,
            _ => self.definition(id) != self.old.sheet.steps.get(at).map(|s| s.definition),
        }
    }

    fn definition(&self, id: VertexId) -> Option<Key> {
        self.sheet.steps.get(id).map(|s| s.definition)
    }

    /// The steps at and below one that didn't run which differ by themselves.
    fn roots(&self, id: VertexId, at: VertexId) -> Result<Vec<Root>> {
        let (mut roots, mut seen, mut next) = (Vec::new(), HashSet::new(), vec![(id, at)]);
        while let Some((id, at)) = next.pop() {
            let (Some(new), Some(old)) = (self.sheet.steps.get(id), self.old.sheet.steps.get(at)) else { continue };
            if !seen.insert((id, at)) {
                continue;
            }
            let mut causes: Vec<Cause> = changes(old, new).into_iter().map(Cause::Part).collect();
            for input in &new.inputs {
                let lists = input.read.and_then(|read| Some((*old.lists.get(&read)?, *new.lists.get(&read)?)));
                let before = old.inputs.iter().find(|i| i.read == input.read);
                match (lists, before) {
                    (Some((before, now)), _) => causes.extend(self.files(input, before, now)?),
                    (None, Some(before)) if self.differs(input.step, before.step) => {
                        next.push((input.step, before.step))
                    }
                    _ => {}
                }
            }
            if !causes.is_empty() || next.is_empty() && roots.is_empty() {
                roots.push(Root { step: new.name.clone(), causes });
            }
        }
        Ok(roots)
    }
}

/// The parts of a step's key that aren't what they were.
fn changes(old: &Step, new: &Step) -> Vec<Change> {
    let (olds, news) = (counted_parts(&old.parts), counted_parts(&new.parts));
    let said = |part: &Part| part.value.clone().unwrap_or_else(|| part.digest.clone());
    let mut changes: Vec<Change> = Vec::new();
    for ((sort, name, number), part) in &news {
        let before = olds.iter().find(|(key, _)| *key == (*sort, *name, *number)).map(|(_, p)| *p);
        if before.is_none_or(|b| b.digest != part.digest) {
            let (old, new) = (before.map(said), Some(said(part)));
            changes.push(Change { part: *sort, name: (*name).to_owned(), old, new });
        }
    }
    for ((sort, name, number), part) in &olds {
        if !news.iter().any(|(key, _)| *key == (*sort, *name, *number)) {
            changes.push(Change { part: *sort, name: (*name).to_owned(), old: Some(said(part)), new: None });
        }
    }
    let order = |parts: &[Part]| parts.iter().map(|p| (p.sort, p.name.clone())).collect::<Vec<_>>();
    if changes.is_empty() && order(&old.parts) != order(&new.parts) {
        changes.push(Change { part: Sort::Order, name: String::new(), old: None, new: None });
    }
    let (old_text, new_text) = (split(&old.name).1, split(&new.name).1);
    for change in changes.iter_mut().filter(|c| c.part == Sort::Command && old_text != new_text) {
        (change.old, change.new) = (Some(old_text.to_owned()), Some(new_text.to_owned()));
    }
    changes
}

/// Parts with what tells them apart: sort, name, and the number among those of the same.
fn counted_parts(parts: &[Part]) -> Vec<((Sort, &str, usize), &Part)> {
    let mut seen: HashMap<(Sort, &str), usize> = HashMap::new();
    let numbered = parts.iter().map(|part| {
        let count = seen.entry((part.sort, part.name.as_str())).or_default();
        *count += 1;
        ((part.sort, part.name.as_str(), *count), part)
    });
    numbered.collect()
}
