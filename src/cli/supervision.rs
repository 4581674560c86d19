//! The two processes of a command that may run processes in place ([`crate::in_place::supervisor`]): what each of them does, and
//! what is said when the one that does the work is killed.

use super::commands::Done;
use super::session::{self, Failure};
use crate::in_place::supervisor::{self, Outcome, Role, SupervisorLink};
use crate::report::{Kind, Problem};
use crate::sys::child::Ended;
use std::path::Path;

/// Does `work` in a process of its own, supervised by this one, which waits for its end.
///
/// # Errors
/// Those of the work; if there can be no second process; if the work was killed, or something could not be cleaned up after it.
pub fn supervised(
    work_directory: &Path,
    work: impl FnOnce(SupervisorLink) -> Result<Done, Failure>,
) -> Result<Done, Failure> {
    match supervisor::start(Path::new("/"), work_directory) {
        Ok(Role::Worker(supervisor)) => work(supervisor),
        Ok(Role::Supervisor(supervisor)) => concluded(supervisor.run()),
        Err(error) => Err(session::cannot("start the process that cleans up after a killed build", &error).into()),
    }
}

/// What the supervisor says and exits with. The worker has said everything else.
fn concluded(outcome: Outcome) -> Result<Done, Failure> {
    let code = match outcome.ended {
        Ended::Exited(code) => code,
        Ended::Killed(signal) => 128 + signal,
    };
    let code = u8::try_from(code).unwrap_or(u8::MAX);
    let killed = match outcome.ended {
        Ended::Killed(signal) if !outcome.was_asked => Some(signal),
        _ => None,
    };
    let mut problem = match (killed, outcome.failures.is_empty()) {
        (None, true) => return Ok(Done { text: String::new(), code }),
        (None, false) => Problem::new(Kind::Environment, "cannot clean up after the build"),
        (Some(signal), _) => killed_by(signal, &outcome),
    };
    problem.causes.extend(outcome.failures.iter().map(ToString::to_string));
    let code = if code == 0 { Kind::Environment.exit_code() } else { code };
    Err(Failure { code, ..Failure::from(problem) })
}

fn killed_by(signal: i32, outcome: &Outcome) -> Problem {
    let restored = match (outcome.restored, outcome.failures.is_empty()) {
        (_, false) => "",
        (true, true) => "; its processes have ended, and / is as it was before",
        (false, true) => "; its processes have ended",
    };
    let problem =
        Problem::new(Kind::Environment, format!("kiln was killed by signal {signal}{}{restored}", name(signal)));
    match signal {
        libc::SIGKILL => problem.hint("if memory ran out, give the container more of it"),
        _ => problem,
    }
}

fn name(signal: i32) -> &'static str {
    match signal {
        libc::SIGKILL => " (SIGKILL)",
        libc::SIGABRT => " (SIGABRT)",
        libc::SIGSEGV => " (SIGSEGV)",
        libc::SIGBUS => " (SIGBUS)",
        libc::SIGTERM => " (SIGTERM)",
        libc::SIGXCPU => " (SIGXCPU)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::in_place::supervisor::CleanupError;

    fn outcome(ended: Ended) -> Outcome {
        Outcome { ended, was_asked: false, restored: false, failures: Vec::new() }
    }

    #[test]
    fn an_exit_code_is_passed_on() {
        for code in [0, 1, 130] {
            assert_eq!(i32::from(concluded(outcome(Ended::Exited(code))).unwrap().code), code);
        }
        let asked = Outcome { was_asked: true, ..outcome(Ended::Killed(libc::SIGTERM)) };
        assert_eq!(concluded(asked).unwrap().code, 143, "whoever sent the signal knows");
    }

    #[test]
    fn a_killed_worker_is_reported() {
        let killed = Outcome { restored: true, ..outcome(Ended::Killed(libc::SIGKILL)) };
        let failure = concluded(killed).unwrap_err();
        assert_eq!(failure.code, 137);
        let message = "kiln was killed by signal 9 (SIGKILL); its processes have ended, and / is as it was before";
        assert_eq!(failure.problem.message, message);
    }

    #[test]
    fn what_could_not_be_cleaned_up_is_an_error_whatever_the_exit_code() {
        let error = || CleanupError::from(crate::sys::Error::new("unlink", "/dev/shm/x", rustix::io::Errno::IO));
        for (code, expected) in [(0, 4), (1, 1)] {
            let failure = concluded(Outcome { failures: vec![error()], ..outcome(Ended::Exited(code)) }).unwrap_err();
            assert_eq!(failure.code, expected);
            assert!(failure.problem.causes.concat().contains("/dev/shm/x"));
        }
    }
}
