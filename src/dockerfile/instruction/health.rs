//! HEALTHCHECK.

use super::{Reader, form};
use crate::dockerfile::ast::{CommandLine, Healthcheck, HealthcheckCommand, Kind};
use crate::dockerfile::duration;
use crate::dockerfile::node::Args;
use crate::dockerfile::quote::quoted;
use crate::report::Diagnostic;

impl Reader<'_> {
    pub(super) fn healthcheck(&mut self) -> Option<Kind> {
        let Args::Health { kind, command } = self.args else {
            self.error(self.span, "HEALTHCHECK requires at least one argument");
            return None;
        };
        let given = matches!(command.as_ref(), Args::Plain(w) | Args::Json(w) if !w.is_empty());
        match kind.text.to_uppercase().as_str() {
            "NONE" if given => self.error(self.span, "HEALTHCHECK NONE takes no arguments"),
            "NONE" => return Some(Kind::Healthcheck(Healthcheck::default())),
            "CMD" if !given => self.error(self.span, "Missing command after HEALTHCHECK CMD"),
            "CMD" => {}
            other => self.error(kind.span, format!("Unknown type {} in HEALTHCHECK (try CMD)", quoted(other))),
        }
        let command = CommandLine { form: form(command), heredocs: Vec::new(), span: self.span };
        Some(Kind::Healthcheck(Healthcheck {
            command: Some(HealthcheckCommand(command)),
            interval: self.interval("interval"),
            timeout: self.interval("timeout"),
            start_period: self.interval("start-period"),
            start_interval: self.interval("start-interval"),
            retries: self.retries(),
        }))
    }

    fn interval(&mut self, flag: &str) -> i64 {
        const MILLISECOND: i64 = 1_000_000;
        let Some(word) = self.flags.text(flag) else { return 0 };
        match duration::parse(&word.text) {
            Ok(0) => 0,
            Ok(nanos) if nanos >= MILLISECOND => nanos,
            Ok(_) => {
                self.error(word.span, format!("Interval \"{flag}\" cannot be less than 1ms"));
                0
            }
            Err(message) => {
                self.error(word.span, message);
                0
            }
        }
    }

    fn retries(&mut self) -> i64 {
        let Some(word) = self.flags.text("retries") else { return 0 };
        match word.text.parse::<i32>() {
            Ok(retries) if retries >= 0 => return i64::from(retries),
            Ok(retries) => self.error(word.span, format!("--retries cannot be negative ({retries})")),
            Err(_) => {
                let message = format!("strconv.ParseInt: parsing {}: invalid syntax", quoted(&word.text));
                self.errors.push(Diagnostic::error(word.span, message).hint("it is a whole number"));
            }
        }
        0
    }
}
