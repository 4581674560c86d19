//! Small files: written beside, then renamed.

use super::Inner;
use super::error::{At as _, Result};
use std::fs::{DirBuilder, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

impl Inner {
    /// Makes `path` a file of these bytes; a reader sees the old ones or the new.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let beside = self.temp_path()?;
        let written = std::fs::write(&beside, bytes).at("write", &beside);
        let put = written.and_then(|()| self.put(&beside, path));
        if put.is_err() {
            let _ = std::fs::remove_file(&beside);
        }
        put
    }

    /// Renames a finished file or folder into its place, whose folder is made when it isn't there.
    pub(super) fn put(&self, from: &Path, to: &Path) -> Result<()> {
        let mut renamed = std::fs::rename(from, to);
        if renamed.as_ref().is_err_and(|e| e.kind() == ErrorKind::NotFound) {
            if let Some(folder) = to.parent() {
                DirBuilder::new().recursive(true).mode(0o700).create(folder).at("make the folder", folder)?;
            }
            renamed = std::fs::rename(from, to);
        }
        renamed.at("make", to)
    }
}

/// Opens a file that may not be there.
pub(super) fn open(path: &Path) -> Result<Option<File>> {
    match File::open(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
        other => other.at("open", path).map(Some),
    }
}

/// The largest record, name or `meta.json` that is read, in bytes.
const SMALL: u64 = 16 << 20;

/// Reads a small JSON file; what doesn't parse is as good as not there.
pub(super) fn read_json<T: serde::de::DeserializeOwned>(mut file: &File, path: &Path) -> Result<Option<T>> {
    let mut bytes = Vec::new();
    file.by_ref().take(SMALL).read_to_end(&mut bytes).at("read", path)?;
    Ok(serde_json::from_slice(&bytes).ok())
}
