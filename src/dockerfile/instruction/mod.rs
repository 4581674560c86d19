//! From nodes to instructions: what each may be given, and everything BuildKit checks before it builds.

mod files;
mod health;

use super::ast::{self, ArgPair, CommandLine, Form, Header, Heredoc, Instruction, Kind, Pairs, Run, Word};
use super::flags::{Flags, Known, Takes, part};
use super::keyword::Keyword;
use super::mount;
use super::node::{Args, Level, Node};
use super::quote::quoted;
use crate::report::{Diagnostic, Span};

/// What a node says.
pub(super) enum Said {
    /// A stage begins.
    From(ast::From, Header),
    /// Something is done.
    Instruction(Instruction),
}

/// Reads a node; `None`, with errors, where it means nothing.
pub(super) fn read(node: &Node, errors: &mut Vec<Diagnostic>) -> Option<Said> {
    let level = node.levels.first()?;
    let header = header(node, level);
    if level.keyword == Some(Keyword::From) {
        let mut reader = Reader::new(Keyword::From, node, level, errors);
        return Some(Said::From(reader.from(), header));
    }
    let kind =
        if level.keyword == Some(Keyword::Onbuild) { onbuild(node, level, errors) } else { kind(node, level, errors) };
    Some(Said::Instruction(Instruction { header, kind: kind? }))
}

fn header(node: &Node, level: &Level) -> Header {
    Header {
        span: node.span,
        keyword: level.name.clone(),
        original: node.line.text.get(level.start..).unwrap_or_default().trim().to_owned(),
        comments: node.comments.clone(),
        empty_continuation: node.line.empty,
    }
}

/// Everything but FROM and ONBUILD.
fn kind(node: &Node, level: &Level, errors: &mut Vec<Diagnostic>) -> Option<Kind> {
    let Some(keyword) = level.keyword else {
        errors.push(unknown(&level.name));
        return None;
    };
    let before = errors.len();
    let mut reader = Reader::new(keyword, node, level, errors);
    let kind = reader.kind();
    kind.filter(|_| errors.len() == before)
}

fn unknown(name: &Word) -> Diagnostic {
    // No more of it than tells: what isn't a Dockerfile may be a file of credentials.
    const SHOWN: usize = 30;
    let shown = match name.text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", name.text.get(..end).unwrap_or_default()),
        None => name.text.clone(),
    };
    let error = Diagnostic::error(name.span, format!("unknown instruction: {shown}"));
    match Keyword::meant(&name.text) {
        Some(meant) => error.hint(format!("did you mean {meant}?")),
        None => error,
    }
}

/// `ONBUILD INSTRUCTION`.
fn onbuild(node: &Node, level: &Level, errors: &mut Vec<Diagnostic>) -> Option<Kind> {
    Flags::parse(&level.flags, &[], errors);
    let Some(trigger) = node.levels.get(1) else {
        errors.push(Diagnostic::error(level.name.span, "ONBUILD requires at least one argument"));
        return None;
    };
    let name = trigger.name.text.to_uppercase();
    let forbidden = match trigger.keyword {
        Some(Keyword::Onbuild) => "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".to_owned(),
        Some(Keyword::Maintainer | Keyword::From) => format!("{name} isn't allowed as an ONBUILD trigger"),
        _ => {
            let mut found = Vec::new();
            let kind = kind(node, trigger, &mut found);
            // The image is built all the same; what is wrong shows in builds from it.
            errors.extend(found.into_iter().map(|e| Diagnostic { severity: crate::report::Severity::Warning, ..e }));
            let instruction = kind.map(|kind| Box::new(Instruction { header: header(node, trigger), kind }));
            return Some(Kind::Onbuild { text: trigger_text(node, trigger), instruction });
        }
    };
    errors.push(Diagnostic::error(trigger.name.span, forbidden));
    None
}

/// What the image's config keeps: the line behind ONBUILD with the heredocs that belong to it.
fn trigger_text(node: &Node, trigger: &Level) -> String {
    let mut text = node.line.text.get(trigger.start..).unwrap_or_default().to_owned();
    for heredoc in &node.heredocs {
        text.push('\n');
        text.push_str(&heredoc.raw);
        text.push_str(&heredoc.name);
    }
    text
}

const FILE_FLAGS: [Known; 4] =
    [("chown", Takes::Text), ("chmod", Takes::Text), ("link", Takes::Bool), ("exclude", Takes::Texts)];

/// The flags of each instruction.
fn known(keyword: Keyword) -> Vec<Known> {
    let own: &[Known] = match keyword {
        Keyword::Add => &[("checksum", Takes::Text), ("keep-git-dir", Takes::Bool), ("unpack", Takes::Bool)],
        Keyword::Copy => &[("from", Takes::Text), ("parents", Takes::Bool)],
        Keyword::From => &[("platform", Takes::Text)],
        Keyword::Healthcheck => &[
            ("interval", Takes::Text),
            ("timeout", Takes::Text),
            ("start-period", Takes::Text),
            ("start-interval", Takes::Text),
            ("retries", Takes::Text),
        ],
        Keyword::Run => {
            &[("mount", Takes::Texts), ("network", Takes::Text), ("security", Takes::Text), ("device", Takes::Texts)]
        }
        _ => &[],
    };
    let files = matches!(keyword, Keyword::Add | Keyword::Copy);
    FILE_FLAGS.into_iter().filter(|_| files).chain(own.iter().copied()).collect()
}

/// Reads one instruction.
struct Reader<'a> {
    keyword: Keyword,
    args: &'a Args,
    flags: Flags,
    heredocs: &'a [Heredoc],
    /// The arguments, or the keyword where there are none.
    span: Span,
    errors: &'a mut Vec<Diagnostic>,
}

impl<'a> Reader<'a> {
    fn new(keyword: Keyword, node: &'a Node, level: &Level, errors: &'a mut Vec<Diagnostic>) -> Self {
        let flags = Flags::parse(&level.flags, &known(keyword), errors);
        let span = if node.rest.is_empty() { level.name.span } else { node.line.span(node.rest.clone()) };
        Self { keyword, args: &node.args, flags, heredocs: &node.heredocs, span, errors }
    }

    fn error(&mut self, span: Span, message: impl Into<String>) {
        self.errors.push(Diagnostic::error(span, message));
    }

    fn kind(&mut self) -> Option<Kind> {
        match self.keyword {
            Keyword::Add => self.add(),
            Keyword::Arg => self.arg(),
            Keyword::Cmd => Some(Kind::Cmd(self.command())),
            Keyword::Copy => self.copy(),
            Keyword::Entrypoint => Some(Kind::Entrypoint(self.command())),
            Keyword::Env => self.pairs().map(Kind::Env),
            Keyword::Expose => self.expose(),
            Keyword::Healthcheck => self.healthcheck(),
            Keyword::Label => self.pairs().map(Kind::Label),
            Keyword::Maintainer => self.one().map(Kind::Maintainer),
            Keyword::Run => Some(Kind::Run(self.run())),
            Keyword::Shell => self.shell(),
            Keyword::Stopsignal => self.one().map(Kind::Stopsignal),
            Keyword::User => self.one().map(Kind::User),
            Keyword::Volume => self.volume(),
            Keyword::Workdir => self.one().map(Kind::Workdir),
            // Read before it comes to this.
            Keyword::From | Keyword::Onbuild => None,
        }
    }

    /// The arguments as words, whichever way they are written.
    fn words(&self) -> &'a [Word] {
        match self.args {
            Args::Plain(words) | Args::Json(words) => words,
            _ => &[],
        }
    }

    /// At least one argument.
    fn some(&mut self) -> Option<&'a [Word]> {
        let words = self.words();
        if words.is_empty() {
            self.error(self.span, format!("{} requires at least one argument", self.keyword.name()));
            return None;
        }
        Some(words)
    }

    /// Exactly one argument.
    fn one(&mut self) -> Option<Word> {
        if let [word] = self.words() {
            return Some(word.clone());
        }
        self.error(self.span, format!("{} requires exactly one argument", self.keyword.name()));
        None
    }

    fn from(&mut self) -> ast::From {
        let words = self.words();
        let (as_keyword, name) = match words {
            [_] => (None, None),
            [_, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                self.stage_name(name);
                (Some(keyword.clone()), Some(name.clone()))
            }
            _ => {
                self.error(self.span, "FROM requires either one or three arguments");
                (None, None)
            }
        };
        let image = words.first().cloned().unwrap_or(Word { text: String::new(), span: self.span });
        ast::From { platform: self.flags.text("platform"), image, name, as_keyword }
    }

    fn stage_name(&mut self, name: &Word) {
        let lower = name.text.to_lowercase();
        let symbol = |c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.'));
        if !lower.starts_with(|c: char| c.is_ascii_lowercase()) || lower.contains(symbol) {
            let name_text = quoted(&name.text);
            let message =
                format!("invalid name for build stage: {name_text}, name can't start with a number or contain symbols");
            self.error(name.span, message);
        }
    }

    fn arg(&mut self) -> Option<Kind> {
        let words = self.some()?;
        Some(Kind::Arg(words.iter().map(|word| self.arg_pair(word)).collect()))
    }

    fn arg_pair(&mut self, word: &Word) -> ArgPair {
        let Some((name, value)) = word.text.split_once('=') else {
            return ArgPair { name: word.clone(), default: None };
        };
        if name.is_empty() {
            self.error(word.span, "ARG names can not be blank");
        }
        let default = Word { text: value.to_owned(), span: part(word, name.len() + 1, word.text.len()) };
        ArgPair { name: Word { text: name.to_owned(), span: part(word, 0, name.len()) }, default: Some(default) }
    }

    fn pairs(&mut self) -> Option<Pairs> {
        let (pairs, legacy) = match self.args {
            Args::Pairs { pairs, legacy } if !pairs.is_empty() => (pairs, *legacy),
            _ => {
                self.error(self.span, format!("{} requires at least one argument", self.keyword.name()));
                return None;
            }
        };
        for (name, value) in pairs {
            if name.text.is_empty() {
                self.error(name.span.to(value.span), format!("{} names can not be blank", self.keyword.name()));
            }
        }
        Some(Pairs { pairs: pairs.clone(), legacy })
    }

    fn expose(&mut self) -> Option<Kind> {
        let mut ports = self.some()?.to_vec();
        ports.sort_by(|a, b| a.text.cmp(&b.text));
        Some(Kind::Expose(ports))
    }

    fn volume(&mut self) -> Option<Kind> {
        let words = self.some()?;
        for word in words.iter().filter(|word| word.text.trim().is_empty()) {
            self.error(word.span, "VOLUME specified can not be an empty string");
        }
        Some(Kind::Volume(words.iter().map(|w| Word { text: w.text.trim().to_owned(), ..*w }).collect()))
    }

    fn shell(&mut self) -> Option<Kind> {
        let words = self.some()?;
        if !matches!(self.args, Args::Json(_)) {
            self.error(self.span, "SHELL requires the arguments to be in JSON form");
        }
        Some(Kind::Shell(words.to_vec()))
    }

    fn command(&self) -> CommandLine {
        CommandLine { form: form(self.args), heredocs: self.heredocs.to_vec(), span: self.span }
    }

    fn run(&mut self) -> Run {
        let (network, security) = (self.flags.text("network"), self.flags.text("security"));
        self.one_of("network", &["default", "none", "host"], |v| format!("invalid network mode {v}"));
        self.one_of("security", &["insecure", "sandbox"], |v| format!("security {v} is not valid"));
        let mut mounts = Vec::new();
        for value in self.flags.texts("mount") {
            match mount::parse(&value) {
                Ok(mount) => mounts.push(mount),
                Err(error) => self.errors.push(*error),
            }
        }
        Run { command: self.command(), mounts, network, security, devices: self.flags.texts("device") }
    }

    /// A flag with a closed set of values; here nothing behind the `=` is wrong as well.
    fn one_of(&mut self, flag: &str, values: &[&str], message: impl Fn(String) -> String) {
        let wrong = self.flags.texts(flag).into_iter().find(|word| !values.contains(&word.text.as_str()));
        if let Some(word) = wrong {
            let error = Diagnostic::error(word.span, message(quoted(&word.text)));
            self.errors.push(error.hint(format!("it can be {}", values.join(", "))));
        }
    }
}

/// A command: JSON as it is, everything else as one text for the shell.
fn form(args: &Args) -> Form {
    match args {
        Args::Json(words) => Form::Exec(words.iter().map(|w| w.text.clone()).collect()),
        Args::Plain(words) => Form::Shell(words.first().map(|w| w.text.clone()).unwrap_or_default()),
        _ => Form::Shell(String::new()),
    }
}
