use super::*;
use proptest::prelude::*;

fn matcher(patterns: &[&str]) -> Matcher {
    Matcher::new(patterns).unwrap()
}

/// The verdict that a walk from the root comes to.
fn walked(matcher: &Matcher, path: &str) -> bool {
    let mut verdict = None;
    for parent in parents(path) {
        verdict = Some(matcher.enter(parent, verdict.as_ref()));
    }
    matcher.enter(path, verdict.as_ref()).excluded
}

#[test]
fn one_pattern() {
    for (pattern, path, want) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("a", "b/a", false),
        ("a", "a/b/c", true),
        ("a/b", "a", false),
        ("./a", "a", true),
        ("a/", "a", true),
        ("a//b/../c", "a/c", true),
        ("*", "a", true),
        ("*", "a/b", true),
        ("*.go", "a.go", true),
        ("*.go", "a/b.go", false),
        ("*.go", "a.go/b", true),
        ("a/*.go", "a/b.go", true),
        ("a/*", "a/b/c", true),
        ("a?c", "abc", true),
        ("a?c", "a/c", false),
        ("**", "a", true),
        ("**", "a/b", true),
        ("**/a", "a", true),
        ("**/a", "b/c/a", true),
        ("**/a", "b/ca", false),
        ("**/a", "b/a/c", true),
        ("**a", "ba", true),
        ("**/*.go", "a.go", true),
        ("**/*.go", "b/a.go", true),
        ("**/a?", "b/ab", true),
        ("a/**", "a", false),
        ("a/**", "a/b", true),
        ("a/**", "ab/c", false),
        ("a**", "ab/c", true),
        ("a/**/b", "a/b", true),
        ("a/**/b", "a/x/y/b", true),
        ("a/**/b", "a/xb", false),
        ("**/a/**", "a", false),
        ("**/a/**", "x/a/b", true),
        ("**/a/**", "x/ab", false),
        ("[ab]", "a", true),
        ("[^ab]", "c", true),
        ("[^ab]", "a", false),
        ("[a-c]x", "bx", true),
        ("a[b", "a[b", false),
        ("a.b", "a.b", true),
        ("a.b?", "axbc", false),
        ("a+(b)|{c}$", "a+(b)|{c}$", true),
        ("a+(b)|{c}$*", "a+(b)|{c}$d", true),
        ("a^b", "a^b", true),
        ("a^*", "a^b", false),
        ("a\\*b", "a*b", true),
        ("a\\*b", "axb", false),
        ("\\#a", "#a", true),
        ("a\\d", "a7", true),
        ("é*", "éa", true),
        ("a?", "aé", true),
        (" a ", "a", true),
        ("a]", "a]", true),
        ("a]*", "a]b", true),
    ] {
        let Ok(matcher) = Matcher::new([pattern]) else {
            assert!(!want, "{pattern}");
            continue;
        };
        assert_eq!(matcher.matches(path), want, "{pattern} {path}");
        assert_eq!(walked(&matcher, path), want, "walking: {pattern} {path}");
    }
}

#[test]
fn exceptions_count_in_order() {
    for (patterns, path, want) in [
        (&["*", "!a"][..], "a", false),
        (&["*", "!a"], "b", true),
        (&["!a", "*"], "a", true),
        (&["a", "!a/b"], "a/b", false),
        (&["a", "!a/b"], "a/b/c", false),
        (&["a", "!a/b"], "a/c", true),
        (&["a", "!a/b"], "a", true),
        (&["a", "!a/b", "a/b/c"], "a/b/c/d", true),
        (&["**", "!**/*.go"], "x/y.go", false),
        (&["**", "!**/*.go"], "x/y.c", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-secret.md", true),
        (&["*.md", "!README*.md", "README-secret.md"], "README-public.md", false),
        (&["a/b", "!a/*"], "a/b/c", false),
    ] {
        assert_eq!(matcher(patterns).matches(path), want, "{patterns:?} {path}");
        assert_eq!(walked(&matcher(patterns), path), want, "walking: {patterns:?} {path}");
    }
}

#[test]
fn both_ways_differ_where_an_exception_stands_above() {
    let matcher = matcher(&["a/b", "!a"]);
    assert!(!matcher.matches("a/b"));
    assert!(walked(&matcher, "a/b"), "the walk has met `a` before anything was excluded");
}

#[test]
fn what_can_be_pruned() {
    for (patterns, dir, want) in [
        (&["a"][..], "a", true),
        (&["a", "!b"], "a", true),
        (&["a", "!a/b"], "a", false),
        (&["a", "!a/b/c"], "a/b", false),
        (&["a", "!a/b/c"], "a/c", true),
        (&["a", "!a/b*"], "a", false),
        (&["a", "!a/b*/c"], "a/bc", false),
        (&["a", "!a/b*/c"], "a/c", true),
        (&["a", "!ab"], "a", true),
        (&["a", "!ab/**"], "a", true),
        (&["a", "!a/**"], "a", false),
        (&["*", "!**/x"], "a", false),
        (&["*", "!*/x"], "a", false),
        (&["*", "!x*"], "a", true),
    ] {
        assert_eq!(matcher(patterns).can_prune_dir(dir), want, "{patterns:?} {dir}");
    }
}

#[test]
fn files_of_patterns() {
    let text = "\u{feff}# comment\n a/b/ \r\n\n /c\n! /d/../e\n#x\n #y\n/\n!\nf#g\n.\n";
    assert_eq!(patterns(text), ["a/b", "c", "!e", "#y", "/", "!", "f#g", "."]);
}

#[test]
fn wrong_patterns() {
    assert_eq!(Matcher::new(["!"]).unwrap_err(), Error::Empty);
    assert_eq!(Matcher::new(["a", "[", "!"]).unwrap_err().to_string(), "syntax error in pattern \"[\"");
    for pattern in ["[a", "a\\", "[]a]", "[z-a]", "a\\q"] {
        assert!(matches!(Matcher::new([pattern]), Err(Error::Syntax(_))), "{pattern}");
    }
    assert!(Matcher::new(["", " "]).unwrap().is_empty());
}

#[test]
fn paths_are_cleaned() {
    for (path, want) in [
        ("", "."),
        (".", "."),
        ("/", "/"),
        ("a/./b//c/", "a/b/c"),
        ("a/../..", ".."),
        ("../../a", "../../a"),
        ("/../a", "/a"),
        ("a/..", "."),
    ] {
        assert_eq!(clean(path), want, "{path}");
    }
}

/// Patterns whose meaning globset shares: its `**` takes whole components only, and it doesn't look at parents.
#[test]
fn agrees_with_globset_where_both_mean_the_same() {
    let patterns = ["a", "*.go", "a/*", "a?c", "**/b", "a/**", "a/**/c", "[ab]c", "**/*.go", "a/b*/c.go", "a.b"];
    let names = ["a", "b", "c", "ac", "bc", "abc", "x.go", "a.b", "axb"];
    for pattern in patterns {
        let glob = globset::GlobBuilder::new(pattern).literal_separator(true).build().unwrap().compile_matcher();
        let ours = Pattern::new(pattern).unwrap();
        for (one, two, three) in names.iter().flat_map(|a| names.map(move |b| (*a, b, "c.go"))) {
            for path in [one.to_owned(), format!("{one}/{two}"), format!("{one}/{two}/{three}")] {
                assert_eq!(ours.matches(&path), glob.is_match(&path), "{pattern} {path}");
            }
        }
    }
}

#[test]
fn the_number_of_patterns_is_limited() {
    let many = |n: usize| Matcher::new((0..n).map(|i| format!("d{i}")));
    assert!(many(MAX_PATTERNS).unwrap().matches("d9999"));
    assert_eq!(many(MAX_PATTERNS + 1).unwrap_err(), Error::TooMany);
    // What a directory remembers is what matched.
    assert_eq!(many(MAX_PATTERNS).unwrap().enter("d5", None).weight(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(300) })]

    #[test]
    fn never_panics(pattern in r"([ab/*?!.^\[\]\\-]|\PC){0,12}", path in "[ab/.]{0,12}") {
        let matcher = Matcher::new(patterns(&pattern));
        if let Ok(matcher) = matcher {
            let _ = (matcher.matches(&path), walked(&matcher, &path), matcher.can_prune_dir(&path));
        }
    }

    /// What is pruned has nothing in it that would be let back in.
    #[test]
    fn pruning_loses_nothing(
        given in proptest::collection::vec("!?[ab*]{1,2}(/[ab*]{1,2}){0,2}", 1..5),
        dir in "[ab](/[ab]){0,1}",
        below in "[ab]{1,2}(/[ab]){0,1}",
    ) {
        let matcher = Matcher::new(&given).unwrap();
        let path = format!("{dir}/{below}");
        if walked(&matcher, &dir) && matcher.can_prune_dir(&dir) {
            prop_assert!(walked(&matcher, &path), "{:?} {}", given, path);
        }
    }

    /// The looks at both ends of a path don't change what the expression says.
    #[test]
    fn an_expression_agrees_with_its_shortcuts(pattern in r"[ab/.*?]{1,8}", path in "[ab/.]{1,8}") {
        let cleaned = clean(&pattern);
        let Some(ours) = Pattern::new(&cleaned) else { return Ok(()) };
        if let Some(expression) = pattern::expression(&cleaned).filter(|_| !cleaned.starts_with("**")) {
            prop_assert_eq!(ours.matches(&path), expression.is_match(&path), "{} {}", cleaned, path);
        }
    }
}
