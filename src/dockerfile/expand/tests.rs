use super::*;
use proptest::prelude::*;

fn variables() -> BTreeMap<String, String> {
    [("v", "value"), ("empty", ""), ("path", "/a/b.c/d.c"), ("two", "x  y"), ("star", "a*b"), ("é", "accent")]
        .into_iter()
        .map(|(k, v)| (k.to_owned(), v.to_owned()))
        .collect()
}

fn word(text: &str) -> Result<String, String> {
    Lex::new('\\').word(text, &variables()).map_err(|e| e.reason.to_string())
}

fn check(cases: &[(&str, &str)]) {
    for (text, want) in cases {
        assert_eq!(word(text).as_deref(), Ok(*want), "{text}");
    }
}

#[test]
fn plain_text_quotes_and_escapes() {
    check(&[
        ("", ""),
        ("a b", "a b"),
        ("'a $v'", "a $v"),
        ("\"a $v\"", "a value"),
        ("\"a'b\"", "a'b"),
        (r"\$v", "$v"),
        (r"\a", "a"),
        (r"a\", "a"),
        (r#""\$v \" \\ \a""#, r#"$v " \ \a"#),
        (r"'\a\'", r"\a\"),
        ("a'b'\"c\"", "abc"),
        ("<", "<"),
        ("a <<  b", "a <<  b"),
        ("\u{feff}a", "a"),
    ]);
}

#[test]
fn variables_in_both_forms() {
    check(&[
        ("$v", "value"),
        ("${v}", "value"),
        ("$v.x", "value.x"),
        ("${v}x", "valuex"),
        ("$vx", ""),
        ("$é", "accent"),
        ("$", "$"),
        ("a$ b", "a$ b"),
        ("$$", ""),
        ("$1a", "a"),
        ("$12", ""),
        ("$-", ""),
        ("${@}", ""),
        ("$.", "$."),
    ]);
}

#[test]
fn modifiers() {
    check(&[
        ("${v:-w}", "value"),
        ("${empty:-w}", "w"),
        ("${empty-w}", ""),
        ("${no:-w}", "w"),
        ("${no-w}", "w"),
        ("${v:+w}", "w"),
        ("${empty:+w}", ""),
        ("${empty+w}", "w"),
        ("${no+w}", ""),
        ("${v:?e}", "value"),
        ("${empty?e}", ""),
        ("${no:-}", ""),
        ("${no:-$v}", "value"),
        ("${no:-${no2:-${v}x}}", "valuex"),
        ("${no:-'a}b'}", "a}b"),
        ("${no:-\"a $v\"}", "a value"),
        (r"${no:-a\}b}", "a}b"),
        ("\"${no:-'x'}\"", "x"),
    ]);
}

#[test]
fn patterns() {
    check(&[
        ("${path#*/}", "a/b.c/d.c"),
        ("${path##*/}", "d.c"),
        ("${path%.*}", "/a/b.c/d"),
        ("${path%%.*}", "/a/b"),
        ("${path%/?.c}", "/a/b.c"),
        ("${path#x}", "/a/b.c/d.c"),
        ("${path#}", "/a/b.c/d.c"),
        ("${no#a}", ""),
        ("${path/./-}", "/a/b-c/d.c"),
        ("${path//./-}", "/a/b-c/d-c"),
        ("${path//\\//:}", ":a:b.c:d.c"),
        ("${path/\\//}", "a/b.c/d.c"),
        ("${v//x/y}", "value"),
        ("${v/a*/X}", "vX"),
        (r"${star%\*b}", "a"),
        (r"${star#a\*}", "b"),
        (r"${star//\*/$v}", "avalueb"),
        ("${v#[a-z]}", "value"),
        ("${path%%[.]*}", "/a/b.c/d.c"),
    ]);
}

#[test]
fn errors_have_buildkits_words() {
    for (text, want) in [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ("\"a", "unexpected end of statement while looking for matching double-quote"),
        ("\"a\\", "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"),
        ("${v:-a", "syntax error: missing '}'"),
        ("${v#a", "syntax error: missing '}'"),
        ("${v/a", "syntax error: missing '/' in ${}"),
        ("${v/a/b", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"),
        ("${:-a}", "syntax error: bad substitution"),
        ("${{v}}", "syntax error: bad substitution"),
        ("${v=a}", "unsupported modifier (=) in substitution"),
        ("${v:=a}", "unsupported modifier (:=) in substitution"),
        ("${v", "unsupported modifier (\u{fffd}) in substitution"),
        ("${no?}", "no: is not allowed to be unset"),
        ("${no:?custom error}", "no: custom error"),
        ("${empty:?}", "empty: is not allowed to be empty"),
        (r"${v#\a}", r"invalid pattern (\a) in substitution: invalid escape '\a'"),
    ] {
        assert_eq!(word(text), Err(want.to_owned()), "{text}");
    }
    let error = Lex::new('\\').word("x${no?e}\n", &Unset).unwrap_err();
    assert_eq!(error.to_string(), "failed to process \"x${no?e}\\n\": no: e");
}

#[test]
fn words_split_outside_of_quotes_and_inside_of_variables() {
    for (text, want) in [
        ("a  b", vec!["a", "b"]),
        ("$two", vec!["x", "y"]),
        ("\"$two\"", vec!["x  y"]),
        ("a'b c'd", vec!["ab cd"]),
        (r"a\ b", vec!["a b"]),
        ("a$no b", vec!["a", "b"]),
        ("$no", vec![]),
        ("''", vec![]),
        ("<< E x", vec!["<< E", "x"]),
        ("a<< E", vec!["a<< E"]),
        ("< E", vec!["<", "E"]),
    ] {
        assert_eq!(Lex::new('\\').words(text, &variables()).unwrap(), want, "{text}");
    }
}

#[test]
fn raw_forms() {
    let raw = Lex { raw_quotes: true, raw_escapes: true, skip_unset: true, ..Lex::new('\\') };
    for (text, want) in [
        (r#"'a' "b" \c"#, r#"'a' "b" \c"#),
        ("$no ${no} $v", "$no ${no} value"),
        ("${no:-a} ${no#b} ${no/c/d}", "${no:-a} ${no#b} ${no/c/d}"),
    ] {
        assert_eq!(raw.word(text, &variables()).unwrap(), want, "{text}");
    }
    let body = Lex::heredoc_body();
    assert_eq!(body.word("it's \"$v\" \\$v \\\\", &variables()).unwrap(), "it's \"value\" $v \\");
}

#[test]
fn the_other_escape_character() {
    let lex = Lex::new('`');
    assert_eq!(lex.word(r"c:\$v `$v", &variables()).unwrap(), r"c:\value $v");
    assert_eq!(lex.word("\"`\"\"", &variables()).unwrap(), "\"");
}

#[test]
fn names_are_told_apart() {
    let got = Lex::new('\\').expand("$v ${no:-$empty} '$quoted'", &variables()).unwrap();
    assert_eq!(got.matched.into_iter().collect::<Vec<_>>(), ["empty", "v"]);
    assert_eq!(got.unmatched.into_iter().collect::<Vec<_>>(), ["no"]);
}

#[test]
fn lists_take_the_last_setting() {
    let list = vec![("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
    assert_eq!(Lex::new('\\').word("$a", &list).unwrap(), "2");
}

#[test]
fn deep_nesting_is_an_error() {
    for open in ["${a:-", "\"${a:-", "${a/"] {
        let error = Lex::new('\\').word(&open.repeat(200_000), &Unset).unwrap_err();
        assert_eq!(error.reason, Reason::TooDeep);
        assert!(error.to_string().len() < 1000);
    }
    let deep = format!("{}x{}", "${a:-".repeat(100), "}".repeat(100));
    assert_eq!(word(&deep).unwrap(), "x");
}

#[test]
fn variables_add_no_more_than_a_limit() {
    let long = |bytes: usize| vec![("v".to_owned(), "x".repeat(bytes))];
    let expand = |text: &str, bytes| Lex::new('\\').word(text, &long(bytes));
    assert_eq!(expand("a$v$v", MAX_GROWTH / 2).unwrap().len(), MAX_GROWTH + 1);
    let most = "${v//x/yyyy}";
    assert_eq!(expand(most, MAX_GROWTH / 5).unwrap().len(), MAX_GROWTH / 5 * 4);
    // What is written counts for nothing, however long it is.
    assert_eq!(expand(&"ab".repeat(MAX_GROWTH), 0).unwrap().len(), 2 * MAX_GROWTH);
    let deep = format!("{}$v$v{}", "${no:-".repeat(100), "}".repeat(100));
    for (text, bytes) in [
        ("$v$v", MAX_GROWTH / 2 + 1),
        ("\"$v${v}\"", MAX_GROWTH / 2 + 1),
        ("${no:-$v$v}", MAX_GROWTH / 2 + 1),
        (&deep, MAX_GROWTH / 2 + 1),
        ("${v//x/$v}", 100_000),
        ("${v//x/yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy}", 100_000),
        (&"${v:+}".repeat(100_000), 100_000),
        (&"${v#?}".repeat(100), 100_000),
    ] {
        let error = expand(text, bytes).unwrap_err();
        assert_eq!(error.reason, Reason::TooLong, "{text:.100}");
        assert!(error.to_string().contains("more than 1 MiB") && error.to_string().len() < 500, "{error}");
    }
}

#[test]
fn time_is_linear() {
    let text = "\"$v\" '$v' ${no:-x} \\a ".repeat(50_000);
    assert_eq!(Lex::new('\\').expand(&text, &variables()).unwrap().words.len(), 200_000);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn never_panics(text in r#"([a-z$ {}:?+#%/'"<\\`*-]|\PC){0,60}"#, raw in any::<[bool; 4]>()) {
        let lex = Lex { raw_quotes: raw[0], raw_escapes: raw[1], skip_quotes: raw[2], skip_unset: raw[3], ..Lex::new('\\') };
        let _ = lex.expand(&text, &variables());
    }

    #[test]
    fn what_has_no_meaning_stays(text in "[a-z0-9 .,:/=@_-]{0,60}") {
        let got = Lex::new('\\').expand(&text, &Unset).unwrap();
        prop_assert_eq!(&got.text, &text);
        prop_assert_eq!(got.words, text.split_whitespace().collect::<Vec<_>>());
    }
}
