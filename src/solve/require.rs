//! `--require-cache`: steps that may be taken from a cache, but not run.

use super::lookup::base_of;
use crate::plan::BuildPlan;
use crate::plan::op::{Op, Vertex, VertexId};
use crate::report::{Kind, Problem};
use std::collections::BTreeSet;

/// Steps that may not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Required {
    /// All.
    Any,
    /// Those of a stage, by its name or number.
    Stage(String),
    /// Those whose instruction is like this, where `*` stands for anything: `RUN npm *`.
    Step(String),
}

impl Required {
    /// Reads the flag's value: empty is any step; with a blank or a `*` it is an instruction, else a stage.
    pub fn new(text: &str) -> Self {
        match text.trim() {
            "" => Self::Any,
            step if step.contains([' ', '*']) => Self::Step(step.to_owned()),
            stage => Self::Stage(stage.to_owned()),
        }
    }

    fn names(&self, vertex: &Vertex) -> bool {
        matches!(vertex.op, Op::Exec(_) | Op::File(_))
            && match self {
                Self::Any => true,
                Self::Stage(stage) => stage.eq_ignore_ascii_case(&vertex.stage),
                Self::Step(pattern) => is_like(pattern, instruction(&vertex.name)),
            }
    }
}

/// The instruction, from a step's name: `[builder 2/5] RUN make`.
fn instruction(name: &str) -> &str {
    match name.strip_prefix('[').and_then(|rest| rest.split_once("] ")) {
        Some((_, instruction)) => instruction,
        None => name,
    }
}

/// Whether a text is like a pattern, in which each `*` stands for anything.
fn is_like(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match left.find(part) {
            Some(at) => left = left.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    left.ends_with(last)
}

/// Sees to it that each requirement is about something: a mistyped one would hold always.
///
/// # Errors
/// The first that names no step of the plan.
pub fn check(plan: &BuildPlan, required: &[Required]) -> Result<(), Problem> {
    let nothing = |r: &&Required| **r != Required::Any && !plan.vertices.iter().any(|v| r.names(v));
    let Some(Required::Stage(text) | Required::Step(text)) = required.iter().find(nothing) else { return Ok(()) };
    let steps = plan.vertices.iter().filter(|v| matches!(v.op, Op::Exec(_) | Op::File(_)));
    let names: Vec<&str> = steps.map(|v| v.name.as_str()).take(20).collect();
    let problem = Problem::new(Kind::Usage, format!("--require-cache={text} names no step of this build"));
    Err(problem.hint(format!("its steps are: {}", names.join(", "))))
}

/// Refuses a step that is about to run because no cache knows it, if it may not. `ran` are the steps that did run.
///
/// # Errors
/// That, with what is known of the reason.
pub fn refuse(plan: &BuildPlan, id: VertexId, required: &[Required], ran: &BTreeSet<VertexId>) -> Result<(), Problem> {
    let Some(vertex) = plan.vertices.get(id).filter(|v| required.iter().any(|r| r.names(v))) else { return Ok(()) };
    let text = format!("the cache doesn't know {:?}, and --require-cache forbids to run it", instruction(&vertex.name));
    let problem = Problem::new(Kind::Build, text).cause(reason(plan, vertex, ran)).at(vertex.span);
    Err(problem.hint("`kiln explain` says which part of its key is new, where this machine has built it before"))
}

/// What is new about a step, as far as that is easily known.
fn reason(plan: &BuildPlan, vertex: &Vertex, ran: &BTreeSet<VertexId>) -> String {
    let name = |id: VertexId| plan.vertices.get(id).map_or("", |v| v.name.as_str());
    if vertex.no_cache {
        return "nothing is looked up for it: --no-cache, or --no-cache-filter of its stage".into();
    }
    if let Some(base) = base_of(&vertex.op).filter(|b| ran.contains(b)) {
        return format!("what it stands on was made anew: {}", name(base));
    }
    if let Some(read) = vertex.op.inputs().into_iter().find(|i| ran.contains(i)) {
        return format!("what it reads was made anew, with other files: {}", name(read));
    }
    let own = match vertex.op {
        Op::Exec(_) => "its command, environment, mounts or base image",
        _ => "what it copies, whereto, its owners and modes, or its base image",
    };
    format!("nothing before it ran, so what is new is {own}; or no cache that was asked has kept it")
}

#[cfg(test)]
mod tests {
    use super::super::lookup_tests::{exec, plan};
    use super::*;

    fn two() -> BuildPlan {
        let mut first = exec(None, "a", vec![]);
        (first.name, first.stage) = ("[make 1/1] RUN npm ci --all".into(), "make".into());
        let mut second = exec(Some(0), "b", vec![]);
        (second.name, second.stage) = ("[linux/amd64 stage-1 2/2] RUN test".into(), "1".into());
        plan(vec![first, second], 1)
    }

    #[test]
    fn what_is_required() {
        let plan = two();
        for (text, named) in [
            ("", [true, true]),
            ("make", [true, false]),
            ("MAKE", [true, false]),
            ("1", [false, true]),
            ("RUN *", [true, true]),
            ("*", [true, true]),
            ("RUN npm ci*", [true, false]),
            ("RUN npm*--all", [true, false]),
            ("* ci *all", [true, false]),
            ("RUN npm ci", [false, false]),
            ("RUN test", [false, true]),
            ("run test", [false, false]),
            ("mak", [false, false]),
        ] {
            let required = [Required::new(text)];
            let refused = [0, 1].map(|id| refuse(&plan, id, &required, &BTreeSet::new()).is_err());
            assert_eq!(refused, named, "{text:?}");
            assert_eq!(check(&plan, &required).is_ok(), named != [false, false], "{text:?}");
        }
        assert!(refuse(&plan, 0, &[], &BTreeSet::new()).is_ok());
    }

    #[test]
    fn the_reason_is_told() {
        let mut plan = two();
        let why = |plan: &BuildPlan, ran: &[VertexId]| {
            let ran = ran.iter().copied().collect();
            refuse(plan, 1, &[Required::Any], &ran).unwrap_err().causes.join(" ")
        };
        assert!(why(&plan, &[]).contains("nothing before it ran"));
        assert!(why(&plan, &[0]).contains("anew: [make 1/1] RUN npm"));
        plan.vertices[1].no_cache = true;
        assert!(why(&plan, &[0]).contains("--no-cache"));
    }
}
