//! A single file as a tree.

use crate::layer::{EntryPath, Timestamp};
use crate::snapshot::{Error, Kind, Meta, Tree, Xattrs};
use crate::store::Blob;
use rustix::io::Errno;
use std::fs::File;

/// A tree of one regular file, whose content is a blob of the store.
#[derive(Debug)]
pub struct FileTree {
    name: EntryPath,
    blob: Blob,
    meta: Meta,
}

impl FileTree {
    /// A file of this name in the root: root's, mode 0600, changed at `mtime` (seconds since 1970).
    pub(super) fn new(name: EntryPath, blob: Blob, mtime: i64) -> Self {
        let mtime = Timestamp::from_secs(mtime);
        let meta = Meta {
            kind: Kind::File,
            mode: 0o600,
            uid: 0,
            gid: 0,
            size: blob.size,
            mtime,
            ctime: mtime,
            inode: (0, 1),
            links: 1,
        };
        Self { name, blob, meta }
    }

    fn root(&self) -> Meta {
        Meta { kind: Kind::Dir, mode: 0o755, size: 0, inode: (0, 0), ..self.meta }
    }
}

impl Tree for FileTree {
    fn stat(&self, path: &EntryPath) -> Result<Option<Meta>, Error> {
        let file = (*path == self.name).then_some(self.meta);
        Ok(file.or_else(|| path.is_root().then(|| self.root())))
    }

    fn read_dir(&self, path: &EntryPath) -> Result<Vec<(Vec<u8>, Meta)>, Error> {
        if !path.is_root() {
            return Err(Error::inside("open", path, Errno::NOENT));
        }
        Ok(self.name.file_name().map(|name| (name.to_vec(), self.meta)).into_iter().collect())
    }

    fn read_link(&self, path: &EntryPath) -> Result<Vec<u8>, Error> {
        Err(Error::inside("readlink", path, Errno::INVAL))
    }

    fn open(&self, path: &EntryPath) -> Result<File, Error> {
        if *path != self.name {
            return Err(Error::inside("open", path, Errno::NOENT));
        }
        File::open(&self.blob.path).map_err(|e| Error::host("open", &self.blob.path, e))
    }

    fn xattrs(&self, _: &EntryPath) -> Result<Xattrs, Error> {
        Ok(Xattrs::new())
    }
}
