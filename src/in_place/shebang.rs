//! A heredoc that is a program of its own, where it lies on a file system that executes nothing: a container's `/dev` may be
//! one. The shell is told what the kernel would make of the script's first line, so that the script sees the same arguments,
//! the path of itself among them.

use crate::sandbox::{MountKind, Spec};
use rustix::fs::StatVfsMountFlags;
use std::path::Path;

/// The longest first line, in bytes, that the kernel reads.
const LINE: usize = 255;

/// The arguments of a spec whose files are in their places already.
pub(super) fn args(spec: &Spec) -> Vec<String> {
    let mut args = spec.args.clone();
    if let Some(last) = args.last_mut().filter(|last| executes_nothing(Path::new(last.as_str())))
        && let Some(command) = script(spec, last).and_then(|content| command(content, last))
    {
        *last = command;
    }
    args
}

/// The content of the file that is mounted at this very path to be executed.
fn script<'s>(spec: &'s Spec, path: &str) -> Option<&'s [u8]> {
    spec.mounts.iter().find_map(|mount| match &mount.kind {
        MountKind::File { content, mode, .. } if mode & 0o111 != 0 && mount.target == Path::new(path) => {
            Some(content.as_slice())
        }
        _ => None,
    })
}

fn executes_nothing(path: &Path) -> bool {
    path.is_absolute() && rustix::fs::statvfs(path).is_ok_and(|fs| fs.f_flag.contains(StatVfsMountFlags::NOEXEC))
}

/// The interpreter of a script's first line, the rest of that line as one argument, and the script's path, as a shell reads
/// them; nothing for what isn't a script.
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
