//! What a user without any privilege can't give to a file, written down beside the layer.
//!
//! Without the right to change owners, files are the user's own, and the user can read them all; who owns them in the image,
//! their mode, their capabilities, and which of them are devices, stands in the snapshot's `notes.json`.

use super::Error;
use super::at::{Kind, Meta, Xattrs};
use crate::layer::{Device, Entry, EntryKind, EntryPath};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

/// The attribute that only root may set.
const CAPABILITY: &[u8] = b"security.capability";

/// What is noted about the files of one layer.
#[derive(Debug, Default)]
pub(super) struct Notes(HashMap<EntryPath, Note>);

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
    /// Whether a layer needs them: its maker isn't root, of the machine or of a user namespace.
    pub(super) fn are_needed() -> bool {
        !rustix::process::geteuid().is_root()
    }

    /// Those of a layer; none where there are none.
    pub(super) fn read(files: &Path) -> Result<Self, Error> {
        let path = place(files);
        let text = match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            text => text.map_err(|e| Error::host("read", &path, e))?,
        };
        let all: Vec<(Vec<u8>, Note)> =
            serde_json::from_slice(&text).map_err(|e| Error::host("read", &path, io::Error::from(e)))?;
        all.into_iter().map(|(path, note)| Ok((EntryPath::parse(&path)?, note))).collect::<Result<_, _>>().map(Self)
    }

    /// Writes them beside the layer.
    pub(super) fn write(&self, files: &Path) -> Result<(), Error> {
        let path = place(files);
        let mut all: Vec<(&[u8], &Note)> = self.0.iter().map(|(path, note)| (path.as_bytes(), note)).collect();
        all.sort_unstable_by_key(|(path, _)| *path);
        let text = serde_json::to_vec(&all).map_err(|e| Error::host("write", &path, io::Error::from(e)))?;
        std::fs::write(&path, text).map_err(|e| Error::host("write", &path, e))
    }

    /// Notes what an entry says about the file at `path`.
    pub(super) fn note(&mut self, path: EntryPath, entry: &Entry) {
        let numbers = |block, device: &Device| Some((block, device.major, device.minor));
        let device = match &entry.kind {
            EntryKind::CharDevice(device) => numbers(false, device),
            EntryKind::BlockDevice(device) => numbers(true, device),
            _ => None,
        };
        let capability = entry.xattrs.get(CAPABILITY).cloned();
        let Entry { mode, uid, gid, .. } = *entry;
        self.0.insert(path, Note { mode, uid, gid, device, capability });
    }

    /// Notes the same of another name.
    pub(super) fn note_link(&mut self, from: &EntryPath, to: EntryPath) {
        if let Some(note) = self.0.get(from).cloned() {
            self.0.insert(to, note);
        }
    }

    /// What the file at `path` is in the image.
    pub(super) fn meta(&self, path: &EntryPath, meta: Meta) -> Meta {
        let Some(Note { mode, uid, gid, device, .. }) = self.0.get(path).filter(|_| !meta.is_whiteout()) else {
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
        if let Some(capability) = self.0.get(path).and_then(|note| note.capability.clone()) {
            xattrs.insert(CAPABILITY.to_vec(), capability);
        }
        xattrs
    }
}

/// The mode of a file that its maker can read and write, and of a directory that can be searched.
pub(super) fn open_mode(mode: u32, is_dir: bool) -> u32 {
    (mode & 0o777) | if is_dir { 0o700 } else { 0o600 }
}

/// Whether a layer's file can have an attribute though its maker isn't root.
pub(super) fn can_be_set(name: &[u8]) -> bool {
    name != CAPABILITY
}
