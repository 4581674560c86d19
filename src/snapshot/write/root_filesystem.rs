//! What only a root filesystem that is one directory needs: sockets, and removing files instead of hiding them.

use super::{Error, FolderWriter};
use crate::layer::{Device, Entry, EntryPath};
use crate::snapshot::at;
use rustix::fs::FileType;
use std::os::fd::AsFd as _;

impl FolderWriter {
    /// Makes a socket that nobody listens at, which only a directory that is never packed has.
    pub(in crate::snapshot) fn add_socket(&mut self, entry: &Entry) -> Result<(), Error> {
        let name = self.go_to(&entry.path)?;
        self.clear(&name, false)?;
        self.mknod(&name, &entry.path, FileType::Socket, Device::default())?;
        self.set_meta_at(&name, entry)
    }

    /// Removes whatever is at `path` from the directory.
    pub(in crate::snapshot) fn delete(&mut self, path: &EntryPath) -> Result<(), Error> {
        let name = self.go_to(path)?;
        self.clear(&name, false).map(drop)
    }

    /// Removes whatever is in the directory at `path` from the directory.
    pub(in crate::snapshot) fn empty(&mut self, path: &EntryPath) -> Result<(), Error> {
        self.descend(path)?;
        let fd = self.here()?.fd.as_fd();
        let mut removed = 0;
        for name in at::names(fd).map_err(|e| Error::inside("getdents", path, e))? {
            removed += at::remove_counting(fd, &name).map_err(|e| Error::inside("unlink", path, e))?;
        }
        self.lost(removed);
        Ok(())
    }
}
