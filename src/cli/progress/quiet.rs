//! Nothing, until a step fails: then the end of its output.

use super::text::harmless;
use super::{View, harmless_line, lines::Lines};
use crate::report::{Event, Step};
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// How many lines of a step's output are kept for the case that it fails.
pub(super) const KEPT: usize = 40;

/// The last lines of a step's output.
#[derive(Default)]
pub(super) struct Tail {
    name: String,
    lines: VecDeque<String>,
    out: Lines,
    err: Lines,
    dropped: bool,
}

impl Tail {
    pub(super) fn named(name: String) -> Self {
        Self { name, ..Self::default() }
    }

    /// Its name on one line.
    pub(super) fn name(&self) -> String {
        harmless_line(&self.name)
    }

    pub(super) fn feed(&mut self, stderr: bool, bytes: &[u8], colours: bool) {
        let lines = &mut self.lines;
        let stream = if stderr { &mut self.err } else { &mut self.out };
        stream.feed(bytes, |line| lines.push_back(harmless(line, colours)));
        self.trim();
    }

    fn trim(&mut self) {
        while self.lines.len() > KEPT {
            self.lines.pop_front();
            self.dropped = true;
        }
    }

    /// The last `n` lines.
    pub(super) fn last(&self, n: usize) -> impl Iterator<Item = &str> {
        self.lines.iter().skip(self.lines.len().saturating_sub(n)).map(String::as_str)
    }

    /// The step's name and its last lines between two rules, as BuildKit ends a failed build.
    pub(super) fn account(&mut self, colours: bool) -> String {
        let lines = &mut self.lines;
        self.out.finish(|line| lines.push_back(harmless(line, colours)));
        self.err.finish(|line| lines.push_back(harmless(line, colours)));
        self.trim();
        if self.lines.is_empty() {
            return String::new();
        }
        let mut text = format!("------\n > {}:\n", self.name());
        if self.dropped {
            text.push_str("…\n");
        }
        for line in &self.lines {
            text.push_str(line);
            text.push('\n');
        }
        text.push_str("------\n");
        text
    }
}

/// The quiet style.
#[derive(Default)]
pub(super) struct Quiet {
    steps: HashMap<Step, Tail>,
}

impl View for Quiet {
    fn event(&mut self, event: Event, _at: Duration) -> String {
        match event {
            Event::Planned { step, name } => {
                self.steps.insert(step, Tail::named(name));
            }
            Event::Output { step, stderr, bytes } => {
                self.steps.entry(step).or_default().feed(stderr, &bytes, false);
            }
            Event::Finished { step, .. } | Event::Cached(step) => {
                self.steps.remove(&step);
            }
            Event::Failed { step, .. } => {
                return self.steps.remove(&step).map_or_else(String::new, |mut tail| tail.account(false));
            }
            Event::Started(_) | Event::Progress { .. } | Event::Warning(_) | Event::Note(_) => {}
        }
        String::new()
    }
}
