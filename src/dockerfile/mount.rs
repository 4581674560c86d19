//! The value of `RUN --mount=`.
//!
//! BuildKit reads it twice: when the file is parsed, for what can't hold variables, and when the RUN is planned, with
//! variables expanded. So does kiln, by the same code: the first time it leaves alone what can't be known yet.

use super::ast::{Mount, MountKind, Word};
use super::flags;
use super::quote::quoted;
use super::suggest::suggestion;
use crate::report::{Diagnostic, Span, csv};

const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
    "env",
];

const KINDS: [(&str, MountKind); 5] = [
    ("bind", MountKind::Bind),
    ("cache", MountKind::Cache),
    ("tmpfs", MountKind::Tmpfs),
    ("secret", MountKind::Secret),
    ("ssh", MountKind::Ssh),
];

const SHARING: [&str; 3] = ["shared", "private", "locked"];

type Result<T> = std::result::Result<T, Box<Diagnostic>>;

/// Expands the variables of a value, or says what is wrong with it.
pub type Expand<'e> = dyn FnMut(&Word) -> std::result::Result<String, Diagnostic> + 'e;

impl MountKind {
    /// The name in `type=`.
    pub fn name(self) -> &'static str {
        KINDS.iter().find(|(_, kind)| *kind == self).map_or("bind", |(name, _)| name)
    }
}

impl Mount {
    /// The mount with its values expanded by `expand`, all of it checked.
    ///
    /// # Errors
    /// What `expand` says, or what BuildKit says about such a mount.
    pub fn expand(&self, expand: &mut Expand<'_>) -> std::result::Result<Self, Diagnostic> {
        Reader { mount: Self::default(), kind: Some(MountKind::Bind), expand: Some(expand) }
            .read(&self.fields, self.span)
            .map_err(|e| *e)
    }
}

/// Reads a mount before its variables can be expanded.
pub(super) fn parse(value: &Word) -> Result<Mount> {
    let fields =
        csv::fields(&value.text).map_err(|why| fail(value.span, format!("failed to parse csv mounts: {why}")))?;
    let field = |f: csv::Field| Word { text: f.text, span: flags::part(value, f.range.start, f.range.end) };
    let fields: Vec<_> = fields.into_iter().map(field).collect();
    Reader { mount: Mount::default(), kind: Some(MountKind::Bind), expand: None }.read(&fields, value.span)
}

fn fail(span: Span, message: String) -> Box<Diagnostic> {
    Box::new(Diagnostic::error(span, message))
}

struct Reader<'e, 'f> {
    mount: Mount,
    /// `None` while variables hide it.
    kind: Option<MountKind>,
    expand: Option<&'e mut Expand<'f>>,
}

impl Reader<'_, '_> {
    fn read(mut self, fields: &[Word], span: Span) -> Result<Mount> {
        for field in fields {
            self.field(field)?;
        }
        let mount = Mount { span, fields: fields.to_vec(), kind: self.kind.unwrap_or_default(), ..self.mount };
        match self.kind {
            Some(kind) => whole(&mount, kind).map_err(|message| fail(span, message)).map(|()| mount),
            None => Ok(mount),
        }
    }

    /// One field, `key=value` or `key`.
    fn field(&mut self, field: &Word) -> Result<()> {
        let Some((key, value)) = field.text.split_once('=') else { return self.bare(field) };
        let span = flags::part(field, key.len() + 1, field.text.len());
        let word = Word { text: value.to_owned(), span };
        let key = key.to_lowercase();
        let Some(known) = KEYS.into_iter().find(|k| *k == key) else { return Err(unknown_key(&key, field)) };
        match self.value(known, word)? {
            // What it is can't be known yet.
            (word, false) => self.keep(known, word),
            (word, true) => {
                self.check(known, &word)?;
                self.keep(known, word);
            }
        }
        Ok(())
    }

    /// A key without a value.
    fn bare(&mut self, field: &Word) -> Result<()> {
        match field.text.to_lowercase().as_str() {
            "readonly" | "ro" => self.mount.readonly = Some(true),
            "readwrite" | "rw" => self.mount.readonly = Some(false),
            "required" => {
                self.only_for("required", &[MountKind::Secret, MountKind::Ssh], field.span)?;
                self.mount.required = Some(true);
            }
            _ => {
                let message = format!("invalid field '{}' must be a key=value pair", field.text);
                return Err(fail(field.span, message));
            }
        }
        Ok(())
    }

    /// The value as far as it is known, and whether it is.
    fn value(&mut self, key: &str, word: Word) -> Result<(Word, bool)> {
        if let Some(expand) = &mut self.expand {
            let text = expand(&word).map_err(Box::new)?;
            return Ok((Word { text, ..word }, true));
        }
        let text = &word.text;
        if key == "from" && text.find('$').is_some_and(|at| at + 1 != text.len()) {
            let message = format!("'{key}' doesn't support variable expansion, define alias stage instead");
            let hint = "give the stage its variable in a FROM … AS name, and mount from that name";
            return Err(Box::new(Diagnostic::error(word.span, message).hint(hint)));
        }
        let known = !text.contains(['$', '\'', '"', '\\', '`']);
        if key == "type" && !known {
            self.kind = None;
        }
        Ok((word, known))
    }

    /// Checks a value that is known.
    fn check(&mut self, key: &'static str, word: &Word) -> Result<()> {
        use MountKind as K;
        let text = word.text.as_str();
        let invalid = |valid: bool, message: String| if valid { Ok(()) } else { Err(fail(word.span, message)) };
        match key {
            "type" => self.kind = Some(kind(word)?),
            "readonly" | "ro" | "readwrite" | "rw" => {
                invalid(boolean(text).is_some(), format!("invalid value for {key}: {text}"))?;
            }
            "required" => {
                self.only_for(key, &[K::Secret, K::Ssh], word.span)?;
                invalid(boolean(text).is_some(), format!("invalid value for {key}: {text}"))?;
            }
            "size" => {
                self.only_for(key, &[K::Tmpfs], word.span)?;
                invalid(ram_in_bytes(text).is_some(), format!("invalid value for {key}: {text}"))?;
            }
            "sharing" if !SHARING.contains(&text.to_lowercase().as_str()) => {
                let message = format!("unsupported sharing value {}", quoted(text));
                return Err(with_suggestion(*fail(word.span, message), text, &SHARING));
            }
            "mode" => invalid(unsigned(text, 8).is_some(), format!("invalid value {text} for mode"))?,
            "uid" | "gid" => invalid(unsigned(text, 10).is_some(), format!("invalid value {text} for {key}"))?,
            _ => {}
        }
        Ok(())
    }

    fn keep(&mut self, key: &'static str, mut word: Word) {
        let mount = &mut self.mount;
        match key {
            "from" => mount.from = Some(word),
            "source" | "src" => mount.source = Some(word),
            "target" | "dst" | "destination" => mount.target = Some(word),
            "readonly" | "ro" => mount.readonly = boolean(&word.text),
            "readwrite" | "rw" => mount.readonly = boolean(&word.text).map(|rw| !rw),
            "required" => mount.required = boolean(&word.text),
            "size" => mount.size = Some(word),
            "id" => mount.id = Some(word),
            "sharing" => {
                word.text = word.text.to_lowercase();
                mount.sharing = Some(word);
            }
            "mode" => mount.mode = Some(word),
            "uid" => mount.uid = Some(word),
            "gid" => mount.gid = Some(word),
            "env" => mount.env = Some(word),
            _ => {}
        }
    }

    fn only_for(&self, key: &str, kinds: &[MountKind], span: Span) -> Result<()> {
        match self.kind {
            Some(kind) if !kinds.contains(&kind) => {
                let error = fail(span, format!("unexpected key '{key}' for mount type '{}'", kind.name()));
                Err(Box::new(error.hint("the type counts from where it stands: write type= first")))
            }
            _ => Ok(()),
        }
    }
}

/// What must hold for the mount as a whole.
fn whole(mount: &Mount, kind: MountKind) -> std::result::Result<(), String> {
    use MountKind as K;
    let owned = matches!(kind, K::Secret | K::Ssh | K::Cache);
    for (key, given) in [("mode", &mount.mode), ("uid", &mount.uid), ("gid", &mount.gid)] {
        if given.is_some() && !owned {
            return Err(format!("{key} not allowed for {} type mounts", quoted(kind.name())));
        }
    }
    let given = |word: &Option<Word>| word.as_ref().is_some_and(|w| !w.text.is_empty());
    if kind == K::Secret {
        let wrong = if given(&mount.from) {
            Some("secret mount should not have a from")
        } else if given(&mount.sharing) {
            Some("secret mount should not define sharing")
        } else if !given(&mount.source) && !given(&mount.target) && !given(&mount.id) {
            Some("invalid secret mount. one of source, target required")
        } else if given(&mount.source) && given(&mount.id) {
            Some("both source and id can't be set")
        } else {
            None
        };
        return wrong.map_or(Ok(()), |message| Err(message.to_owned()));
    }
    if given(&mount.sharing) && kind != K::Cache {
        return Err(format!("invalid cache sharing set for {} mount", kind.name()));
    }
    Ok(())
}

fn kind(word: &Word) -> Result<MountKind> {
    let name = word.text.to_lowercase();
    KINDS.into_iter().find(|(n, _)| *n == name).map(|(_, kind)| kind).ok_or_else(|| {
        let message = format!("unsupported mount type {}", quoted(&word.text));
        with_suggestion(*fail(word.span, message), &name, &KINDS.map(|(n, _)| n))
    })
}

fn unknown_key(key: &str, field: &Word) -> Box<Diagnostic> {
    with_suggestion(*fail(field.span, format!("unexpected key '{key}' in '{}'", field.text)), key, &KEYS)
}

fn with_suggestion(error: Diagnostic, name: &str, known: &[&str]) -> Box<Diagnostic> {
    let hint = match suggestion(name, known.iter().copied()) {
        Some(meant) => format!("did you mean {meant}?"),
        None => format!("it can be {}", known.join(", ")),
    };
    Box::new(error.hint(hint))
}

/// Go's booleans.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn unsigned(text: &str, radix: u32) -> Option<u32> {
    let digits = !text.is_empty() && text.chars().all(|c| c.is_digit(radix));
    digits.then(|| u32::from_str_radix(text, radix).ok()).flatten()
}

/// The bytes of a size like `64m`, `1.5GiB` or `100`: units are powers of 1024 in any case.
pub fn ram_in_bytes(text: &str) -> Option<u64> {
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.')? + 1;
    let (number, unit) = text.split_at(end);
    let unit = unit.strip_prefix(' ').unwrap_or(unit).to_ascii_lowercase();
    let (prefix, rest) = match unit.chars().next() {
        Some(c @ ('k' | 'm' | 'g' | 't' | 'p')) => (Some(c), &unit[1..]),
        _ => (None, unit.as_str()),
    };
    if !matches!((prefix, rest), (_, "" | "b") | (Some(_), "ib")) {
        return None;
    }
    let scale = 1024_f64.powi(prefix.and_then(|p| "kmgtp".find(p)).map_or(0, |i| i as i32 + 1));
    let number: f64 = number.parse().ok().filter(|n: &f64| n.is_finite() && *n >= 0.0)?;
    // A float beyond the range of the integer becomes its largest value.
    Some((number * scale) as u64)
}
