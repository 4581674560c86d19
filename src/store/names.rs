//! Images by name.
//!
//! A name is a file: `names/docker.io/library/app/:1.0`. No part of a repository starts with a colon, so a tag is
//! never mistaken for a deeper repository.

use super::error::{At as _, Error, Result};
use super::session::entries;
use super::{Settled, Store, files};
use crate::oci::{Descriptor, Reference};
use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// An image in the store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Name {
    /// Its whole name: `docker.io/library/app:1.0`.
    pub reference: String,
    /// Its manifest or index.
    pub descriptor: Descriptor,
    /// When it got this name, RFC 3339.
    pub created: String,
}

impl Store {
    /// Gives an image a name, which it takes away from another. `created` is the time in RFC 3339.
    ///
    /// # Errors
    /// [`Error::NoTag`] for a reference with a digest.
    pub fn publish(&self, _: &Settled, name: &Reference, descriptor: &Descriptor, created: &str) -> Result<()> {
        let path = self.name_path(name)?;
        let entry = Name { reference: name.to_string(), descriptor: descriptor.clone(), created: created.to_owned() };
        let text = serde_json::to_vec_pretty(&entry).map_err(std::io::Error::from).at("write", &path)?;
        self.inner.write(&path, &text)
    }

    /// The image of a name; `latest` where it has no tag.
    pub fn name(&self, name: &Reference) -> Result<Option<Name>> {
        let path = self.name_path(name)?;
        let Some(file) = files::open(&path)? else { return Ok(None) };
        Ok(files::read_json::<Name>(&file, &path)?.filter(|n| n.reference == name.to_string()))
    }

    /// All names, sorted.
    pub fn names(&self) -> Result<Vec<Name>> {
        let mut found = Vec::new();
        let mut folders = vec![self.inner.root.join("names")];
        while let Some(folder) = folders.pop() {
            for path in entries(&folder)? {
                if !is_tag(&path) {
                    folders.push(path);
                } else if let Some(file) = files::open(&path)? {
                    found.extend(files::read_json::<Name>(&file, &path)?);
                }
            }
        }
        found.sort_by(|a, b| a.reference.cmp(&b.reference));
        Ok(found)
    }

    /// Takes a name away; the image's content stays until it is pruned. Says whether there was one.
    pub fn remove_name(&self, name: &Reference) -> Result<bool> {
        let path = self.name_path(name)?;
        match std::fs::remove_file(&path) {
            Err(e) if e.kind() == ErrorKind::NotFound => return Ok(false),
            other => other.at("remove", &path)?,
        }
        // Folders that are empty now; one that isn't ends it.
        let top = self.inner.root.join("names");
        for folder in path.ancestors().skip(1).take_while(|f| *f != top) {
            if std::fs::remove_dir(folder).is_err() {
                break;
            }
        }
        Ok(true)
    }

    fn name_path(&self, name: &Reference) -> Result<PathBuf> {
        let text = name.to_string();
        // Parsed again, because this becomes a path and a reference's fields are open to anyone.
        let checked: Reference = text.parse().map_err(|_| Error::NoTag(text.clone()))?;
        let (Some(tag), None) = (checked.tag_or_latest(), &checked.digest) else { return Err(Error::NoTag(text)) };
        Ok(self.inner.root.join("names").join(&checked.registry).join(&checked.repository).join(format!(":{tag}")))
    }
}

fn is_tag(path: &Path) -> bool {
    path.file_name().is_some_and(|n| n.as_encoded_bytes().starts_with(b":"))
}
