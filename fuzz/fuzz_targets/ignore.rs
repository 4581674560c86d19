//! Any ignore file is read, or refused, without a panic; walking prunes nothing that would be let back in.
#![no_main]

use kiln_fuzz::dockerfile::glob::Glob;
use kiln_fuzz::dockerfile::ignore::{Matcher, clean, patterns};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (&str, &str, &str)| {
    let (text, dir, name) = input;
    if let Ok(glob) = Glob::new(text) {
        let _ = glob.matches(dir.as_bytes());
    }
    let Ok(matcher) = Matcher::new(patterns(text)) else { return };
    let (dir, name) = (clean(dir), clean(name));
    let _ = matcher.matches(&dir);
    // A walk knows plain names only.
    if dir.contains(['/', '\n']) || name.contains(['/', '\n']) || [&dir, &name].iter().any(|n| n.starts_with('.')) {
        return;
    }
    let verdict = matcher.enter(&dir, None);
    let below = matcher.enter(&format!("{dir}/{name}"), Some(&verdict));
    if verdict.excluded && matcher.can_prune_dir(&dir) {
        assert!(below.excluded, "{dir}/{name} is let back in");
    }
});
