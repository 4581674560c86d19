//! `# check=skip=A,B;error=true`.

use super::table::{Source, rule};
use crate::dockerfile::ast::{Directives, Word};
use crate::dockerfile::quote::quoted;
use crate::report::Diagnostic;
use std::collections::BTreeSet;

/// Which rules count, and how much.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Options {
    skip: Selection,
    experimental: Selection,
    /// A finding of one of BuildKit's rules makes the build fail.
    pub error: bool,
}

/// Some rules, or all.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Selection {
    all: bool,
    names: Vec<String>,
}

impl Selection {
    fn parse(value: &str) -> Self {
        match value.trim() {
            "all" => Self { all: true, names: Vec::new() },
            names => Self { all: false, names: names.split(',').map(|name| name.trim().to_owned()).collect() },
        }
    }

    fn has(&self, name: &str) -> bool {
        self.all || self.names.iter().any(|n| n == name)
    }
}

impl Options {
    /// What the file's `check` directive says.
    ///
    /// # Errors
    /// In BuildKit's words, for an option that isn't one.
    pub fn of(directives: &Directives) -> Result<Self, Diagnostic> {
        let Some(Word { text, span }) = &directives.check else { return Ok(Self::default()) };
        // As in BuildKit the value ends at a space.
        let value = text.split(' ').next().unwrap_or_default();
        Self::parse(value)
            .map_err(|message| Diagnostic::error(*span, format!("failed to parse check options: {message}")))
    }

    /// Reads `skip=A,B;experimental=all;error=true`.
    ///
    /// # Errors
    /// In BuildKit's words, for an option that isn't one.
    pub fn parse(value: &str) -> Result<Self, String> {
        let mut options = Self::default();
        if value.trim().is_empty() {
            return Ok(options);
        }
        for part in value.trim().splitn(3, ';') {
            let Some((key, value)) = part.split_once('=') else {
                return Err(format!("invalid check option {}", quoted(part)));
            };
            match key.trim() {
                "skip" => options.skip = Selection::parse(value),
                "experimental" => options.experimental = Selection::parse(value),
                "error" => options.error = boolean(value.trim(), part)?,
                other => return Err(format!("invalid check option {}", quoted(other))),
            }
        }
        Ok(options)
    }

    /// Whether findings of the rule `name` count.
    pub fn allow(&self, name: &str) -> bool {
        let experimental = rule(name).is_some_and(|rule| rule.experimental);
        !self.skip.has(name) && (!experimental || self.experimental.has(name))
    }

    /// What makes the build fail, if the file asks for that and something was found.
    pub fn violation(&self, found: &[Diagnostic]) -> Option<String> {
        let counts = |name: &&str| rule(name).is_some_and(|r| r.source == Source::BuildKit) && self.allow(name);
        let names: BTreeSet<&str> = found.iter().filter_map(|d| d.rule).filter(counts).collect();
        if !self.error || names.is_empty() {
            return None;
        }
        let names: Vec<_> = names.into_iter().collect();
        Some(format!("lint violation found for rules: {}", names.join(", ")))
    }
}

fn boolean(value: &str, part: &str) -> Result<bool, String> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!(
            "failed to parse check option {}: strconv.ParseBool: parsing {}: invalid syntax",
            quoted(part),
            quoted(value)
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::Span;

    #[test]
    fn options() {
        let options =
            Options::parse("skip=StageNameCasing, UserNeverSet;experimental=CopyIgnoredFile;error=true").unwrap();
        assert!(options.error && !options.allow("StageNameCasing") && !options.allow("UserNeverSet"));
        assert!(options.allow("CopyIgnoredFile") && !options.allow("InvalidDefinitionDescription"));
        assert!(options.allow("FromAsCasing"));
        assert!(!Options::parse("skip=all").unwrap().allow("FromAsCasing"));
        assert!(Options::parse(" ").unwrap().allow("FromAsCasing"));
        for (value, want) in [
            ("skip", "invalid check option \"skip\""),
            ("skip=a;", "invalid check option \"\""),
            ("skipp=a", "invalid check option \"skipp\""),
            (
                "error=yes",
                "failed to parse check option \"error=yes\": strconv.ParseBool: parsing \"yes\": invalid syntax",
            ),
        ] {
            assert_eq!(Options::parse(value).unwrap_err(), want);
        }
    }

    #[test]
    fn only_buildkits_rules_fail_a_build() {
        let found = |rule| vec![Diagnostic::warning(rule, Span::default(), "")];
        let strict = Options::parse("error=true").unwrap();
        assert_eq!(
            strict.violation(&found("StageNameCasing")).unwrap(),
            "lint violation found for rules: StageNameCasing"
        );
        assert_eq!(strict.violation(&found("UserNeverSet")), None);
        assert_eq!(strict.violation(&found("CopyIgnoredFile")), None);
        assert_eq!(Options::default().violation(&found("StageNameCasing")), None);
    }
}
