//! The content of files, copied.

use super::Error;
use crate::layer::{self, EntryPath};
use crate::sys;
use std::fs::File;
use std::io::{self, Read, Write};

/// Copies exactly as many bytes as the entry promised.
pub(super) fn copy_exactly(from: &mut dyn Read, to: &mut impl Write, size: u64, path: &EntryPath) -> Result<(), Error> {
    let changed = |found| Error::Layer(layer::Error::Changed { path: path.clone(), expected: size, found });
    let copied = io::copy(&mut from.take(size), to).map_err(|e| Error::inside("write", path, e))?;
    if copied < size {
        return Err(changed("fewer"));
    }
    match from.read(&mut [0]) {
        Ok(0) => Ok(()),
        Ok(_) => Err(changed("more")),
        Err(e) => Err(Error::inside("read", path, e)),
    }
}

/// Files below this size are quicker read and written than asked about what the file system could share.
const WORTH_SHARING: u64 = 1 << 20;

/// Copies exactly as many bytes as the entry promised, without them passing through here where that is possible.
pub(super) fn copy_file(mut from: &File, mut to: &File, size: u64, path: &EntryPath) -> Result<(), Error> {
    if size < WORTH_SHARING {
        return copy_exactly(&mut from, &mut to, size, path);
    }
    let copied = sys::file::copy(from, to).map_err(|e| Error::inside("write", path, e.errno))?;
    let found = if copied < size { "fewer" } else { "more" };
    if copied == size {
        Ok(())
    } else {
        Err(layer::Error::Changed { path: path.clone(), expected: size, found }.into())
    }
}
