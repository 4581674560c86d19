//! `kiln explain`: why the steps of a build ran.

use super::table::{age, table};
use crate::cli::Env;
use crate::cli::progress::harmless_line;
use crate::cli::request::ExplainRequest;
use crate::cli::session::{Failure, failure};
use crate::solve::journal::compare::{Cause, Change, Explained, Explanation, Root, explain};
use crate::solve::journal::files::{Changed, Difference};
use crate::solve::journal::{How, Numbered, align, list};
use crate::solve::key::Sort;
use crate::store::Store;
use jiff::Timestamp;
use serde::Serialize;
use std::path::Path;

/// How many files of a context are named where not all are asked for.
const FILES: usize = 10;
/// How many files of a step's result: they only follow from what is said of that.
const FOLLOWING: usize = 3;

/// Explains a build, or lists those that can be explained.
pub fn run(request: &ExplainRequest, store: &Path, env: &Env) -> Result<String, Failure> {
    let store = Store::open(store).map_err(failure)?;
    let now = Timestamp::now();
    if request.list {
        let builds = list(&store)?;
        return Ok(if request.json { json(&builds) } else { listed(&builds, now) });
    }
    let explanation = explain(&store, request.build)?;
    if request.json {
        return Ok(json(&explanation));
    }
    let width = env.output.map(|terminal| terminal.columns);
    let paint = Paint { on: env.output.is_some() && env.set_var("NO_COLOR").is_none() };
    Ok(Page { paint, width, now, all: request.all, about: &explanation }.text())
}

fn json(value: &impl Serialize) -> String {
    format!("{}\n", serde_json::to_string_pretty(value).unwrap_or_default())
}

fn listed(builds: &[Numbered], now: Timestamp) -> String {
    let mut rows =
        vec![["BUILD", "BEGAN", "TOOK", "STEPS", "RAN", "RESULT", "DOCKERFILE", "CONTEXT"].map(str::to_owned).to_vec()];
    rows.extend(builds.iter().map(|Numbered { head: b, ran }| {
        let target = b.about.target.as_ref().map(|t| format!(" ({t})")).unwrap_or_default();
        vec![
            b.build.to_string(),
            age(Some(&b.started), now),
            seconds(b.took_ms),
            b.steps.to_string(),
            ran.to_string(),
            if b.ok { "ok" } else { "failed" }.to_owned(),
            format!("{}{target}", b.about.dockerfile),
            b.about.context.clone(),
        ]
    }));
    table(&rows)
}

fn seconds(milliseconds: u64) -> String {
    match milliseconds {
        ..1000 => format!("{milliseconds}ms"),
        _ => format!("{}.{}s", milliseconds / 1000, milliseconds % 1000 / 100),
    }
}

/// Colours, where the terminal has any.
#[derive(Clone, Copy)]
struct Paint {
    on: bool,
}

impl Paint {
    fn with(self, code: &str, text: &str) -> String {
        if self.on { format!("\u{1b}[{code}m{text}\u{1b}[0m") } else { text.to_owned() }
    }

    fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    fn dim(self, text: &str) -> String {
        self.with("2", text)
    }
}

/// An explanation as text.
struct Page<'a> {
    paint: Paint,
    /// Characters in a line; `None` where lines may have any length.
    width: Option<usize>,
    now: Timestamp,
    /// Name every file.
    all: bool,
    about: &'a Explanation,
}

impl Page<'_> {
    fn text(&self) -> String {
        let mut lines = self.head();
        for step in &self.about.ran {
            if !self.is_first(step) {
                lines.push(String::new());
            }
            self.step(step, &mut lines);
        }
        lines.join("\n") + "\n"
    }

    fn head(&self) -> Vec<String> {
        let (e, build) = (self.about, &self.about.head);
        let target = build.about.target.as_ref().map(|t| format!(" ({})", harmless_line(t))).unwrap_or_default();
        let title = format!("Build {} of {}{target}", build.build, harmless_line(&build.about.dockerfile));
        let what = match (e.ran.len(), build.steps) {
            (0, 0) => "it has no steps".to_owned(),
            (0, 1) => "its step didn't run: the result was there".to_owned(),
            (0, all) => format!("none of its {all} steps ran: their results were there"),
            (ran, 1) => format!("{ran} of 1 step ran, in {}", seconds(build.took_ms)),
            (ran, all) => format!("{ran} of {all} steps ran, in {}", seconds(build.took_ms)),
        };
        let when = age(Some(&build.started), self.now);
        let mut lines = vec![format!("{}, {when}: {what}", self.paint.bold(&title))];
        if !build.ok {
            lines.push(self.paint.with("31", "It failed."));
        }
        match (&e.last_with_work, self.since()) {
            (Some(build), _) => {
                lines.push(self.paint.dim(&format!("The last one in which a step ran: kiln explain {build}")));
            }
            (None, _) if e.first && !e.ran.is_empty() => {
                lines.push(self.paint.dim("No earlier build of this Dockerfile is remembered: every step was new."));
            }
            (None, Some(build)) => {
                let since = e.ran.iter().find_map(|s| s.since.as_ref().filter(|s| s.build == build));
                let began = age(since.map(|s| s.started.as_str()), self.now);
                lines.push(self.paint.dim(&format!("What is new since build {build}, {began}:")));
            }
            (None, None) => {}
        }
        lines
    }

    /// The build that most is compared with.
    fn since(&self) -> Option<u64> {
        self.about.ran.iter().filter_map(|step| step.since.as_ref()).map(|s| s.build).max()
    }

    fn step(&self, step: &Explained, lines: &mut Vec<String>) {
        let state = match step.how {
            How::Failed => format!("  {}", self.paint.with("31", "failed")),
            How::Stopped => format!("  {}", self.paint.dim("stopped")),
            _ => String::new(),
        };
        let took = seconds(step.took_ms);
        let name = self.fit(&step.step, took.len() + 10);
        lines.push(format!("{}  {}{state}", self.paint.bold(&name), self.paint.dim(&took)));
        let other = step.since.as_ref().filter(|s| Some(s.build) != self.since());
        if let Some(since) = other {
            let began = age(Some(&since.started), self.now);
            lines.push(format!("  {}", self.paint.dim(&format!("since build {}, {began}:", since.build))));
        }
        if self.is_first(step) {
            return;
        }
        for cause in &step.causes {
            self.cause(cause, step, 1, lines);
        }
    }

    /// Whether there is nothing to say of a step but that all of them were new.
    fn is_first(&self, step: &Explained) -> bool {
        self.about.first && step.causes == [Cause::NewStep]
    }

    fn cause(&self, cause: &Cause, step: &Explained, depth: usize, lines: &mut Vec<String>) {
        let since = step.since.as_ref().map_or(0, |s| s.build);
        let mut say = |text: String| lines.push(format!("{}{text}", "  ".repeat(depth)));
        match cause {
            Cause::Part(change) => self.change(change, depth, lines),
            Cause::Files { of, difference } => {
                let Difference { total, files } = difference;
                let noun = if *total == 1 { "file" } else { "files" };
                say(format!("{} of {total} {noun} of {} changed", files.len(), tree(of)));
                let shown = if is_context(of) { FILES } else { FOLLOWING };
                self.files(files, shown, depth + 1, lines);
            }
            Cause::SomeFiles { of } => say(format!("files of {}; which ones isn't known any more", tree(of))),
            Cause::Input { roots, .. } if is_base_image(roots) => {
                roots.iter().flat_map(|root| &root.causes).for_each(|cause| self.cause(cause, step, depth, lines));
            }
            Cause::Input { step: input, base, ran, roots } => {
                let verb = if *base { "stands on" } else { "reads" };
                let end = if *ran { ", which ran" } else { ", which isn't the same:" };
                say(format!("{verb} {}{end}", label(input)));
                for root in roots {
                    self.root(root, input, step, depth + 1, lines);
                }
            }
            Cause::NoCache => say("--no-cache".to_owned()),
            Cause::NewStep => say("no earlier build had this step".to_owned()),
            Cause::FailedBefore => say(format!("nothing is new: it failed in build {since}")),
            Cause::NoResult => say("nothing is new, but the store hasn't its result any more".to_owned()),
        }
    }

    /// A step below the one that a step reads; named unless it is that one.
    fn root(&self, root: &Root, input: &str, step: &Explained, depth: usize, lines: &mut Vec<String>) {
        let mut depth = depth;
        if root.step != input {
            lines.push(format!("{}{}", "  ".repeat(depth), self.fit(&root.step, 2 * depth)));
            depth += 1;
        }
        if root.causes.is_empty() {
            lines.push(format!("{}it was made anew since, or elsewhere", "  ".repeat(depth)));
        }
        for cause in &root.causes {
            self.cause(cause, step, depth, lines);
        }
    }

    fn change(&self, change: &Change, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let what = words(change.part, &change.name);
        let shown = |text: &str| self.fit(text, indent.len() + 4);
        match (&change.old, &change.new) {
            (Some(old), Some(new)) if change.part == Sort::Command && old.contains(' ') && new.contains(' ') => {
                lines.push(format!("{indent}{what}"));
                lines.push(format!("{indent}  {} {}", self.paint.with("31", "-"), shown(old)));
                lines.push(format!("{indent}  {} {}", self.paint.with("32", "+"), shown(new)));
            }
            (Some(old), Some(new)) if is_hashed(change.part) => {
                let hashes = self.paint.dim(&format!("{old} → {new}"));
                lines.push(format!("{indent}{what} isn't the same  {hashes}"));
            }
            (None, Some(_)) if is_hashed(change.part) => lines.push(format!("{indent}{what} is new")),
            (Some(_), None) if is_hashed(change.part) => lines.push(format!("{indent}{what} is gone")),
            (Some(old), Some(new)) if change.part == Sort::Image => {
                lines.push(format!("{indent}{what}: {} → {}", image(old), image(new)));
            }
            (Some(old), Some(new)) => lines.push(format!("{indent}{what}: {} → {}", value(old), value(new))),
            (None, Some(new)) => lines.push(format!("{indent}{what}: new, {}", value(new))),
            (Some(old), None) => lines.push(format!("{indent}{what}: gone, was {}", value(old))),
            (None, None) => lines.push(format!("{indent}{what}")),
        }
    }

    fn files(&self, files: &[Changed], shown: usize, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let shown = if self.all { files.len() } else { shown };
        let names: Vec<String> = files.iter().take(shown).map(|f| harmless_line(&f.path)).collect();
        let width = names.iter().map(|n| n.chars().count()).max().unwrap_or(0).min(60);
        for (file, name) in files.iter().zip(names) {
            let (sign, said) = match (&file.old, &file.new) {
                (Some(old), Some(new)) => (self.paint.with("33", "~"), format!("{old} → {new}")),
                (None, Some(new)) => (self.paint.with("32", "+"), new.clone()),
                (Some(old), None) => (self.paint.with("31", "-"), old.clone()),
                (None, None) => continue,
            };
            lines.push(format!("{indent}{sign} {name:<width$}  {}", self.paint.dim(&said)));
        }
        if files.len() > shown {
            lines.push(format!(
                "{indent}{}",
                self.paint.dim(&format!("and {} more: --all names them", files.len() - shown))
            ));
        }
    }

    /// A line that comes from outside, short enough for the terminal when `taken` characters stand beside it.
    fn fit(&self, line: &str, taken: usize) -> String {
        let line = harmless_line(line);
        match self.width {
            Some(width) if line.chars().count() + taken > width => {
                let room = width.saturating_sub(taken + 1).max(20);
                format!("{}…", line.chars().take(room).collect::<String>())
            }
            _ => line,
        }
    }
}

/// Whether all that isn't the same is the base image.
fn is_base_image(roots: &[Root]) -> bool {
    let [Root { causes, .. }] = roots else { return false };
    matches!(&causes[..], [Cause::Part(Change { part: Sort::Image, .. })])
}

/// A step by its number: `[app 3/5]`; one without by its name.
fn label(name: &str) -> String {
    match name.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((inner, _)) if align::split(name).0 != inner => harmless_line(&format!("[{inner}]")),
        _ => harmless_line(name),
    }
}

/// Whether files come from outside of the build.
fn is_context(name: &str) -> bool {
    matches!(align::split(name).0, stage if stage == "internal" || stage.starts_with("context "))
}

/// A tree that files come from.
fn tree(name: &str) -> String {
    match name {
        "[internal] load build context" => "the context".to_owned(),
        other => label(other),
    }
}

/// Parts whose values aren't kept, but for their hashes.
fn is_hashed(part: Sort) -> bool {
    use Sort::{Command, Limits, MadeFile, MadeFolder, Mount, Sources, Variable};
    matches!(part, Command | Limits | MadeFile | MadeFolder | Mount | Sources | Variable)
}

fn value(text: &str) -> String {
    match text {
        "" => "none".to_owned(),
        text => harmless_line(text),
    }
}

/// An image's name as people write it, and the first digits of its digest.
fn image(reference: &str) -> String {
    let name = reference.trim_start_matches("docker.io/").trim_start_matches("library/");
    let short = match name.split_once("@sha256:") {
        Some((name, digits)) => format!("{name}@sha256:{}", digits.chars().take(12).collect::<String>()),
        None => name.to_owned(),
    };
    harmless_line(&short)
}

fn words(part: Sort, name: &str) -> String {
    let name = harmless_line(name);
    match part {
        Sort::Command => "its command".to_owned(),
        Sort::Variable => format!("variable {name}"),
        Sort::Folder => "its folder (WORKDIR)".to_owned(),
        Sort::User => "its user".to_owned(),
        Sort::Mount => format!("its mount {name}"),
        Sort::Network => "its network".to_owned(),
        Sort::Security => "its security".to_owned(),
        Sort::Hostname => "its machine's name".to_owned(),
        Sort::Platform => "its platform".to_owned(),
        Sort::Host => format!("its host entry {name}"),
        Sort::Limits => "its limits (--shm-size, --ulimit)".to_owned(),
        Sort::Link => "--link".to_owned(),
        Sort::Workdir => "whether it is a WORKDIR".to_owned(),
        Sort::Sources => "what it names".to_owned(),
        Sort::Destination => "its destination".to_owned(),
        Sort::Owner => "--chown".to_owned(),
        Sort::Mode => "--chmod".to_owned(),
        Sort::Parents => "--parents".to_owned(),
        Sort::Unpack => "whether it unpacks".to_owned(),
        Sort::MadeFolder => format!("the folder {name}"),
        Sort::MadeFile => format!("the text of {name}"),
        Sort::Image => "the base image".to_owned(),
        Sort::Git => "the commit".to_owned(),
        Sort::Http => "the file".to_owned(),
        Sort::Context => "the context".to_owned(),
        Sort::Order => "the order of its variables or mounts".to_owned(),
    }
}
