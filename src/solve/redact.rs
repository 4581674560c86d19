//! Secrets in what a step writes: none is ever shown.
//!
//! Every line of a secret, without the white space around it, is looked for byte by byte; what any of them covers
//! becomes `***`. Output comes in pieces that may cut a secret anywhere, so the end of a piece that may be a secret's
//! beginning is held back until it is clear. Lines shorter than [`SHORTEST`] bytes are too likely to be something else.
//!
//! So is a secret of up to [`LARGEST_ENCODED`] bytes in base64, wherever in the encoded bytes it stands (as behind the name in
//! an `Authorization: Basic` header), unless it is broken into lines.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::VecDeque;

/// The shortest line of a secret that is looked for, in bytes.
pub const SHORTEST: usize = 4;

/// The largest secret that is looked for in base64, in bytes: tokens and passwords.
pub const LARGEST_ENCODED: usize = 1024;
/// The fewest letters of base64 that are enough to be taken for a secret.
const SHORTEST_ENCODED: usize = 8;

/// What stands in a secret's place.
const MASK: &[u8] = b"***";

/// What is looked for, made once for all streams.
#[derive(Clone, Default)]
pub struct Hidden {
    words: Vec<Word>,
}

/// A line of a secret, with its failure table (Knuth, Morris and Pratt).
#[derive(Clone)]
struct Word {
    bytes: Vec<u8>,
    /// For each number of matched bytes, how many still match when the next doesn't.
    back: Vec<usize>,
}

impl Hidden {
    /// The lines of these secrets, and the secrets in base64.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a Vec<u8>>) -> Self {
        let mut words: Vec<Vec<u8>> = Vec::new();
        for secret in secrets {
            let lines = secret.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).filter(|l| l.len() >= SHORTEST);
            words.extend(lines.map(<[u8]>::to_vec));
            words.extend(encoded(secret.trim_ascii()));
        }
        words.sort_unstable();
        words.dedup();
        Self { words: words.iter().map(|w| Word::new(w)).collect() }
    }
}

/// A secret in base64 behind zero, one and two other bytes: those letters that hang on no byte but its own.
fn encoded(secret: &[u8]) -> Vec<Vec<u8>> {
    if secret.is_empty() || secret.len() > LARGEST_ENCODED {
        return Vec::new();
    }
    let mut words = Vec::new();
    for before in 0..3 {
        let bytes = [&[0; 2][..before], secret].concat();
        // Six bits a letter: the first ones have some of the bytes before, the last one perhaps some of the next byte.
        let (first, end) = ((before * 8).div_ceil(6), bytes.len() * 8 / 6);
        for text in [STANDARD_NO_PAD.encode(&bytes), URL_SAFE_NO_PAD.encode(&bytes)] {
            words.extend(text.as_bytes().get(first..end).filter(|w| w.len() >= SHORTEST_ENCODED).map(<[u8]>::to_vec));
        }
    }
    words
}

impl Word {
    fn new(bytes: &[u8]) -> Self {
        let mut word = Self { bytes: bytes.to_vec(), back: vec![0] };
        let mut matched = 0;
        for byte in bytes.iter().skip(1) {
            matched = word.next(matched, *byte);
            word.back.push(matched);
        }
        word
    }

    /// How many bytes match after one more byte. A whole match goes on with what of it may begin another.
    fn next(&self, mut matched: usize, byte: u8) -> usize {
        loop {
            if self.bytes.get(matched) == Some(&byte) {
                return matched + 1;
            }
            match matched.checked_sub(1).and_then(|last| self.back.get(last)) {
                Some(fewer) => matched = *fewer,
                None => return 0,
            }
        }
    }
}

/// One stream.
pub struct Redactor<'a> {
    hidden: &'a Hidden,
    /// How many bytes of each word match the stream's end.
    matched: Vec<usize>,
    /// Bytes that aren't handed on yet, and whether a secret covers them.
    held: VecDeque<(u8, bool)>,
    /// Whether the last byte that was handed on was covered.
    covered: bool,
}

impl<'a> Redactor<'a> {
    /// For the beginning of a stream.
    pub fn new(hidden: &'a Hidden) -> Self {
        Self { hidden, matched: vec![0; hidden.words.len()], held: VecDeque::new(), covered: false }
    }

    /// Takes a piece; gives what can be shown by now.
    pub fn push(&mut self, piece: &[u8]) -> Vec<u8> {
        if self.hidden.words.is_empty() {
            return piece.to_vec();
        }
        let mut shown = Vec::with_capacity(piece.len());
        for byte in piece {
            self.held.push_back((*byte, false));
            let open = self.advance(*byte);
            self.release(open, &mut shown);
        }
        shown
    }

    /// What was held back: the stream is at its end.
    pub fn finish(&mut self) -> Vec<u8> {
        let mut shown = Vec::new();
        self.release(0, &mut shown);
        shown
    }

    /// Takes one byte into account; says how many bytes at the end may belong to a secret that isn't complete.
    fn advance(&mut self, byte: u8) -> usize {
        let mut open = 0;
        for (word, matched) in self.hidden.words.iter().zip(&mut self.matched) {
            *matched = word.next(*matched, byte);
            if *matched == word.bytes.len() {
                self.held.iter_mut().rev().take(*matched).for_each(|(_, covered)| *covered = true);
                // What of the match may begin another of the same word.
                *matched = word.back.last().copied().unwrap_or(0);
            }
            open = open.max(*matched);
        }
        open
    }

    /// Hands on all but the last `keep` bytes.
    fn release(&mut self, keep: usize, shown: &mut Vec<u8>) {
        while self.held.len() > keep {
            let Some((byte, covered)) = self.held.pop_front() else { return };
            match (covered, self.covered) {
                (true, false) => shown.extend_from_slice(MASK),
                (true, true) => {}
                (false, _) => shown.push(byte),
            }
            self.covered = covered;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn redact(secrets: &[&str], pieces: &[&[u8]]) -> String {
        let secrets: Vec<Vec<u8>> = secrets.iter().map(|s| s.as_bytes().to_vec()).collect();
        let hidden = Hidden::new(&secrets);
        let mut redactor = Redactor::new(&hidden);
        let mut shown: Vec<u8> = pieces.iter().flat_map(|p| redactor.push(p)).collect();
        shown.extend(redactor.finish());
        String::from_utf8_lossy(&shown).into_owned()
    }

    #[test]
    fn secrets_are_masked_wherever_they_stand() {
        for (secrets, text, want) in [
            (&["hunter2"][..], "a hunter2 b\n", "a *** b\n"),
            (&["hunter2\n"], "hunter2hunter2", "***"),
            (&["hunter2"], "hunter hunter", "hunter hunter"),
            (&["first line\nsecond line\n"], "second line, first line", "***, ***"),
            (&["first line\r\nsecond line\r\n"], "first line\nsecond line\n", "***\n***\n"),
            (&["abcd", "cdef"], "xabcdefx", "x***x"),
            (&["abab"], "abababx ab", "***x ab"),
            (&["aabaaab"], "aabaabaaabc", "aab***c"),
            (&["abcd", "abcdef"], "abcde abcdef", "***e ***"),
            (&["pass", "password"], "passwor", "***wor"),
            (&["abc"], "abc", "abc"),
            (&[""], "text", "text"),
            (&[], "text", "text"),
            (&["ab\nlonger"], "ab longer", "ab ***"),
        ] {
            assert_eq!(redact(secrets, &[text.as_bytes()]), want, "{secrets:?} in {text:?}");
            let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
            assert_eq!(redact(secrets, &bytes), want, "{secrets:?} in {text:?}, byte by byte");
        }
    }

    #[test]
    fn secrets_are_masked_in_base64_wherever_they_stand() {
        use base64::engine::general_purpose::STANDARD;
        let secret = "hunter2?>-xyz";
        for before in ["", "u", "us", "usr", "user:"] {
            for after in ["", "\n", "&more=1"] {
                let plain = format!("{before}{secret}{after}");
                for text in [STANDARD.encode(&plain), URL_SAFE_NO_PAD.encode(&plain)] {
                    let shown = redact(&[secret], &[text.as_bytes()]);
                    let left = shown.replace("***", "").len();
                    assert!(
                        shown.contains("***") && left <= (before.len() + after.len()).div_ceil(3) * 4 + 4,
                        "{shown}"
                    );
                }
            }
        }
        assert_eq!(redact(&["hunter2"], &[b"aHVudGVy and c2VjcmV0"]), "aHVudGVy and c2VjcmV0");
    }

    #[test]
    fn what_cannot_be_a_secret_is_shown_at_once() {
        let secrets = [b"hunter2".to_vec()];
        let hidden = Hidden::new(&secrets);
        let mut redactor = Redactor::new(&hidden);
        assert_eq!(redactor.push(b"the word is hunt"), b"the word is ");
        assert_eq!(redactor.push(b"ing\n"), b"hunting\n");
        assert_eq!(redactor.push(b"hunter"), b"");
        assert_eq!(redactor.push(b"2\n"), b"***\n");
    }

    /// The same by looking at the whole text.
    fn plainly(words: &[String], text: &str) -> String {
        let text = text.as_bytes();
        let mut covered = vec![false; text.len()];
        for word in words.iter().map(String::as_bytes).filter(|w| w.len() >= SHORTEST) {
            for at in 0..(text.len() + 1).saturating_sub(word.len()) {
                if text[at..].starts_with(word) {
                    covered[at..at + word.len()].fill(true);
                }
            }
        }
        let mut shown = String::new();
        for (at, byte) in text.iter().enumerate() {
            match covered[at] {
                true if at > 0 && covered[at - 1] => {}
                true => shown.push_str("***"),
                false => shown.push(char::from(*byte)),
            }
        }
        shown
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]
        #[test]
        fn cuts_change_nothing(
            words in proptest::collection::vec("[ab]{3,7}", 0..4),
            text in "[ab]{0,60}",
            size in 1usize..9,
        ) {
            let refs: Vec<&str> = words.iter().map(String::as_str).collect();
            let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
            prop_assert_eq!(redact(&refs, &pieces), plainly(&words, &text));
        }
    }
}
