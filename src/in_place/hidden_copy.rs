//! A copy of hidden files that outlives the process that hid them.
//!
//! A hidden file exists in the worker's memory alone, so a worker that is killed would take it along. Before a file is removed, the
//! worker writes it to memory that it shares with its supervisor (a memfd, made before they part). Once `/` is restored, the
//! supervisor puts back what is still in there. If both are killed at once, the files are lost.

use super::hidden_files::{HiddenFile, Metadata, put_back};
use crate::snapshot::Error;
use crate::sys::{self, Said};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustix::fs::{CWD, MemfdFlags, Mode, OFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The memory. Clones, and copies in other processes, are the same.
#[derive(Debug, Clone)]
pub struct HiddenCopy(Arc<File>);

/// A file, as a line of JSON: a line that is incomplete is of a file that was not removed yet.
#[derive(Serialize, Deserialize)]
struct Record {
    path: Vec<u8>,
    metadata: Metadata,
    directory: Metadata,
    content: String,
}

impl HiddenCopy {
    /// Empty memory.
    ///
    /// # Errors
    /// Where no descriptor is left.
    pub fn new() -> sys::Result<Self> {
        let memory = match rustix::fs::memfd_create("kiln", MemfdFlags::CLOEXEC | MemfdFlags::NOEXEC_SEAL) {
            // Before Linux 6.3.
            Err(Errno::INVAL) => rustix::fs::memfd_create("kiln", MemfdFlags::CLOEXEC),
            made => made,
        };
        Ok(Self(Arc::new(File::from(memory.call("memfd_create")?))))
    }

    /// Adds a file that is about to be removed.
    pub(super) fn add(&self, file: &HiddenFile) -> std::io::Result<()> {
        let record = Record {
            path: file.path.as_os_str().as_bytes().to_vec(),
            metadata: file.metadata,
            directory: file.directory,
            content: STANDARD.encode(&file.content),
        };
        let mut line = serde_json::to_vec(&record)?;
        line.push(b'\n');
        self.0.as_ref().write_all(&line)
    }

    /// Forgets all files: they are back.
    pub(super) fn clear(&self) -> std::io::Result<()> {
        self.0.set_len(0)?;
        self.0.as_ref().rewind()
    }

    /// Whether there are files in it.
    pub(super) fn is_empty(&self) -> bool {
        self.0.metadata().is_ok_and(|metadata| metadata.len() == 0)
    }

    /// Puts back the files that a killed process has not. Where it did, they are the same afterwards.
    ///
    /// # Errors
    /// The first file that could not be written, after all were tried.
    pub(super) fn restore(&self) -> Result<(), Error> {
        let fail = |e| Error::host("read", Path::new("memfd:kiln"), e);
        let mut text = Vec::new();
        self.0.as_ref().rewind().and_then(|()| self.0.as_ref().read_to_end(&mut text)).map_err(fail)?;
        let lines = text.split(|byte| *byte == b'\n');
        let records = lines.filter_map(|line| serde_json::from_slice::<Record>(line).ok());
        let restored = records.map(|record| {
            let path = PathBuf::from(OsStr::from_bytes(&record.path));
            record.restore(&path).map_err(|e| Error::host("write", &path, e))
        });
        restored.fold(Ok(()), Result::and)
    }
}

impl Record {
    fn restore(self, path: &Path) -> Result<(), Errno> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Err(Errno::INVAL) };
        let dir = rustix::fs::openat(CWD, parent, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let content = STANDARD.decode(&self.content).map_err(|_| Errno::INVAL)?;
        let Self { metadata, directory, .. } = self;
        put_back(&HiddenFile { path: path.to_owned(), dir, name: name.to_owned(), content, metadata, directory })
    }
}

#[cfg(test)]
mod tests {
    use super::super::hidden_files::HiddenFiles;
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_a_killed_process_hid_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("first"), dir.path().join("second"));
        for (path, content) in [(&first, "hush"), (&second, "s3cr3t")] {
            fs::write(path, content).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o640)).unwrap();
        }
        let before = fs::metadata(&first).unwrap().modified().unwrap();
        let copy = HiddenCopy::new().unwrap();
        let hidden = HiddenFiles::new([first.clone(), second.clone()], false, Some(copy.clone()));
        // As if killed.
        std::mem::forget(hidden.take().unwrap());
        assert!(!first.exists() && !second.exists());
        copy.0.as_ref().write_all(b"{\"path\":[1,").unwrap();
        copy.restore().unwrap();
        assert_eq!((fs::read(&first).unwrap(), fs::read(&second).unwrap()), (b"hush".to_vec(), b"s3cr3t".to_vec()));
        let after = fs::metadata(&first).unwrap();
        assert_eq!((after.permissions().mode() & 0o7777, after.modified().unwrap()), (0o640, before));
    }

    #[test]
    fn files_that_are_back_are_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "hush").unwrap();
        let copy = HiddenCopy::new().unwrap();
        let hidden = HiddenFiles::new([file.clone()], false, Some(copy.clone()));
        drop(hidden.take().unwrap());
        fs::remove_file(&file).unwrap();
        copy.restore().unwrap();
        assert!(!file.exists());
        assert_eq!(copy.0.metadata().unwrap().len(), 0);
    }
}
