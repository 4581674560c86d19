//! What can't be given to a file in the place where kiln runs, written down beside the layer.
//!
//! Without the right to change owners, files are the user's own, and the user can read them all; who owns them in the image,
//! their mode, their capabilities, and which of them are devices, stands in the snapshot's `notes.json`. Where overlayfs's
//! marks can't be made, empty files stand for whiteouts; which those are, and what is opaque, stands there, too.

use super::Error;
use super::at::{Kind, Meta, Xattrs};
use crate::layer::{Device, Entry, EntryKind, EntryPath};
use crate::store::Form;
use crate::sys::recorded::{self, Recorded, Records};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// The attribute that only root may set.
const CAPABILITY: &[u8] = b"security.capability";

/// What is noted about the files of one layer.
#[derive(Debug, Default)]
pub(super) struct Notes {
    form: Form,
    files: HashMap<EntryPath, Note>,
    /// Files that stand for whiteouts.
    gone: HashSet<EntryPath>,
    /// Directories that hide the ones below.
    opaque: HashSet<EntryPath>,
    /// What processes are told of the files, by these.
    records: Records,
}

/// `notes.json`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Stored {
    owners: bool,
    marks: bool,
    files: Vec<(Vec<u8>, Note)>,
    gone: Vec<Vec<u8>>,
    opaque: Vec<Vec<u8>>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Note {
    mode: u32,
    uid: u32,
    gid: u32,
    /// Whether it is a block device, and its numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    device: Option<(bool, u32, u32)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    capability: Option<Vec<u8>>,
}

/// Where the notes of the layer whose files are in `files` lie.
fn place(files: &Path) -> PathBuf {
    files.with_file_name("notes.json")
}

impl Notes {
    /// None so far, of a layer of this form.
    pub(super) fn new(form: Form) -> Self {
        Self { form, ..Self::default() }
    }

    /// What is noted.
    pub(super) fn form(&self) -> Form {
        self.form
    }

    /// Those of a layer; none where there are none.
    pub(super) fn read(files: &Path) -> Result<Self, Error> {
        let path = place(files);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|e| Error::host("read", &path, e))?,
        };
        let stored: Stored =
            serde_json::from_slice(&text).map_err(|e| Error::host("read", &path, io::Error::from(e)))?;
        let files = stored.files.into_iter().map(|(path, note)| Ok((EntryPath::parse(&path)?, note)));
        let paths = |all: Vec<Vec<u8>>| all.iter().map(|path| EntryPath::parse(path)).collect::<Result<_, _>>();
        Ok(Self {
            form: Form { owners: stored.owners, marks: stored.marks },
            files: files.collect::<Result<_, Error>>()?,
            gone: paths(stored.gone)?,
            opaque: paths(stored.opaque)?,
            records: Records::default(),
        })
    }

    /// Writes them beside the layer.
    pub(super) fn write(&self, files: &Path) -> Result<(), Error> {
        let path = place(files);
        let mut all: Vec<(Vec<u8>, Note)> =
            self.files.iter().map(|(path, note)| (path.as_bytes().to_vec(), note.clone())).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        let sorted = |paths: &HashSet<EntryPath>| {
            let mut paths: Vec<Vec<u8>> = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
            paths.sort_unstable();
            paths
        };
        let Form { owners, marks } = self.form;
        let stored = Stored { owners, marks, files: all, gone: sorted(&self.gone), opaque: sorted(&self.opaque) };
        let text = serde_json::to_vec(&stored).map_err(|e| Error::host("write", &path, io::Error::from(e)))?;
        std::fs::write(&path, text).map_err(|e| Error::host("write", &path, e))?;
        self.records.write(files).map_err(|e| Error::host("write", files, io::Error::from(e)))
    }

    /// Reads what processes had recorded of links and pipes.
    pub(super) fn read_recorded(&mut self, files: &Path) -> Result<(), Error> {
        self.records.read(files).map_err(|e| Error::host("read", files, io::Error::from(e)))
    }

    /// Writes beside a root filesystem what processes are to be told of its links and pipes.
    pub(super) fn write_recorded(&self, files: &Path) -> Result<(), Error> {
        self.records.write_all(files).map_err(|e| Error::host("write", files, io::Error::from(e)))
    }

    /// Notes what a process had recorded of the file at `path`, if it had.
    pub(super) fn gather(&mut self, path: &EntryPath, file: BorrowedFd<'_>, meta: &Meta) -> Result<(), Errno> {
        if let Some(Recorded { uid, gid, device }) = self.records.get(file)? {
            let device = device.map(|d| (d.block, d.major, d.minor));
            self.files.insert(path.clone(), Note { mode: meta.mode, uid, gid, device, capability: None });
        }
        Ok(())
    }

    /// Records with a file what processes are to be told of it.
    pub(super) fn record(&mut self, file: BorrowedFd<'_>, entry: &Entry) -> Result<(), Errno> {
        let numbers = |block, device: &Device| {
            let Device { major, minor } = *device;
            Some(recorded::Device { block, major, minor })
        };
        let device = match &entry.kind {
            EntryKind::CharDevice(device) => numbers(false, device),
            EntryKind::BlockDevice(device) => numbers(true, device),
            _ => None,
        };
        let meant = Recorded { uid: entry.uid, gid: entry.gid, device };
        if self.form.is_recorded() && meant != Recorded::default() { self.records.put(file, meant) } else { Ok(()) }
    }

    /// Notes that the file at `path` stands for a whiteout.
    pub(super) fn note_gone(&mut self, path: EntryPath) {
        self.gone.insert(path);
    }

    /// Notes that the directory at `path` hides what lower layers have in it.
    pub(super) fn note_opaque(&mut self, path: EntryPath) {
        self.opaque.insert(path);
    }

    /// Whether that is noted.
    pub(super) fn is_opaque(&self, path: &EntryPath) -> bool {
        self.opaque.contains(path)
    }

    /// Forgets what was noted of a file that is gone from the layer.
    pub(super) fn forget(&mut self, path: &EntryPath) {
        self.files.remove(path);
        self.gone.remove(path);
        self.opaque.remove(path);
    }

    /// Notes what an entry says about the file at `path`.
    pub(super) fn note(&mut self, path: EntryPath, entry: &Entry) {
        if !self.form.owners {
            return;
        }
        let numbers = |block, device: &Device| Some((block, device.major, device.minor));
        let device = match &entry.kind {
            EntryKind::CharDevice(device) => numbers(false, device),
            EntryKind::BlockDevice(device) => numbers(true, device),
            _ => None,
        };
        let capability = entry.xattrs.get(CAPABILITY).cloned();
        let Entry { mode, uid, gid, .. } = *entry;
        // The rest is as the file says.
        if self.form.is_recorded() && (uid, gid, device) == (0, 0, None) {
            self.files.remove(&path);
            return;
        }
        self.files.insert(path, Note { mode, uid, gid, device, capability });
    }

    /// Notes the same of another name.
    pub(super) fn note_link(&mut self, from: &EntryPath, to: EntryPath) {
        if let Some(note) = self.files.get(from).cloned() {
            self.files.insert(to, note);
        }
    }

    /// What the file at `path` is in the image.
    pub(super) fn meta(&self, path: &EntryPath, meta: Meta) -> Meta {
        if self.gone.contains(path) {
            return Meta { kind: Kind::CharDevice(Device { major: 0, minor: 0 }), ..meta };
        }
        let Some(Note { mode, uid, gid, device, .. }) = self.files.get(path).filter(|_| !meta.is_whiteout()) else {
            return meta;
        };
        let kind = match *device {
            Some((true, major, minor)) => Kind::BlockDevice(Device { major, minor }),
            Some((false, major, minor)) => Kind::CharDevice(Device { major, minor }),
            None => meta.kind,
        };
        Meta { kind, mode: *mode, uid: *uid, gid: *gid, ..meta }
    }

    /// The attributes of the file at `path` in the image.
    pub(super) fn xattrs(&self, path: &EntryPath, mut xattrs: Xattrs) -> Xattrs {
        if let Some(capability) = self.files.get(path).and_then(|note| note.capability.clone()) {
            xattrs.insert(CAPABILITY.to_vec(), capability);
        }
        xattrs
    }
}

/// The mode of a file that its maker can read and write, and of a directory that can be searched: root always can.
pub(super) fn open_mode(mode: u32, is_dir: bool) -> u32 {
    match rustix::process::geteuid().is_root() {
        true => mode,
        false => (mode & 0o777) | if is_dir { 0o700 } else { 0o600 },
    }
}

/// Whether a layer's file can have an attribute though its maker isn't root.
pub(super) fn can_be_set(name: &[u8]) -> bool {
    name != CAPABILITY || rustix::process::geteuid().is_root()
}
