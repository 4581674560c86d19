//! The lock between the commands of one container that may run processes in place.
//!
//! While one of them has a stage's files in `/`, another one would not find its own files there, from its context to
//! `/etc/resolv.conf`. So they run one after the other. The lock is on the program file, which is always in its place. Both
//! [processes](super::supervision) of a command hold it, so it is held until `/` is restored, whichever of them is killed.

use super::env::Env;
use super::in_place;
use super::request::{Command, Isolation, Request};
use super::rootless::Rootless;
use super::session::cannot;
use crate::in_place::supervisor;
use crate::report::Problem;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Keeps others waiting until it is dropped.
#[derive(Debug)]
pub struct InPlaceLock(#[allow(dead_code, reason = "closing it unlocks")] OwnedFd);

/// Waits until no other command is at work in `/`, and cleans up after one that was killed. `None` for a command that does not run
/// processes in place. The working directory may have another name afterwards.
///
/// # Errors
/// If the lock cannot be had, or something cannot be cleaned up.
pub fn acquire(request: &Request, env: &Env) -> Result<Option<InPlaceLock>, Problem> {
    if !concerns(request, env) {
        return Ok(None);
    }
    let program = open(&env.program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let program = program.map_err(|e| cannot(&format!("open {}", env.program.display()), &std::io::Error::from(e)))?;
    if !is_free(&program)? {
        let _ = writeln!(std::io::stderr(), "waiting for another build in this container to end");
        wait(&program).map_err(cannot_wait)?;
    }
    supervisor::recover(Path::new("/"), &in_place::work_directory(&request.store, env))
        .map_err(|e| cannot("restore /, which an interrupted build has left modified", &e))?;
    Ok(Some(InPlaceLock(program)))
}

/// Removes the root filesystems that builds in this container have left, unless one is at work.
pub fn remove_copies(store: &Path, env: &Env) {
    let program = open(&env.program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let locked =
        program.and_then(|program| flock(&program, FlockOperation::NonBlockingLockExclusive).map(|()| program));
    if let Ok(_program) = locked {
        // What stays is removed by the next build.
        let _ = crate::in_place::remove_copies(&in_place::work_directory(store, env));
    }
}

/// Takes the lock unless a living kiln has it. Where kiln's file is not protected by Landlock, a process of a RUN can lock it as well:
/// one whose kiln was killed is ended.
fn is_free(program: &OwnedFd) -> Result<bool, Problem> {
    let is_locked = || flock(program, FlockOperation::NonBlockingLockExclusive).is_ok();
    if is_locked() {
        return Ok(true);
    }
    supervisor::end_orphans().map_err(|e| cannot("end the processes of an interrupted build", &e))?;
    Ok(is_locked())
}

fn cannot_wait(errno: Errno) -> Problem {
    cannot("wait for another build in this container", &std::io::Error::from(errno))
}

fn wait(program: &OwnedFd) -> Result<(), Errno> {
    loop {
        match flock(program, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Whether a command may run processes in place, or tries whether it could.
fn concerns(request: &Request, env: &Env) -> bool {
    let Some(process) = request.command.process() else {
        return matches!(request.command, Command::Info { .. }) && in_place::is_here(false, env);
    };
    match process.isolation {
        Isolation::InPlace => true,
        // In a user namespace there are better levels.
        Isolation::Auto => in_place::is_here(process.force_in_place, env) && env.rootless != Rootless::Entered,
        _ => false,
    }
}
