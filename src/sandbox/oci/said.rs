//! What a runtime says of a process that it didn't start, in terms of the spec: in its log, or, once it has given its log away
//! and is about to become the command, among the process's own output.

use crate::sandbox::{Error, Spec, Stream};
use crate::sys::file;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use serde_json::Value;
use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Hands output on, but for what may be the runtime's last words, until it is known whether they were.
pub(super) struct Last<'a> {
    output: &'a mut dyn FnMut(Stream, &[u8]),
    words: Option<Vec<u8>>,
}

impl<'a> Last<'a> {
    pub(super) fn new(output: &'a mut dyn FnMut(Stream, &[u8])) -> Self {
        Self { output, words: None }
    }

    /// Takes what was written at once.
    pub(super) fn hand_on(&mut self, stream: Stream, bytes: &[u8]) {
        self.release();
        if stream == Stream::Stderr && exec_failed(bytes).is_some() {
            self.words = Some(bytes.to_vec());
        } else {
            (self.output)(stream, bytes);
        }
    }

    fn release(&mut self) {
        if let Some(words) = self.words.take() {
            (self.output)(Stream::Stderr, &words);
        }
    }

    /// At the end of the process: why it never was one, if those were the runtime's words.
    pub(super) fn end(mut self, failed: bool, spec: &Spec) -> Option<Error> {
        if failed && let Some((found, errno)) = self.words.as_deref().and_then(exec_failed) {
            let program = spec.args.first().map_or("", String::as_str);
            return Some(Error::command(program, Some(&found), errno));
        }
        self.release();
        None
    }
}

/// The program that couldn't be executed and why, as crun and runc write it to standard error when they have found the file.
fn exec_failed(line: &[u8]) -> Option<(String, Errno)> {
    let line = std::str::from_utf8(line).ok()?.strip_suffix('\n')?;
    let (found, why) = match error_of(line) {
        Some(said) => {
            let (found, why) = said.strip_prefix("exec container process")?.split_once('`')?.1.rsplit_once("`: ")?;
            (found.to_owned(), why.to_owned())
        }
        None => {
            let (found, why) = line.strip_prefix("exec ")?.rsplit_once(": ")?;
            (found.to_owned(), why.to_owned())
        }
    };
    let errno = match why.to_lowercase().as_str() {
        "no such file or directory" => Errno::NOENT,
        "permission denied" => Errno::ACCESS,
        "exec format error" => Errno::NOEXEC,
        _ => return None,
    };
    found.starts_with('/').then_some((found, errno))
}

/// What the runtime says it could not do. The process was not run then, or ended by what it did.
pub(in crate::sandbox) fn complaint(bundle: OwnedFd, spec: &Spec) -> Result<(), Error> {
    let mut text = String::new();
    match file::open_beneath(&bundle, Path::new("log"), OFlags::RDONLY, Mode::empty()) {
        // Its own end isn't worth more than what it managed to say.
        Ok(log) => drop(File::from(log).take(64 << 10).read_to_string(&mut text)),
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    match text.lines().filter_map(error_of).next_back() {
        Some(said) => Err(explained(&said, spec)),
        None => Ok(()),
    }
}

/// The message of a line of the log, if it is an error.
fn error_of(line: &str) -> Option<String> {
    let entry: Value = serde_json::from_str(line).ok()?;
    (entry["level"] == "error").then(|| entry["msg"].as_str().unwrap_or_default().to_owned())
}

/// A runtime's complaint in terms of the spec.
fn explained(said: &str, spec: &Spec) -> Error {
    let program = spec.args.first().map_or("", String::as_str);
    let reasons = [
        ("executable file", "not found in $PATH", Errno::NOENT),
        (program, "No such file or directory", Errno::NOENT),
        (program, "no such file or directory", Errno::NOENT),
        (program, "ermission denied", Errno::ACCESS),
        ("open executable", "ermission denied", Errno::ACCESS),
        (program, "xec format error", Errno::NOEXEC),
    ];
    let fits =
        |(about, why, _): &&(&str, &str, Errno)| said.contains("exec") && said.contains(about) && said.contains(why);
    match reasons.iter().find(fits) {
        Some((.., Errno::NOENT)) => Error::command(program, None, Errno::NOENT),
        Some((.., errno)) => Error::command(program, Some(program), *errno),
        None => Error::Runtime { runtime: "the OCI runtime".into(), said: said.to_owned() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::RootMount;

    const CRUN: &str = "{\"msg\":\"exec container process (missing dynamic library?) `/bad`: No such file or directory\",\"level\":\"error\"}\n";

    #[test]
    fn a_program_that_was_found_and_not_executed_is_told_from_output() {
        let cases = [
            (CRUN, Some(("/bad", Errno::NOENT))),
            ("exec /bad: no such file or directory\n", Some(("/bad", Errno::NOENT))),
            ("exec /a: b: exec format error\n", Some(("/a: b", Errno::NOEXEC))),
            ("exec /bad: permission denied\n", Some(("/bad", Errno::ACCESS))),
            ("exec /bad: text file busy\n", None),
            ("exec bad: permission denied\n", None),
            ("exec /bad: permission denied", None),
            ("{\"msg\":\"exec container process `/bad`: No such file or directory\",\"level\":\"info\"}\n", None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|(found, errno)| (found.to_owned(), errno));
            assert_eq!(exec_failed(line.as_bytes()), expected, "{line}");
        }
    }

    #[test]
    fn last_words_are_output_unless_the_process_failed_with_them() {
        let spec = Spec::new(RootMount::Dir("/".into()), vec!["bad".into()]);
        let run = |chunks: &[(Stream, &str)], failed| {
            let mut out = String::new();
            let mut take = |_: Stream, bytes: &[u8]| out.push_str(&String::from_utf8_lossy(bytes));
            let mut last = Last::new(&mut take);
            chunks.iter().for_each(|(stream, text)| last.hand_on(*stream, text.as_bytes()));
            let error = last.end(failed, &spec);
            (out, error)
        };
        let (out, error) = run(&[(Stream::Stderr, CRUN)], true);
        assert!(out.is_empty() && matches!(error, Some(Error::Command { code: 127, .. })), "{out} {error:?}");
        let (out, error) = run(&[(Stream::Stderr, CRUN)], false);
        assert!(out == CRUN && error.is_none(), "{out} {error:?}");
        let (out, error) = run(&[(Stream::Stderr, CRUN), (Stream::Stdout, "more")], true);
        assert!(out == format!("{CRUN}more") && error.is_none(), "{out} {error:?}");
        let (out, error) = run(&[(Stream::Stdout, CRUN)], true);
        assert!(out == CRUN && error.is_none(), "{out} {error:?}");
    }
}
