//! One record of comma-separated fields, as Go's CSV reader reads it: quotes around a field, doubled within.

use std::ops::Range;

/// A field.
#[derive(Debug, PartialEq, Eq)]
pub struct Field {
    /// Its text without quotes.
    pub text: String,
    /// Where it stands, quotes included.
    pub range: Range<usize>,
}

/// The fields of a text.
///
/// # Errors
/// Go's message, for a text that is empty or has quotes in wrong places.
pub fn fields(text: &str) -> Result<Vec<Field>, String> {
    if text.is_empty() {
        return Err("EOF".to_owned());
    }
    let mut fields = Vec::new();
    let mut at = 0;
    loop {
        let rest = text.get(at..).unwrap_or_default();
        let (field, length) = match rest.strip_prefix('"') {
            Some(rest) => within_quotes(rest, at)?,
            None => plain(rest, at)?,
        };
        fields.push(Field { text: field, range: at..at + length });
        at += length + 1;
        if at > text.len() {
            return Ok(fields);
        }
    }
}

fn plain(rest: &str, at: usize) -> Result<(String, usize), String> {
    let field = rest.split(',').next().unwrap_or_default();
    match field.find('"') {
        Some(quote) => Err(error(at + quote, "bare \" in non-quoted-field")),
        None => Ok((field.to_owned(), field.len())),
    }
}

/// `rest` is behind the opening quote, which stands at `at`.
fn within_quotes(rest: &str, at: usize) -> Result<(String, usize), String> {
    let mut field = String::new();
    let mut from = 0;
    loop {
        let part = rest.get(from..).unwrap_or_default();
        let Some(quote) = part.find('"') else {
            return Err(error(at + 1 + rest.len(), "extraneous or missing \" in quoted-field"));
        };
        field.push_str(&part[..quote]);
        from += quote + 1;
        match rest.as_bytes().get(from) {
            Some(b'"') => {
                field.push('"');
                from += 1;
            }
            Some(b',') | None => return Ok((field, from + 1)),
            Some(_) => return Err(error(at + from, "extraneous or missing \" in quoted-field")),
        }
    }
}

fn error(at: usize, what: &str) -> String {
    format!("parse error on line 1, column {}: {what}", at + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        let texts = |text| fields(text).map(|f| f.into_iter().map(|f| f.text).collect::<Vec<_>>());
        assert_eq!(texts("a,b=c,").unwrap(), ["a", "b=c", ""]);
        assert_eq!(texts("a").unwrap(), ["a"]);
        assert_eq!(texts("\"a,b\",\"c\"\"d\",e").unwrap(), ["a,b", "c\"d", "e"]);
        assert_eq!(texts("\"\"").unwrap(), [""]);
        assert_eq!(texts(",").unwrap(), ["", ""]);
        assert_eq!(texts("").unwrap_err(), "EOF");
        assert_eq!(texts("a\"b").unwrap_err(), "parse error on line 1, column 2: bare \" in non-quoted-field");
        assert!(texts("\"a").unwrap_err().contains("extraneous or missing"));
        assert!(texts("\"a\"b").unwrap_err().contains("extraneous or missing"));
        assert_eq!(fields("a,\"b\"").unwrap()[1].range, 2..5);
        assert_eq!(texts("é,ü").unwrap(), ["é", "ü"]);
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_comes_back(given in proptest::collection::vec(r#"[a,"é]{0,4}"#, 1..4)) {
            let text: Vec<String> = given.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            let read = fields(&text.join(",")).map(|all| all.into_iter().map(|f| f.text).collect::<Vec<_>>());
            proptest::prop_assert_eq!(read, Ok(given));
        }
    }
}
