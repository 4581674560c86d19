//! Instructions, arguments and resolved bases to a [`BuildPlan`]. Pure: no file is read, no registry is asked.
//!
//! [`bases`] says what has to be resolved, [`lower`] makes the plan, [`check`] looks for mistakes without either. All go the same way, for each platform:
//! the global scope (`globals`), the stages and what they name (`stages`, `origin`), which of them the target needs and
//! the ONBUILD triggers of their bases (`walk`, `triggers`), and then each instruction (`dispatch`, and a module for each
//! family: `run` and `mounts`, `copy`, `config`) on the stage's `state`, which adds steps to `vertices`.
//! The specification is BuildKit's `dockerfile2llb`.

mod args;
mod budget;
mod chmod;
mod config;
mod context;
mod copy;
mod dispatch;
mod env;
mod epoch;
mod expose;
mod git;
mod globals;
mod ground;
mod history;
mod lint;
mod lower;
mod mounts;
mod names;
pub mod op;
mod origin;
mod outline;
mod paths;
pub mod print;
mod resolved;
mod run;
mod stages;
mod state;
mod suggest;
#[cfg(test)]
mod tests;
mod triggers;
mod vertices;
mod walk;
mod words;

// What copies match paths with; the patterns themselves are in the plan.
pub use crate::dockerfile::{glob, ignore};
pub use args::{BuildArgs, Context, Entitlements, context_name};
pub use context::{ContextSource, context_sources};
pub use git::{GitUrl, go_bool};
pub use lower::{bases, check, lower};
pub use op::BuildPlan;
pub use outline::{BuildTarget, Outline, OutlineArg, OutlineNeed, outline, targets};
pub use resolved::{
    GitKey, HttpKey, ImageKey, ImageName, ResolvedBases, ResolvedGit, ResolvedHttp, ResolvedImage, Wanted,
};
