//! The isolation ladder: which level runs processes here, and the driver that goes with it.

use super::env::Env;
use super::in_place;
use super::request::{Isolation, ProcessRequest};
use super::rootless;
use super::session::Session;
use crate::report::{Kind, Problem};
use crate::sandbox::{self, Executor, RootExecutor};
use crate::snapshot::{Overlay, Snapshotter};
use std::sync::Arc;

/// How processes are run.
#[derive(Clone)]
pub struct Place {
    /// How they get their root filesystems.
    pub snapshots: Arc<dyn Snapshotter>,
    /// Who runs them.
    pub executor: Arc<dyn Executor>,
}

/// Finds the place for processes. Unless it is root, who is told by the first process, somebody who `wants` one is told
/// before any work is done in vain.
///
/// # Errors
/// With the reason for each way that doesn't work here.
pub fn place(session: &Session, process: &ProcessRequest, wants: bool, env: &Env) -> Result<Place, Problem> {
    let isolation = process.isolation;
    let only_in_place = isolation == Isolation::Auto && wants && in_place::is_the_place();
    if isolation == Isolation::InPlace || only_in_place {
        return in_place::place(session, process.force_in_place, env);
    }
    if isolation == Isolation::Rootless && env.uid == 0 {
        let what = format!("--isolation rootless: {}", rootless::FOR_USERS);
        return Err(Problem::new(Kind::Environment, what));
    }
    if wants && !rustix::process::geteuid().is_root() {
        return Err(no_isolation(&rootless::levels(session.store.root(), env, &env.rootless)));
    }
    let resolv_conf = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
    Ok(Place { snapshots: Arc::new(Overlay), executor: Arc::new(RootExecutor::new(resolv_conf)?) })
}

/// Why no process can be run here.
fn no_isolation(levels: &[sandbox::Level]) -> Problem {
    let problem = Problem::new(Kind::Environment, "there is no way to run a process isolated here");
    levels.iter().fold(problem, |problem, level| match &level.why_not {
        Some(why) => problem.cause(format!("{}: {why}", level.name)),
        None => problem,
    })
}
