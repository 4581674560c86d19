//! The syntax tree below the instructions: keyword, flags, words. It is what BuildKit's parser makes of a file before
//! anything knows what an instruction means; [`super::dump`] prints it and [`super::instruction`] reads on.

use super::ast::{Directives, Heredoc, Word};
use super::directives::Taker;
use super::json::{self, Json};
use super::keyword::Keyword;
use super::lines::{Line, Physical, Reader};
use super::quote::quoted;
use super::{heredoc, words};
use crate::report::{Diagnostic, Span};
use std::ops::Range;

/// The most instructions of a file, those with errors counted. Each takes up to a kilobyte of memory.
pub const MAX_INSTRUCTIONS: usize = 50_000;
/// The most words, flags and heredocs that the lines of a file are split into, in all.
pub const MAX_WORDS: usize = 1_000_000;
/// How many lines of a comment above an instruction are kept.
const MAX_COMMENT: usize = 1_000;

/// A file as instructions that mean nothing yet.
#[derive(Debug, Default)]
pub(super) struct Tree {
    pub directives: Directives,
    pub nodes: Vec<Node>,
}

/// One instruction.
#[derive(Debug)]
pub(super) struct Node {
    /// The instruction, and behind an ONBUILD what it triggers. More than two are an error, but not yet.
    pub levels: Vec<Level>,
    /// The arguments of the last level.
    pub args: Args,
    /// Where the arguments stand in `line`.
    pub rest: Range<usize>,
    /// The bodies below the line.
    pub heredocs: Vec<Heredoc>,
    /// The line.
    pub line: Line,
    /// The comment lines above.
    pub comments: Vec<String>,
    /// The line and its heredocs.
    pub span: Span,
}

/// A keyword with its flags.
#[derive(Debug)]
pub(super) struct Level {
    /// As written.
    pub name: Word,
    /// Which it is, if any.
    pub keyword: Option<Keyword>,
    /// The flags: `--name=value` without quotes.
    pub flags: Vec<Word>,
    /// Where it begins in the line.
    pub start: usize,
}

/// Arguments, by how they are split.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Args {
    /// Words, or the whole text as one.
    Plain(Vec<Word>),
    /// A JSON array.
    Json(Vec<Word>),
    /// Names and values; `legacy` where a blank stands between them.
    Pairs { pairs: Vec<(Word, Word)>, legacy: bool },
    /// HEALTHCHECK's `CMD` or `NONE`, and what follows it.
    Health { kind: Word, command: Box<Args> },
    /// Those of an unknown instruction aren't looked at.
    Unknown,
}

/// Reads a file; what can't be read is left out and reported.
pub(super) fn read(text: &str) -> (Tree, Vec<Diagnostic>) {
    let mut errors = Vec::new();
    let mut taker = Taker::default();
    let mut reader = Reader::new(text);
    let (mut nodes, mut comments, mut instructions, mut words) = (Vec::new(), Vec::new(), 0, MAX_WORDS);
    while let Some(first) = reader.next() {
        if taker.take(first, &mut errors) {
            continue;
        }
        if first.is_comment() {
            comment(first, &mut comments);
        } else if first.content.trim_start().is_empty() {
            comments.clear();
        } else {
            instructions += 1;
            if instructions > MAX_INSTRUCTIONS {
                let message = format!("a Dockerfile has at most {MAX_INSTRUCTIONS} instructions");
                errors.push(Diagnostic::error(first.span(), message));
                break;
            }
            let line = Line::read(first, &mut reader, taker.found.escape);
            match node(line, &mut reader, taker.found.escape.char(), &mut words) {
                Ok(node) => nodes.push(Node { comments: std::mem::take(&mut comments), ..node }),
                Err(error) => errors.push(*error),
            }
            comments.clear();
        }
    }
    if instructions == 0 {
        errors.push(Diagnostic::error(Span::new(0, text.len()), "file with no instructions"));
    }
    (Tree { directives: taker.found, nodes }, errors)
}

/// Notes a comment; an empty one, like an empty line, parts what is above it from the instruction below.
fn comment(line: Physical<'_>, comments: &mut Vec<String>) {
    // As in BuildKit the first character goes, whatever it is: the `#` of an indented comment stays.
    let mut chars = line.content.chars();
    chars.next();
    match chars.as_str().trim() {
        "" => comments.clear(),
        text if comments.len() < MAX_COMMENT => comments.push(text.to_owned()),
        _ => {}
    }
}

/// An error at this level ends the instruction.
type Result<T> = std::result::Result<T, Box<Diagnostic>>;

fn error(span: Span, message: impl Into<String>) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(span, message))
}

fn node(line: Line, reader: &mut Reader<'_>, escape: char, left: &mut usize) -> Result<Node> {
    let pieces = pieces(&line.text);
    if pieces > *left {
        let message = format!("the lists of a Dockerfile have at most {MAX_WORDS} words in all");
        return Err(error(line.span(words::trimmed(&line.text, 0..line.text.len())), message));
    }
    *left -= pieces;
    let (levels, rest) = levels(&line);
    let keyword = levels.last().and_then(|level| level.keyword);
    let args = args(keyword, &line, rest.clone(), escape);
    let heredocs = match &args {
        Ok(args) if takes_heredocs(&levels, args) => heredocs(&line, reader)?,
        _ => Vec::new(),
    };
    let span = line.span(words::trimmed(&line.text, 0..line.text.len()));
    let span = heredocs.last().map_or(span, |body| span.to(body.span));
    Ok(Node { levels, args: args?, rest, heredocs, line, comments: Vec::new(), span })
}

/// How many words, flags and heredocs a line is split into, at most. The command of a shell isn't split.
fn pieces(line: &str) -> usize {
    let (keyword, rest) = words::first_word(line, words::trimmed(line, 0..line.len()));
    let [keyword, rest] = [keyword, rest].map(|range| line.get(range).unwrap_or_default());
    let is_command = matches!(Keyword::parse(keyword), Some(Keyword::Run | Keyword::Cmd | Keyword::Entrypoint));
    let heredocs = rest.matches("<<").count();
    if is_command && !rest.starts_with(['[', '-']) {
        return heredocs;
    }
    rest.split_whitespace().count().max(rest.matches('"').count() / 2) + heredocs
}

/// Splits keywords and flags off; what remains are arguments.
fn levels(line: &Line) -> (Vec<Level>, Range<usize>) {
    let mut levels = Vec::new();
    let mut rest = words::trimmed(&line.text, 0..line.text.len());
    loop {
        let start = rest.start;
        let (name, after) = words::first_word(&line.text, rest);
        let (flags, at) = words::flags(&line.text, after.clone());
        rest = words::trimmed(&line.text, at..after.end);
        let name = line.word(name);
        let keyword = Keyword::parse(&name.text);
        let flags = flags.into_iter().map(|(text, range)| Word { text, span: line.span(range) }).collect();
        levels.push(Level { name, keyword, flags, start });
        if keyword != Some(Keyword::Onbuild) || rest.is_empty() {
            return (levels, rest);
        }
    }
}

fn args(keyword: Option<Keyword>, line: &Line, rest: Range<usize>, escape: char) -> Result<Args> {
    use Keyword as K;
    let Some(keyword) = keyword else { return Ok(Args::Unknown) };
    match keyword {
        K::Add | K::Copy | K::Volume => Ok(json(line, rest.clone())?.unwrap_or_else(|| list(line, rest))),
        K::Cmd | K::Entrypoint | K::Run | K::Shell => {
            Ok(json(line, rest.clone())?.unwrap_or_else(|| whole(line, rest)))
        }
        K::Expose | K::From => Ok(list(line, rest)),
        K::Maintainer | K::Stopsignal | K::User | K::Workdir | K::Onbuild => Ok(whole(line, rest)),
        K::Arg => Ok(Args::Plain(found(line, words::quoted(&line.text, rest, escape)))),
        K::Env | K::Label => pairs(keyword, line, rest, escape),
        K::Healthcheck => health(line, rest),
    }
}

fn found(line: &Line, words: Vec<words::Found>) -> Vec<Word> {
    words.into_iter().map(|(text, range)| Word { text, span: line.span(range) }).collect()
}

/// The whole text as one word, if there is any.
fn whole(line: &Line, rest: Range<usize>) -> Args {
    Args::Plain(if rest.is_empty() { Vec::new() } else { vec![line.word(rest)] })
}

fn list(line: &Line, rest: Range<usize>) -> Args {
    Args::Plain(words::between_blanks(&line.text, rest).into_iter().map(|range| line.word(range)).collect())
}

/// A JSON array, if it is one.
fn json(line: &Line, rest: Range<usize>) -> Result<Option<Args>> {
    match json::strings(line.text.get(rest.clone()).unwrap_or_default()) {
        Json::No => Ok(None),
        Json::Mixed => {
            let message = "when using JSON array syntax, arrays must be comprised of strings only";
            Err(error(line.span(rest), message))
        }
        Json::Strings(strings) => {
            let place = |range: Range<usize>| line.span(rest.start + range.start..rest.start + range.end);
            let word = |(text, range)| Word { text, span: place(range) };
            Ok(Some(Args::Json(strings.into_iter().map(word).collect())))
        }
    }
}

/// `name=value ...`, or the old `name value`: the first word decides.
fn pairs(keyword: Keyword, line: &Line, rest: Range<usize>, escape: char) -> Result<Args> {
    let words = words::quoted(&line.text, rest.clone(), escape);
    if words.first().is_some_and(|(word, _)| !word.contains('=')) {
        let (name, value) = words::first_word(&line.text, rest.clone());
        if name.end == rest.end {
            return Err(error(line.span(rest), format!("{} must have two arguments", keyword.name())));
        }
        return Ok(Args::Pairs { pairs: vec![(line.word(name), line.word(value))], legacy: true });
    }
    let pairs = words.into_iter().map(|word| pair(line, word)).collect::<Result<_>>()?;
    Ok(Args::Pairs { pairs, legacy: false })
}

fn pair(line: &Line, (word, range): words::Found) -> Result<(Word, Word)> {
    let Some((name, value)) = word.split_once('=') else {
        let message = format!("Syntax error - can't find = in {}. Must be of the form: name=value", quoted(&word));
        return Err(error(line.span(range), message));
    };
    // Only an escape character at the very end can be missing from the word, so the name is where it is.
    let at = (range.start + name.len() + 1).min(range.end);
    let name = Word { text: name.to_owned(), span: line.span(range.start..at - 1) };
    Ok((name, Word { text: value.to_owned(), span: line.span(at..range.end) }))
}

/// The first word, and a command after it.
fn health(line: &Line, rest: Range<usize>) -> Result<Args> {
    let text = line.text.get(rest.clone()).unwrap_or_default();
    let end = rest.start + text.find(char::is_whitespace).unwrap_or(text.len());
    if end == rest.start {
        return Ok(Args::Plain(Vec::new()));
    }
    let after = words::trimmed(&line.text, end..rest.end);
    let command = json(line, after.clone())?.unwrap_or_else(|| whole(line, after));
    Ok(Args::Health { kind: line.word(rest.start..end), command: Box::new(command) })
}

/// Heredocs belong to RUN, COPY and ADD in plain form, and to those right behind an ONBUILD.
fn takes_heredocs(levels: &[Level], args: &Args) -> bool {
    let keyword = match levels {
        [only] => only.keyword,
        [_, trigger] => trigger.keyword,
        _ => None,
    };
    matches!(keyword, Some(Keyword::Run | Keyword::Copy | Keyword::Add)) && !matches!(args, Args::Json(_))
}

fn heredocs(line: &Line, reader: &mut Reader<'_>) -> Result<Vec<Heredoc>> {
    let span = || line.span(words::trimmed(&line.text, 0..line.text.len()));
    let markers = heredoc::markers(&line.text).map_err(|e| error(span(), e.to_string()))?;
    let mut heredocs = Vec::with_capacity(markers.len());
    for marker in markers {
        let name = marker.name.clone();
        let body = heredoc::body(marker, reader);
        heredocs.push(body.ok_or_else(|| {
            let hint = format!("no line below it consists of {name} alone");
            Box::new(Diagnostic::error(span(), "unterminated heredoc").hint(hint))
        })?);
    }
    Ok(heredocs)
}
