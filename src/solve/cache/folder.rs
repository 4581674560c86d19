//! A folder as a cache: `keys/KEY.json` beside `blobs/ALGORITHM/HEX`, each written whole or not at all.

use super::{Answer, CacheStore, Error, MAX_MANIFEST};
use crate::oci::{Descriptor, Digest, Reference};
use crate::registry::Content;
use crate::report::Step;
use crate::store::{Key, Store};
use std::fs::File;
use std::io::{ErrorKind, Read, Write as _};
use std::path::{Path, PathBuf};
use tokio::task::spawn_blocking;

/// A folder as a cache.
#[derive(Debug)]
pub struct Folder {
    root: PathBuf,
    store: Store,
}

impl Folder {
    /// The cache in `root`, which is made when something is written.
    pub fn new(root: PathBuf, store: Store) -> Self {
        Self { root, store }
    }

    fn manifest(&self, key: Key) -> PathBuf {
        self.root.join("keys").join(format!("{key}.json"))
    }

    fn blob(&self, blob: &Descriptor) -> Result<(Digest, PathBuf), Error> {
        let digest = Digest::try_from(blob.digest()).map_err(|e| Error::Refused(e.to_string()))?;
        let path = self.root.join("blobs").join(digest.algorithm()).join(digest.hex());
        Ok((digest, path))
    }
}

impl CacheStore for Folder {
    fn name(&self) -> String {
        self.root.display().to_string()
    }

    fn get(&self, key: Key) -> Answer<'_, Option<Vec<u8>>> {
        let path = self.manifest(key);
        Box::pin(blocking(move || {
            let Some(file) = open(&path)? else { return Ok(None) };
            let mut bytes = Vec::new();
            file.take(MAX_MANIFEST).read_to_end(&mut bytes).map_err(|e| io("read", &path, e))?;
            Ok(Some(bytes))
        }))
    }

    fn fetch<'a>(&'a self, _step: Step, blob: &'a Descriptor) -> Answer<'a, ()> {
        Box::pin(async move {
            let ((digest, path), size, store) = (self.blob(blob)?, blob.size(), self.store.clone());
            blocking(move || {
                if store.blob(&digest, Some(size))?.is_some() {
                    return Ok(());
                }
                let file = open(&path)?.ok_or_else(|| io("open", &path, ErrorKind::NotFound.into()))?;
                let mut ingest = store.ingest_expecting(&digest)?;
                // One byte more than it should be is enough to be another blob.
                let copied = std::io::copy(&mut file.take(size + 1), &mut ingest);
                copied.map_err(|e| io("copy", &path, e))?;
                ingest.commit(Some(&digest))?;
                Ok(())
            })
            .await
        })
    }

    fn put_blob<'a>(&'a self, blob: &'a Descriptor, content: Content) -> Answer<'a, ()> {
        Box::pin(async move {
            let ((_, path), size) = (self.blob(blob)?, blob.size());
            blocking(move || {
                if std::fs::symlink_metadata(&path).is_ok_and(|m| m.is_file() && m.len() == size) {
                    return Ok(());
                }
                match content {
                    Content::Bytes(bytes) => write(&path, &mut &*bytes),
                    Content::File(file) => write(&path, &mut rewound(&file, &path)?),
                    Content::Later(open) => write(&path, &mut open().map_err(Error::Refused)?),
                }
            })
            .await
        })
    }

    fn put<'a>(&'a self, key: Key, manifest: &'a [u8]) -> Answer<'a, ()> {
        let (path, bytes) = (self.manifest(key), manifest.to_vec());
        Box::pin(blocking(move || write(&path, &mut &*bytes)))
    }

    fn repository(&self) -> Option<&Reference> {
        None
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    spawn_blocking(work).await.map_err(|e| Error::Refused(e.to_string()))?
}

/// A regular file, opened without waiting for anybody to fill a pipe in its place.
fn open(path: &Path) -> Result<Option<File>, Error> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = match rustix::fs::open(path, flags, Mode::empty()) {
        Ok(fd) => File::from(fd),
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        Err(e) => return Err(io("open", path, e.into())),
    };
    match file.metadata() {
        Ok(m) if m.is_file() => Ok(Some(file)),
        Ok(_) => Err(Error::Refused(format!("{} is no file", path.display()))),
        Err(e) => Err(io("look at", path, e)),
    }
}

/// The whole of an open file.
fn rewound(file: &File, path: &Path) -> Result<File, Error> {
    use std::io::Seek as _;
    let mut file = file.try_clone().map_err(|e| io("read for", path, e))?;
    file.rewind().map_err(|e| io("read for", path, e))?;
    Ok(file)
}

/// Writes a file beside its place and renames it.
fn write(path: &Path, content: &mut dyn Read) -> Result<(), Error> {
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder).map_err(|e| io("make", folder, e))?;
    let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
        std::io::copy(content, &mut file)?;
        file.flush()?;
        let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
        file.as_file().set_permissions(readable)?;
        file.persist(path).map_err(|e| e.error)
    });
    written.map(drop).map_err(|e| io("write", path, e))
}

fn io(what: &'static str, path: &Path, source: std::io::Error) -> Error {
    Error::Io { what, path: path.display().to_string(), source }
}
