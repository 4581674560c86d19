//! An image to where it is wanted: a registry, an archive, a folder.
//!
//! - [`spec`] reads `--output`, [`annotations`] what is to be annotated.
//! - [`Pusher`] sends blobs while the build still runs, and the manifest when all are there.
//! - [`Layout`] writes OCI layouts and docker archives.
//! - [`Folder`] and [`RootTar`] take the files of a root filesystem, flattened.
//!
//! A file that is written appears whole or not at all, and a tag only when everything it leads to is there.

pub mod annotations;
mod error;
mod folder;
mod layout;
mod output;
mod push;
mod root;
pub mod spec;

pub use error::Error;
pub use folder::Folder;
pub use layout::{Layout, Named};
pub use output::Output;
pub use push::{PushBlob, Pushed, Pusher};
pub use root::{RootTar, Under, folder_name};

use crate::oci::assemble::Assembled;
use crate::oci::{Descriptor, Digest};
use crate::store::Store;
use std::io::Read;

/// Where blobs are read from.
///
/// A reader ends with an error if the bytes weren't those of the digest, so what was made from them must not be kept.
pub trait BlobSource {
    /// Opens a blob.
    ///
    /// # Errors
    /// [`Error::Missing`] where there is none.
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error>;
}

impl BlobSource for Store {
    fn open(&self, blob: &Descriptor) -> Result<Box<dyn Read + '_>, Error> {
        let digest = digest_of(blob)?;
        let found = self.blob(&digest, Some(blob.size()))?.ok_or(Error::Missing(digest))?;
        Ok(Box::new(found.verified()))
    }
}

/// Puts the documents of an image into the store, so that a name can lead to it; its layers are there already or are
/// fetched when they are needed.
///
/// # Errors
/// As the store has it.
pub fn keep(store: &Store, image: &Assembled) -> Result<(), Error> {
    let documents = image.images.iter().flat_map(|i| [&i.config, &i.manifest]).chain(&image.index);
    for document in documents {
        store.write_blob(&document.bytes)?;
    }
    Ok(())
}

fn digest_of(descriptor: &Descriptor) -> Result<Digest, Error> {
    let bad = |e: crate::oci::DigestError| Error::Unsupported(format!("a blob of the image: {e}"));
    Digest::try_from(descriptor.digest()).map_err(bad)
}
