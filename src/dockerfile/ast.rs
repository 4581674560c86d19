//! What a Dockerfile says, instruction by instruction, before anything is expanded.
//!
//! Every piece of text that variables may stand in is a [`Word`]: the raw text with its place. Whether and with which
//! variables it is expanded is the planner's business ([`super::expand`] does the expanding).
//! Flags are a closed set per instruction: a field here, or an error at parse time.

use crate::report::Span;

/// A parsed file.
#[derive(Debug, Clone, Default)]
pub struct Dockerfile {
    /// The directives above the first instruction.
    pub directives: Directives,
    /// `ARG`s before the first `FROM`.
    pub global_args: Vec<Instruction>,
    /// The stages in order.
    pub stages: Vec<Stage>,
}

/// `# name=value` lines at the top.
#[derive(Debug, Clone, Default)]
pub struct Directives {
    /// `# syntax=`: noted, never fetched.
    pub syntax: Option<Word>,
    /// `# escape=`: backslash or backtick.
    pub escape: Escape,
    /// `# check=skip=A,B;error=true`.
    pub check: Option<Word>,
}

/// The escape character of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Escape {
    /// `\`
    #[default]
    Backslash,
    /// `` ` ``
    Backtick,
}

impl Escape {
    /// As a character.
    pub fn char(self) -> char {
        match self {
            Self::Backslash => '\\',
            Self::Backtick => '`',
        }
    }
}

/// A `FROM` and what follows it.
#[derive(Debug, Clone)]
pub struct Stage {
    /// The `FROM` itself.
    pub from: From,
    /// The whole `FROM` instruction.
    pub header: Header,
    /// The instructions after it.
    pub instructions: Vec<Instruction>,
}

/// `FROM [--platform=P] IMAGE [AS NAME]`
#[derive(Debug, Clone)]
pub struct From {
    /// `--platform`.
    pub platform: Option<Word>,
    /// The image, stage or `scratch`.
    pub image: Word,
    /// The stage's name as written (names compare without regard to case).
    pub name: Option<Word>,
    /// The `AS` between image and name, as written.
    pub as_keyword: Option<Word>,
}

/// A piece of text as it stands in the file (continuations joined), and its place.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Word {
    /// The raw text: quotes, escapes and variables still in it.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// What every instruction has, whatever it does.
#[derive(Debug, Clone, Default)]
pub struct Header {
    /// The whole instruction with its heredocs.
    pub span: Span,
    /// The keyword, as written.
    pub keyword: Word,
    /// The instruction on one line as BuildKit keeps it for the history: continuations joined, comments dropped,
    /// heredoc markers but not bodies.
    pub original: String,
    /// The comment lines directly above, without `#`; they document stages and ARGs for `--call outline`.
    pub comments: Vec<String>,
    /// The last empty line inside the instruction's continuations: allowed, but deprecated.
    pub empty_continuation: Option<Span>,
}

/// One instruction.
#[derive(Debug, Clone)]
pub struct Instruction {
    /// Place, keyword, original text.
    pub header: Header,
    /// What it does.
    pub kind: Kind,
}

/// What an instruction does. `FROM` is [`Stage::from`].
#[derive(Debug, Clone)]
pub enum Kind {
    /// `ARG NAME[=DEFAULT]...`
    Arg(Vec<ArgPair>),
    /// `RUN`
    Run(Run),
    /// `COPY`
    Copy(Copy),
    /// `ADD`
    Add(Add),
    /// `ENV`
    Env(Pairs),
    /// `LABEL`
    Label(Pairs),
    /// `WORKDIR PATH`
    Workdir(Word),
    /// `USER NAME`
    User(Word),
    /// `VOLUME PATH...`
    Volume(Vec<Word>),
    /// `EXPOSE PORT...`, sorted by their text as BuildKit does.
    Expose(Vec<Word>),
    /// `CMD`
    Cmd(CommandLine),
    /// `ENTRYPOINT`
    Entrypoint(CommandLine),
    /// `STOPSIGNAL SIGNAL`
    Stopsignal(Word),
    /// `SHELL ["program", ...]`
    Shell(Vec<Word>),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `ONBUILD INSTRUCTION`: the trigger as text for the image's config, and checked already.
    Onbuild {
        /// What goes into the image's `OnBuild`.
        text: String,
        /// The trigger, parsed, so that its lints show. `None` where it is wrong: the image is built all the same (only
        /// builds from it fail), so its errors are warnings.
        instruction: Option<Box<Instruction>>,
    },
    /// `MAINTAINER NAME`
    Maintainer(Word),
}

/// One `NAME[=DEFAULT]` of an ARG.
#[derive(Debug, Clone)]
pub struct ArgPair {
    /// The name.
    pub name: Word,
    /// The default, unexpanded.
    pub default: Option<Word>,
}

/// The pairs of ENV and LABEL.
#[derive(Debug, Clone, Default)]
pub struct Pairs {
    /// Key and value; both may hold variables.
    pub pairs: Vec<(Word, Word)>,
    /// Whether it was the old `ENV key value` form.
    pub legacy: bool,
}

/// A command in its shell or its JSON form.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// The command.
    pub form: Form,
    /// Its heredocs, in order (RUN only).
    pub heredocs: Vec<Heredoc>,
    /// The whole argument text.
    pub span: Span,
}

impl CommandLine {
    /// Whether the command is nothing but one heredoc (`RUN <<EOF`): its body is the script then, and no shell has to
    /// know heredocs.
    pub fn is_heredoc(&self) -> bool {
        let Form::Shell(text) = &self.form else { return false };
        !self.heredocs.is_empty() && matches!(super::heredoc::marker(text), Ok(Some(_)))
    }
}

/// Shell or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// Given to the stage's shell as one string.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// The file descriptor of `3<<EOF`; 0 when none stands there.
    pub fd: u32,
    /// The body; tabs already chomped where `<<-` says so.
    pub content: String,
    /// The body as it stands in the file, tabs and all: what a shell that reads heredocs itself is given.
    pub raw: String,
    /// Whether variables in the body are expanded (COPY and ADD; the delimiter wasn't quoted).
    pub expand: bool,
    /// Whether `<<-` was written.
    pub chomp: bool,
    /// The body's place.
    pub span: Span,
}

/// `RUN`
#[derive(Debug, Clone)]
pub struct Run {
    /// The command.
    pub command: CommandLine,
    /// `--mount=`, in order.
    pub mounts: Vec<Mount>,
    /// `--network=`.
    pub network: Option<Word>,
    /// `--security=`.
    pub security: Option<Word>,
    /// `--device=`, in order: noted so that the planner can refuse them at their place.
    pub devices: Vec<Word>,
}

/// One `--mount`: comma-separated fields as BuildKit reads them (CSV).
///
/// Keys are checked at parse time, and values where they hold no variables; [`Mount::expand`](Self::expand) gives the
/// mount with its variables expanded and everything checked.
#[derive(Debug, Clone, Default)]
pub struct Mount {
    /// The whole value.
    pub span: Span,
    /// The fields as written (`key=value` or `key`), in order.
    pub fields: Vec<Word>,
    /// `type=`.
    pub kind: MountKind,
    /// `target=`, `dst=`, `destination=`.
    pub target: Option<Word>,
    /// `source=`, `src=`.
    pub source: Option<Word>,
    /// `from=`: variables aren't allowed in it.
    pub from: Option<Word>,
    /// `readonly`, `ro`, `rw`: what was said, if anything.
    pub readonly: Option<bool>,
    /// `id=`.
    pub id: Option<Word>,
    /// `sharing=`.
    pub sharing: Option<Word>,
    /// `required`.
    pub required: Option<bool>,
    /// `mode=`.
    pub mode: Option<Word>,
    /// `uid=`.
    pub uid: Option<Word>,
    /// `gid=`.
    pub gid: Option<Word>,
    /// `size=`.
    pub size: Option<Word>,
    /// `env=`.
    pub env: Option<Word>,
}

/// What is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A folder that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret, as a file or a variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// `COPY`
#[derive(Debug, Clone)]
pub struct Copy {
    /// `--from=`.
    pub from: Option<Word>,
    /// What it shares with ADD.
    pub files: Files,
    /// `--parents`.
    pub parents: bool,
}

/// `ADD`
#[derive(Debug, Clone)]
pub struct Add {
    /// What it shares with COPY.
    pub files: Files,
    /// `--checksum=`.
    pub checksum: Option<Word>,
    /// `--keep-git-dir[=bool]`.
    pub keep_git_dir: Option<bool>,
    /// `--unpack[=bool]`.
    pub unpack: Option<bool>,
}

/// What COPY and ADD share.
#[derive(Debug, Clone)]
pub struct Files {
    /// Sources in order.
    pub sources: Vec<FileSource>,
    /// The last argument.
    pub dest: Word,
    /// `--chown=`.
    pub chown: Option<Word>,
    /// `--chmod=`.
    pub chmod: Option<Word>,
    /// `--link[=bool]`.
    pub link: bool,
    /// `--exclude=`, in order.
    pub exclude: Vec<Word>,
}

/// One source of COPY or ADD.
#[derive(Debug, Clone)]
pub enum FileSource {
    /// A path, wildcard, URL or git reference.
    Path(Word),
    /// `<<NAME`: a file of that name with this content.
    Heredoc(Heredoc),
}

/// `HEALTHCHECK`. Durations are nanoseconds; zero means the default.
#[derive(Debug, Clone, Default)]
pub struct Healthcheck {
    /// `None` for `HEALTHCHECK NONE`.
    pub command: Option<HealthcheckCommand>,
    /// `--interval=`.
    pub interval: i64,
    /// `--timeout=`.
    pub timeout: i64,
    /// `--start-period=`.
    pub start_period: i64,
    /// `--start-interval=`.
    pub start_interval: i64,
    /// `--retries=`.
    pub retries: i64,
}

/// The command of a HEALTHCHECK.
#[derive(Debug, Clone)]
pub struct HealthcheckCommand(pub CommandLine);
