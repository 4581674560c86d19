//! `COPY` and `ADD`

use super::dispatch::{self, Cx};
use super::git::{self, GitUrl};
use super::op::{CopyAction, FileAction, FileOp, Mode, Op, Owner, Unpack, VertexId};
use super::resolved::HttpKey;
use super::state::State;
use super::{chmod, config, names, paths, words};
use crate::dockerfile::ast::{Add, Copy, FileSource, Files, Heredoc, Instruction, Word};
use crate::dockerfile::expand::Lex;
use crate::dockerfile::quote::quoted;
use crate::oci::Digest;
use crate::report::{Diagnostic, Span};

/// Plans a COPY.
pub(super) fn copy(
    cx: &mut Cx<'_, '_>,
    state: &mut State,
    instruction: &Instruction,
    copy: &Copy,
) -> Result<(), Diagnostic> {
    let from = match cx.sources.first().cloned().flatten() {
        None => None,
        Some(Ok(tree)) => Some(tree),
        Some(Err(stage)) => {
            let span = copy.from.as_ref().map_or(instruction.header.span, |f| f.span);
            let shown = state.names.stage.clone().unwrap_or_default();
            let message = format!(
                "cannot copy from stage {}, it needs to be defined before current stage {}",
                quoted(&stage),
                quoted(&shown)
            );
            return Err(Diagnostic::error(span, message));
        }
    };
    let how = How { verb: "COPY", parents: copy.parents, unpack: None, checksum: None, keep_git_dir: None, add: false };
    Planner::new(cx, state, instruction, &copy.files, how)?.plan(from)
}

/// Plans an ADD.
pub(super) fn add(
    cx: &mut Cx<'_, '_>,
    state: &mut State,
    instruction: &Instruction,
    add: &Add,
) -> Result<(), Diagnostic> {
    let how = How {
        verb: "ADD",
        parents: false,
        unpack: add.unpack,
        checksum: add.checksum.as_ref(),
        keep_git_dir: add.keep_git_dir,
        add: true,
    };
    Planner::new(cx, state, instruction, &add.files, how)?.plan(None)
}

/// What tells ADD and COPY apart.
struct How<'a> {
    verb: &'static str,
    parents: bool,
    unpack: Option<bool>,
    checksum: Option<&'a Word>,
    keep_git_dir: Option<bool>,
    add: bool,
}

struct Planner<'p, 'c, 'a> {
    cx: &'p mut Cx<'c, 'a>,
    state: &'p mut State,
    instruction: &'p Instruction,
    link: bool,
    how: How<'p>,
    paths: Vec<Word>,
    documents: Vec<(String, String)>,
    /// The destination as expanded, for the history.
    dest_text: String,
    dest: String,
    chown: String,
    owner: Option<Owner>,
    chmod: String,
    mode: Option<Mode>,
    exclude: Vec<String>,
    checksum: Option<Word>,
}

impl<'p, 'c, 'a> Planner<'p, 'c, 'a> {
    /// Expands everything that may hold variables.
    fn new(
        cx: &'p mut Cx<'c, 'a>,
        state: &'p mut State,
        instruction: &'p Instruction,
        files: &'p Files,
        how: How<'p>,
    ) -> Result<Self, Diagnostic> {
        let chown = optional(cx, state, files.chown.as_ref())?;
        let chmod = optional(cx, state, files.chmod.as_ref())?;
        let checksum = match how.checksum {
            Some(word) => Some(Word { text: cx.expand(state, word)?, span: word.span }).filter(|w| !w.text.is_empty()),
            None => None,
        };
        let (paths, documents) = sources(cx, state, &files.sources)?;
        let dest_text = cx.expand(state, &files.dest)?;
        let mode = match chmod.as_str() {
            "" => None,
            text => {
                let span = files.chmod.as_ref().map_or(instruction.header.span, |c| c.span);
                Some(chmod::mode(text).map_err(|e| Diagnostic::error(span, e))?)
            }
        };
        Ok(Self {
            dest: paths::join_keeping_slash(&state.dir(), &dest_text),
            owner: config::owner(&chown),
            link: files.link && mode.is_none(),
            exclude: files.exclude.iter().map(|e| e.text.clone()).collect(),
            cx,
            state,
            instruction,
            how,
            paths,
            documents,
            dest_text,
            chown,
            chmod,
            mode,
            checksum,
        })
    }

    /// Plans the layer. `from` is the tree that the sources are in, `None` the context.
    fn plan(mut self, from: Option<Option<VertexId>>) -> Result<(), Diagnostic> {
        self.check_checksum()?;
        let line = words::shown(&self.instruction.header.original, Lex::new(self.cx.escape().char()), &self.state.env);
        let name = self.state.names.next(&names::upper_keyword(&line), self.cx.onbuild, &self.state.env);
        let mut actions: Vec<FileAction> = Vec::new();
        for source in std::mem::take(&mut self.paths) {
            let action = self.source(&source, from, &name)?;
            push(&mut actions, action);
            self.paths.push(source);
        }
        for (name, content) in &self.documents {
            actions.push(FileAction::Mkfile {
                path: self.dest.clone(),
                name: name.clone(),
                content: content.clone().into_bytes(),
                mode: self.mode.clone(),
                owner: self.owner.clone(),
            });
        }
        let created_by = self.history();
        let base = self.state.layers(&mut self.cx.shared.vertices);
        let op = Op::File(FileOp { base, actions, link: self.link, workdir: false });
        let mut vertex = self.state.vertex(op, name, self.instruction.header.span);
        vertex.no_cache = self.state.no_cache;
        let layer = self.cx.shared.vertices.add(vertex);
        self.state.add_layer(layer, created_by);
        Ok(())
    }

    fn check_checksum(&self) -> Result<(), Diagnostic> {
        let Some(checksum) = &self.checksum else { return Ok(()) };
        let wrong = |message: &str| Err(Diagnostic::error(checksum.span, message));
        match self.paths.as_slice() {
            [one]
                if git::is_web_file(&one.text)
                    || GitUrl::parse_as(&one.text, self.how.keep_git_dir.is_some()).is_some() =>
            {
                Ok(())
            }
            [_] => wrong("checksum requires HTTP(S) or Git sources"),
            _ => wrong("checksum can't be specified for multiple sources"),
        }
    }

    /// One source.
    fn source(&mut self, source: &Word, from: Option<Option<VertexId>>, name: &str) -> Result<CopyAction, Diagnostic> {
        if let Some(url) = GitUrl::parse_as(&source.text, self.how.keep_git_dir.is_some()) {
            let url = url.map_err(|e| Diagnostic::error(source.span, e))?;
            return self.git(url, source, name);
        }
        if git::is_web_file(&source.text) {
            return self.http(source, name);
        }
        let from = match from {
            Some(tree) => tree,
            None => Some(self.cx.context(self.state)),
        };
        let unpack = if self.how.unpack.unwrap_or(self.how.add) { Unpack::Archives } else { Unpack::Never };
        let path = if self.how.parents { with_pivot(&source.text) } else { paths::join("/", &source.text) };
        Ok(self.action(from, path, unpack, source.span))
    }

    fn git(&mut self, mut url: GitUrl, source: &Word, name: &str) -> Result<CopyAction, Diagnostic> {
        if !self.how.add {
            return Err(Diagnostic::error(source.span, "source can't be a git ref for COPY"));
        }
        if let (Some(flag), Some(query)) = (self.how.keep_git_dir, url.keep_git_dir)
            && flag != query
        {
            return Err(Diagnostic::error(source.span, "inconsistent keep-git-dir configuration"));
        }
        if let Some(checksum) = &self.checksum {
            if !url.checksum.is_empty() && url.checksum != checksum.text {
                let message = format!("checksum mismatch {} != {}", quoted(&checksum.text), quoted(&url.checksum));
                return Err(Diagnostic::error(checksum.span, message));
            }
            url.checksum.clone_from(&checksum.text);
        }
        let keep = url.keep_git_dir.or(self.how.keep_git_dir).unwrap_or(false);
        let op = dispatch::git(self.cx.shared, &url, keep, source.span)?;
        let tree = self.remote(op, name, source.span);
        Ok(self.action(Some(tree), "/".to_owned(), Unpack::Never, source.span))
    }

    fn http(&mut self, source: &Word, name: &str) -> Result<CopyAction, Diagnostic> {
        if !self.how.add {
            return Err(Diagnostic::error(source.span, "source can't be a URL for COPY"));
        }
        let checksum = match &self.checksum {
            Some(word) => Some(word.text.parse::<Digest>().map_err(|e| Diagnostic::error(word.span, e.to_string()))?),
            None => None,
        };
        let filename = filename(&source.text);
        let key = HttpKey { url: source.text.clone(), checksum };
        let op = dispatch::http(self.cx.shared, &key, &filename, source.span)?;
        let tree = self.remote(op, name, source.span);
        let unpack = if self.how.unpack == Some(true) { Unpack::Always } else { Unpack::Never };
        Ok(self.action(Some(tree), format!("/{filename}"), unpack, source.span))
    }

    fn remote(&mut self, op: Op, name: &str, span: Span) -> VertexId {
        let mut vertex = self.state.vertex(op, name.to_owned(), span);
        vertex.stage = String::new();
        self.cx.shared.vertices.add(vertex)
    }

    fn action(&self, from: Option<VertexId>, source: String, unpack: Unpack, span: Span) -> CopyAction {
        CopyAction {
            from,
            sources: vec![source],
            dest: self.dest.clone(),
            owner: self.owner.clone(),
            mode: self.mode.clone(),
            parents: self.how.parents,
            exclude: self.exclude.clone(),
            unpack,
            source_spans: vec![span],
        }
    }

    fn history(&self) -> String {
        let mut text = self.how.verb.to_owned();
        if self.how.parents {
            text.push_str(" --parents");
        }
        for (flag, value) in [("chown", &self.chown), ("chmod", &self.chmod)] {
            if !value.is_empty() {
                text.push_str(&format!(" --{flag}={value}"));
            }
        }
        for path in &self.paths {
            text.push_str(&format!(" {}", path.text));
        }
        for (name, _) in &self.documents {
            text.push_str(&format!(" <<{name}"));
        }
        format!("{text} {} # buildkit", self.dest_text)
    }
}

/// Adds an action; sources of one tree go into one.
fn push(actions: &mut Vec<FileAction>, action: CopyAction) {
    match actions.last_mut() {
        Some(FileAction::Copy(last)) if last.from == action.from && last.unpack == action.unpack => {
            last.sources.extend(action.sources);
            last.source_spans.extend(action.source_spans);
        }
        _ => actions.push(FileAction::Copy(action)),
    }
}

fn optional(cx: &mut Cx<'_, '_>, state: &State, word: Option<&Word>) -> Result<String, Diagnostic> {
    word.map_or(Ok(String::new()), |w| cx.expand(state, w))
}

/// Paths, expanded, and heredocs with their contents.
type Sources = (Vec<Word>, Vec<(String, String)>);

fn sources(cx: &mut Cx<'_, '_>, state: &State, sources: &[FileSource]) -> Result<Sources, Diagnostic> {
    let (mut paths, mut documents) = (Vec::new(), Vec::new());
    for source in sources {
        match source {
            FileSource::Path(word) => paths.push(Word { text: cx.expand(state, word)?, span: word.span }),
            FileSource::Heredoc(heredoc) => documents.push((heredoc.name.clone(), body(cx, state, heredoc)?)),
        }
    }
    Ok((paths, documents))
}

fn body(cx: &mut Cx<'_, '_>, state: &State, heredoc: &Heredoc) -> Result<String, Diagnostic> {
    if heredoc.expand { cx.expand_body(state, &heredoc.content, heredoc.span) } else { Ok(heredoc.content.clone()) }
}

/// A source of `--parents`, absolute: what stands before `/./` isn't part of what is kept.
fn with_pivot(source: &str) -> String {
    match source.split_once("/./") {
        Some((before, kept)) => {
            let before = paths::join("/", before);
            format!("{}/.{}", before.trim_end_matches('/'), paths::join("/", kept))
        }
        None => format!("/.{}", paths::join("/", source)),
    }
}

/// What a downloaded file is called: the last part of the address's path.
fn filename(address: &str) -> String {
    let path = url::Url::parse(address).map(|u| percent_decoded(u.path())).unwrap_or_default();
    match paths::base(&path) {
        "." | "/" => "__unnamed__".to_owned(),
        name => name.to_owned(),
    }
}

fn percent_decoded(path: &str) -> String {
    let path = path.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    url::form_urlencoded::parse(path.as_bytes()).next().map(|(k, _)| k.into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pivots() {
        for (source, want) in [
            ("a/b", "/./a/b"),
            ("/a/./b/c", "/a/./b/c"),
            ("./a/../b", "/./b"),
            ("a/./b/./c/", "/a/./b/c"),
            ("/./x", "/./x"),
            ("x/./../../y", "/x/./y"),
        ] {
            assert_eq!(with_pivot(source), want, "{source}");
        }
    }

    #[test]
    fn downloads_are_called_by_their_path() {
        for (address, want) in [
            ("https://h/a/b.tar?x=1#y", "b.tar"),
            ("https://h", "__unnamed__"),
            ("https://h/", "__unnamed__"),
            ("https://h/a/", "a"),
            ("https://h/a%20b", "a b"),
            ("https://h/a+b&c=d", "a+b&c=d"),
        ] {
            assert_eq!(filename(address), want, "{address}");
        }
    }
}
