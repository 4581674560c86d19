//! What is to run, as data.

use super::Error;
use crate::sys::{RootMount, Signals};
use std::fmt;
use std::path::{Component, Path, PathBuf};

/// A process and all it is given. Names of users are numbers here: the caller looked them up in the root filesystem.
#[derive(Clone)]
pub struct Spec {
    /// Its root filesystem.
    pub root: RootMount,
    /// The program and its arguments. A program without a slash is looked up in the `PATH` of `env`, inside the root.
    pub args: Vec<String>,
    /// `NAME`, `value`; a later one of a name wins.
    pub env: Vec<(String, String)>,
    /// The folder it starts in; absolute. Made (0755, the user's) if it isn't there, as BuildKit does.
    pub cwd: PathBuf,
    /// Who it is.
    pub user: User,
    /// The machine's name.
    pub hostname: String,
    /// Its network.
    pub network: Network,
    /// Further entries of `/etc/hosts`: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Its limits.
    pub limits: Limits,
    /// All capabilities, no filter, nothing hidden: `--security=insecure`.
    pub insecure: bool,
    /// Where its streams go.
    pub stdio: Stdio,
    /// Signals that it gets while it runs.
    pub signals: Option<Signals>,
}

/// Without the values of variables and the content of files, which may be secrets.
impl fmt::Debug for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let env: Vec<&str> = self.env.iter().map(|(name, _)| name.as_str()).collect();
        let mounts: Vec<&Path> = self.mounts.iter().map(|m| m.target.as_path()).collect();
        let mut spec = f.debug_struct("Spec");
        spec.field("root", &self.root).field("args", &self.args).field("env", &env).field("cwd", &self.cwd);
        spec.field("user", &self.user).field("mounts", &mounts).field("limits", &self.limits).finish_non_exhaustive()
    }
}

/// BuildKit's name for the machine that a build sees.
pub const HOSTNAME: &str = "buildkitsandbox";

impl Spec {
    /// A command in a root filesystem, as root in `/`, on the host's network, without anything else.
    pub fn new(root: RootMount, args: Vec<String>) -> Self {
        Self {
            root,
            args,
            env: Vec::new(),
            cwd: PathBuf::from("/"),
            user: User::default(),
            hostname: HOSTNAME.to_owned(),
            network: Network::Host,
            extra_hosts: Vec::new(),
            mounts: Vec::new(),
            limits: Limits::default(),
            insecure: false,
            stdio: Stdio::Captured,
            signals: None,
        }
    }
}

/// Who a process is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct User {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// The network of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The executor's private one, where it has one; the host's otherwise.
    Default,
    /// The host's. It is the default of a builder that makes no networks: the process can reach what the host can,
    /// servers on the host's loopback device too.
    #[default]
    Host,
    /// A loopback device alone.
    None,
}

/// Something mounted for one process.
#[derive(Clone)]
pub struct Mount {
    /// Where: absolute. Links on the way are followed inside the root filesystem; what isn't there is made, and removed
    /// again afterwards if it is still empty.
    pub target: PathBuf,
    /// What.
    pub kind: MountKind,
}

/// What is mounted.
#[derive(Clone)]
pub enum MountKind {
    /// A folder, file or socket of another tree.
    Tree {
        /// The tree. An overlay's upper folder gets what is written.
        root: RootMount,
        /// The path in it; links stay inside. Empty is the tree itself.
        path: PathBuf,
        /// Whether writes are refused.
        readonly: bool,
    },
    /// The layers of a tree, topmost first, read-only.
    Layers {
        /// The layers.
        lowers: Vec<PathBuf>,
        /// The path in the tree; links stay inside. Empty is the tree itself.
        path: PathBuf,
    },
    /// Memory.
    Tmpfs {
        /// Bytes; `None` is half of the memory.
        size: Option<u64>,
    },
    /// A file with this content, which only ever lies in memory. Writes are refused.
    File {
        /// The bytes.
        content: Vec<u8>,
        /// The mode.
        mode: u32,
        /// The owner.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Limits; `None` is the system's.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// `/dev/shm`, bytes; 64 MiB without it.
    pub shm_size: Option<u64>,
    /// Name (`nofile`), soft, hard; [`u64::MAX`] is no limit.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Memory, bytes.
    pub memory: Option<u64>,
    /// Relative weight, 2 to 262144; 1024 is everybody's.
    pub cpu_shares: Option<u64>,
    /// Cores, in thousandths.
    pub milli_cpus: Option<u64>,
}

impl Limits {
    /// Whether a control group is needed to hold them.
    pub fn needs_cgroup(&self) -> bool {
        self.memory.is_some() || self.cpu_shares.is_some() || self.milli_cpus.is_some()
    }
}

/// Where a process's streams go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Stdio {
    /// Input is empty; output and errors go to the caller.
    #[default]
    Captured,
    /// All three are kiln's own, or pipes to what the process is not to open again.
    Inherit,
    /// A new terminal, connected to kiln's own.
    Terminal,
}

/// An absolute path without `.` and `..`, as a process in the root filesystem would mean it.
///
/// # Errors
/// [`Error::Path`] for one that is relative, holds a zero byte, or is too long for the kernel.
pub(crate) fn clean(path: &Path, what: &'static str) -> Result<PathBuf, Error> {
    let refuse = |why| Error::Path { what, path: path.to_owned(), why };
    if !path.is_absolute() {
        return Err(refuse("it isn't absolute"));
    }
    let bytes = path.as_os_str().as_encoded_bytes();
    if bytes.contains(&0) {
        return Err(refuse("it holds a zero byte"));
    }
    if bytes.len() >= 4000 {
        return Err(refuse("it is too long"));
    }
    let mut clean = PathBuf::from("/");
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    Ok(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_clean() {
        for (path, expected) in
            [("/", "/"), ("/a//b/./c/", "/a/b/c"), ("/a/../../b", "/b"), ("/..", "/"), ("/a b\u{e9}", "/a b\u{e9}")]
        {
            assert_eq!(clean(Path::new(path), "mount").unwrap(), Path::new(expected), "{path}");
        }
    }

    #[test]
    fn secrets_are_not_in_the_debug_text() {
        let mut spec = Spec::new(RootMount::Dir("/r".into()), vec!["/bin/x".into()]);
        spec.env.push(("TOKEN".into(), "hunter2".into()));
        let kind = MountKind::File { content: b"hunter2".to_vec(), mode: 0o400, uid: 0, gid: 0 };
        spec.mounts.push(Mount { target: "/run/secrets/t".into(), kind });
        let text = format!("{spec:?}");
        assert!(text.contains("TOKEN") && text.contains("/run/secrets/t"), "{text}");
        let bytes = format!("{:?}", b"hunter2");
        assert!(!text.contains("hunter2") && !text.contains(bytes.trim_matches(['[', ']'])), "{text}");
    }

    #[test]
    fn bad_paths_are_refused() {
        let long = format!("/{}", "x/".repeat(3000));
        for path in ["", "a", "./a", "/a\0b", &long] {
            assert!(matches!(clean(Path::new(path), "mount"), Err(Error::Path { .. })), "{path}");
        }
    }
}
