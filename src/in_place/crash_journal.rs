//! The crash journal: what is to be undone in `/` by whoever comes after a kiln that was killed.
//!
//! It is one file of JSON lines in kiln's work directory. Each line is a [`Record`], and is written before the operation that
//! it describes, so that an operation may have been left out, but none is unknown. The file is removed when `/` is as it was.

use super::directory_metadata::DirectoryMetadata;
use crate::layer::EntryPath;
use crate::snapshot::Error;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};

/// The file's name.
const NAME: &str = "crash-journal";

/// A path below `/`, as JSON has it.
type Bytes = Vec<u8>;

/// An operation on `/`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Record {
    /// A switch begins.
    Begin {
        /// The metadata of `/`.
        root: DirectoryMetadata,
        /// The entries that stay where they are.
        fixed: Vec<Bytes>,
    },
    /// An entry is renamed to the directory of what is set aside.
    SetAside { path: Bytes },
    /// A directory cannot be renamed: its entries are.
    Keep { path: Bytes, metadata: DirectoryMetadata },
    /// The entries of a volume are about to be renamed to a directory inside it.
    Volume { path: Bytes, metadata: DirectoryMetadata, aside: String },
    /// The entries of a volume are there: everything else in it is the stage's.
    VolumeEntered { path: Bytes },
    /// The stage's files are gone from a volume: everything in it is the container's.
    VolumeCleared { path: Bytes },
    /// The content of a mounted file is replaced; the original is in this file of the work directory.
    File { path: Bytes, saved: String },
    /// Everything of the container is set aside. What else is found from here on is the stage's.
    StageEnters,
    /// Something of kiln's stands in for a mount, at this path of `/`.
    Bind {
        /// Where it stands.
        target: PathBuf,
        /// Where it goes back to, if it is to be kept.
        source: Option<BindSource>,
    },
}

/// Something that stands in for a mount and goes back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct BindSource {
    pub(super) path: PathBuf,
    /// Device and inode, by which it is recognized.
    pub(super) identity: (u64, u64),
}

/// The container's files of a volume, while a stage uses it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct VolumeState {
    pub(super) metadata: DirectoryMetadata,
    /// The directory inside the volume that has the container's own entries.
    pub(super) aside: String,
    /// Whether what else is in the volume is the stage's.
    pub(super) is_entered: bool,
}

/// Everything that a journal says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) root: Option<DirectoryMetadata>,
    pub(super) fixed: BTreeSet<EntryPath>,
    pub(super) set_aside: BTreeSet<EntryPath>,
    pub(super) kept: BTreeMap<EntryPath, DirectoryMetadata>,
    pub(super) volumes: BTreeMap<EntryPath, VolumeState>,
    /// Mounted files, and the files with their original content.
    pub(super) files: BTreeMap<EntryPath, String>,
    pub(super) stage_entered: bool,
    /// Targets and sources, in order.
    pub(super) binds: Vec<(PathBuf, Option<BindSource>)>,
}

impl State {
    /// Adds a record. A path that is none is left out: kiln writes no such.
    fn add(&mut self, record: Record) {
        let parse = |path: Bytes| EntryPath::parse(&path).ok();
        match record {
            Record::Begin { root, fixed } => {
                *self =
                    Self { root: Some(root), fixed: fixed.into_iter().filter_map(parse).collect(), ..Self::default() };
            }
            Record::SetAside { path } => self.set_aside.extend(parse(path)),
            Record::Keep { path, metadata } => self.kept.extend(parse(path).map(|path| (path, metadata))),
            Record::Volume { path, metadata, aside } => {
                let state = VolumeState { metadata, aside, is_entered: false };
                self.volumes.extend(parse(path).map(|path| (path, state)));
            }
            Record::VolumeEntered { path } => self.set_entered(parse(path), true),
            Record::VolumeCleared { path } => self.set_entered(parse(path), false),
            Record::File { path, saved } => self.files.extend(parse(path).map(|path| (path, saved))),
            Record::StageEnters => self.stage_entered = true,
            Record::Bind { target, source } => self.binds.push((target, source)),
        }
    }
}

impl State {
    fn set_entered(&mut self, volume: Option<EntryPath>, is_entered: bool) {
        if let Some(volume) = volume.and_then(|path| self.volumes.get_mut(&path)) {
            volume.is_entered = is_entered;
        }
    }
}

/// A journal that is being written.
#[derive(Debug)]
pub(super) struct CrashJournal {
    path: PathBuf,
    file: File,
    state: State,
}

impl CrashJournal {
    /// Begins a journal in a work directory; there is none.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn begin(work: &Path, root: DirectoryMetadata, fixed: Vec<EntryPath>) -> Result<Self, Error> {
        let path = work.join(NAME);
        let file = File::create_new(&path).map_err(|e| Error::host("create", &path, e))?;
        let mut journal = Self { path, file, state: State::default() };
        let fixed = fixed.into_iter().map(|path| path.as_bytes().to_vec()).collect();
        journal.add(Record::Begin { root, fixed })?;
        Ok(journal)
    }

    /// Opens the journal that a killed process left in a work directory; nothing where there is none, so that nothing is to be
    /// undone.
    ///
    /// # Errors
    /// If it cannot be read. A last line that is incomplete is left out, because its operation was not begun.
    pub(super) fn reopen(work: &Path) -> Result<Option<Self>, Error> {
        let path = work.join(NAME);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            text => text.map_err(|e| Error::host("read", &path, e))?,
        };
        let file = File::options().append(true).open(&path).map_err(|e| Error::host("open", &path, e))?;
        let mut journal = Self { path, file, state: State::default() };
        for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            let record = serde_json::from_slice(line);
            let record = record.map_err(|e| Error::host("read", &journal.path, std::io::Error::from(e)))?;
            journal.state.add(record);
        }
        Ok(Some(journal))
    }

    /// Removes the journal: `/` is as it was.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub(super) fn remove(self) -> Result<(), Error> {
        std::fs::remove_file(&self.path).map_err(|e| Error::host("unlink", &self.path, e))
    }

    /// Adds a record, before the operation that it describes.
    ///
    /// # Errors
    /// If it cannot be written; then the operation must not be done.
    pub(super) fn add(&mut self, record: Record) -> Result<(), Error> {
        let mut line =
            serde_json::to_vec(&record).map_err(|e| Error::host("write", &self.path, std::io::Error::from(e)))?;
        line.push(b'\n');
        self.file.write_all(&line).map_err(|e| Error::host("write", &self.path, e))?;
        self.state.add(record);
        Ok(())
    }

    /// What was done so far.
    pub(super) fn state(&self) -> &State {
        &self.state
    }
}

/// Whether a work directory has a journal, so that something is to be undone.
pub(super) fn exists(work: &Path) -> bool {
    work.join(NAME).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> EntryPath {
        EntryPath::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_is_read() {
        let work = tempfile::tempdir().unwrap();
        assert!(CrashJournal::reopen(work.path()).unwrap().is_none());
        let metadata = DirectoryMetadata::made();
        let mut journal = CrashJournal::begin(work.path(), metadata.clone(), vec![path("dev")]).unwrap();
        let etc = b"etc".to_vec();
        for record in [
            Record::Keep { path: etc.clone(), metadata: metadata.clone() },
            Record::SetAside { path: b"etc/passwd".to_vec() },
            Record::Volume { path: b"tmp".to_vec(), metadata: metadata.clone(), aside: ".kiln-1".into() },
            Record::StageEnters,
            Record::VolumeEntered { path: b"tmp".to_vec() },
            Record::Bind { target: "/c".into(), source: Some(BindSource { path: "/kiln/c".into(), identity: (1, 2) }) },
        ] {
            journal.add(record).unwrap();
        }
        let again = CrashJournal::reopen(work.path()).unwrap().unwrap();
        let state = again.state();
        assert_eq!(state, journal.state());
        assert!(state.volumes.get(&path("tmp")).unwrap().is_entered);
        assert!(state.stage_entered && state.fixed.contains(&path("dev")) && state.kept.contains_key(&path("etc")));
        assert!(CrashJournal::begin(work.path(), metadata, Vec::new()).is_err(), "there is one");
        again.remove().unwrap();
        assert!(!exists(work.path()));
    }

    #[test]
    fn a_line_that_was_cut_off_is_left_out() {
        let work = tempfile::tempdir().unwrap();
        let mut journal = CrashJournal::begin(work.path(), DirectoryMetadata::made(), Vec::new()).unwrap();
        journal.add(Record::SetAside { path: b"bin".to_vec() }).unwrap();
        let before = journal.state().clone();
        std::fs::OpenOptions::new().append(true).open(work.path().join(NAME)).unwrap().write_all(b"{\"SetAs").unwrap();
        assert_eq!(CrashJournal::reopen(work.path()).unwrap().unwrap().state(), &before);
    }
}
