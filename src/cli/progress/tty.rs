//! The style of a terminal: what is finished scrolls by, what runs stands below and is redrawn in place.
//!
//! A frame is one write: up to where the last one began, the new lines over the old ones, the rest cleared. Lines are
//! cut to the terminal's width and never more than fit on it, so that the way up is always right.

use super::text::{fit, width};
use super::{Terminal, View, bytes, harmless_line, quiet::Tail, seconds};
use crate::cli::failure;
use crate::report::{Event, SourceText, Step};
use std::collections::HashMap;
use std::time::Duration;

/// The most lines that are redrawn, however high the terminal is.
const HEIGHT: usize = 24;

/// The most lines of output shown below a running step.
const OUTPUT: usize = 6;

const BLUE: &str = "34";
const RED: &str = "31";

/// The tty style.
pub(super) struct Tty {
    terminal: Terminal,
    colours: bool,
    source: Option<SourceText>,
    /// Asks for the terminal's size again: windows change theirs.
    size: fn() -> Option<Terminal>,
    steps: HashMap<Step, Live>,
    /// In the order they began.
    running: Vec<Step>,
    planned: usize,
    done: usize,
    /// Lines that scroll by with the next frame.
    above: Vec<String>,
    /// Lines of the last frame.
    drawn: usize,
}

#[derive(Default)]
struct Live {
    tail: Tail,
    started: Duration,
    /// The transfer that moved last.
    transfer: Option<String>,
}

impl View for Tty {
    fn event(&mut self, event: Event, at: Duration) -> String {
        match event {
            Event::Planned { step, name } => {
                self.planned += 1;
                self.step(step).tail = Tail::named(name);
            }
            Event::Started(step) => {
                self.step(step).started = at;
                self.running.push(step);
            }
            Event::Output { step, stderr, bytes } => {
                let colours = self.colours;
                self.step(step).tail.feed(stderr, &bytes, colours);
            }
            Event::Progress { step, what, done, total } => {
                let of = total.map_or_else(String::new, |t| format!(" / {}", bytes(t)));
                self.step(step).transfer = Some(format!("{} {}{of}", harmless_line(&what), bytes(done)));
            }
            Event::Cached(step) => self.close(step, "CACHED ", "", BLUE),
            Event::Finished { step, took } => self.close(step, "", &seconds(took), BLUE),
            Event::Failed { step, error } => self.fail(step, &error),
            Event::Warning(finding) => {
                let text = failure::finding(&finding, self.source.as_ref());
                self.above.extend(text.lines().map(str::to_owned));
            }
            Event::Note(note) => self.above.push(harmless_line(&note)),
        }
        String::new()
    }

    fn tick(&mut self, at: Duration) -> String {
        if let Some(terminal) = (self.size)() {
            self.terminal = terminal;
        }
        let live = self.live(at);
        self.frame(&live)
    }

    fn end(&mut self, at: Duration) -> String {
        // Steps that nothing had to run or look at stay planned.
        let summary = format!("[+] {}, {} steps", seconds(at), self.done);
        if self.planned > 0 {
            self.above.push(summary);
        }
        self.frame(&[])
    }
}

impl Tty {
    pub(super) fn new(
        terminal: Terminal,
        colours: bool,
        source: Option<SourceText>,
        size: fn() -> Option<Terminal>,
    ) -> Self {
        Self {
            terminal,
            colours,
            source,
            size,
            steps: HashMap::new(),
            running: Vec::new(),
            planned: 0,
            done: 0,
            above: Vec::new(),
            drawn: 0,
        }
    }

    fn step(&mut self, step: Step) -> &mut Live {
        self.steps.entry(step).or_default()
    }

    /// A step leaves the running ones; its line scrolls by, and nothing else of it is kept.
    fn close(&mut self, step: Step, before: &str, after: &str, colour: &str) {
        self.running.retain(|s| *s != step);
        self.done += 1;
        let name = self.steps.remove(&step).map_or_else(String::new, |live| live.tail.name());
        let line = self.row(&format!(" => {before}{name}"), after);
        self.above.push(self.paint(&line, colour));
    }

    fn fail(&mut self, step: Step, error: &str) {
        let colours = self.colours;
        let account = self.step(step).tail.account(colours);
        self.close(step, "ERROR ", "", RED);
        self.done -= 1;
        self.above.extend(account.lines().map(str::to_owned));
        if account.is_empty() {
            self.above.push(format!("    {}", harmless_line(error)));
        }
    }

    fn paint(&self, line: &str, colour: &str) -> String {
        if self.colours { format!("\u{1b}[{colour}m{line}\u{1b}[0m") } else { line.to_owned() }
    }

    /// A line with something at its right edge.
    fn row(&self, left: &str, right: &str) -> String {
        let room = self.terminal.columns.saturating_sub(1);
        let left = fit(left, room.saturating_sub(right.len() + 1));
        let gap = room.saturating_sub(width(&left) + right.len());
        if right.is_empty() { left } else { format!("{left}{}{right}", " ".repeat(gap)) }
    }

    /// The lines about what runs.
    fn live(&self, at: Duration) -> Vec<String> {
        let height = self.terminal.rows.saturating_sub(1).clamp(1, HEIGHT);
        let mut lines = vec![self.row(&format!("[+] {}, {} of {} steps", seconds(at), self.done, self.planned), "")];
        let shown = self.running.len().min(height.saturating_sub(2));
        let spare = (height - 1).saturating_sub(self.running.len());
        let each = spare.checked_div(shown).unwrap_or(0).min(OUTPUT);
        for live in self.running.iter().take(shown).filter_map(|s| self.steps.get(s)) {
            lines.push(self.row(&format!(" => {}", live.tail.name()), &seconds(at.saturating_sub(live.started))));
            let room = self.terminal.columns.saturating_sub(1);
            if let Some(transfer) = live.transfer.as_ref().filter(|_| each > 0) {
                lines.push(fit(&format!("    {transfer}"), room));
            }
            let left = each.saturating_sub(usize::from(live.transfer.is_some()));
            lines.extend(live.tail.last(left).map(|l| fit(&format!("    | {l}"), room)));
        }
        if shown < self.running.len() {
            lines.push(self.row(&format!(" … and {} more", self.running.len() - shown), ""));
        }
        lines.truncate(height);
        lines
    }

    /// One write that puts the waiting lines above and `live` in the place of the last frame's lines.
    fn frame(&mut self, live: &[String]) -> String {
        if live.is_empty() && self.above.is_empty() && self.drawn == 0 {
            return String::new();
        }
        // Synchronised output (mode 2026): terminals that know it show the frame at once.
        let mut text = String::from("\u{1b}[?2026h\r");
        if self.drawn > 0 {
            text.push_str(&format!("\u{1b}[{}A", self.drawn));
        }
        for line in self.above.drain(..) {
            text.push_str(&format!("{line}\u{1b}[K\n"));
        }
        // Without wrapping (mode 7), a line that is wider than it was measured stays one line.
        text.push_str("\u{1b}[?7l");
        for line in live {
            text.push_str(&format!("{line}\u{1b}[K\n"));
        }
        text.push_str("\u{1b}[J\u{1b}[?7h\u{1b}[?2026l");
        self.drawn = live.len();
        text
    }
}
