//! Any text is read without a panic, its spans lie inside it, and what lints make of it can be read again.
#![no_main]

use kiln_fuzz::dockerfile::{ast_dump, lint, parse};
use kiln_fuzz::report::SourceText;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (file, mut found) = parse(text);
    let _ = ast_dump(text);
    found.extend(lint::lint(text, &file).into_iter().map(|finding| finding.diagnostic));
    for diagnostic in &found {
        assert!(text.get(diagnostic.span.range()).is_some(), "{diagnostic:?}");
    }
    let source = SourceText::new("Dockerfile", text);
    let _ = (lint::format::text(&source, &found), lint::format::sarif(&source, &found));
    let _ = lint::format::json(&source, &file, &found);
    let (mended, _) = lint::fix::fix(text, |_| true);
    let stages = |text: &str| parse(text).0.stages.iter().map(|s| s.instructions.len()).collect::<Vec<_>>();
    assert_eq!(stages(text), stages(&mended), "mending changed what the file says");
});
