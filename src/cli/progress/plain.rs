//! BuildKit's plain style, line by line.

use super::text::harmless;
use super::{View, bytes, harmless_line, lines::Lines, seconds};
use crate::cli::failure;
use crate::report::{Event, SourceText, Step};
use std::collections::HashMap;
use std::time::Duration;

/// How long after a line about a transfer the next one about it may come.
const TRANSFER_EVERY: Duration = Duration::from_secs(1);

/// The plain style.
pub(super) struct Plain {
    source: Option<SourceText>,
    steps: HashMap<Step, Shown>,
    /// How many steps have been shown: their numbers count in this order, as BuildKit's do.
    numbered: usize,
    /// The step whose lines come now.
    current: Option<Step>,
    /// Whether anything stands above.
    begun: bool,
}

#[derive(Default)]
struct Shown {
    name: String,
    /// 0 until it is shown first.
    number: usize,
    started: Duration,
    out: Lines,
    err: Lines,
    /// When a transfer was shown last, and when it began.
    transfers: HashMap<String, (Duration, Duration)>,
}

impl View for Plain {
    fn event(&mut self, event: Event, at: Duration) -> String {
        let mut text = String::new();
        match event {
            Event::Planned { step, name } => self.step(step).name = name,
            Event::Started(step) => {
                self.step(step).started = at;
                self.head(step, &mut text);
            }
            Event::Cached(step) => self.close(step, "CACHED", &mut text),
            Event::Output { step, stderr, bytes } => self.output(step, stderr, &bytes, at, &mut text),
            Event::Progress { step, what, done, total } => self.transfer(step, &what, done, total, at, &mut text),
            Event::Finished { step, took } => {
                self.rest(step, at, &mut text);
                self.close(step, &format!("DONE {}", seconds(took)), &mut text);
            }
            Event::Failed { step, error } => {
                self.rest(step, at, &mut text);
                self.close(step, &format!("ERROR: {}", harmless_line(&error)), &mut text);
            }
            Event::Warning(finding) => {
                self.apart(&mut text);
                text.push_str(&failure::finding(&finding, self.source.as_ref()));
            }
            Event::Note(note) => {
                self.apart(&mut text);
                text.push_str(&harmless_line(&note));
                text.push('\n');
            }
        }
        text
    }
}

impl Plain {
    pub(super) fn new(source: Option<SourceText>) -> Self {
        Self { source, steps: HashMap::new(), numbered: 0, current: None, begun: false }
    }

    fn step(&mut self, step: Step) -> &mut Shown {
        self.steps.entry(step).or_default()
    }

    /// Makes `step` the one whose lines come, and gives its number.
    fn head(&mut self, step: Step, text: &mut String) -> usize {
        let next = self.numbered + 1;
        let entry = self.steps.entry(step).or_default();
        if entry.number == 0 {
            entry.number = next;
            self.numbered = next;
        }
        let (number, title) = (entry.number, format!("#{} {}\n", entry.number, harmless_line(&entry.name)));
        if self.current != Some(step) {
            if let Some(left) = self.current.and_then(|c| self.steps.get(&c)) {
                text.push_str(&format!("#{} ...\n", left.number));
            }
            self.apart(text);
            text.push_str(&title);
            self.current = Some(step);
        }
        number
    }

    /// An empty line between what stands above and what comes.
    fn apart(&mut self, text: &mut String) {
        if self.begun {
            text.push('\n');
        }
        self.begun = true;
        self.current = None;
    }

    fn close(&mut self, step: Step, how: &str, text: &mut String) {
        let number = self.head(step, text);
        text.push_str(&format!("#{number} {how}\n"));
        self.current = None;
    }

    fn output(&mut self, step: Step, stderr: bool, bytes: &[u8], at: Duration, text: &mut String) {
        let mut lines = Vec::new();
        let shown = self.step(step);
        let stream = if stderr { &mut shown.err } else { &mut shown.out };
        stream.feed(bytes, |line| lines.push(harmless(line, false)));
        self.say(step, lines, at, text);
    }

    /// What a step wrote without a line end.
    fn rest(&mut self, step: Step, at: Duration, text: &mut String) {
        let mut lines = Vec::new();
        let shown = self.step(step);
        shown.out.finish(|line| lines.push(harmless(line, false)));
        shown.err.finish(|line| lines.push(harmless(line, false)));
        self.say(step, lines, at, text);
    }

    fn say(&mut self, step: Step, lines: Vec<String>, at: Duration, text: &mut String) {
        if lines.is_empty() {
            return;
        }
        let number = self.head(step, text);
        let since = at.saturating_sub(self.step(step).started).as_secs_f64();
        for line in lines {
            text.push_str(&format!("#{number} {since:.3} {line}\n"));
        }
    }

    /// A line about a transfer: the first, one each second, and the last.
    fn transfer(&mut self, step: Step, what: &str, done: u64, total: Option<u64>, at: Duration, text: &mut String) {
        let ended = total == Some(done);
        let entry = self.step(step).transfers.get(what).copied();
        if !ended && entry.is_some_and(|(last, _)| at.saturating_sub(last) < TRANSFER_EVERY) {
            return;
        }
        let began = entry.map_or(at, |(_, began)| began);
        self.step(step).transfers.insert(what.to_owned(), (at, began));
        let number = self.head(step, text);
        let of = total.map_or_else(String::new, |t| format!(" / {}", bytes(t)));
        let end = if ended { format!(" {} done", seconds(at.saturating_sub(began))) } else { String::new() };
        text.push_str(&format!("#{number} {} {}{of}{end}\n", harmless_line(what), bytes(done)));
    }
}
