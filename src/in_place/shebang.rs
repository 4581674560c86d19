//! Runs a heredoc that has an interpreter of its own (`#!/usr/bin/env python3`).
//!
//! Such a heredoc is a file in `/dev/pipes`, which the shell is told to execute. In a container, `/dev` may be mounted with `noexec`.
//! Then the shell is told to execute what the kernel would: the interpreter and its argument from the first line, with the path of the
//! script. The script sees the same arguments as at other levels.

use crate::sandbox::{MountKind, Spec};
use rustix::fs::StatVfsMountFlags;
use std::path::Path;

/// The number of bytes of the first line that the kernel reads.
const LINE: usize = 255;

/// The arguments of a spec. Its files are in place already.
pub(super) fn args(spec: &Spec) -> Vec<String> {
    let mut args = spec.args.clone();
    if let Some(last) = args.last_mut().filter(|last| is_noexec(Path::new(last.as_str())))
        && let Some(command) = script(spec, last).and_then(|content| command(content, last))
    {
        *last = command;
    }
    args
}

/// The content of an executable file that is mounted at a path.
fn script<'s>(spec: &'s Spec, path: &str) -> Option<&'s [u8]> {
    spec.mounts.iter().find_map(|mount| match &mount.kind {
        MountKind::File { content, mode, .. } if mode & 0o111 != 0 && mount.target == Path::new(path) => {
            Some(content.as_slice())
        }
        _ => None,
    })
}

fn is_noexec(path: &Path) -> bool {
    path.is_absolute() && rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// The command line for a script: the interpreter, the rest of the first line as one argument, and the script's path, quoted for a
/// shell. `None` for a file that is not a script.
fn command(content: &[u8], path: &str) -> Option<String> {
    let line = content.strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let line = std::str::from_utf8(line.get(..LINE).unwrap_or(line)).ok()?.trim_matches([' ', '\t']);
    let (program, rest) = line.split_once([' ', '\t']).unwrap_or((line, ""));
    let words = [program, rest.trim_matches([' ', '\t']), path];
    let quoted = words.iter().filter(|word| !word.is_empty()).map(|word| format!("'{}'", word.replace('\'', "'\\''")));
    (!program.is_empty()).then(|| quoted.collect::<Vec<_>>().join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_an_interpreter() {
        for (content, expected) in [
            ("#!/bin/sh\necho", Some("'/bin/sh' '/p/EOF'")),
            ("#! /bin/sh -e  -x \necho", Some("'/bin/sh' '-e  -x' '/p/EOF'")),
            ("#!\t/usr/bin/env\tpython3", Some("'/usr/bin/env' 'python3' '/p/EOF'")),
            ("#!/a'b\n", Some("'/a'\\''b' '/p/EOF'")),
            ("#!\n/bin/sh", None),
            ("echo", None),
        ] {
            assert_eq!(command(content.as_bytes(), "/p/EOF").as_deref(), expected, "{content:?}");
        }
    }
}
