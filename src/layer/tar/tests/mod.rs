//! The writer and the reader, against each other, by hand, and against the `tar` crate.

mod random;
mod read;
mod sparse;
mod write;

use super::*;
use crate::layer::{Device, Entry, EntryKind, EntryPath, EntrySink, Error, Timestamp};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io::{self, Read};

type Pairs = Vec<(Entry, Vec<u8>)>;

fn path(s: &str) -> EntryPath {
    EntryPath::parse(s.as_bytes()).unwrap()
}

fn file(name: &str, content: &[u8]) -> (Entry, Vec<u8>) {
    (Entry::new(path(name), EntryKind::File { size: content.len() as u64 }), content.to_vec())
}

fn other(name: &str, kind: EntryKind) -> (Entry, Vec<u8>) {
    (Entry::new(path(name), kind), Vec::new())
}

fn write(entries: &Pairs) -> Vec<u8> {
    let mut writer = TarWriter::new(Vec::new());
    for (entry, content) in entries {
        writer.add(entry, &mut content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read_all<R: Read>(mut reader: TarReader<R>) -> Result<Pairs, Error> {
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        // Sparse files may claim to be endless.
        (&mut reader).take(1 << 20).read_to_end(&mut content).map_err(|source| Error::Read { offset: 0, source })?;
        entries.push((entry, content));
    }
    Ok(entries)
}

fn read(bytes: &[u8]) -> Result<Pairs, Error> {
    read_all(TarReader::layer(bytes))
}

fn reason(bytes: &[u8]) -> String {
    read(bytes).unwrap_err().to_string()
}

/// An archive by hand: a header with any name and kind, changed by `edit`, and what follows.
fn raw_header(name: &[u8], kind: u8, size: i64, edit: impl FnOnce(&mut block::Block)) -> Vec<u8> {
    let mut b = block::Block::zero();
    b.set_text(block::NAME, name);
    b.set_kind(kind);
    b.set_octal(block::MODE, 0o644);
    b.set_octal(block::LENGTH, size);
    b.seal();
    edit(&mut b);
    reseal(&mut b);
    b.0.to_vec()
}

/// The checksum anew, the magic as it is.
fn reseal(b: &mut block::Block) {
    let magic: [u8; 8] = b.0[257..265].try_into().unwrap();
    b.0[148..156].fill(b' ');
    let sum: u32 = b.0.iter().map(|x| u32::from(*x)).sum();
    b.0[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    assert_eq!(b.0[257..265], magic);
}

fn gnu(b: &mut block::Block) {
    b.0[257..265].copy_from_slice(b"ustar  \0");
}

fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut v = bytes.to_vec();
    v.resize(v.len() + block::padding(v.len() as u64), 0);
    v
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (k, v) in records {
        body.extend(pax::format(&[(k.as_bytes().to_vec(), v.to_vec())].into()));
    }
    pax_body(&body)
}

fn pax_body(body: &[u8]) -> Vec<u8> {
    [raw_header(b"PaxHeaders.0/x", b'x', body.len() as i64, |_| ()), padded(body)].concat()
}

fn plain(name: &[u8], content: &[u8]) -> Vec<u8> {
    [raw_header(name, b'0', content.len() as i64, |_| ()), padded(content)].concat()
}

const END: [u8; 1024] = [0; 1024];
