//! A repository as a cache: `REPOSITORY:TAG-KEY` for each key, so that nobody writes over another one's results.

use super::bundle::{CONFIG, CONFIG_TYPE};
use super::{Answer, CacheStore};
use crate::oci::{Descriptor, MediaType, Reference, describe};
use crate::registry::{Client, Content, Error, Manifest, Upload};
use crate::report::Step;
use crate::source::Puller;
use crate::store::Key;
use bytes::Bytes;

/// What tags begin with where the cache's name has none.
const PREFIX: &str = "kiln";

/// A repository as a cache.
#[derive(Debug)]
pub struct Registry {
    repository: Reference,
    prefix: String,
    client: Client,
    /// Asks once: a cache isn't worth waiting for.
    impatient: Client,
    puller: Puller,
    /// Where the image of the build goes: its blobs needn't be sent again.
    images: Vec<Reference>,
}

impl Registry {
    /// The cache that `name` stands for: its tag, where it has one, begins the tags of all keys. `images` are names that
    /// the build pushes to.
    pub fn new(name: &Reference, images: Vec<Reference>, client: &Client, puller: &Puller) -> Self {
        Self {
            repository: Reference { tag: None, digest: None, ..name.clone() },
            prefix: name.tag.clone().unwrap_or_else(|| PREFIX.to_owned()),
            client: client.clone(),
            impatient: client.impatient(),
            puller: puller.clone(),
            images,
        }
    }

    fn tag(&self, key: Key) -> Reference {
        Reference { tag: Some(format!("{}-{key}", self.prefix)), ..self.repository.clone() }
    }

    async fn upload(&self, descriptor: Descriptor, content: Content) -> Result<(), Error> {
        let near = self.images.iter().find(|i| i.registry == self.repository.registry);
        let mount_from = near.map(|i| i.repository.clone());
        let upload = Upload { descriptor, content, mount_from, likely_there: true, progress: None };
        self.client.push_blob(&self.repository, &upload).await.map(drop)
    }
}

impl CacheStore for Registry {
    fn name(&self) -> String {
        format!("{}/{}", self.repository.registry, self.repository.repository)
    }

    fn get(&self, key: Key) -> Answer<'_, Option<Vec<u8>>> {
        Box::pin(async move {
            match self.impatient.manifest(&self.tag(key)).await {
                Ok(manifest) => Ok(Some(manifest.bytes.to_vec())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            }
        })
    }

    fn fetch<'a>(&'a self, step: Step, blob: &'a Descriptor) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.puller.fetch_from(step, &self.repository, blob).await?) })
    }

    fn put_blob<'a>(&'a self, blob: &'a Descriptor, content: Content) -> Answer<'a, ()> {
        Box::pin(async move { Ok(self.upload(blob.clone(), content).await?) })
    }

    fn put<'a>(&'a self, key: Key, manifest: &'a [u8]) -> Answer<'a, ()> {
        Box::pin(async move {
            let config = describe(MediaType::from(CONFIG_TYPE), CONFIG);
            self.upload(config, Content::Bytes(Bytes::from_static(CONFIG))).await?;
            let descriptor = describe(MediaType::ImageManifest, manifest);
            let manifest = Manifest { descriptor, bytes: Bytes::copy_from_slice(manifest) };
            Ok(self.client.push_manifest(&self.tag(key), &manifest).await?)
        })
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.repository)
    }
}
