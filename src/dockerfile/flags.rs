//! Flags of instructions: a closed set for each, with everything else an error.

use super::ast::Word;
use super::suggest::suggestion;
use crate::report::{Diagnostic, Span};

/// What a flag's value is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Takes {
    /// Nothing, `true` or `false`.
    Bool,
    /// A text; once.
    Text,
    /// A text; as often as one likes.
    Texts,
}

/// A flag that an instruction has.
pub(super) type Known = (&'static str, Takes);

/// The flags that were given, checked.
#[derive(Debug, Default)]
pub(super) struct Flags {
    given: Vec<(&'static str, Word)>,
}

impl Flags {
    /// Checks `flags` against the closed set `known`.
    pub(super) fn parse(flags: &[Word], known: &[Known], errors: &mut Vec<Diagnostic>) -> Self {
        let mut parsed = Self::default();
        for flag in flags {
            match parsed.check(flag, known) {
                Ok(given) => parsed.given.push(given),
                Err(error) => errors.push(*error),
            }
        }
        parsed
    }

    fn check(&self, flag: &Word, known: &[Known]) -> Result<(&'static str, Word), Box<Diagnostic>> {
        let (name, value) = match flag.text.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (flag.text.as_str(), None),
        };
        let wrong = |message: String| Box::new(Diagnostic::error(part(flag, 0, name.len()), message));
        let bare = name.trim_start_matches('-');
        let Some((key, takes)) = known.iter().copied().find(|(k, _)| *k == bare && name.len() == k.len() + 2) else {
            return Err(unknown(*wrong(format!("unknown flag: {name}")), bare, known));
        };
        if takes != Takes::Texts && self.given.iter().any(|(k, _)| *k == key) {
            return Err(wrong(format!("duplicate flag specified: {name}")));
        }
        let value = match (takes, value) {
            (Takes::Bool, None) => "true".to_owned(),
            (_, None) => return Err(wrong(format!("missing a value on flag: {name}"))),
            (Takes::Bool, Some("")) => return Err(wrong(format!("missing a value on flag: {name}"))),
            (Takes::Bool, Some(value)) => {
                boolean(value).ok_or_else(|| wrong(format!("expecting boolean value for flag {name}, not: {value}")))?
            }
            (_, Some(value)) => value.to_owned(),
        };
        Ok((key, Word { text: value, span: part(flag, name.len() + 1, flag.text.len()) }))
    }

    /// A flag's text; one with nothing behind the `=` counts as not given, as in BuildKit.
    pub(super) fn text(&self, name: &str) -> Option<Word> {
        self.texts(name).into_iter().next().filter(|word| !word.text.is_empty())
    }

    /// All texts of a flag that can be given more than once.
    pub(super) fn texts(&self, name: &str) -> Vec<Word> {
        self.given.iter().filter(|(k, _)| *k == name).map(|(_, word)| word.clone()).collect()
    }

    /// Whether a flag was switched on or off.
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.given.iter().find(|(k, _)| *k == name).map(|(_, word)| word.text == "true")
    }
}

fn boolean(value: &str) -> Option<String> {
    let value = value.to_ascii_lowercase();
    matches!(value.as_str(), "true" | "false").then_some(value)
}

fn unknown(error: Diagnostic, name: &str, known: &[Known]) -> Box<Diagnostic> {
    let meant = suggestion(name, known.iter().map(|(k, _)| *k));
    let hint = match (meant, known) {
        (Some(meant), _) => format!("did you mean --{meant}?"),
        (None, []) => "it has no flags".to_owned(),
        (None, known) => {
            let all: Vec<_> = known.iter().map(|(k, _)| format!("--{k}")).collect();
            format!("the flags are {}", all.join(", "))
        }
    };
    Box::new(error.hint(hint))
}

/// The place of a part of a word's text: the whole word where quotes, escapes or continuations make the two differ.
pub(super) fn part(word: &Word, from: usize, to: usize) -> Span {
    let start = word.span.start as usize;
    if word.span.end as usize - start != word.text.len() {
        return word.span;
    }
    Span::new(start + from.min(to), start + to)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[Known] = &[("chown", Takes::Text), ("link", Takes::Bool), ("exclude", Takes::Texts)];

    fn parse(flags: &[&str]) -> (Flags, Vec<Diagnostic>) {
        let word = |text: &&str| Word { text: (*text).to_owned(), span: Span::new(10, 10 + text.len()) };
        let mut errors = Vec::new();
        let flags = Flags::parse(&flags.iter().map(word).collect::<Vec<_>>(), KNOWN, &mut errors);
        (flags, errors)
    }

    #[test]
    fn known_flags() {
        let (flags, errors) = parse(&["--chown=a=b", "--link", "--exclude=x", "--exclude=y"]);
        assert!(errors.is_empty());
        assert_eq!(flags.text("chown").unwrap(), Word { text: "a=b".into(), span: Span::new(18, 21) });
        assert_eq!(flags.switch("link"), Some(true));
        assert_eq!(flags.texts("exclude").len(), 2);
        assert_eq!(parse(&["--link=FALSE"]).0.switch("link"), Some(false));
        assert_eq!(parse(&["--chown="]).0.text("chown"), None);
        assert_eq!(parse(&[]).0.switch("link"), None);
    }

    #[test]
    fn wrong_flags() {
        for (flags, message, hint) in [
            (&["--chwon=1"][..], "unknown flag: --chwon", Some("did you mean --chown?")),
            (&["--x"], "unknown flag: --x", Some("the flags are --chown, --link, --exclude")),
            (&["---link"], "unknown flag: ---link", Some("did you mean --link?")),
            (&["--Link"], "unknown flag: --Link", Some("did you mean --link?")),
            (&["--chown"], "missing a value on flag: --chown", None),
            (&["--exclude"], "missing a value on flag: --exclude", None),
            (&["--link="], "missing a value on flag: --link", None),
            (&["--link=yes"], "expecting boolean value for flag --link, not: yes", None),
            (&["--link", "--link"], "duplicate flag specified: --link", None),
            (&["--chown=a", "--chown=b"], "duplicate flag specified: --chown", None),
        ] {
            let (_, errors) = parse(flags);
            assert_eq!(errors.len(), 1, "{flags:?}");
            assert_eq!((errors[0].message.as_str(), errors[0].hint.as_deref()), (message, hint));
        }
        assert_eq!(parse(&["--chwon=1"]).1[0].span, Span::new(10, 17));
    }
}
