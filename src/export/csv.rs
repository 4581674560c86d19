//! One record of comma-separated values, by the rules of Go's `encoding/csv`, which docker's flags follow.

/// The fields of `text`; `None` where its quotes make no sense. A field in quotes may hold commas, and a quote as two.
pub(crate) fn fields(text: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = Some(text);
    while let Some(text) = rest {
        let (field, after) = match text.strip_prefix('"') {
            Some(quoted) => self::quoted(quoted)?,
            None => plain(text)?,
        };
        fields.push(field);
        rest = after;
    }
    Some(fields)
}

fn plain(text: &str) -> Option<(String, Option<&str>)> {
    let (field, after) = text.split_once(',').map_or((text, None), |(field, after)| (field, Some(after)));
    (!field.contains('"')).then(|| (field.to_owned(), after))
}

/// A field after its opening quote, up to the comma after the closing one.
fn quoted(text: &str) -> Option<(String, Option<&str>)> {
    let mut field = String::new();
    let mut rest = text;
    loop {
        let (part, after) = rest.split_once('"')?;
        field.push_str(part);
        match after.chars().next() {
            None => return Some((field, None)),
            Some(',') => return Some((field, after.get(1..))),
            Some('"') => field.push('"'),
            Some(_) => return None,
        }
        rest = after.get(1..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records() {
        for (text, want) in [
            ("", Some(&[""][..])),
            ("a", Some(&["a"])),
            ("a,b", Some(&["a", "b"])),
            ("a,", Some(&["a", ""])),
            (r#""a,b",c"#, Some(&["a,b", "c"])),
            (r#""a""b""#, Some(&[r#"a"b"#])),
            (r#""""#, Some(&[""])),
            (r#"a,"b"#, None),
            (r#""a"b"#, None),
            (r#"a"b"#, None),
            (r#"type=image,"name=a,b""#, Some(&["type=image", "name=a,b"])),
            ("é,ü", Some(&["é", "ü"])),
        ] {
            let want = want.map(|w| w.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>());
            assert_eq!(fields(text), want, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn what_is_quoted_comes_back(given in proptest::collection::vec(r#"[a,"é]{0,4}"#, 1..4)) {
            let text: Vec<String> = given.iter().map(|f| format!("\"{}\"", f.replace('"', "\"\""))).collect();
            proptest::prop_assert_eq!(fields(&text.join(",")), Some(given));
        }
    }
}
