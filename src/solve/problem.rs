//! Failures of a build as a person is told of them.

use super::file;
use crate::report::{Kind, Problem};
use crate::snapshot;
use crate::store::Store;

/// What the steps of a build return.
pub type Result<T> = std::result::Result<T, Problem>;

/// Any module's error.
pub fn from(error: impl Into<Problem>) -> Problem {
    error.into()
}

/// A root filesystem or a layer that couldn't be read or written.
pub fn snapshot(error: snapshot::Error) -> Problem {
    file::Error::from(error).into()
}

/// The same, of layers in the store. A damaged one is removed: it is unpacked or made again when somebody needs it, instead
/// of giving fewer files than were in it.
pub fn of_layers(store: &Store, error: snapshot::Error) -> Problem {
    let kept = match &error {
        snapshot::Error::Damaged { folder, .. } => store.discard_snapshot(folder).err(),
        _ => None,
    };
    let problem = snapshot(error);
    match kept {
        Some(kept) => problem.cause("it can't be removed").because(&kept),
        None => problem,
    }
}

/// The build was stopped from outside, or another step failed first.
pub fn cancelled() -> Problem {
    Problem::new(Kind::Cancelled, "cancelled")
}

/// A command that ended badly, in the words that users of BuildKit know.
pub fn command_failed(args: &[String], exit: crate::sandbox::Exit) -> Problem {
    let command = args.join(" ");
    let how = match (exit.out_of_memory, exit.signal) {
        (true, _) => "it ran out of memory".to_owned(),
        (_, Some(signal)) => format!("killed by signal {signal} (exit code: {})", exit.code),
        (_, None) => format!("exit code: {}", exit.code),
    };
    let mut problem = Problem::new(Kind::Build, format!("process {command:?} did not complete successfully: {how}"));
    problem.run_exit_code = Some(exit.code);
    if exit.out_of_memory {
        problem = problem
            .hint("give it more, with --memory or for the container that kiln runs in, or let it use fewer processes");
    }
    problem
}

/// A blocking piece of work off the asynchronous threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => match e.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            Err(_) => Err(cancelled()),
        },
    }
}
