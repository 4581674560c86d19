//! Everything a build can do, as data: a [`BuildPlan`] is a DAG of [`Op`]s, and the targets they make.
//!
//! A vertex either yields a *root filesystem* ([`Op::Image`], [`Op::Exec`], [`Op::File`]: a chain of layers) or a *tree*
//! to read from ([`Op::Local`], [`Op::Git`], [`Op::Http`]). Paths inside root filesystems are absolute and clean.
//! `solve::key` destructures every struct here without `..`: a new field doesn't compile until it is keyed.

use crate::oci::{Descriptor, Digest, ImageConfig, Platform, Reference};
use crate::report::Span;

/// A vertex's index in [`BuildPlan::vertices`].
pub type VertexId = usize;

/// What to do, only what the targets need, inputs before their users.
#[derive(Debug, Clone, Default)]
pub struct BuildPlan {
    /// The steps; an op names only vertices before itself.
    pub vertices: Vec<Vertex>,
    /// One image for each platform asked for.
    pub targets: Vec<Target>,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that files, layers and the image are dated with.
    pub source_date_epoch: Option<i64>,
}

/// One step.
#[derive(Debug, Clone)]
pub struct Vertex {
    /// What it does.
    pub op: Op,
    /// What is shown: `[builder 2/5] RUN make`.
    pub name: String,
    /// The instruction; empty for steps that no instruction names.
    pub span: Span,
    /// The name of its stage (or its number), for `--no-cache-filter`.
    pub stage: String,
    /// Run it although the cache may know it.
    pub no_cache: bool,
}

/// An image that the plan makes.
#[derive(Debug, Clone)]
pub struct Target {
    /// What it runs on.
    pub platform: Platform,
    /// Its root filesystem; `None` is empty (`FROM scratch` and nothing else).
    pub root: Option<VertexId>,
    /// Its configuration but for `rootfs`, `history` and `created`, which follow from the layers.
    pub config: ImageConfig,
    /// Its history: the base's entries, then one for each instruction, in order.
    pub history: Vec<HistoryEntry>,
}

/// A history entry before times are known.
#[derive(Debug, Clone, PartialEq)]
pub enum HistoryEntry {
    /// As the base image has it.
    Base(crate::oci::History),
    /// An instruction of this Dockerfile.
    Instruction {
        /// BuildKit's text: `RUN /bin/sh -c make # buildkit`.
        created_by: String,
        /// The vertex whose layer it is; `None` for those that only change the configuration.
        layer: Option<VertexId>,
    },
}

impl HistoryEntry {
    /// About how many bytes of memory it takes.
    pub(super) fn weight(&self) -> usize {
        let text = match self {
            Self::Base(entry) => entry.created_by.len() + entry.author.len() + entry.comment.len(),
            Self::Instruction { created_by, .. } => created_by.len(),
        };
        size_of::<Self>() + text
    }
}

/// What a vertex does.
#[derive(Debug, Clone)]
pub enum Op {
    /// The root filesystem of a base image.
    Image(ImageOp),
    /// A folder or archive given on the command line: the context or a named one.
    Local(LocalOp),
    /// A git repository.
    Git(GitOp),
    /// A file from a web server.
    Http(HttpOp),
    /// A process.
    Exec(ExecOp),
    /// Files made or copied: one layer.
    File(FileOp),
}

impl Op {
    /// The vertices whose results it reads.
    pub fn inputs(&self) -> Vec<VertexId> {
        match self {
            Self::Image(_) | Self::Local(_) | Self::Git(_) | Self::Http(_) => Vec::new(),
            Self::Exec(e) => e
                .base
                .into_iter()
                .chain(e.mounts.iter().filter_map(|m| match &m.kind {
                    MountSource::Bind { from, .. } => *from,
                    MountSource::Cache { from, .. } => *from,
                    MountSource::Tmpfs { .. }
                    | MountSource::Secret { .. }
                    | MountSource::Ssh { .. }
                    | MountSource::Text { .. } => None,
                }))
                .collect(),
            Self::File(f) => f
                .base
                .into_iter()
                .chain(f.actions.iter().filter_map(|a| match a {
                    FileAction::Copy(c) => c.from,
                    FileAction::Mkdir { .. } | FileAction::Mkfile { .. } => None,
                }))
                .collect(),
        }
    }
}

/// A base image, resolved: its layers are known, none is downloaded yet.
#[derive(Debug, Clone)]
pub struct ImageOp {
    /// Where it is, pinned.
    pub reference: Reference,
    /// The OCI layout on this machine that has it instead of a registry: `PATH[:TAG|@DIGEST]`.
    pub layout: Option<String>,
    /// The manifest's digest.
    pub manifest: Digest,
    /// The platform asked for.
    pub platform: Platform,
    /// Its layers, lowest first.
    pub layers: Vec<BaseLayer>,
}

/// A layer of a base image.
#[derive(Debug, Clone)]
pub struct BaseLayer {
    /// The blob.
    pub descriptor: Descriptor,
    /// The digest of its uncompressed tar.
    pub diff_id: Digest,
}

/// A local tree; which one a name means is the caller's business (`source::Contexts`).
#[derive(Debug, Clone)]
pub struct LocalOp {
    /// `context`, or the name of `--build-context`.
    pub name: String,
}

/// A git repository at a commit.
#[derive(Debug, Clone)]
pub struct GitOp {
    /// Where to fetch from, without a fragment.
    pub remote: String,
    /// Branch, tag or commit as written; empty for the default branch.
    pub reference: String,
    /// The commit that `reference` meant when bases were resolved.
    pub commit: String,
    /// The folder inside it that is the tree; empty for the whole.
    pub subdir: String,
    /// Whether `.git` stays.
    pub keep_git_dir: bool,
    /// Whether submodules are fetched.
    pub submodules: bool,
}

/// A file from a web server.
#[derive(Debug, Clone)]
pub struct HttpOp {
    /// The address.
    pub url: String,
    /// What its content must be.
    pub checksum: Option<Digest>,
    /// The name of the file in the resulting tree.
    pub filename: String,
    /// The content's digest, as bases were resolved.
    pub content: Option<Digest>,
}

/// A process in a root filesystem; its changes are one layer.
#[derive(Debug, Clone)]
pub struct ExecOp {
    /// The root filesystem; `None` is empty.
    pub base: Option<VertexId>,
    /// The program and its arguments, shell already in front.
    pub args: Vec<String>,
    /// `NAME`, `value`, in order; a later one of a name wins.
    pub env: Vec<(String, String)>,
    /// Variables that reach the process but not the cache key (proxy settings).
    pub env_unkeyed: Vec<(String, String)>,
    /// The folder it starts in.
    pub cwd: String,
    /// `user[:group]`, names or numbers, looked up in the root filesystem; empty is root.
    pub user: String,
    /// What is mounted, in order.
    pub mounts: Vec<Mount>,
    /// Its network.
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
    /// The platform it runs on.
    pub platform: Platform,
    /// The machine's name (`BUILDKIT_SANDBOX_HOSTNAME`); `None` is the builder's choice.
    pub hostname: Option<String>,
    /// `/etc/hosts` entries: name, address.
    pub extra_hosts: Vec<(String, String)>,
    /// Its limits.
    pub limits: Limits,
}

/// The network of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Network {
    /// The builder's choice.
    #[default]
    Default,
    /// A loopback device alone.
    None,
    /// The host's.
    Host,
}

/// Limits of a process; `None` is the system's.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Limits {
    /// `/dev/shm`, bytes.
    pub shm_size: Option<u64>,
    /// Name (`nofile`), soft, hard.
    pub ulimits: Vec<(String, u64, u64)>,
    /// Memory, bytes.
    pub memory: Option<u64>,
    /// Relative weight.
    pub cpu_shares: Option<u64>,
    /// Cores, in thousandths.
    pub milli_cpus: Option<u64>,
}

/// Something mounted for one process.
#[derive(Debug, Clone)]
pub struct Mount {
    /// Where: absolute and clean.
    pub target: String,
    /// What.
    pub kind: MountSource,
}

/// What is mounted.
#[derive(Debug, Clone)]
pub enum MountSource {
    /// Files of another vertex; writes are discarded.
    Bind {
        /// Whose; `None` is an empty tree.
        from: Option<VertexId>,
        /// The path in it.
        source: String,
        /// Whether writes are refused.
        readonly: bool,
    },
    /// A folder that outlives the build.
    Cache {
        /// Its name.
        id: String,
        /// What it starts with.
        from: Option<VertexId>,
        /// The path in that.
        source: String,
        /// Whether writes are refused.
        readonly: bool,
        /// Who else may use it meanwhile.
        sharing: Sharing,
        /// Mode of the folder when it is made.
        mode: u32,
        /// Its owner then.
        uid: u32,
        /// Its group then.
        gid: u32,
    },
    /// Memory.
    Tmpfs {
        /// Bytes.
        size: Option<u64>,
    },
    /// A secret.
    Secret {
        /// Which.
        id: String,
        /// The variable that gets it, too or instead.
        env: Option<String>,
        /// Whether a file appears at `target`.
        file: bool,
        /// Whether it is an error when it isn't there.
        required: bool,
        /// The file's mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// An SSH agent's socket, in `SSH_AUTH_SOCK`.
    Ssh {
        /// Which.
        id: String,
        /// Whether it is an error when it isn't there.
        required: bool,
        /// The socket's mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// A file with this content: a heredoc of RUN.
    Text {
        /// The bytes.
        content: String,
        /// The mode.
        mode: u32,
    },
}

/// Who may use a cache mount at the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sharing {
    /// Anybody.
    #[default]
    Shared,
    /// Each gets one of its own.
    Private,
    /// One after the other.
    Locked,
}

/// Files made or copied: one layer.
#[derive(Debug, Clone)]
pub struct FileOp {
    /// The root filesystem they go on; `None` is empty.
    pub base: Option<VertexId>,
    /// In order.
    pub actions: Vec<FileAction>,
    /// `--link`: the layer doesn't depend on the base, only stands on it.
    pub link: bool,
    /// Whether it is a WORKDIR: no layer change when the folder is there already.
    pub workdir: bool,
}

/// One thing done to files.
#[derive(Debug, Clone)]
pub enum FileAction {
    /// Copies.
    Copy(CopyAction),
    /// Makes a folder and its parents; one that is there stays as it is.
    Mkdir {
        /// Where.
        path: String,
        /// Its mode, before any umask.
        mode: u32,
        /// Its owner and that of the parents made.
        owner: Option<Owner>,
    },
    /// Writes a file.
    Mkfile {
        /// Where: a folder when it ends in `/`, then `name` is added.
        path: String,
        /// The file's name, for a path that is a folder.
        name: String,
        /// Its bytes.
        content: Vec<u8>,
        /// `--chmod`.
        mode: Option<Mode>,
        /// `--chown`.
        owner: Option<Owner>,
    },
}

/// A copy from one tree.
#[derive(Debug, Clone)]
pub struct CopyAction {
    /// Whose tree; `None` is an empty one.
    pub from: Option<VertexId>,
    /// Paths in it, expanded but not globbed.
    pub sources: Vec<String>,
    /// Where to: absolute and clean but for a trailing `/`, which says that it is a folder.
    pub dest: String,
    /// `--chown`. `None` keeps the owner that the source tree says (a context's and a URL's files are 0:0 there).
    pub owner: Option<Owner>,
    /// `--chmod`.
    pub mode: Option<Mode>,
    /// `--parents`.
    pub parents: bool,
    /// `--exclude`.
    pub exclude: Vec<String>,
    /// Whether archives are unpacked.
    pub unpack: Unpack,
    /// The place of each source in the Dockerfile, for errors.
    pub source_spans: Vec<Span>,
}

impl CopyAction {
    /// A copy without any flag.
    pub fn plain(from: Option<VertexId>, sources: &[&str], dest: &str) -> Self {
        Self {
            from,
            sources: sources.iter().map(|s| (*s).to_owned()).collect(),
            dest: dest.to_owned(),
            owner: None,
            mode: None,
            parents: false,
            exclude: Vec::new(),
            unpack: Unpack::Never,
            source_spans: Vec::new(),
        }
    }
}

/// Whether archives are unpacked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Unpack {
    /// Never: COPY, `ADD --unpack=false`.
    #[default]
    Never,
    /// Local archives: ADD.
    Archives,
    /// Always: `ADD --unpack` of a URL.
    Always,
}

/// `--chown`: names are looked up in the root filesystem that the files go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// A name or number.
    pub user: String,
    /// A name or number; without it, the number of the user (BuildKit's rule).
    pub group: Option<String>,
}

/// `--chmod`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// Octal.
    Octal(u32),
    /// Symbolic clauses (`u=rwX,go-w`), checked by the planner.
    Symbolic(String),
}
