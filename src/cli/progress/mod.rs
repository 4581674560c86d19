//! Draws a build's events on standard error: one thread receives them, and only it writes.
//!
//! | style | looks like |
//! |---|---|
//! | plain | BuildKit's plain style: `#5 [builder 2/3] RUN make`, `#5 0.123 output`, `#5 DONE 0.3s` |
//! | tty | finished steps scroll by; the running ones stand below, redrawn in place |
//! | rawjson | BuildKit's status messages, one JSON object a line |
//! | quiet | nothing, unless a step fails |
//!
//! What a process writes is hostile: no byte of it reaches a terminal as anything but text, and colours in tty style.

mod json;
mod lines;
mod plain;
mod quiet;
mod text;
mod tty;

use super::Terminal;
use crate::report::{Event, Reporter, SourceText};
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

/// How progress is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    /// Line by line.
    Plain,
    /// In place, for a terminal.
    Tty {
        /// The terminal as it was at the start.
        terminal: Terminal,
        /// Whether colours of the output are kept.
        colours: bool,
    },
    /// JSON, for programs.
    RawJson,
    /// Only failures.
    Quiet,
}

/// A style at work: events become text. Pure: the time since the start comes with each call.
trait View: Send {
    /// Text for an event, to be written at once.
    fn event(&mut self, event: Event, at: Duration) -> String;

    /// Text for the passing of time.
    fn tick(&mut self, _at: Duration) -> String {
        String::new()
    }

    /// Text for the end: leaves the terminal as it was found.
    fn end(&mut self, _at: Duration) -> String {
        String::new()
    }
}

/// How many events may wait for the terminal before their senders do.
const WAITING: usize = 256;

/// How often what changes by itself is drawn again.
const TICK: Duration = Duration::from_millis(100);

/// The thread that draws. [`Drawing::finish`] ends it; dropping it unfinished leaves the thread to end by itself.
#[derive(Debug)]
pub struct Drawing {
    thread: JoinHandle<()>,
    done: Arc<AtomicBool>,
}

/// Starts to draw on `out`; events go to the reporter. Findings are shown at their place in `source`.
pub fn start(
    style: Style,
    source: Option<SourceText>,
    out: impl Write + Send + 'static,
) -> std::io::Result<(Reporter, Drawing)> {
    let (sender, receiver) = sync_channel(WAITING);
    let done = Arc::new(AtomicBool::new(false));
    let stop = Arc::clone(&done);
    let mut view = view(style, source);
    let thread = std::thread::Builder::new()
        .name("progress".into())
        .spawn(move || draw(&receiver, view.as_mut(), &stop, Instant::now(), out))?;
    Ok((Reporter::new(sender), Drawing { thread, done }))
}

impl Drawing {
    /// Draws what has been sent so far and ends.
    pub fn finish(self) {
        self.done.store(true, Ordering::Release);
        // The thread only writes text; if it panicked, its message is on standard error and the build's result stands.
        let _ = self.thread.join();
    }
}

fn view(style: Style, source: Option<SourceText>) -> Box<dyn View> {
    match style {
        Style::Plain => Box::new(plain::Plain::new(source)),
        Style::Tty { terminal, colours } => Box::new(tty::Tty::new(terminal, colours, source, Terminal::behind_stderr)),
        Style::RawJson => Box::new(json::RawJson::new(SystemTime::now(), source)),
        Style::Quiet => Box::new(quiet::Quiet::default()),
    }
}

/// Draws until every sender is gone, or `done` is set and nothing waits.
fn draw(events: &Receiver<Event>, view: &mut dyn View, done: &AtomicBool, start: Instant, mut out: impl Write) {
    // A closed or full standard error must not stop a build.
    let mut put = |text: String| {
        if !text.is_empty() {
            let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        }
    };
    let mut ticked = start;
    loop {
        let finishing = done.load(Ordering::Acquire);
        let patience = if finishing { Duration::ZERO } else { TICK };
        match events.recv_timeout(patience) {
            Ok(event) => put(view.event(event, start.elapsed())),
            Err(RecvTimeoutError::Timeout) if !finishing => {}
            Err(_) => break,
        }
        if ticked.elapsed() >= TICK {
            put(view.tick(start.elapsed()));
            ticked = Instant::now();
        }
    }
    put(view.end(start.elapsed()));
}

/// A text from outside on one line, and nothing in it that a terminal would obey.
pub(super) fn harmless_line(line: &str) -> String {
    text::harmless(line.replace(['\n', '\r'], " ").as_bytes(), false)
}

/// Seconds as BuildKit shows them.
fn seconds(d: Duration) -> String {
    format!("{:.1}s", d.as_secs_f64())
}

/// Bytes as BuildKit shows them: decimal units, two digits behind the point at most.
fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut units = ["B", "kB", "MB", "GB", "TB"].into_iter().peekable();
    while value >= 1000.0 && units.len() > 1 {
        value /= 1000.0;
        units.next();
    }
    let text = format!("{value:.2}");
    let unit = units.next().unwrap_or("B");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests;
