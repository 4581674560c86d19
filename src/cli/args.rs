//! The command line as typed: clap's structures, with nothing resolved or checked beyond their shape.
//! [`super::request`] makes sense of them. Flags mean what they mean in `docker buildx build`.

mod process;

pub use process::Process;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// Builds OCI images from Dockerfiles: no daemon, no root needed, no privileged container.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, disable_help_subcommand = true)]
pub struct Cli {
    /// The folder of the local store [default: $KILN_ROOT, else /var/lib/kiln for root, else the XDG data folder].
    #[arg(long, value_name = "DIR", global = true)]
    pub root: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[expect(clippy::large_enum_variant, reason = "one value in a process")]
pub enum Command {
    /// Build an image from a Dockerfile.
    Build(Build),
    /// Check a Dockerfile without building it.
    Check(Check),
    /// Show the steps a build would take, without taking them.
    Plan(Plan),
    /// Run a command in an image of the local store.
    Run(Run),
    /// Push an image of the local store to its registry.
    Push(Push),
    /// Pull an image into the local store.
    Pull(Pull),
    /// Give an image of the local store another name.
    Tag(Tag),
    /// List the images of the local store.
    Images(Images),
    /// Remove names from the local store.
    Rmi(Rmi),
    /// Print what images say about themselves as JSON.
    Inspect(Inspect),
    /// Print the history of an image.
    History(History),
    /// Write images of the local store to an archive.
    Save(Save),
    /// Put the images of an archive into the local store.
    Load(Load),
    /// Store credentials of a registry.
    Login(Login),
    /// Forget credentials of a registry.
    Logout(Logout),
    /// Say why the steps of a build ran: which file, variable, command or base was new, and since which build.
    Explain(Explain),
    /// Remove what nothing needs from the local store.
    Prune(Prune),
    /// Show what takes the space of the local store.
    Du(Du),
    /// Print what kiln found out about this place.
    Info(Info),
    /// Print what kiln sees inside.
    #[command(subcommand, hide = true)]
    Debug(Debug),
}

/// The flags that say what is built from: those of `build`, `check` and `plan`.
#[derive(Debug, Args)]
pub struct Source {
    /// The Dockerfile; - reads it from standard input [default: CONTEXT/Dockerfile].
    #[arg(short, long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The stage to build [default: the last].
    #[arg(long, value_name = "STAGE")]
    pub target: Option<String>,
    /// Set an ARG; without =VALUE, to the value of the environment variable of that name.
    #[arg(long, value_name = "NAME[=VALUE]")]
    pub build_arg: Vec<String>,
    /// A further context that COPY --from and FROM can name: a folder, a git or web address, s3://BUCKET/KEY,
    /// gs://BUCKET/KEY, docker-image://REF, oci-layout://DIR, target:STAGE.
    #[arg(long, value_name = "NAME=CONTEXT")]
    pub build_context: Vec<String>,
    /// What the image shall run on, as in linux/amd64; several separated by commas.
    #[arg(long, value_name = "PLATFORM", value_delimiter = ',')]
    pub platform: Vec<String>,
    /// What COPY and ADD read from: a folder, a git repository, a tar (a file, a web address, s3://BUCKET/KEY,
    /// gs://BUCKET/KEY, - for standard input).
    pub context: String,
}

/// How registries are reached.
#[derive(Debug, Args, Default)]
pub struct Registry {
    /// Ask URL first for what HOST has; several times for several mirrors.
    #[arg(long, value_name = "HOST=URL")]
    pub registry_mirror: Vec<String>,
    /// Allow plain HTTP and unverified certificates with HOST; loopback needs no leave for plain HTTP.
    #[arg(long, value_name = "HOST[:PORT]")]
    pub insecure_registry: Vec<String>,
}

/// `kiln build`.
#[derive(Debug, Args)]
pub struct Build {
    /// What is built.
    #[command(flatten)]
    pub source: Source,
    /// What its processes may use.
    #[command(flatten)]
    pub process: Process,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: Registry,
    /// A name for the image.
    #[arg(short, long, value_name = "NAME[:TAG]")]
    pub tag: Vec<String>,
    /// Push the image to the registries that its names say.
    #[arg(long)]
    pub push: bool,
    /// Write the image somewhere: type=oci|docker|local|tar|registry|image,dest=PATH.
    #[arg(short, long, value_name = "SPEC")]
    pub output: Vec<String>,
    /// Ask this cache too: type=registry,ref=NAME (of a cache, or of an image with an inline one), type=local,src=FOLDER or
    /// type=gha.
    #[arg(long, value_name = "SPEC")]
    pub cache_from: Vec<String>,
    /// Put the steps' results there: type=registry,ref=NAME, type=local,dest=FOLDER or type=gha, with mode=min|max and
    /// ignore-error=true|false; type=inline: into the image itself.
    #[arg(long, value_name = "SPEC")]
    pub cache_to: Vec<String>,
    /// Ask this repository, and put the results of all stages there: --cache-from and --cache-to type=registry,mode=max.
    #[arg(long, value_name = "NAME")]
    pub cache_repo: Option<String>,
    /// Use no result that is older than this, wherever it is kept, as in 336h.
    #[arg(long, value_name = "DURATION")]
    pub cache_ttl: Option<String>,
    /// Fail where a step would run that the cache doesn't know: any, one of STAGE, or one like PATTERN ('RUN npm *').
    #[arg(long, value_name = "STAGE|PATTERN", num_args = 0..=1, require_equals = true, default_missing_value = "")]
    pub require_cache: Vec<String>,
    /// Begin cache mounts with what is there: type=registry,ref=NAME, type=local,src=FOLDER or type=gha, with ids=A|B.
    #[arg(long, value_name = "SPEC")]
    pub cache_mounts_from: Vec<String>,
    /// Put the content of cache mounts there: type=registry,ref=NAME, type=local,dest=FOLDER or type=gha, with ids=A|B,max-size=N.
    #[arg(long, value_name = "SPEC")]
    pub cache_mounts_to: Vec<String>,
    /// Look nothing up in the cache.
    #[arg(long)]
    pub no_cache: bool,
    /// Look nothing of these stages up in the cache.
    #[arg(long, value_name = "STAGE", value_delimiter = ',')]
    pub no_cache_filter: Vec<String>,
    /// Let RUN use the host's network or every privilege: network.host, security.insecure.
    #[arg(long, value_name = "ENTITLEMENT")]
    pub allow: Vec<String>,
    /// Ask the registry what the bases' tags mean, even where the local store knows.
    #[arg(long)]
    pub pull: bool,
    /// A secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=NAME][,onbuild=false].
    #[arg(long, value_name = "SPEC")]
    pub secret: Vec<String>,
    /// An SSH agent for RUN --mount=type=ssh: default or ID[=SOCKET], without a socket that of $SSH_AUTH_SOCK; or
    /// ID=KEYFILE[,KEYFILE], whose keys kiln signs with.
    #[arg(long, value_name = "ID[=SOCKET]")]
    pub ssh: Vec<String>,
    /// A label of the image.
    #[arg(long, value_name = "KEY=VALUE")]
    pub label: Vec<String>,
    /// Write the image's id into FILE.
    #[arg(long, value_name = "FILE")]
    pub iidfile: Option<PathBuf>,
    /// Write what was built, or why not, into FILE as JSON.
    #[arg(long, value_name = "FILE")]
    pub metadata_file: Option<PathBuf>,
    /// How progress is shown: auto, tty, plain, rawjson or quiet.
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    pub progress: String,
    /// Show no progress, print the image's id.
    #[arg(short, long)]
    pub quiet: bool,
    /// How many steps run at once [default: the number of cores, and more while they leave those idle].
    #[arg(long, value_name = "N")]
    pub jobs: Option<usize>,
    /// How layers are compressed: gzip, zstd or uncompressed, with :LEVEL.
    #[arg(long, value_name = "TYPE[:LEVEL]", default_value = "gzip")]
    pub compression: String,
    /// Check the Dockerfile instead of building it: --call=check.
    #[arg(long, conflicts_with = "call")]
    pub check: bool,
    /// What to do with the Dockerfile: build, check, outline or targets, with ,format=json.
    #[arg(long, value_name = "METHOD")]
    pub call: Option<String>,
    /// What the store may take, as in 50g, before the longest unused goes; none for anything [default: $KILN_STORE_LIMIT,
    /// else three quarters of its disk].
    #[arg(long, value_name = "BYTES")]
    pub store_limit: Option<String>,
    /// Flags whose work isn't done yet.
    #[command(flatten)]
    pub later: Later,
}

/// Flags of `docker buildx build` that kiln doesn't know how to honour yet. They are parsed so that the message can say
/// just that; [`super::request`] refuses each.
#[derive(Debug, Args, Default)]
pub struct Later {
    #[arg(long, hide = true, value_name = "KEY=VALUE")]
    pub(super) annotation: Vec<String>,
    #[arg(long, hide = true, value_name = "SPEC")]
    pub(super) attest: Vec<String>,
    #[arg(long, hide = true, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) provenance: Option<String>,
    #[arg(long, hide = true, value_name = "SPEC", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(super) sbom: Option<String>,
    #[arg(long, hide = true, value_name = "GROUP")]
    pub(super) cgroup_parent: Option<String>,
}

/// `kiln check`.
#[derive(Debug, Args)]
pub struct Check {
    /// What is checked.
    #[command(flatten)]
    pub source: Source,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: Registry,
    /// How findings are printed: text, json or sarif.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
    /// Mend the findings that have one safe mend, in the Dockerfile itself.
    #[arg(long)]
    pub fix: bool,
}

/// `kiln plan`.
#[derive(Debug, Args)]
pub struct Plan {
    /// What is planned.
    #[command(flatten)]
    pub source: Source,
    /// How registries are reached.
    #[command(flatten)]
    pub registry: Registry,
    /// How the plan is printed: text, json, dot or mermaid.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}

/// `kiln run`.
#[derive(Debug, Args)]
pub struct Run {
    /// What the process may use.
    #[command(flatten)]
    pub process: Process,
    /// Set a variable; without =VALUE, to the value it has outside.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Run as this user, by name or number.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Start in this folder.
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Run this program instead of the image's entrypoint; empty for none.
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The image, and arguments for its entrypoint instead of its own.
    // One list, so that everything behind the image stays as it is, a `--` too.
    #[arg(required = true, trailing_var_arg = true, value_names = ["IMAGE", "ARG"], num_args = 1..)]
    pub image_and_args: Vec<String>,
}

/// `kiln push`.
#[derive(Debug, Args)]
pub struct Push {
    /// What goes where.
    #[command(flatten)]
    pub transfer: Transfer,
}

/// `kiln pull`.
#[derive(Debug, Args)]
pub struct Pull {
    /// What comes from where.
    #[command(flatten)]
    pub transfer: Transfer,
    /// What the image shall run on [default: this machine].
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
}

/// What `push` and `pull` share.
#[derive(Debug, Args)]
pub struct Transfer {
    /// How registries are reached.
    #[command(flatten)]
    pub registry: Registry,
    /// How progress is shown: auto, tty, plain, rawjson or quiet.
    #[arg(long, value_name = "STYLE", default_value = "auto")]
    pub progress: String,
    /// Show no progress.
    #[arg(short, long)]
    pub quiet: bool,
    /// The image.
    pub image: String,
}

/// `kiln tag`.
#[derive(Debug, Args)]
pub struct Tag {
    /// The image as it is named now.
    pub source: String,
    /// Its further name.
    pub name: String,
}

/// `kiln images`.
#[derive(Debug, Args)]
pub struct Images {
    /// Print only ids.
    #[arg(short, long)]
    pub quiet: bool,
    /// How: table or json.
    #[arg(long, value_name = "FORMAT", default_value = "table", conflicts_with = "quiet")]
    pub format: String,
}

/// `kiln rmi`.
#[derive(Debug, Args)]
pub struct Rmi {
    /// Remove an image's names in several repositories too.
    #[arg(short, long)]
    pub force: bool,
    /// The names to remove, or the ids of images that lose all of theirs.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `kiln inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `kiln history`.
#[derive(Debug, Args)]
pub struct History {
    /// Don't cut long lines.
    #[arg(long)]
    pub no_trunc: bool,
    /// How: table or json.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: String,
    /// The image.
    pub image: String,
}

/// `kiln save`.
#[derive(Debug, Args)]
pub struct Save {
    /// The archive: an OCI layout that docker load takes too [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// The images.
    #[arg(required = true, value_name = "IMAGE")]
    pub images: Vec<String>,
}

/// `kiln load`.
#[derive(Debug, Args)]
pub struct Load {
    /// The archive: an OCI layout or what docker save wrote, compressed or not [default: standard input].
    #[arg(short, long, value_name = "FILE")]
    pub input: Option<PathBuf>,
}

/// `kiln login`.
#[derive(Debug, Args)]
pub struct Login {
    /// How registries are reached.
    #[command(flatten)]
    pub registry_flags: Registry,
    /// The user's name.
    #[arg(short, long, value_name = "NAME")]
    pub username: Option<String>,
    /// The password, which other users of this machine can see here: better --password-stdin.
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub password: Option<String>,
    /// Read the password from standard input.
    #[arg(long)]
    pub password_stdin: bool,
    /// The registry's host [default: docker.io].
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

/// `kiln logout`.
#[derive(Debug, Args)]
pub struct Logout {
    /// The registry's host [default: docker.io].
    #[arg(value_name = "REGISTRY")]
    pub registry: Option<String>,
}

/// `kiln explain`.
#[derive(Debug, Args)]
pub struct Explain {
    /// The number of the build [default: the last].
    #[arg(value_name = "BUILD", conflicts_with = "list")]
    pub build: Option<u64>,
    /// List the builds that are remembered.
    #[arg(short, long)]
    pub list: bool,
    /// Name every file that changed, not only the first.
    #[arg(short, long)]
    pub all: bool,
    /// How: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}

/// `kiln prune`.
#[derive(Debug, Args)]
pub struct Prune {
    /// The cache too, not only what a crash left and no image or cache record needs.
    #[arg(short, long)]
    pub all: bool,
    /// Of everything that no image needs, the cache too, only this: until=AGE for what wasn't used for so long, as in 24h;
    /// type=cachemount or type=regular.
    #[arg(long, value_name = "KEY=VALUE")]
    pub filter: Vec<String>,
    /// Remove the longest unused, of the cache too, until this much is left, as in 10g.
    #[arg(long, value_name = "BYTES")]
    pub keep_storage: Option<String>,
}

/// `kiln du`.
#[derive(Debug, Args)]
pub struct Du {
    /// List each blob, unpacked layer and cache mount, the largest first, with who made it and which images need it.
    #[arg(short, long)]
    pub verbose: bool,
    /// How: table or json.
    #[arg(long, value_name = "FORMAT", default_value = "table")]
    pub format: String,
}

/// `kiln info`.
#[derive(Debug, Args)]
pub struct Info {
    /// How: text or json.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    pub format: String,
}

/// `kiln debug`.
#[derive(Debug, Subcommand)]
pub enum Debug {
    /// Forbid devices in a mount, as a hook of an OCI runtime.
    #[command(hide = true)]
    ForbidDevices {
        /// Where it is mounted.
        mount: PathBuf,
    },
    /// Print a Dockerfile's syntax tree as BuildKit's parser does.
    Ast {
        /// The Dockerfile; - reads it from standard input.
        file: PathBuf,
    },
}
