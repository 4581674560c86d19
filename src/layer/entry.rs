//! What a layer is made of.

use super::{EntryPath, Error};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;

/// One file of a layer, a directory, or the mark that one of a lower layer is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Where it stands in the root filesystem.
    pub path: EntryPath,
    /// What it is.
    pub kind: EntryKind,
    /// Permission, set-id and sticky bits: nothing outside of 0o7777.
    pub mode: u32,
    /// The owner's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// When the content last changed.
    pub mtime: Timestamp,
    /// Extended attributes by full name (`user.x`, `security.capability`); values are any bytes.
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What an [`Entry`] is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file with its content's length in bytes.
    File {
        /// Bytes of content.
        size: u64,
    },
    /// A directory; what lower layers have in it stays.
    Dir,
    /// A symbolic link with its target: any bytes but NUL, never empty.
    Symlink(Vec<u8>),
    /// Another name of a file that came earlier in the same layer, or is in a lower one.
    Hardlink(EntryPath),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// Whatever lower layers have at this path is gone (`.wh.NAME` in the tar).
    Whiteout,
    /// Whatever lower layers have *in* the directory at this path is gone (`.wh..wh..opq` in the tar). The directory
    /// itself is an entry of its own.
    Opaque,
}

/// The number of a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Device {
    /// Which driver.
    pub major: u32,
    /// Which of the driver's devices.
    pub minor: u32,
}

/// A point in time: `secs` since 1970-01-01 UTC (negative before) and `nanos` (below 10^9) after that second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Hash)]
pub struct Timestamp {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds after them.
    pub nanos: u32,
}

/// How much there is in a layer, or was read of one: to notice if it becomes less on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// How many entries.
    pub entries: u64,
    /// The bytes of all files together.
    pub bytes: u64,
}

impl Tally {
    /// Counts an entry.
    pub fn add(&mut self, entry: &Entry) {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(entry.size());
    }
}

/// Takes the entries of a layer in order: parents before what is in them, a file before its hardlinks.
///
/// After an error the sink is of no more use, and what it wrote is incomplete.
pub trait EntrySink {
    /// Adds one entry. `content` is read only for [`EntryKind::File`], and must give exactly as many bytes as its size
    /// says; anything else is an error, since the file changed while it was read.
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error>;

    /// Adds a regular file whose content is that of an open file from where it stands: for sinks that know a quicker way
    /// than reading it.
    fn add_file(&mut self, entry: &Entry, mut content: &File) -> Result<(), Error> {
        self.add(entry, &mut content)
    }
}

impl<S: EntrySink + ?Sized> EntrySink for &mut S {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        (**self).add(entry, content)
    }

    fn add_file(&mut self, entry: &Entry, content: &File) -> Result<(), Error> {
        (**self).add_file(entry, content)
    }
}

impl Entry {
    /// An entry of root's from 1970 with the usual mode for its kind (0755 directories, 0777 symbolic links, 0 whiteouts,
    /// 0644 others) and no extended attributes.
    pub fn new(path: EntryPath, kind: EntryKind) -> Self {
        let mode = match kind {
            EntryKind::Dir => 0o755,
            EntryKind::Symlink(_) => 0o777,
            EntryKind::Whiteout | EntryKind::Opaque => 0,
            _ => 0o644,
        };
        Self { path, kind, mode, uid: 0, gid: 0, mtime: Timestamp::default(), xattrs: BTreeMap::new() }
    }

    /// How many bytes of content follow.
    pub fn size(&self) -> u64 {
        match self.kind {
            EntryKind::File { size } => size,
            _ => 0,
        }
    }
}

impl Timestamp {
    /// That many whole seconds since 1970.
    pub fn from_secs(secs: i64) -> Self {
        Self { secs, nanos: 0 }
    }
}
