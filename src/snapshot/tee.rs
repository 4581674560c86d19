//! Entries to a layer's stream and to a folder at the same time.

use super::{Error, FolderWriter};
use crate::layer::{self, Entry, EntryKind, EntrySink};
use std::fs::File;
use std::io::{self, Read, Write};

/// Both at once, each file read once: what is packed is also unpacked here.
#[derive(Debug)]
pub struct Tee<'a, S> {
    /// Gets the entries first and reads their content.
    pub sink: S,
    /// Gets what the sink reads.
    pub folder: &'a mut FolderWriter,
}

impl<S: EntrySink> EntrySink for Tee<'_, S> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), layer::Error> {
        if !matches!(entry.kind, EntryKind::File { .. }) {
            self.sink.add(entry, content)?;
            return self.folder.add(entry, &mut io::empty());
        }
        let fail = |e: Error| layer::Error::file("unpack", &entry.path, e);
        let mut file = self.folder.start_file(entry).map_err(fail)?;
        // The sink checks that there are as many bytes as promised.
        self.sink.add(entry, &mut TeeReader { from: content, to: &mut file })?;
        self.folder.end_file(entry, &file).map_err(fail)
    }
}

struct TeeReader<'a> {
    from: &'a mut dyn Read,
    to: &'a mut File,
}

impl Read for TeeReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(buffer)?;
        self.to.write_all(buffer.get(..n).unwrap_or_default())?;
        Ok(n)
    }
}
