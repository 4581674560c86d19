//! Bytes as they come to lines as they are shown.

/// The longest line that is kept together; a longer one is shown in pieces.
const LONGEST: usize = 16 * 1024;

/// The unfinished last line of a process's output.
#[derive(Debug, Default)]
pub(super) struct Lines {
    partial: Vec<u8>,
}

impl Lines {
    /// Takes bytes and gives the lines that they finish to `each`, without line ends. Of a line that a carriage return
    /// overwrites, as progress bars do, only what would be seen last is given.
    pub(super) fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(&[u8])) {
        for chunk in bytes.split_inclusive(|b| *b == b'\n') {
            let (text, ended) = match chunk.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (chunk, false),
            };
            self.take(text, &mut each);
            if ended {
                self.end(&mut each);
            }
        }
    }

    /// Gives the unfinished line to `each`, where there is one.
    pub(super) fn finish(&mut self, mut each: impl FnMut(&[u8])) {
        if !self.partial.is_empty() {
            self.end(&mut each);
        }
    }

    fn take(&mut self, mut text: &[u8], each: &mut impl FnMut(&[u8])) {
        while self.partial.len() + text.len() > LONGEST {
            let (head, tail) = text.split_at(LONGEST.saturating_sub(self.partial.len()));
            self.partial.extend_from_slice(head);
            self.end(each);
            text = tail;
        }
        self.partial.extend_from_slice(text);
    }

    fn end(&mut self, each: &mut impl FnMut(&[u8])) {
        each(seen(&self.partial));
        self.partial.clear();
    }
}

/// What is seen of a line in the end: the text behind the last carriage return that has any behind it.
fn seen(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.rsplit(|b| *b == b'\r').find(|part| !part.is_empty()).unwrap_or(b"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut got = Vec::new();
        let mut lines = Lines::default();
        for chunk in chunks {
            lines.feed(chunk, |l| got.push(String::from_utf8_lossy(l).into_owned()));
        }
        lines.finish(|l| got.push(String::from_utf8_lossy(l).into_owned()));
        got
    }

    #[test]
    fn lines_come_whole_however_they_are_cut() {
        let cases: [(&[&[u8]], &[&str]); 8] = [
            (&[b"a\nb\n"], &["a", "b"]),
            (&[b"a", b"b\n", b"c"], &["ab", "c"]),
            (&[b"\n\n"], &["", ""]),
            (&[b"a\r\nb\r", b"\n"], &["a", "b"]),
            (&[b"10%\r20%\r100%\n"], &["100%"]),
            (&[b"10%\r20%\r"], &["20%"]),
            (&[], &[]),
            (&[b"\r\n"], &[""]),
        ];
        for (chunks, want) in cases {
            assert_eq!(lines(chunks), want, "{chunks:?}");
        }
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let chunk = vec![b'x'; 3 * LONGEST + 5];
        let got = lines(&[&chunk]);
        assert_eq!(got.len(), 4);
        assert!(got.iter().all(|l| l.len() <= LONGEST));
    }

    proptest::proptest! {
        #[test]
        fn cutting_changes_nothing(text in "[a\r\n]{0,40}", at in 0usize..40) {
            let bytes = text.as_bytes();
            let (head, tail) = bytes.split_at(at.min(bytes.len()));
            proptest::prop_assert_eq!(lines(&[bytes]), lines(&[head, tail]));
        }
    }
}
