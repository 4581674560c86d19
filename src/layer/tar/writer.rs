//! Entries to tar.

use super::block::{self, Block, kind};
use super::pax::{self, Records};
use super::{MOST_SPECIAL, XATTR};
use crate::layer::{Device, Entry, EntryKind, EntryPath, EntrySink, Error, whiteout};
use std::io::{self, Read, Write};

/// How many bytes of content are read at once.
const CHUNK: usize = 1 << 16;

/// Writes a layer's tar: ustar headers, with an extended header before each whose names or numbers don't fit.
///
/// The bytes follow from the entries alone, and are those of Go's `archive/tar` in PAX format.
pub struct TarWriter<W> {
    out: W,
    chunk: Vec<u8>,
}

/// What a header is made of.
struct Header<'a> {
    name: Vec<u8>,
    kind: u8,
    link: &'a [u8],
    device: Device,
}

impl<W: Write> TarWriter<W> {
    /// Writes to `out`, in pieces of up to 64 KiB.
    pub fn new(out: W) -> Self {
        Self { out, chunk: Vec::new() }
    }

    /// Ends the archive and gives back what it was written to, unflushed.
    pub fn finish(mut self) -> Result<W, Error> {
        self.write(&[0; 2 * block::SIZE])?;
        Ok(self.out)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(Error::Write)
    }

    fn write_header(&mut self, entry: &Entry) -> Result<(), Error> {
        let header = header(entry).map_err(|reason| unwritable(entry, reason))?;
        let records = records(entry, &header).map_err(|reason| unwritable(entry, reason))?;
        if !records.is_empty() {
            self.write_extended(entry, &header.name, &records)?;
        }
        let mut block = Block::zero();
        block.set_kind(header.kind);
        block.set_text(block::NAME, &ascii(&header.name));
        block.set_text(block::LINK, &ascii(header.link));
        block.set_octal(block::MODE, i64::from(entry.mode & 0o7777));
        block.set_octal(block::UID, i64::from(entry.uid));
        block.set_octal(block::GID, i64::from(entry.gid));
        block.set_octal(block::LENGTH, entry.size().cast_signed());
        block.set_octal(block::MTIME, entry.mtime.secs);
        block.set_octal(block::MAJOR, i64::from(header.device.major));
        block.set_octal(block::MINOR, i64::from(header.device.minor));
        block.seal();
        self.write(&block.0)
    }

    fn write_extended(&mut self, entry: &Entry, name: &[u8], records: &Records) -> Result<(), Error> {
        let bytes = pax::format(records);
        if bytes.len() as u64 > MOST_SPECIAL {
            return Err(unwritable(entry, "its names and extended attributes take more than a megabyte"));
        }
        let mut block = Block::zero();
        block.set_kind(kind::PAX);
        block.set_text(block::NAME, &ascii(&extended_name(name)));
        block.set_octal(block::LENGTH, bytes.len() as i64);
        block.seal();
        self.write(&block.0)?;
        self.write(&bytes)?;
        self.pad(bytes.len() as u64)
    }

    fn write_content(&mut self, path: &EntryPath, size: u64, content: &mut dyn Read) -> Result<(), Error> {
        let changed = |found| Error::Changed { path: path.clone(), expected: size, found };
        if self.chunk.is_empty() {
            self.chunk.resize(CHUNK, 0);
        }
        let mut left = size;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(CHUNK).min(CHUNK);
            let n = read(content, self.chunk.get_mut(..most).unwrap_or_default(), path)?;
            if n == 0 {
                return Err(changed("fewer"));
            }
            self.out.write_all(self.chunk.get(..n).unwrap_or_default()).map_err(Error::Write)?;
            left = left.saturating_sub(n as u64);
        }
        if read(content, &mut [0], path)? > 0 {
            return Err(changed("more"));
        }
        self.pad(size)
    }

    fn pad(&mut self, size: u64) -> Result<(), Error> {
        const ZEROS: [u8; block::SIZE] = [0; block::SIZE];
        self.write(ZEROS.get(..block::padding(size)).unwrap_or_default())
    }
}

impl<W: Write> EntrySink for TarWriter<W> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        self.write_header(entry)?;
        match entry.kind {
            EntryKind::File { size } => self.write_content(&entry.path, size, content),
            _ => Ok(()),
        }
    }
}

/// Names and kind of an entry's header, or why it can't have one.
fn header(entry: &Entry) -> Result<Header<'_>, &'static str> {
    let mut header = Header { name: entry.path.as_bytes().to_vec(), kind: 0, link: b"", device: Device::default() };
    header.kind = match &entry.kind {
        EntryKind::Dir => {
            header.name.extend_from_slice(if entry.path.is_root() { b"./" } else { b"/" });
            kind::DIR
        }
        EntryKind::Opaque => {
            header.name = whiteout::opaque(&entry.path);
            kind::FILE
        }
        _ if entry.path.is_root() => return Err("only a directory can be the root"),
        EntryKind::Whiteout => {
            header.name = whiteout::gone(&entry.path).unwrap_or_default();
            kind::FILE
        }
        EntryKind::File { .. } => kind::FILE,
        EntryKind::Symlink(target) => {
            header.link = target;
            kind::SYMLINK
        }
        EntryKind::Hardlink(target) => {
            header.link = target.as_bytes();
            kind::HARDLINK
        }
        EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
            header.device = *device;
            if matches!(entry.kind, EntryKind::CharDevice(_)) { kind::CHAR } else { kind::BLOCK }
        }
        EntryKind::Fifo => kind::FIFO,
    };
    Ok(header)
}

/// The records of what doesn't fit into a ustar header, or the reason why it fits nowhere.
fn records(entry: &Entry, header: &Header<'_>) -> Result<Records, &'static str> {
    let mut records = Records::new();
    let mut add = |key: &[u8], value: Vec<u8>| {
        if !pax::is_valid(key, &value) {
            return Err("tar can't hold a NUL in a name or an equals sign in an extended attribute's");
        }
        records.insert(key.to_vec(), value);
        Ok(())
    };
    for (key, text, field) in [(&b"path"[..], &header.name[..], block::NAME), (b"linkpath", header.link, block::LINK)] {
        if text.len() > field.len() || !text.iter().all(|b| b.is_ascii() && *b != 0) {
            add(key, text.to_vec())?;
        }
    }
    let size = i64::try_from(entry.size()).map_err(|_| "it is larger than any file")?;
    let (uid, gid) = (i64::from(entry.uid), i64::from(entry.gid));
    for (key, number, field) in
        [(&b"uid"[..], uid, block::UID), (b"gid", gid, block::GID), (b"size", size, block::LENGTH)]
    {
        if !block::fits_octal(&field, number) {
            add(key, number.to_string().into_bytes())?;
        }
    }
    if entry.mtime.nanos != 0 || !block::fits_octal(&block::MTIME, entry.mtime.secs) {
        add(b"mtime", pax::format_time(entry.mtime).into_bytes())?;
    }
    for (name, value) in &entry.xattrs {
        add(&[XATTR, name].concat(), value.clone())?;
    }
    let Device { major, minor } = header.device;
    if [major, minor].into_iter().any(|n| !block::fits_octal(&block::MAJOR, i64::from(n))) {
        return Err("tar can't hold its device number");
    }
    Ok(records)
}

/// The name of the extended header of an entry, which Go puts into a directory that nobody unpacks.
fn extended_name(name: &[u8]) -> Vec<u8> {
    let split = name.iter().rposition(|b| *b == b'/').map_or(0, |i| i + 1);
    let (directory, file) = name.split_at(split);
    let slash: &[u8] = if file.is_empty() { b"" } else { b"/" };
    let directory = directory.strip_prefix(b"./").unwrap_or(directory);
    [directory, b"PaxHeaders.0", slash, file].concat()
}

/// What of a name a ustar header can hold; the whole is in the extended header then.
fn ascii(text: &[u8]) -> Vec<u8> {
    if text.iter().all(|b| b.is_ascii() && *b != 0) {
        return text.to_vec();
    }
    text.iter().copied().filter(|b| b.is_ascii() && *b != 0).collect()
}

fn read(content: &mut dyn Read, buf: &mut [u8], path: &EntryPath) -> Result<usize, Error> {
    loop {
        match content.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            result => return result.map_err(|e| Error::file("read", path, e)),
        }
    }
}

fn unwritable(entry: &Entry, reason: &'static str) -> Error {
    Error::Unrepresentable { path: entry.path.clone(), reason }
}
