//! Any word is expanded, or refused, without a panic, in every combination of settings.
#![no_main]

use kiln_fuzz::dockerfile::expand::Lex;
use libfuzzer_sys::fuzz_target;
use std::collections::BTreeMap;

fuzz_target!(|input: (u8, &str, &str)| {
    let (bits, text, value) = input;
    let bit = |at: u8| bits & (1 << at) != 0;
    let lex = Lex {
        raw_quotes: bit(0),
        raw_escapes: bit(1),
        skip_quotes: bit(2),
        skip_unset: bit(3),
        ..Lex::new(if bit(4) { '`' } else { '\\' })
    };
    let variables = BTreeMap::from([("a".to_owned(), value.to_owned()), ("b".to_owned(), String::new())]);
    if let Ok(expanded) = lex.expand(text, &variables) {
        assert!(expanded.words.iter().all(|word| !word.is_empty()));
    }
});
