//! A cache's folder to a tar and back.
//!
//! Owners, modes, times to the nanosecond, hard links and extended attributes come along: cargo, go and make take an older
//! or younger file for a changed one. Devices don't, since no cache needs them; nor do sockets.

use crate::layer::{
    Compression, Entry, EntryKind, EntryPath, EntrySink, Error, LayerReader, Packed, Packer, TarReader,
};
use crate::snapshot::{self, FolderWriter, StackTree, flatten};
use crate::solve::key::Keyer;
use crate::store::Key;
use crate::sys::recorded;
use rustix::fs::Mode;
use std::collections::HashSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::num::NonZeroUsize;
use std::path::Path;

/// What is in a folder, as far as it is worth comparing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Contents {
    /// Names, kinds, sizes, times, owners, modes and attributes of all files. No content is read for it: a file that is
    /// changed and then given its old size and time again counts as the same, as it does for make.
    pub fingerprint: Key,
    /// The bytes of all files together.
    pub bytes: u64,
}

/// Looks at what is in `folder`.
///
/// # Errors
/// What can't be read; also what vanishes meanwhile, because somebody else works with the cache.
pub fn look(folder: &Path) -> Result<Contents, snapshot::Error> {
    walk(folder, Nowhere).map(|(contents, _)| contents)
}

/// Packs `folder` into `out`.
///
/// # Errors
/// As [`look`].
pub fn pack<W: Write>(
    folder: &Path,
    out: W,
    compression: Compression,
    threads: NonZeroUsize,
) -> Result<(Contents, Packed, W), snapshot::Error> {
    let (contents, packer) = walk(folder, Packer::archive(out, compression, threads))?;
    let (packed, out) = packer.finish()?;
    Ok((contents, packed, out))
}

fn walk<S: EntrySink>(folder: &Path, sink: S) -> Result<(Contents, S), snapshot::Error> {
    let tree = StackTree::open(&[folder]);
    let mut marked = Marked { sink, keyer: Keyer::new("cache mount contents"), bytes: 0, left_out: HashSet::new() };
    flatten(&tree, &mut marked)?;
    Ok((Contents { fingerprint: marked.keyer.finish(), bytes: marked.bytes }, marked.sink))
}

/// Unpacks a tar's blob into `folder`, which is empty, and gives it the mode and owner of the one that was packed.
///
/// # Errors
/// What is wrong with the blob: whatever it holds, nothing is written outside of the folder. After an error the folder
/// holds anything.
pub fn unpack(blob: LayerReader<impl Read>, folder: &Path, most: u64) -> Result<(), snapshot::Error> {
    let mut writer = FolderWriter::plain(folder, crate::layer::Timestamp::default())?;
    let mut tar = TarReader::archive(blob);
    let (mut root, mut bytes) = (None, 0_u64);
    while let Some(entry) = tar.next_entry()? {
        bytes = bytes.saturating_add(entry.size());
        if bytes > most {
            let refused = io::Error::other(format!("its files have more than {most} bytes"));
            return Err(snapshot::Error::inside("unpack", &entry.path, refused));
        }
        match entry.kind {
            EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) => {}
            _ if entry.path.is_root() => root = Some(entry),
            _ => writer.add(&entry, &mut tar)?,
        }
    }
    // Only the end of the blob says that it is what its manifest promised.
    tar.drain()?;
    writer.finish()?;
    match root {
        Some(root) => like(folder, &root),
        None => Err(snapshot::Error::inside("unpack", &EntryPath::root(), io::Error::other("the tar has no root"))),
    }
}

/// Gives the folder itself the owner and mode of an entry.
fn like(folder: &Path, root: &Entry) -> Result<(), snapshot::Error> {
    let fail = |e: rustix::io::Errno| snapshot::Error::inside("set the owner of", &root.path, e);
    let open = File::open(folder).map_err(|e| snapshot::Error::inside("open", &root.path, e))?;
    recorded::give(folder, root.uid, root.gid).map_err(|e| fail(e.errno))?;
    rustix::fs::fchmod(&open, Mode::from_raw_mode(root.mode)).map_err(fail)
}

/// Hashes what entries say of themselves, leaves out what no cache needs, and hands the rest on.
struct Marked<S> {
    sink: S,
    keyer: Keyer,
    bytes: u64,
    left_out: HashSet<EntryPath>,
}

impl<S: EntrySink> EntrySink for Marked<S> {
    fn add(&mut self, entry: &Entry, content: &mut dyn Read) -> Result<(), Error> {
        let leave_out = match &entry.kind {
            EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) => true,
            EntryKind::Hardlink(first) => self.left_out.contains(first),
            _ => false,
        };
        if leave_out {
            self.left_out.insert(entry.path.clone());
            return Ok(());
        }
        self.mark(entry);
        self.sink.add(entry, content)
    }
}

impl<S> Marked<S> {
    fn mark(&mut self, entry: &Entry) {
        let Entry { path, kind, mode, uid, gid, mtime, xattrs } = entry;
        self.bytes = self.bytes.saturating_add(entry.size());
        let k = &mut self.keyer;
        k.bytes(path.as_bytes());
        match kind {
            EntryKind::File { size } => {
                k.tag("file");
                k.number(*size);
            }
            EntryKind::Dir => k.tag("dir"),
            EntryKind::Symlink(target) => {
                k.tag("symlink");
                k.bytes(target);
            }
            EntryKind::Hardlink(first) => {
                k.tag("hardlink");
                k.bytes(first.as_bytes());
            }
            EntryKind::Fifo => k.tag("fifo"),
            EntryKind::CharDevice(_) | EntryKind::BlockDevice(_) | EntryKind::Whiteout | EntryKind::Opaque => {
                k.tag("other");
            }
        }
        [*mode, *uid, *gid].into_iter().for_each(|n| k.number(u64::from(n)));
        // The folder's own time is that of its last use here.
        if !path.is_root() {
            k.bytes(&mtime.secs.to_le_bytes());
            k.number(u64::from(mtime.nanos));
        }
        k.number(xattrs.len() as u64);
        for (name, value) in xattrs {
            k.bytes(name);
            k.bytes(value);
        }
    }
}

/// Takes everything and does nothing.
struct Nowhere;

impl EntrySink for Nowhere {
    fn add(&mut self, _: &Entry, _: &mut dyn Read) -> Result<(), Error> {
        Ok(())
    }
}
