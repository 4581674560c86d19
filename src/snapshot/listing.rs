//! The files of one directory, as an [index](super::index) remembers them.

use super::Error;
use super::at::{self, Meta};
use super::excluded::Excluded;
use crate::layer::{EntryPath, Timestamp};
use rustix::fs::{OFlags, RawDir};
use rustix::io::Errno;
use std::mem::MaybeUninit;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// What is remembered of a file: enough to see that something was done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    inode: u64,
    size: u64,
    uid: u32,
    gid: u32,
    /// Seconds and nanoseconds of both times, taken apart because they take less so.
    seconds: [i64; 2],
    nanos: [u32; 2],
    /// The mode, and [`IS_DIR`](Self::IS_DIR).
    bits: u32,
    /// How many names it has; 0 for a directory.
    links: u32,
}

impl Stamp {
    const IS_DIR: u32 = 1 << 31;

    pub(super) fn of(meta: &Meta) -> Self {
        let is_dir = meta.is_dir();
        Self {
            inode: meta.inode.1,
            size: meta.size,
            uid: meta.uid,
            gid: meta.gid,
            seconds: [meta.mtime.secs, meta.ctime.secs],
            nanos: [meta.mtime.nanos, meta.ctime.nanos],
            bits: if is_dir { meta.mode | Self::IS_DIR } else { meta.mode },
            links: if is_dir { 0 } else { u32::try_from(meta.links).unwrap_or(u32::MAX) },
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.bits & Self::IS_DIR != 0
    }

    /// Whether it was this very file, with other names besides.
    pub(super) fn is_one_name_of(&self, meta: &Meta) -> bool {
        self.links > 1 && self.inode == meta.inode.1
    }

    /// Whether it was this very file with other names besides, and something was only done to those: one was renamed or removed. What
    /// was done to its extended attributes meanwhile cannot be seen here.
    pub(super) fn only_other_names_changed(&self, meta: &Meta) -> bool {
        let later = Self::of(meta);
        self.links > 1 && later.links <= self.links && Self { links: later.links, ..*self }.is_only_touched(&later)
    }

    /// Whether nothing is different but that something was done, which may have been undone.
    pub(super) fn is_only_touched(&self, later: &Self) -> bool {
        let [_, ctime] = later.seconds;
        let [_, nanos] = later.nanos;
        Self { seconds: [self.seconds[0], ctime], nanos: [self.nanos[0], nanos], ..*self } == *later
    }

    /// When anything about it last changed.
    fn ctime(&self) -> Timestamp {
        Timestamp { secs: self.seconds[1], nanos: self.nanos[1] }
    }
}

/// The files of a directory, sorted by name.
#[derive(Debug, Default)]
pub(super) struct Listing {
    names: Box<[u8]>,
    /// Where each name ends, and what has it.
    files: Box<[(u32, Stamp)]>,
    /// Whether the directory itself has attributes that layers keep, or that say what it is in the image.
    pub(super) has_xattrs: bool,
}

impl Listing {
    /// The files by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Stamp)> {
        let starts = std::iter::once(0).chain(self.files.iter().map(|(end, _)| *end as usize));
        starts
            .zip(&self.files)
            .map(|(start, (end, stamp))| (self.names.get(start..*end as usize).unwrap_or_default(), stamp))
    }

    /// How many files there are.
    pub(super) fn len(&self) -> usize {
        self.files.len()
    }

    /// The names of the directories in it.
    pub(super) fn dirs(&self) -> impl Iterator<Item = &[u8]> {
        self.iter().filter(|(_, stamp)| stamp.is_dir()).map(|(name, _)| name)
    }

    /// When the youngest change to a file was; directories don't count, as what changes in them changes them.
    pub(super) fn newest(&self) -> Option<Timestamp> {
        self.files.iter().filter(|(_, stamp)| !stamp.is_dir()).map(|(_, stamp)| stamp.ctime()).max()
    }
}

/// A directory that was just read, and the memory to read the next one.
pub(super) struct Reader {
    buffer: Box<[MaybeUninit<u8>]>,
    names: Vec<u8>,
    files: Vec<(Range<usize>, Option<Meta>)>,
}

/// How many files of one directory are worth more than one thread.
const MANY: usize = 2048;

impl Reader {
    pub(super) fn new() -> Self {
        Self { buffer: vec![MaybeUninit::uninit(); 32 << 10].into(), names: Vec::new(), files: Vec::new() }
    }

    /// Reads a directory below `root`; nothing if it is none any more. Entries in `skip` are left out.
    /// Gives the open directory.
    pub(super) fn read(
        &mut self,
        root: BorrowedFd<'_>,
        path: &EntryPath,
        skip: &Excluded,
        threads: NonZeroUsize,
    ) -> Result<Option<OwnedFd>, Error> {
        let fail = |call| move |e: Errno| Error::inside(call, path, e);
        self.names.clear();
        self.files.clear();
        let dir = match at::open(root, path, OFlags::RDONLY | OFlags::DIRECTORY) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(None),
            dir => dir.map_err(fail("open"))?,
        };
        self.read_names(dir.as_fd(), |name| skip.contains(path, name)).map_err(fail("getdents"))?;
        let Self { names, files, .. } = self;
        let name = |range: &Range<usize>| names.get(range.clone()).unwrap_or_default();
        files.sort_unstable_by(|(a, _), (b, _)| name(a).cmp(name(b)));
        let stat = |files: &mut [(Range<usize>, Option<Meta>)]| {
            files.iter_mut().try_for_each(|(range, meta)| {
                *meta = at::stat_name(dir.as_fd(), name(range))?;
                Ok(())
            })
        };
        let parts = if files.len() < MANY { 1 } else { threads.get() };
        in_parts(files, parts, &stat).map_err(fail("stat"))?;
        Ok(Some(dir))
    }

    fn read_names(&mut self, dir: BorrowedFd<'_>, is_left_out: impl Fn(&[u8]) -> bool) -> Result<(), Errno> {
        let mut entries = RawDir::new(dir, &mut self.buffer);
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") && !is_left_out(name) {
                let start = self.names.len();
                self.names.extend_from_slice(name);
                self.files.push((start..self.names.len(), None));
            }
        }
        Ok(())
    }

    /// The files that were read, sorted by name; one that went away meanwhile isn't there.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], &Meta)> {
        let name = |range: &Range<usize>| self.names.get(range.clone()).unwrap_or_default();
        self.files.iter().filter_map(move |(range, meta)| Some((name(range), meta.as_ref()?)))
    }

    /// What is to be remembered of them.
    pub(super) fn listing(&self, has_xattrs: bool) -> Listing {
        let mut names = Vec::with_capacity(self.names.len());
        let mut files = Vec::with_capacity(self.files.len());
        for (name, meta) in self.iter() {
            names.extend_from_slice(name);
            // Names of 4 GiB in one directory are none that a file system has.
            files.push((u32::try_from(names.len()).unwrap_or(u32::MAX), Stamp::of(meta)));
        }
        Listing { names: names.into(), files: files.into(), has_xattrs }
    }
}

/// Does work on a slice, on as many threads as parts.
fn in_parts<T: Send>(
    all: &mut [T],
    parts: usize,
    work: &(impl Fn(&mut [T]) -> Result<(), Errno> + Sync),
) -> Result<(), Errno> {
    if parts < 2 {
        return work(all);
    }
    let size = all.len().div_ceil(parts).max(1);
    std::thread::scope(|scope| {
        let threads: Vec<_> = all.chunks_mut(size).map(|part| scope.spawn(move || work(part))).collect();
        // A thread that panicked has done nothing; there is no panic in it.
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Err(Errno::IO)))
    })
}
