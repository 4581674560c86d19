//! Event lists and what each style makes of them.

use super::*;
use crate::report::{Diagnostic, Span};
use std::sync::mpsc;

const SECOND: Duration = Duration::from_secs(1);

fn planned(step: usize, name: &str) -> Event {
    Event::Planned { step, name: name.into() }
}

fn output(step: usize, text: &str) -> Event {
    Event::Output { step, stderr: false, bytes: text.into() }
}

fn finished(step: usize, millis: u64) -> Event {
    Event::Finished { step, took: Duration::from_millis(millis) }
}

/// What a view writes about events that come a tenth of a second apart.
fn drawn(mut view: impl View, events: Vec<Event>) -> String {
    let mut text = String::new();
    let mut at = Duration::ZERO;
    for event in events {
        text.push_str(&view.event(event, at));
        text.push_str(&view.tick(at));
        at += TICK;
    }
    text + &view.end(at)
}

#[test]
fn plain_is_buildkits() {
    let events = vec![
        planned(7, "[1/2] FROM busybox"),
        planned(9, "[2/2] RUN make"),
        Event::Cached(7),
        Event::Started(9),
        output(9, "one\ntw"),
        output(9, "o\nthree"),
        finished(9, 312),
        Event::Note("wrote app.tar".into()),
    ];
    let want = "\
#1 [1/2] FROM busybox
#1 CACHED

#2 [2/2] RUN make
#2 0.100 one
#2 0.200 two
#2 0.300 three
#2 DONE 0.3s

wrote app.tar
";
    assert_eq!(drawn(plain::Plain::new(None), events), want);
}

#[test]
fn plain_says_which_of_two_steps_speaks() {
    let events = vec![
        planned(0, "[a 1/1] RUN a"),
        planned(1, "[b 1/1] RUN b"),
        Event::Started(0),
        Event::Started(1),
        output(0, "from a\n"),
        output(1, "from b\n"),
        Event::Failed { step: 0, error: "exit code: 2".into() },
        finished(1, 500),
    ];
    let want = "\
#1 [a 1/1] RUN a
#1 ...

#2 [b 1/1] RUN b
#2 ...

#1 [a 1/1] RUN a
#1 0.200 from a
#1 ...

#2 [b 1/1] RUN b
#2 0.200 from b
#2 ...

#1 [a 1/1] RUN a
#1 ERROR: exit code: 2

#2 [b 1/1] RUN b
#2 DONE 0.5s
";
    assert_eq!(drawn(plain::Plain::new(None), events), want);
}

#[test]
fn plain_shows_a_transfer_once_a_second_and_its_end() {
    let mut events = vec![planned(0, "FROM x"), Event::Started(0)];
    for mb in 0..=20 {
        let what = "sha256:abc".into();
        events.push(Event::Progress { step: 0, what, done: mb * 1_000_000, total: Some(20_000_000) });
    }
    let want = "\
#1 FROM x
#1 sha256:abc 0B / 20MB
#1 sha256:abc 10MB / 20MB
#1 sha256:abc 20MB / 20MB 2.0s done
";
    assert_eq!(drawn(plain::Plain::new(None), events), want);
}

#[test]
fn plain_keeps_hostile_output_and_names_harmless() {
    let events = vec![
        planned(0, "RUN <<EOF\nx\u{1b}[2J\nEOF"),
        Event::Started(0),
        output(0, "\u{1b}]0;title\u{7}\u{1b}[31mred\u{1b}[m \u{8}\n"),
        Event::Failed { step: 0, error: "a\n\u{1b}[1mb".into() },
    ];
    let want = "#1 RUN <<EOF x EOF\n#1 0.100 red \u{fffd}\n#1 ERROR: a b\n";
    assert_eq!(drawn(plain::Plain::new(None), events), want);
}

#[test]
fn plain_points_at_findings() {
    let source = SourceText::new("Dockerfile", "from a\n");
    let finding = Diagnostic::warning("ConsistentInstructionCasing", Span::new(0, 4), "write FROM");
    let text = drawn(plain::Plain::new(Some(source)), vec![Event::Warning(finding)]);
    assert!(text.starts_with("warning[ConsistentInstructionCasing]: write FROM\n --> Dockerfile:1:1\n"), "{text}");
}

#[test]
fn quiet_says_nothing_but_the_end_of_what_failed() {
    let mut events = vec![planned(0, "[1/2] RUN a"), planned(1, "[2/2] RUN b"), Event::Started(0), output(0, "fine\n")];
    events.extend([finished(0, 1), Event::Started(1)]);
    events.extend((0..100).map(|n| output(1, &format!("line {n}\n"))));
    events.push(Event::Failed { step: 1, error: "exit code: 1".into() });
    let text = drawn(quiet::Quiet::default(), events);
    assert!(text.starts_with("------\n > [2/2] RUN b:\n…\nline 60\n"), "{text}");
    assert!(text.ends_with("line 99\n------\n"), "{text}");
    let calm = vec![planned(0, "x"), Event::Started(0), output(0, "y\n"), finished(0, 1), Event::Note("n".into())];
    assert_eq!(drawn(quiet::Quiet::default(), calm), "");
}

#[test]
fn rawjson_is_buildkits_status_one_object_a_line() {
    let start = SystemTime::UNIX_EPOCH;
    let source = SourceText::new("Dockerfile", "from a\n");
    let events = vec![
        planned(0, "[1/1] RUN a"),
        Event::Started(0),
        output(0, "hi\n"),
        Event::Progress { step: 0, what: "sha256:abc".into(), done: 1, total: None },
        Event::Warning(Diagnostic::warning("Rule", Span::new(0, 4), "m")),
        Event::Failed { step: 0, error: "exit code: 2".into() },
    ];
    let text = drawn(json::RawJson::new(start, Some(source)), events);
    let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(lines.len(), 6);
    let digest = &lines[0]["vertexes"][0]["digest"];
    assert!(digest.as_str().unwrap().starts_with("sha256:"));
    assert_eq!(lines[1]["vertexes"][0]["started"], "1970-01-01T00:00:00.1Z");
    assert_eq!(&lines[2]["logs"][0]["vertex"], digest);
    assert_eq!(lines[2]["logs"][0]["data"], "aGkK");
    assert_eq!(lines[3]["statuses"][0]["current"], 1);
    assert_eq!(lines[4]["warnings"][0]["range"][0]["start"]["line"], 1);
    assert_eq!(lines[5]["vertexes"][0]["error"], "exit code: 2");
    assert_eq!(lines[5]["vertexes"][0]["started"], "1970-01-01T00:00:00.1Z");
}

/// What a terminal of 40 columns shows of a text that uses the sequences of [`tty`], and nothing else.
fn screen(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut row = 0;
    let mut rest = text.chars();
    let mut fresh = true;
    while let Some(c) = rest.next() {
        match c {
            '\r' => fresh = true,
            '\n' => {
                row += 1;
                fresh = true;
                if row == lines.len() {
                    lines.push(String::new());
                }
            }
            '\u{1b}' => {
                let sequence: String = rest.by_ref().skip(1).take_while(|c| !c.is_alphabetic()).collect();
                let end = text[..text.len() - rest.as_str().len()].chars().last().unwrap();
                match end {
                    'A' => row -= sequence.parse::<usize>().unwrap(),
                    'J' => {
                        lines.truncate(row + 1);
                        lines[row].clear();
                    }
                    'K' if fresh => lines[row].clear(),
                    'K' | 'm' | 'h' | 'l' => {}
                    other => panic!("an unexpected sequence {other}"),
                }
            }
            c => {
                if fresh {
                    lines[row].clear();
                    fresh = false;
                }
                lines[row].push(c);
            }
        }
    }
    assert!(lines.iter().all(|l| l.chars().count() < 40), "{lines:?}");
    lines
}

fn tty_of(rows: usize, colours: bool) -> tty::Tty {
    tty::Tty::new(Terminal { columns: 40, rows }, colours, None, || None)
}

#[test]
fn tty_redraws_what_runs_and_lets_the_rest_scroll_by() {
    let mut view = tty_of(24, false);
    let mut text = String::new();
    for event in [planned(0, "[1/2] FROM a"), planned(1, "[2/2] RUN make"), Event::Cached(0), Event::Started(1)] {
        text.push_str(&view.event(event, Duration::ZERO));
        text.push_str(&view.tick(Duration::ZERO));
    }
    text.push_str(&view.event(output(1, "compiling\n"), SECOND));
    text.push_str(&view.tick(SECOND));
    let want = [
        " => CACHED [1/2] FROM a",
        "[+] 1.0s, 1 of 2 steps",
        " => [2/2] RUN make                 1.0s",
        "    | compiling",
        "",
    ];
    assert_eq!(screen(&text), want);

    text.push_str(&view.event(finished(1, 1500), SECOND));
    text.push_str(&view.tick(SECOND));
    text.push_str(&view.end(2 * SECOND));
    let want = [" => CACHED [1/2] FROM a", " => [2/2] RUN make                 1.5s", "[+] 2.0s, 2 steps", ""];
    assert_eq!(screen(&text), want);
}

#[test]
fn tty_shows_the_output_of_what_failed() {
    let events = vec![
        planned(0, "[1/1] RUN a"),
        Event::Started(0),
        output(0, "oops\n"),
        Event::Failed { step: 0, error: "exit code: 2".into() },
    ];
    let want = [" => ERROR [1/1] RUN a", "------", " > [1/1] RUN a:", "oops", "------", "[+] 0.4s, 0 steps", ""];
    assert_eq!(screen(&drawn(tty_of(24, true), events)), want);
}

#[test]
fn tty_never_draws_more_than_fits() {
    for rows in [1, 2, 3, 5, 24, 1000] {
        let mut view = tty_of(rows, true);
        for step in 0..50 {
            view.event(planned(step, &format!("[{step}] RUN {}", "日本 long ".repeat(20))), Duration::ZERO);
            view.event(Event::Started(step), Duration::ZERO);
            view.event(output(step, &"\u{1b}[31mwide 日本語 ".repeat(20)), Duration::ZERO);
            view.event(output(step, "\n1\n2\n3\n4\n5\n6\n7\n8\n"), Duration::ZERO);
        }
        let frame = view.tick(SECOND);
        let lines = frame.matches('\n').count();
        assert!(lines >= 1 && lines <= 24.min(rows.max(2) - 1), "{lines} lines on {rows} rows");
        assert!(view.tick(SECOND).contains(&format!("\u{1b}[{lines}A")));
    }
}

#[test]
fn tty_keeps_colours_and_nothing_else_of_the_output() {
    let mut view = tty_of(24, true);
    for event in [planned(0, "RUN a"), Event::Started(0), output(0, "\u{1b}[32mok\u{1b}[2J\u{1b}[9999A\u{1b}[0m\n")] {
        view.event(event, Duration::ZERO);
    }
    let frame = view.tick(SECOND);
    assert!(frame.contains("\u{1b}[32mok\u{1b}[0m"), "{frame:?}");
    assert!(!frame.contains("[2J") && !frame.contains("9999"), "{frame:?}");
}

/// Takes writes and passes them on.
struct Pipe(mpsc::Sender<Vec<u8>>);

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.send(bytes.to_vec()).map_err(|_| std::io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn everything_sent_before_the_end_is_drawn_though_a_sender_lives_on() {
    let (sender, written) = mpsc::channel();
    let (reporter, drawing) = start(Style::Plain, None, Pipe(sender)).unwrap();
    let kept = reporter.clone();
    for n in 0..2000 {
        reporter.send(Event::Note(format!("note {n}")));
    }
    drawing.finish();
    let text: Vec<u8> = written.iter().flatten().collect();
    assert!(String::from_utf8(text).unwrap().ends_with("note 1999\n"));
    kept.send(Event::Note("to nobody".into()));
}

#[test]
fn a_closed_standard_error_stops_nothing() {
    let (sender, written) = mpsc::channel();
    drop(written);
    let (reporter, drawing) = start(Style::Plain, None, Pipe(sender)).unwrap();
    for n in 0..1000 {
        reporter.send(Event::Note(format!("note {n}")));
    }
    drawing.finish();
}

#[test]
fn sizes_as_buildkit_shows_them() {
    for (n, want) in [
        (0, "0B"),
        (999, "999B"),
        (1000, "1kB"),
        (1_536_000, "1.54MB"),
        (60_000_000, "60MB"),
        (u64::MAX, "18446744.07TB"),
    ] {
        assert_eq!(bytes(n), want);
    }
}
