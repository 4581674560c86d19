//! What each instruction does to a stage.

use super::globals::Globals;
use super::lint;
use super::lower::Shared;
use super::op::{HttpOp, LocalOp, Op, VertexId};
use super::outline::StageOutline;
use super::resolved::{GitKey, HttpKey};
use super::state::State;
use super::{config, copy, run, words};
use crate::dockerfile::ast::{Escape, Instruction, Kind, Word};
use crate::dockerfile::expand::{Expanded, Lex};
use crate::report::{Diagnostic, Span};

/// What an instruction sees besides its stage.
pub(super) struct Cx<'c, 'a> {
    pub(super) shared: &'c mut Shared<'a>,
    pub(super) globals: &'c Globals,
    /// What the stage says about itself.
    pub(super) outline: &'c mut StageOutline,
    /// Whether it is a trigger of the base.
    pub(super) onbuild: bool,
    /// The base image whose trigger it is, where the trigger isn't of this file.
    pub(super) foreign: Option<String>,
    /// What it reads from: `None` the context, `Ok(None)` an empty tree, an error the name of a stage that comes later.
    pub(super) sources: Vec<Option<Result<Option<VertexId>, String>>>,
}

/// Goes through one instruction.
pub(super) fn instruction(cx: &mut Cx<'_, '_>, state: &mut State, instruction: &Instruction) -> Result<(), Diagnostic> {
    match &instruction.kind {
        Kind::Arg(pairs) => config::arg(cx, state, instruction, pairs),
        Kind::Env(pairs) => config::env(cx, state, pairs),
        Kind::Label(pairs) => config::label(cx, state, pairs),
        Kind::Workdir(path) => config::workdir(cx, state, instruction, path),
        Kind::User(user) => config::user(cx, state, user),
        Kind::Volume(paths) => config::volume(cx, state, paths),
        Kind::Expose(ports) => config::expose(cx, state, ports),
        Kind::Stopsignal(signal) => config::stopsignal(cx, state, signal),
        Kind::Cmd(command) => config::cmd(state, command),
        Kind::Entrypoint(command) => config::entrypoint(state, command),
        Kind::Shell(words) => config::shell(state, words),
        Kind::Healthcheck(check) => config::healthcheck(state, check),
        Kind::Onbuild { text, .. } => {
            state.image.config.on_build.push(text.clone());
            Ok(())
        }
        Kind::Maintainer(name) => config::maintainer(state, name),
        Kind::Run(run) => run::run(cx, state, instruction, run),
        Kind::Copy(copy) => copy::copy(cx, state, instruction, copy),
        Kind::Add(add) => copy::add(cx, state, instruction, add),
    }
}

impl Cx<'_, '_> {
    /// The file's escape character.
    pub(super) fn escape(&self) -> Escape {
        self.shared.file.directives.escape
    }

    /// Expands an argument with the stage's variables, and warns of those that nothing sets.
    pub(super) fn expand(&mut self, state: &State, word: &Word) -> Result<String, Diagnostic> {
        self.expand_all(state, word).map(|e| e.text)
    }

    /// Expands an argument that may become several words.
    pub(super) fn expand_words(&mut self, state: &State, word: &Word) -> Result<Vec<String>, Diagnostic> {
        let expanded = words::expand(word, self.escape(), &state.env)?;
        self.shared.budget.take(expanded.text.len(), word.span)?;
        Ok(expanded.words)
    }

    /// Expands the body of a heredoc.
    pub(super) fn expand_body(&mut self, state: &State, body: &str, span: Span) -> Result<String, Diagnostic> {
        let expanded =
            Lex::heredoc_body().expand(body, &state.env).map_err(|e| Diagnostic::error(span, e.to_string()))?;
        self.shared.budget.take(expanded.text.len(), span)?;
        self.warn_undefined(state, &expanded, span);
        Ok(expanded.text)
    }

    fn expand_all(&mut self, state: &State, word: &Word) -> Result<Expanded, Diagnostic> {
        let expanded = words::expand(word, self.escape(), &state.env)?;
        self.shared.budget.take(expanded.text.len(), word.span)?;
        self.warn_undefined(state, &expanded, word.span);
        Ok(expanded)
    }

    fn warn_undefined(&mut self, state: &State, expanded: &Expanded, span: Span) {
        if !expanded.unmatched.is_empty() && !state.guessed {
            let declared = |name: &str| state.args.iter().any(|(n, _)| n == name);
            lint::undefined(&expanded.unmatched, declared, &state.env, span, &mut self.shared.findings);
        }
    }

    /// The main context.
    pub(super) fn context(&mut self, state: &State) -> VertexId {
        let (op, name) = local("context");
        let vertex = state.vertex(op, name, Span::default());
        self.shared.vertices.add(super::op::Vertex { stage: String::new(), ..vertex })
    }
}

/// A local context: the main one is called `context`.
pub(super) fn local(name: &str) -> (Op, String) {
    let shown = match name {
        "context" => "[internal] load build context".to_owned(),
        name => format!("[context {name}] load from client"),
    };
    (Op::Local(LocalOp { name: name.to_owned() }), shown)
}

/// A git source at the commit that was found for it; wanted, and a stand-in, where none was yet.
pub(super) fn git(
    shared: &mut Shared<'_>,
    git: &super::git::GitUrl,
    keep_git_dir: bool,
    span: Span,
) -> Result<Op, Diagnostic> {
    git_by(shared, git, git.key(), keep_git_dir, span)
}

/// The same with another key for it.
pub(super) fn git_by(
    shared: &mut Shared<'_>,
    git: &super::git::GitUrl,
    key: GitKey,
    keep_git_dir: bool,
    span: Span,
) -> Result<Op, Diagnostic> {
    let commit = match shared.known.git.get(&key) {
        Some(found) => found.commit.clone(),
        None => {
            if !shared.wanted.git.iter().any(|(k, _)| *k == key) {
                shared.wanted.git.push((key, span));
            }
            String::new()
        }
    };
    git.at(&commit, keep_git_dir).map(Op::Git).map_err(|why| Diagnostic::error(span, why))
}

/// A file from a web server, with the digest that was found for it; wanted where none was yet.
pub(super) fn http(shared: &mut Shared<'_>, key: &HttpKey, filename: &str, span: Span) -> Result<Op, Diagnostic> {
    let content = shared.known.http.get(key).map(|found| found.content.clone());
    if content.is_none() && !shared.wanted.http.iter().any(|(k, _)| k == key) {
        shared.wanted.http.push((key.clone(), span));
    }
    if let (Some(wanted), Some(found)) = (&key.checksum, &content)
        && wanted.algorithm() == found.algorithm()
        && wanted != found
    {
        return Err(Diagnostic::error(span, format!("digest mismatch {found}: {wanted}")));
    }
    Ok(Op::Http(HttpOp {
        url: key.url.clone(),
        checksum: key.checksum.clone(),
        filename: filename.to_owned(),
        content,
    }))
}

/// Whether BuildKit knows a `--build-arg` without any ARG: nobody is warned that it isn't used.
pub(super) fn is_predefined(name: &str) -> bool {
    const PROXIES: [&str; 5] = ["http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy"];
    const PLATFORM: [&str; 11] = [
        "BUILDPLATFORM",
        "BUILDOS",
        "BUILDOSVERSION",
        "BUILDARCH",
        "BUILDVARIANT",
        "TARGETPLATFORM",
        "TARGETOS",
        "TARGETOSVERSION",
        "TARGETARCH",
        "TARGETVARIANT",
        "TARGETSTAGE",
    ];
    PROXIES.iter().any(|p| p.eq_ignore_ascii_case(name))
        || PLATFORM.contains(&name)
        || name == "SOURCE_DATE_EPOCH"
        || name.starts_with("BUILDKIT_")
}
