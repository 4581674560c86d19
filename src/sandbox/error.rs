//! Why a process wasn't run.

use crate::report::{Kind, Problem};
use crate::sys;
use rustix::io::Errno;
use std::path::PathBuf;

/// Why a process wasn't run, or not to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build was stopped.
    #[error("stopped")]
    Cancelled,
    /// The command's program isn't there or can't be executed.
    #[error("exec {program:?}: {why}")]
    Command {
        /// As the command names it.
        program: String,
        /// What is wrong with it.
        why: String,
        /// The status that shells have for it: 127 where nothing was found, 126 otherwise.
        code: i32,
    },
    /// A path that can't be used.
    #[error("the path {} of the {what} can't be used: {why}", path.display())]
    Path {
        /// What it is the path of.
        what: &'static str,
        /// The path.
        path: PathBuf,
        /// Why.
        why: &'static str,
    },
    /// Something that a spec can't ask for.
    #[error("{0}")]
    Spec(String),
    /// A part of the spec couldn't be had.
    #[error("{part}")]
    Part {
        /// Which.
        part: Part,
        /// The call.
        #[source]
        source: sys::Error,
    },
    /// A limit can't be set here.
    #[error("can't limit {what}: {why}")]
    Limit {
        /// What.
        what: &'static str,
        /// Why.
        why: String,
    },
    /// A private network couldn't be had.
    #[error("there is no network by {helper}: {said}")]
    Network {
        /// The program that was to connect it.
        helper: &'static str,
        /// Why not.
        said: String,
    },
    /// The OCI runtime couldn't be started, or didn't start the process.
    #[error("{runtime} can't run the process: {said}")]
    Runtime {
        /// Which.
        runtime: String,
        /// What it said.
        said: String,
    },
    /// Processes of a RUN are still there although they were killed.
    #[error("cannot end processes of the RUN: {processes} did not end within {seconds} seconds of SIGKILL")]
    Survivors {
        /// Their names, numbers and states.
        processes: String,
        /// How long kiln waited.
        seconds: u64,
    },
    /// The process made something where the container has a mount, at level in-place.
    #[error("the process makes {}, but something is mounted on that path in this container; mount it elsewhere", .0.display())]
    Occupied(PathBuf),
    /// A system call failed.
    #[error("can't make the sandbox")]
    Call(#[from] sys::Error),
    /// A system call was refused to who has not the rights of the level.
    #[error("can't make the sandbox")]
    Denied {
        /// The isolation level.
        level: &'static str,
        /// The call.
        #[source]
        source: sys::Error,
    },
}

/// A part of a spec that can fail by itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Part {
    /// A mount.
    #[error("can't mount on {}", .0.display())]
    Mount(PathBuf),
    /// The working directory.
    #[error("can't work in {}", .0.display())]
    WorkingDirectory(PathBuf),
    /// A resource limit.
    #[error("can't set the limit {0}")]
    Limit(String),
}

impl Error {
    /// What is wrong with a command's program; `found` is what the name led to, if anything.
    pub(super) fn command(program: &str, found: Option<&str>, errno: Errno) -> Self {
        let why = match (errno, found) {
            (Errno::NOENT | Errno::NOTDIR, None) if program.contains('/') => "no such file or directory".into(),
            (Errno::NOENT | Errno::NOTDIR, None) => "executable file not found in $PATH".into(),
            (Errno::NOENT | Errno::NOTDIR, Some(found)) => {
                format!("no such file or directory ({found} is there: the interpreter or loader that it names isn't)")
            }
            (Errno::ACCESS, Some(found)) => format!("{found}: permission denied"),
            (Errno::NOEXEC, Some(found)) => {
                format!("{found}: exec format error (no program for this machine, or a script without a #! line)")
            }
            (errno, _) => std::io::Error::from(errno).to_string(),
        };
        let code = if matches!(errno, Errno::NOENT | Errno::NOTDIR) { 127 } else { 126 };
        Self::Command { program: program.to_owned(), why, code }
    }

    /// The same, of a process at this level.
    pub(crate) fn at_level(self, level: &'static str) -> Self {
        match self {
            Self::Call(source) if source.is_denied() => Self::Denied { level, source },
            other => other,
        }
    }

    /// Whose fault it is: the build's, or the place's.
    fn kind(&self) -> Kind {
        match self {
            Self::Cancelled => Kind::Cancelled,
            Self::Command { .. } | Self::Path { .. } | Self::Spec(_) => Kind::Build,
            Self::Part { part: Part::Limit(_), .. } => Kind::Environment,
            // A target that a file stands in the way of is the image's fault.
            Self::Part { source, .. } => match source.errno {
                Errno::LOOP | Errno::NOTDIR | Errno::ISDIR | Errno::NOENT | Errno::NAMETOOLONG | Errno::EXIST => {
                    Kind::Build
                }
                Errno::PERM if source.call == "mount" => Kind::Build,
                _ => Kind::Environment,
            },
            Self::Limit { .. }
            | Self::Occupied(_)
            | Self::Network { .. }
            | Self::Runtime { .. }
            | Self::Survivors { .. }
            | Self::Call(_)
            | Self::Denied { .. } => Kind::Environment,
        }
    }
}

/// What helps where no control group can be made.
const NEEDS_GROUP: &str = "leave out --memory, --cpus and --cpu-shares, or let kiln make control groups: as root with /sys/fs/cgroup \
                           writable, or in a group that was handed to this user (systemd: Delegate=yes)";

/// What to do about a process that SIGKILL does not end.
const UNINTERRUPTIBLE: &str =
    "a process in state D waits for a device or a file system (such as NFS), and ends once that answers";

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let mut problem = Problem::new(error.kind(), error.to_string());
        if let Some(source) = std::error::Error::source(&error) {
            problem = problem.because(source);
        }
        match &error {
            Error::Command { code, .. } => problem.run_exit_code = Some(*code),
            Error::Limit { .. } => problem = problem.hint(NEEDS_GROUP),
            Error::Survivors { .. } => problem = problem.hint(UNINTERRUPTIBLE),
            Error::Denied { level, source } => problem = problem.hint(super::probe::needs(level, source)),
            _ => {}
        }
        problem
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn become_problems_with_the_right_exit_code() {
        let call = |errno| sys::Error::new("openat2", "/proc", errno);
        let part = |errno| Error::Part { part: Part::Mount("/a".into()), source: call(errno) };
        let cases: [(Error, u8); 6] = [
            (Error::Cancelled, 130),
            (Error::command("x", None, Errno::NOENT), 1),
            (Error::Call(call(Errno::PERM)), 4),
            (part(Errno::LOOP), 1),
            (part(Errno::PERM), 4),
            (Error::Limit { what: "memory", why: "x".into() }, 4),
        ];
        for (error, code) in cases {
            assert_eq!(Problem::from(error).kind.exit_code(), code);
        }
        let problem = Problem::from(Error::Call(call(Errno::PERM)).at_level("chroot"));
        assert_eq!(problem.causes, ["openat2 /proc: Operation not permitted (os error 1)"]);
        assert_eq!(problem.kind.exit_code(), 4);
    }

    #[test]
    fn a_refusal_names_the_level_that_was_tried() {
        let refused = |level, call, path| {
            let error = Error::Call(sys::Error::new(call, path, Errno::PERM)).at_level(level);
            Problem::from(error).hints.concat()
        };
        for (level, needs) in [
            ("root", "CAP_SYS_ADMIN"),
            ("rootless", "user namespaces"),
            ("chroot", "--cap-add SYS_ADMIN"),
            ("in-place", "as Docker gives them"),
            ("oci", "pivot_root"),
        ] {
            let hint = refused(level, "open_tree", "/x");
            assert!(hint.starts_with(&format!("isolation level {level}: it needs")) && hint.contains(needs), "{hint}");
        }
        assert!(refused("oci", "fsmount", "proc").contains("unmask=ALL"));
        let other = Problem::from(Error::Call(sys::Error::new("mount", "/x", Errno::NODEV)).at_level("root"));
        assert_eq!(other.hints.len(), 0, "{other:?}");
    }

    #[test]
    fn commands_fail_as_in_a_shell() {
        let cases = [
            ("x", None, Errno::NOENT, 127, "executable file not found in $PATH"),
            ("/x", None, Errno::NOENT, 127, "no such file or directory"),
            ("x", Some("/bin/x"), Errno::NOENT, 127, "interpreter"),
            ("x", Some("/bin/x"), Errno::ACCESS, 126, "/bin/x: permission denied"),
            ("x", Some("/bin/x"), Errno::NOEXEC, 126, "exec format error"),
            ("x", Some("/bin/x"), Errno::TOOBIG, 126, "Argument list too long"),
        ];
        for (program, found, errno, code, text) in cases {
            let problem = Problem::from(Error::command(program, found, errno));
            assert_eq!(problem.run_exit_code, Some(code));
            assert!(problem.message.contains(text), "{}", problem.message);
        }
    }
}
