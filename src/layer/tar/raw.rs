//! Headers as they stand in an archive, with the extended headers before them merged in.

use super::XATTR;
use super::block::{self, Block, Dialect, kind};
use super::pax::{self, Records};
use super::sparse::{self, Draft, Map, Version};
use super::stream::{Stream, truncated};
use crate::layer::path::show;
use crate::layer::{Error, Timestamp};
use std::collections::BTreeMap;
use std::io::{self, Read};

/// One header: numbers and names as written, nothing checked that the stream doesn't need.
#[derive(Debug)]
pub(super) struct Raw {
    pub(super) kind: u8,
    pub(super) name: Vec<u8>,
    pub(super) link: Vec<u8>,
    pub(super) mode: i64,
    pub(super) uid: i64,
    pub(super) gid: i64,
    pub(super) major: i64,
    pub(super) minor: i64,
    pub(super) mtime: Timestamp,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) content: Map,
}

/// An archive, read header by header.
pub(super) struct RawReader<R> {
    /// Stands at the current entry's content.
    pub(super) stream: Stream<R>,
}

/// What came before a header and changes it.
#[derive(Debug, Default)]
struct Pending {
    records: Records,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    any: bool,
}

/// Whether `input` starts with something that Go's reader takes for a tar header.
pub fn starts_like_tar(input: impl Read) -> bool {
    let mut reader = RawReader::new(input);
    loop {
        match reader.stream.block() {
            // Go returns a global header as an entry.
            Ok(Some(block)) if block.kind() == kind::PAX_GLOBAL => return reader.records(&block).is_ok(),
            Ok(Some(block)) => match reader.entry(&block, &mut Pending::default()) {
                Ok(Some(_)) => return true,
                Ok(None) => {}
                Err(_) => return false,
            },
            Ok(None) | Err(_) => return false,
        }
    }
}

impl<R: Read> RawReader<R> {
    pub(super) fn new(input: R) -> Self {
        Self { stream: Stream::new(input) }
    }

    /// The next entry's header, what is left of the last one's content being skipped; `None` at the archive's end.
    pub(super) fn next(&mut self) -> Result<Option<Raw>, Error> {
        let mut pending = Pending::default();
        while let Some(block) = self.stream.block()? {
            if let Some(raw) = self.entry(&block, &mut pending)? {
                return Ok(Some(raw));
            }
        }
        if pending.any {
            return Err(self.stream.malformed("the archive ends after an extended header"));
        }
        Ok(None)
    }

    /// Takes a header in: an entry, or `None` if it only changes the next one.
    fn entry(&mut self, block: &Block, pending: &mut Pending) -> Result<Option<Raw>, Error> {
        match block.kind() {
            kind::PAX => pending.records = self.records(block)?,
            // What it says of all entries that follow isn't applied, as in Go; git writes its commit there.
            kind::PAX_GLOBAL => return self.records(block).map(|_| None),
            kind::GNU_LONG_NAME => pending.long_name = Some(self.long_name(block)?),
            kind::GNU_LONG_LINK => pending.long_link = Some(self.long_name(block)?),
            _ => return self.header(block, std::mem::take(pending)).map(Some),
        }
        pending.any = true;
        Ok(None)
    }

    fn long_name(&mut self, block: &Block) -> Result<Vec<u8>, Error> {
        Ok(block::until_nul(&self.stream.special(block)?).to_vec())
    }

    /// The records of an extended header that mean something here.
    fn records(&mut self, block: &Block) -> Result<Records, Error> {
        let bytes = self.stream.special(block)?;
        let (mut records, mut map) = (Records::new(), Vec::new());
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (key, value, next) = pax::take(rest).ok_or_else(|| self.stream.malformed("broken extended header"))?;
            rest = next;
            match key {
                // PAX 0.0 repeats these in turn, one pair for each piece.
                b"GNU.sparse.offset" | b"GNU.sparse.numbytes" => {
                    if (key == b"GNU.sparse.offset") != (map.len() % 2 == 0) || value.contains(&b',') {
                        return Err(self.stream.malformed("the sparse map's records are out of order"));
                    }
                    map.push(value);
                }
                _ if matters(key) => drop(records.insert(key.to_vec(), value.to_vec())),
                _ => {}
            }
        }
        if !map.is_empty() {
            records.insert(b"GNU.sparse.map".to_vec(), map.join(&b','));
        }
        Ok(records)
    }

    fn header(&mut self, block: &Block, mut pending: Pending) -> Result<Raw, Error> {
        let mut raw = self.plain(block)?;
        self.stream.name.clone_from(&raw.name);
        let size = self.merge(&mut raw, &mut pending, block.number(block::LENGTH))?;
        self.stream.name.clone_from(&raw.name);
        if raw.kind == kind::OLD_FILE {
            raw.kind = if raw.name.ends_with(b"/") { kind::DIR } else { kind::FILE };
        }
        raw.content = self.content(block, &mut raw, &pending.records, size)?;
        self.stream.name.clone_from(&raw.name);
        Ok(raw)
    }

    /// The header without what came before it. Sizes aren't looked at.
    fn plain(&self, block: &Block) -> Result<Raw, Error> {
        let number = |field, what: &str| {
            block.number(field).ok_or_else(|| self.stream.malformed(format!("the header's {what} is no number")))
        };
        let devices = block.dialect() != Dialect::V7;
        Ok(Raw {
            kind: block.kind(),
            name: name(block),
            link: block.text(block::LINK).to_vec(),
            mode: number(block::MODE, "mode")?,
            uid: number(block::UID, "owner")?,
            gid: number(block::GID, "group")?,
            major: if devices { number(block::MAJOR, "device")? } else { 0 },
            minor: if devices { number(block::MINOR, "device")? } else { 0 },
            mtime: Timestamp::from_secs(number(block::MTIME, "time")?),
            xattrs: BTreeMap::new(),
            content: Map::whole(0),
        })
    }

    /// Applies what came before the header; returns the size of the content.
    fn merge(&self, raw: &mut Raw, pending: &mut Pending, size: Option<i64>) -> Result<u64, Error> {
        let mut size = size;
        for (key, value) in &pending.records {
            let bad = || self.stream.malformed(format!("extended header: {} is {}", show(key), show(value)));
            // An empty value takes back a global one, so the header's own counts.
            if let Some(name) = key.strip_prefix(XATTR) {
                raw.xattrs.insert(name.to_vec(), value.clone());
                continue;
            } else if value.is_empty() {
                continue;
            }
            match key.as_slice() {
                b"path" => raw.name.clone_from(value),
                b"linkpath" => raw.link.clone_from(value),
                b"uid" => raw.uid = pax::decimal(value).ok_or_else(bad)?,
                b"gid" => raw.gid = pax::decimal(value).ok_or_else(bad)?,
                b"mtime" => raw.mtime = pax::parse_time(value).ok_or_else(bad)?,
                b"size" => size = Some(pax::decimal(value).ok_or_else(bad)?),
                _ => {}
            }
        }
        if let Some(name) = pending.long_name.take().filter(|n| !n.is_empty()) {
            raw.name = name;
        }
        if let Some(link) = pending.long_link.take().filter(|n| !n.is_empty()) {
            raw.link = link;
        }
        self.stream.size(size)
    }

    /// Which bytes are stored where; the stream stands at the first of them afterwards.
    fn content(&mut self, block: &Block, raw: &mut Raw, records: &Records, size: u64) -> Result<Map, Error> {
        if raw.kind == kind::GNU_SPARSE {
            raw.kind = kind::FILE;
            return self.old_sparse(block, size);
        }
        self.stream.start_content(if has_content(raw.kind) { size } else { 0 });
        if raw.kind != kind::FILE {
            return Ok(Map::whole(self.stream.remaining));
        }
        let Some(version) = sparse::version(records).map_err(|e| self.stream.malformed(e))? else {
            return Ok(Map::whole(size));
        };
        let get = |key: &[u8]| records.get(key).filter(|v| !v.is_empty());
        if let Some(name) = get(b"GNU.sparse.name") {
            raw.name.clone_from(name);
        }
        let real = match get(b"GNU.sparse.size").or_else(|| get(b"GNU.sparse.realsize")) {
            Some(text) => self.stream.size(pax::decimal(text))?,
            None => size,
        };
        let draft = match version {
            Version::Records => Draft::from_records(records).map_err(|e| self.stream.malformed(e))?,
            Version::Content => self.sparse_in_content()?,
        };
        draft.finish(real, self.stream.remaining).map_err(|e| self.stream.malformed(e))
    }

    /// The map of an old GNU sparse file goes on in blocks after the header while each says so.
    fn old_sparse(&mut self, block: &Block, stored: u64) -> Result<Map, Error> {
        if block.dialect() != Dialect::Gnu {
            return Err(self.stream.malformed("a GNU sparse file in another dialect"));
        }
        let real = self.stream.size(block.number(block::GNU_REAL_SIZE))?;
        let mut draft = Draft::default();
        draft.push_old(block, block::GNU_SPARSE).map_err(|e| self.stream.malformed(e))?;
        let mut more = block.0[block::GNU_SPARSE_MORE] != 0;
        while more {
            let block = self.stream.bare_block()?.ok_or_else(|| self.stream.read_error(truncated()))?;
            draft.push_old(&block, block::MORE_SPARSE).map_err(|e| self.stream.malformed(e))?;
            more = block.0[block::MORE_SPARSE_MORE] != 0;
        }
        self.stream.start_content(stored);
        draft.finish(real, stored).map_err(|e| self.stream.malformed(e))
    }

    /// The map in front of the content: lines of decimal numbers, first their count, filled up to whole blocks.
    fn sparse_in_content(&mut self) -> Result<Draft, Error> {
        let start = self.stream.remaining;
        let mut draft = Draft::default();
        let count = self.line_number()?.filter(|n| *n >= 0);
        for _ in 0..count.ok_or_else(|| self.stream.malformed("the sparse map is broken"))? {
            let (offset, length) = (self.line_number()?, self.line_number()?);
            draft.push(offset, length).map_err(|e| self.stream.malformed(e))?;
        }
        let filling = block::padding(start - self.stream.remaining) as u64;
        let mut filling = self.stream.by_ref().take(filling);
        io::copy(&mut filling, &mut io::sink()).map_err(|e| self.stream.read_error(e))?;
        Ok(draft)
    }

    /// A decimal number in a line of its own.
    fn line_number(&mut self) -> Result<Option<i64>, Error> {
        let mut digits = Vec::with_capacity(20);
        loop {
            let mut byte = [0];
            match self.stream.read(&mut byte).map_err(|e| self.stream.read_error(e))? {
                1 if byte == *b"\n" => return Ok(pax::decimal(&digits)),
                1 if digits.len() < 20 => digits.extend_from_slice(&byte),
                _ => return Err(self.stream.malformed("the sparse map is broken")),
            }
        }
    }
}

/// Whether bytes follow a header of this kind. Links, devices and directories may carry a size that means nothing.
fn has_content(kind: u8) -> bool {
    !matches!(kind, kind::HARDLINK | kind::SYMLINK | kind::CHAR | kind::BLOCK | kind::DIR | kind::FIFO)
}

/// Whether a record of that key is worth keeping.
fn matters(key: &[u8]) -> bool {
    matches!(key, b"path" | b"linkpath" | b"uid" | b"gid" | b"mtime" | b"size")
        || key.starts_with(XATTR)
        || key.starts_with(b"GNU.sparse.")
}

/// The name in a header block, with the prefix where its dialect has one.
fn name(block: &Block) -> Vec<u8> {
    let name = block.text(block::NAME);
    let prefix = match block.dialect() {
        Dialect::V7 => b"",
        Dialect::Ustar => block.text(block::PREFIX),
        Dialect::Star => block.text(block::STAR_PREFIX),
        // Go before 1.9 wrote prefixes under GNU's magic; there they stand where GNU has times.
        Dialect::Gnu if is_gnu_time(block) => b"",
        Dialect::Gnu => Some(block.text(block::PREFIX)).filter(|p| p.is_ascii()).unwrap_or_default(),
    };
    if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
}

fn is_gnu_time(block: &Block) -> bool {
    block.number(block::GNU_ATIME).is_some() && block.number(block::GNU_CTIME).is_some()
}
