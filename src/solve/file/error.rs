//! Why a COPY, ADD or WORKDIR can't be done.

use crate::layer::{self, EntryPath};
use crate::report::{Kind, Problem, Span};
use crate::snapshot;

/// Files that couldn't be copied or made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A source isn't there.
    #[error("\"{path}\": not found")]
    NotFound {
        /// Where it was looked for.
        path: EntryPath,
        /// The source in the Dockerfile.
        span: Option<Span>,
        /// Whether it is only left out by ignore rules.
        ignored: bool,
    },
    /// A directory is to be copied onto something else.
    #[error("cannot copy to non-directory: {0}")]
    NonDirectory(EntryPath),
    /// A file is to be copied onto a directory.
    #[error("cannot replace to directory {0} with file")]
    ReplacesDirectory(EntryPath),
    /// A directory is needed where something else is.
    #[error("mkdir {0}: not a directory")]
    Occupied(EntryPath),
    /// A source or destination that is no path.
    #[error(transparent)]
    Path(#[from] layer::PathError),
    /// A pattern of `--exclude` or `--parents` that means nothing.
    #[error("{0}")]
    Pattern(String),
    /// A link of an archive that leads out of the folder it is unpacked in, or has no end.
    #[error("archive entry {path}: {reason}")]
    Archive {
        /// Which entry.
        path: EntryPath,
        /// What is wrong.
        reason: &'static str,
    },
    /// A tree couldn't be read.
    #[error(transparent)]
    Tree(#[from] snapshot::Error),
    /// An archive couldn't be read, or the new layer couldn't be written.
    #[error(transparent)]
    Layer(#[from] layer::Error),
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Layer(layer::Error::Write(_)) => Kind::Environment,
            Error::Layer(layer) if snapshot::hint_of(layer).is_some() => Kind::Environment,
            Error::Tree(snapshot::Error::Call { call, .. }) if is_ours(call) => Kind::Environment,
            Error::Tree(tree) if tree.is_of_environment() => Kind::Environment,
            _ => Kind::Build,
        };
        let mut problem = Problem::new(kind, error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            problem = problem.because(source);
        }
        let hint = match &error {
            Error::Tree(tree) => tree.hint(),
            Error::Layer(layer) => snapshot::hint_of(layer),
            _ => None,
        };
        problem.hints.extend(hint.map(str::to_owned));
        match error {
            Error::NotFound { span, ignored, .. } => {
                problem.span = span;
                if ignored {
                    problem = problem.hint("it is in the context, but an ignore rule (.dockerignore) leaves it out");
                }
                problem
            }
            Error::Layer(layer::Error::Reserved(_)) | Error::Tree(snapshot::Error::Layer(layer::Error::Reserved(_))) => {
                problem.hint("rename the file, or remove it in the step that makes it; outputs that are no image can hold it")
            }
            Error::Tree(snapshot::Error::NoUser(_) | snapshot::Error::NoGroup(_)) => problem.hint(
                "names are looked up in the image's /etc/passwd and /etc/group (never with --link): use a number",
            ),
            Error::Tree(snapshot::Error::Exposed { .. }) => problem
                .cause("this kernel, or the container's seccomp profile, has no Landlock, which would keep it from processes")
                .hint(
                    "give credentials by $DOCKER_AUTH_CONFIG and secrets by --secret id=ID,env=NAME instead of files that are \
                     mounted, or accept that a RUN can read them with --force-in-place",
                ),
            _ => problem,
        }
    }
}

/// Whether a call writes to this machine: then its failure is not the Dockerfile's.
fn is_ours(call: &str) -> bool {
    matches!(call, "create" | "write" | "mkdir" | "mknod" | "symlink" | "link" | "fchown" | "chown" | "fsetxattr")
}
