//! Tar to entries, from hands that needn't be friendly.

use super::block::kind;
use super::raw::{Raw, RawReader};
use super::sparse::{Map, Piece};
use crate::layer::whiteout::{self, Mark};
use crate::layer::{Device, Entry, EntryKind, EntryPath, Error};
use std::io::{self, Read};

/// Reads the entries of a tar: ustar, V7, GNU and PAX, sparse files filled up with their zeros.
///
/// Memory is bounded whatever the archive says: a megabyte for an extended header, 4 for a sparse map,
/// [`MAX_PATH`](crate::layer::MAX_PATH) bytes for a path. Paths can't leave the root. After an error nothing more can be read.
///
/// The content of the last entry is read from the reader itself; what isn't read is skipped.
pub struct TarReader<R> {
    raw: RawReader<R>,
    marks: bool,
    content: Content,
    state: State,
}

enum State {
    Reading,
    Ended,
    Broken,
}

/// What of the current content comes next.
struct Content {
    map: Map,
    /// The next piece, or the one we are in.
    piece: usize,
    /// How many bytes of the file, holes and all, were read.
    position: u64,
}

impl<R: Read> TarReader<R> {
    /// Reads a layer: `.wh.` names are whiteouts, AUFS's other files are passed over.
    pub fn layer(input: R) -> Self {
        Self { raw: RawReader::new(input), marks: true, content: Content::empty(), state: State::Reading }
    }

    /// Reads an archive in which every name is that of a file, as ADD unpacks it.
    pub fn archive(input: R) -> Self {
        Self { marks: false, ..Self::layer(input) }
    }

    /// The next entry, or `None` at the end of the archive.
    pub fn next_entry(&mut self) -> Result<Option<Entry>, Error> {
        let result = match self.state {
            State::Reading => self.read_entry(),
            State::Ended => Ok(None),
            State::Broken => Err(self.raw.stream.malformed("the archive was broken before")),
        };
        self.state = match &result {
            Ok(Some(_)) => State::Reading,
            Ok(None) => State::Ended,
            Err(_) => State::Broken,
        };
        result
    }

    /// Reads what follows the archive's end, so that a reader beneath sees the end of the stream. The archive itself is to
    /// be read to its end before.
    pub fn drain(&mut self) -> Result<(), Error> {
        self.raw.stream.drain()
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, Error> {
        loop {
            self.content = Content::empty();
            let Some(mut raw) = self.raw.next()? else { return Ok(None) };
            let map = std::mem::replace(&mut raw.content, Map::whole(0));
            let entry = self.entry(raw, map.size).map_err(|reason| self.raw.stream.malformed(reason))?;
            if let Some(entry) = entry {
                self.content = Content { map, piece: 0, position: 0 };
                return Ok(Some(entry));
            }
        }
    }

    /// Checks a header's numbers and names; `None` for what means nothing, the reason if it can't be.
    fn entry(&self, raw: Raw, size: u64) -> Result<Option<Entry>, String> {
        let path = EntryPath::parse(&raw.name).map_err(|e| e.to_string())?;
        let (path, mark) = match if self.marks { whiteout::read(&path) } else { Ok(Mark::Plain) } {
            Ok(Mark::Plain) => (path, None),
            Ok(Mark::Gone(path)) => (path, Some(EntryKind::Whiteout)),
            Ok(Mark::Opaque(path)) => (path, Some(EntryKind::Opaque)),
            Ok(Mark::Bookkeeping) => return Ok(None),
            Err(e) => return Err(e.to_string()),
        };
        let kind = match mark {
            Some(kind) => kind,
            None => kind_of(&raw, &path, size)?,
        };
        Ok(Some(Entry {
            path,
            kind,
            mode: (raw.mode & 0o7777) as u32,
            uid: id(raw.uid, "owner")?,
            gid: id(raw.gid, "group")?,
            mtime: raw.mtime,
            xattrs: check_xattrs(raw.xattrs)?,
        }))
    }
}

/// The content of the last entry.
impl<R: Read> Read for TarReader<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let (is_hole, length) = self.content.next_run();
        let most = usize::try_from(length).unwrap_or(usize::MAX).min(buf.len());
        let Some(buf) = buf.get_mut(..most) else { return Ok(0) };
        let n = if is_hole {
            buf.fill(0);
            most
        } else {
            self.raw.stream.read(buf)?
        };
        self.content.position += n as u64;
        Ok(n)
    }
}

impl Content {
    fn empty() -> Self {
        Self { map: Map { pieces: Vec::new(), size: 0 }, piece: 0, position: 0 }
    }

    /// Whether a hole comes next, and how many bytes of it or of stored content follow; 0 at the end.
    fn next_run(&mut self) -> (bool, u64) {
        while let Some(Piece { offset, length }) = self.map.pieces.get(self.piece) {
            if self.position < *offset {
                return (true, offset - self.position);
            }
            let end = offset + length;
            if self.position < end {
                return (false, end - self.position);
            }
            self.piece += 1;
        }
        (true, self.map.size.saturating_sub(self.position))
    }
}

fn kind_of(raw: &Raw, path: &EntryPath, size: u64) -> Result<EntryKind, String> {
    let kind = match raw.kind {
        kind::FILE | kind::CONTIGUOUS => EntryKind::File { size },
        kind::DIR => EntryKind::Dir,
        kind::SYMLINK => EntryKind::Symlink(symlink_target(&raw.link)?),
        kind::HARDLINK => EntryKind::Hardlink(hardlink_target(&raw.link)?),
        kind::CHAR => EntryKind::CharDevice(device(raw)?),
        kind::BLOCK => EntryKind::BlockDevice(device(raw)?),
        kind::FIFO => EntryKind::Fifo,
        other => return Err(format!("entries of type {:?} can't be unpacked", char::from(other))),
    };
    if path.is_root() && kind != EntryKind::Dir {
        return Err("it has no name".to_owned());
    }
    Ok(kind)
}

fn symlink_target(link: &[u8]) -> Result<Vec<u8>, String> {
    if link.is_empty() { Err("a symbolic link to nothing".to_owned()) } else { Ok(link.to_vec()) }
}

fn hardlink_target(link: &[u8]) -> Result<EntryPath, String> {
    let target = EntryPath::parse(link).map_err(|e| format!("hard link: {e}"))?;
    if target.is_root() { Err("a hard link to the root".to_owned()) } else { Ok(target) }
}

fn device(raw: &Raw) -> Result<Device, String> {
    Ok(Device { major: id(raw.major, "device number")?, minor: id(raw.minor, "device number")? })
}

fn id(n: i64, what: &str) -> Result<u32, String> {
    u32::try_from(n).map_err(|_| format!("{n} is no {what}"))
}

type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// The rest of their rules is the file system's to check.
fn check_xattrs(xattrs: Xattrs) -> Result<Xattrs, String> {
    if xattrs.contains_key(&b""[..]) { Err("an extended attribute without a name".to_owned()) } else { Ok(xattrs) }
}
