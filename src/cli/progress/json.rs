//! BuildKit's `rawjson`: each event as one `SolveStatus` object of its client API on a line of its own. What that has no
//! room for, a note, stands under `notes`, a field that its readers pass over.

use super::View;
use crate::oci::Digest;
use crate::report::{Diagnostic, Event, SourceText, Step};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// The rawjson style.
pub(super) struct RawJson {
    /// The time of day when `at` was zero.
    start: SystemTime,
    source: Option<SourceText>,
    steps: HashMap<Step, Named>,
}

/// What every message about a step repeats.
struct Named {
    digest: Digest,
    name: String,
    started: Option<String>,
}

impl View for RawJson {
    fn event(&mut self, event: Event, at: Duration) -> String {
        let now = self.time(at);
        let message = match event {
            Event::Planned { step, name } => {
                self.steps.insert(step, Named::new(step, name));
                self.vertex(step, [])
            }
            Event::Started(step) => {
                self.named(step).started = Some(now);
                self.vertex(step, [])
            }
            Event::Cached(step) => {
                self.named(step).started.get_or_insert_with(|| now.clone());
                self.vertex(step, [("completed", json!(now)), ("cached", json!(true))])
            }
            Event::Finished { step, .. } => self.vertex(step, [("completed", json!(now))]),
            Event::Failed { step, error } => self.vertex(step, [("completed", json!(now)), ("error", json!(error))]),
            Event::Output { step, stderr, bytes } => json!({ "logs": [{
                "vertex": self.named(step).digest,
                "stream": if stderr { 2 } else { 1 },
                "data": BASE64_STANDARD.encode(bytes),
                "timestamp": now,
            }] }),
            Event::Progress { step, what, done, total } => json!({ "statuses": [{
                "id": what,
                "vertex": self.named(step).digest,
                "total": total.unwrap_or(0),
                "current": done,
                "timestamp": now,
            }] }),
            Event::Warning(finding) => self.warning(&finding),
            Event::Note(note) => json!({ "notes": [note] }),
        };
        format!("{message}\n")
    }
}

impl Named {
    fn new(step: Step, name: String) -> Self {
        Self { digest: Digest::of(format!("{step} {name}").as_bytes()), name, started: None }
    }
}

impl RawJson {
    pub(super) fn new(start: SystemTime, source: Option<SourceText>) -> Self {
        Self { start, source, steps: HashMap::new() }
    }

    fn time(&self, at: Duration) -> String {
        jiff::Timestamp::try_from(self.start + at).unwrap_or_default().to_string()
    }

    fn named(&mut self, step: Step) -> &mut Named {
        self.steps.entry(step).or_insert_with(|| Named::new(step, String::new()))
    }

    fn vertex<const N: usize>(&mut self, step: Step, more: [(&str, Value); N]) -> Value {
        let named = self.named(step);
        let mut vertex = Map::new();
        vertex.insert("digest".into(), json!(named.digest));
        vertex.insert("name".into(), json!(named.name));
        if let Some(started) = &named.started {
            vertex.insert("started".into(), json!(started));
        }
        vertex.extend(more.map(|(key, value)| (key.to_owned(), value)));
        json!({ "vertexes": [vertex] })
    }

    fn warning(&self, finding: &Diagnostic) -> Value {
        let short = match finding.rule {
            Some(rule) => format!("{rule}: {}", finding.message),
            None => finding.message.clone(),
        };
        let detail: Vec<String> = finding.hint.iter().map(|h| BASE64_STANDARD.encode(h)).collect();
        let mut warning = json!({ "level": 1, "short": BASE64_STANDARD.encode(short), "detail": detail });
        if let (Some(source), Some(fields)) = (&self.source, warning.as_object_mut()) {
            let place = |offset| {
                let p = source.position(offset);
                json!({ "line": p.line, "character": p.column - 1 })
            };
            fields.insert("sourceInfo".into(), json!({ "filename": source.name }));
            fields.insert(
                "range".into(),
                json!([{ "start": place(finding.span.start), "end": place(finding.span.end) }]),
            );
        }
        json!({ "warnings": [warning] })
    }
}
