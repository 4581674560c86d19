//! In place, commands of one container take turns: while one lets a stage stand in `/`, nothing there is what another one looks
//! for, from its context to `/etc/resolv.conf`.

use super::env::Env;
use super::in_place;
use super::request::{Command, Isolation, Request};
use super::rootless::Rootless;
use super::session::cannot;
use crate::in_place::HostRoot;
use crate::report::Problem;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open};
use rustix::io::Errno;
use std::io::Write as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Keeps others waiting until it is dropped.
#[derive(Debug)]
pub struct Turn(#[allow(dead_code, reason = "it is held for the lock that goes with it")] OwnedFd);

/// Waits for whoever is at work in `/`, and puts right what somebody who was killed has left there. `None` for a command that
/// doesn't let anything stand in `/`. Afterwards the working directory may have another name.
///
/// # Errors
/// If that can't be known, or can't be put right.
pub fn take(request: &Request, env: &Env) -> Result<Option<Turn>, Problem> {
    if !takes_the_root(request, env) {
        return Ok(None);
    }
    // This one file is always where it was.
    let program = open(&env.program, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let program = program.map_err(|e| cannot(&format!("open {}", env.program.display()), &std::io::Error::from(e)))?;
    if flock(&program, FlockOperation::NonBlockingLockExclusive).is_err() {
        let _ = writeln!(std::io::stderr(), "waiting for another build in this container to end");
        wait(&program).map_err(|e| cannot("wait for another build in this container", &std::io::Error::from(e)))?;
    }
    HostRoot::put_right(Path::new("/"), &in_place::folder(&request.store))
        .map_err(|e| cannot("put / right, which a build that was killed has left as it was", &e))?;
    Ok(Some(Turn(program)))
}

fn wait(program: &OwnedFd) -> Result<(), Errno> {
    loop {
        match flock(program, FlockOperation::LockExclusive) {
            Err(Errno::INTR) => {}
            done => return done,
        }
    }
}

/// Whether a command may take `/`, be it to find out whether it can.
fn takes_the_root(request: &Request, env: &Env) -> bool {
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
