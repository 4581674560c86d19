//! The lexer itself. Functions call each other as `${…}` and quotes nest; [`DEPTH`] bounds that.

use super::{DEPTH, Expanded, Lex, MAX_GROWTH, Reason, Variables, pattern};
use std::borrow::Cow;
use std::iter::Peekable;
use std::str::Chars;

/// Expands all of `text`.
pub(super) fn run(lex: Lex, text: &str, variables: &dyn Variables) -> Result<Expanded, Reason> {
    // BuildKit's scanner drops a byte order mark at the start of whatever it reads.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut lexer =
        Lexer { lex, chars: text.chars().peekable(), variables, depth: 0, grown: 0, out: Expanded::default() };
    let (text, words) = lexer.until(None, lex.raw_escapes)?;
    Ok(Expanded { text, words, ..lexer.out })
}

struct Lexer<'a> {
    lex: Lex,
    chars: Peekable<Chars<'a>>,
    variables: &'a dyn Variables,
    depth: usize,
    /// How many bytes variables gave so far.
    grown: usize,
    /// Only the two sets of names are filled here.
    out: Expanded,
}

/// Gathers words.
#[derive(Default)]
struct Words {
    word: String,
    words: Vec<String>,
}

impl Words {
    /// A character that ends the word if it is a blank.
    fn push(&mut self, c: char) {
        if !c.is_whitespace() {
            self.word.push(c);
        } else if !self.word.is_empty() {
            self.words.push(std::mem::take(&mut self.word));
        }
    }

    fn finish(mut self) -> Vec<String> {
        if !self.word.is_empty() {
            self.words.push(self.word);
        }
        self.words
    }
}

impl Lexer<'_> {
    /// Reads up to `stop`, or to the end where that is `None`; `stop` is taken and not part of the result.
    fn until(&mut self, stop: Option<char>, raw_escapes: bool) -> Result<(String, Vec<String>), Reason> {
        self.depth += 1;
        if self.depth > DEPTH {
            return Err(Reason::TooDeep);
        }
        let before = std::mem::replace(&mut self.lex.raw_escapes, raw_escapes);
        let result = self.read(stop);
        self.lex.raw_escapes = before;
        self.depth -= 1;
        result
    }

    fn read(&mut self, stop: Option<char>) -> Result<(String, Vec<String>), Reason> {
        let mut text = String::new();
        let mut words = Words::default();
        while let Some(&c) = self.chars.peek() {
            if Some(c) == stop {
                self.chars.next();
                return Ok((text, words.finish()));
            }
            self.piece(c, &mut text, &mut words)?;
        }
        match stop {
            Some('}') => Err(Reason::Unclosed("}")),
            Some(_) => Err(Reason::Unclosed("/")),
            None => Ok((text, words.finish())),
        }
    }

    /// Reads whatever begins with `c`.
    fn piece(&mut self, c: char, text: &mut String, words: &mut Words) -> Result<(), Reason> {
        let raw = match c {
            '$' => {
                let value = self.dollar()?;
                value.chars().for_each(|c| words.push(c));
                text.push_str(&value);
                return Ok(());
            }
            '\'' if !self.lex.skip_quotes => self.single_quoted()?,
            '"' if !self.lex.skip_quotes => self.double_quoted()?,
            '<' => self.less_than(),
            _ => {
                self.character(text, words);
                return Ok(());
            }
        };
        words.word.push_str(&raw);
        text.push_str(&raw);
        Ok(())
    }

    /// One character, or the escape character and the one it escapes.
    fn character(&mut self, text: &mut String, words: &mut Words) {
        let Some(c) = self.chars.next() else { return };
        if c != self.lex.escape {
            words.push(c);
            text.push(c);
            return;
        }
        if self.lex.raw_escapes {
            words.word.push(c);
            text.push(c);
        }
        if let Some(escaped) = self.chars.next() {
            words.word.push(escaped);
            text.push(escaped);
        }
    }

    /// `<`, or `<<` with the blanks after it: they belong to the word, so that `<< EOF` is one.
    fn less_than(&mut self) -> String {
        let mut text = String::from("<");
        self.chars.next();
        if self.chars.next_if_eq(&'<').is_some() {
            text.push('<');
            while let Some(blank) = self.chars.next_if(|c| matches!(c, ' ' | '\t' | '\r')) {
                text.push(blank);
            }
        }
        text
    }

    /// Everything up to the next `'`, as it is.
    fn single_quoted(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.chars.peek() {
                None => return Err(Reason::Unclosed("single-quote")),
                Some('\'') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some(_) => text.extend(self.chars.next()),
            }
        }
    }

    /// Everything up to the next `"`; variables are expanded, and `"`, `$` and the escape character can be escaped.
    fn double_quoted(&mut self) -> Result<String, Reason> {
        let mut text = String::new();
        self.quote(&mut text);
        loop {
            match self.chars.peek() {
                None => return Err(Reason::Unclosed("double-quote")),
                Some('"') => {
                    self.quote(&mut text);
                    return Ok(text);
                }
                Some('$') => text.push_str(&self.dollar()?),
                Some(_) => self.quoted_character(&mut text),
            }
        }
    }

    fn quoted_character(&mut self, text: &mut String) {
        let Some(c) = self.chars.next() else { return };
        let escape = self.lex.escape;
        if c != escape {
            text.push(c);
            return;
        }
        if self.lex.raw_escapes {
            text.push(c);
        }
        match self.chars.next_if(|n| matches!(n, '"' | '$') || *n == escape) {
            Some(escaped) => text.push(escaped),
            None if self.chars.peek().is_none() => {}
            None => text.push(c),
        }
    }

    /// Takes a quote, and keeps it where quotes are kept.
    fn quote(&mut self, text: &mut String) {
        let quote = self.chars.next();
        if self.lex.raw_quotes {
            text.extend(quote);
        }
    }

    /// `$name` or `${…}`.
    fn dollar(&mut self) -> Result<Cow<'static, str>, Reason> {
        self.chars.next();
        if self.chars.next_if_eq(&'{').is_some() {
            return self.braces().map(Cow::Owned);
        }
        let name = self.name();
        if name.is_empty() {
            return Ok(Cow::Borrowed("$"));
        }
        Ok(Cow::Owned(match self.lookup(&name)? {
            None if self.lex.skip_unset => format!("${name}"),
            value => value.unwrap_or_default(),
        }))
    }

    /// What stands after `${`, with the closing brace.
    fn braces(&mut self) -> Result<String, Reason> {
        match self.chars.peek() {
            None => return Err(Reason::MissingBrace),
            Some('{' | '}' | ':') => return Err(Reason::BadSubstitution),
            Some(_) => {}
        }
        let name = self.name();
        match self.chars.next() {
            Some('}') => Ok(match self.lookup(&name)? {
                None if self.lex.skip_unset => format!("${{{name}}}"),
                value => value.unwrap_or_default(),
            }),
            Some(':') => {
                let modifier = self.chars.next();
                self.modified(&name, true, modifier)
            }
            Some(c @ ('+' | '-' | '?' | '#' | '%')) => self.modified(&name, false, Some(c)),
            Some('/') => self.replaced(&name),
            other => Err(unsupported(false, other)),
        }
    }

    /// `${name:-word}` and its kin.
    fn modified(&mut self, name: &str, colon: bool, modifier: Option<char>) -> Result<String, Reason> {
        let trims = matches!(modifier, Some('#' | '%'));
        let word = self.operand('}', trims, Reason::MissingBrace)?;
        let value = self.lookup(name)?;
        if self.lex.skip_unset && value.is_none() {
            let colon = if colon { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{}{word}}}", modifier.map(String::from).unwrap_or_default()));
        }
        let present = value.as_ref().is_some_and(|v| !(colon && v.is_empty()));
        match modifier {
            Some('-') => Ok(if present { value.unwrap_or_default() } else { word }),
            Some('+') => Ok(if present { word } else { String::new() }),
            Some('?') if present => Ok(value.unwrap_or_default()),
            Some('?') => Err(required(name, value.is_some(), word)),
            Some(c @ ('#' | '%')) => pattern::trim(c, &word, value.as_deref().unwrap_or_default()),
            other => Err(unsupported(colon, other)),
        }
    }

    /// `${name/pattern/replacement}`, after the first slash.
    fn replaced(&mut self, name: &str) -> Result<String, Reason> {
        let all = self.chars.next_if_eq(&'/').is_some();
        let pattern = self.operand('/', true, Reason::MissingSlash)?;
        let replacement = self.operand('}', true, Reason::MissingBrace)?;
        let value = match self.lookup(name)? {
            None if self.lex.skip_unset => return Ok(format!("${{{name}/{pattern}/{replacement}}}")),
            value => value.unwrap_or_default(),
        };
        let replaced = pattern::replace(&pattern, &replacement, &value, all)?;
        self.grow(replaced.len()).map(|()| replaced)
    }

    /// A part of `${…}` up to `stop`; an error at the end of the text is `missing`.
    fn operand(&mut self, stop: char, raw_escapes: bool, missing: Reason) -> Result<String, Reason> {
        match self.until(Some(stop), raw_escapes) {
            Ok((text, _)) => Ok(text),
            Err(reason @ (Reason::TooDeep | Reason::TooLong)) => Err(reason),
            Err(_) if self.chars.peek().is_none() => Err(missing),
            Err(reason) => Err(reason),
        }
    }

    /// A name: digits, or one of the shell's special parameters, or letters, digits and underscores.
    fn name(&mut self) -> String {
        let mut name = String::new();
        match self.chars.peek() {
            Some(c) if is_digit(*c) => {
                while let Some(c) = self.chars.next_if(|c| is_digit(*c)) {
                    name.push(c);
                }
            }
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => name.extend(self.chars.next()),
            _ => {
                while let Some(c) = self.chars.next_if(|c| c.is_alphabetic() || is_digit(*c) || *c == '_') {
                    name.push(c);
                }
            }
        }
        name
    }

    fn lookup(&mut self, name: &str) -> Result<Option<String>, Reason> {
        let value = self.variables.get(name);
        let names = if value.is_some() { &mut self.out.matched } else { &mut self.out.unmatched };
        names.insert(name.to_owned());
        self.grow(value.as_ref().map_or(0, |v| v.len()))?;
        Ok(value.map(Cow::into_owned))
    }

    /// Counts what variables give, whether or not it becomes part of the result.
    fn grow(&mut self, bytes: usize) -> Result<(), Reason> {
        self.grown = self.grown.saturating_add(bytes);
        if self.grown > MAX_GROWTH { Err(Reason::TooLong) } else { Ok(()) }
    }
}

/// Go's `unicode.IsDigit` takes the decimal digits of all scripts; names with others than ASCII's are nobody's use.
fn is_digit(c: char) -> bool {
    c.is_ascii_digit()
}

fn unsupported(colon: bool, modifier: Option<char>) -> Reason {
    let mut text = if colon { String::from(":") } else { String::new() };
    // Go prints its end-of-text rune like any that isn't one.
    text.push(modifier.unwrap_or('\u{fffd}'));
    Reason::Modifier(text)
}

fn required(name: &str, set: bool, word: String) -> Reason {
    let message = match (word.is_empty(), set) {
        (false, _) => word,
        (true, false) => "is not allowed to be unset".to_owned(),
        (true, true) => "is not allowed to be empty".to_owned(),
    };
    Reason::Required { name: name.to_owned(), message }
}
