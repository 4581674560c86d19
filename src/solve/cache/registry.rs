//! A repository as a cache: `REPOSITORY:TAG-KEY` for each key, so that nobody writes over another one's results; and what
//! the image `REPOSITORY:TAG` carries, where there is one.

use super::bundle::{CONFIG, CONFIG_TYPE, Entry};
use super::{Answer, CacheStore, inline};
use crate::oci::{Descriptor, MediaType, Platform, Reference, describe};
use crate::registry::{Client, Content, Error, Manifest, Upload};
use crate::report::Step;
use crate::solve::chain::Origin;
use crate::source::Puller;
use crate::store::Key;
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::OnceCell;

/// How long a silent registry is waited for by somebody who asks.
const PATIENCE: Duration = Duration::from_secs(5);

/// What tags begin with where the cache's name has none.
const PREFIX: &str = "kiln";

/// A repository as a cache.
#[derive(Debug)]
pub struct Registry {
    repository: Reference,
    prefix: String,
    /// What the name means if it is an image's.
    image: Reference,
    /// The platforms whose images may carry records.
    platforms: Vec<Platform>,
    client: Client,
    /// Asks once: a cache isn't worth waiting for.
    asker: Client,
    puller: Puller,
    /// The records' configuration, once it is there.
    config: OnceCell<()>,
    /// Where the image of the build goes: its blobs needn't be sent again.
    images: Vec<Reference>,
}

impl Registry {
    /// The cache that `name` stands for: its tag, where it has one, begins the tags of all keys. `images` are names that
    /// the build pushes to, `platforms` those that it builds for.
    pub fn new(
        name: &Reference,
        images: Vec<Reference>,
        platforms: Vec<Platform>,
        client: &Client,
        puller: &Puller,
    ) -> Self {
        Self {
            image: name.clone(),
            platforms,
            repository: Reference { tag: None, digest: None, ..name.clone() },
            prefix: name.tag.clone().unwrap_or_else(|| PREFIX.to_owned()),
            client: client.clone(),
            asker: client.hurried(1, PATIENCE),
            puller: puller.clone(),
            images,
            config: OnceCell::new(),
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
            match self.asker.manifest(&self.tag(key)).await {
                Ok(manifest) => Ok(Some(manifest.bytes.to_vec())),
                Err(Error::NotFound { .. }) => Ok(None),
                Err(e) => Err(e.into()),
            }
        })
    }

    fn carried<'a>(&'a self, origin: &'a Origin) -> Answer<'a, Vec<Entry>> {
        Box::pin(async move {
            let mut carried = Vec::new();
            for platform in &self.platforms {
                match self.asker.image(&self.image, platform).await {
                    Ok(image) => carried.extend(inline::carried(&image, origin).map_err(super::Error::Refused)?),
                    // The name is that of a cache alone, or of something else.
                    Err(Error::NotFound { .. } | Error::Platform { .. } | Error::Content { .. }) => {}
                    Err(e) => return Err(e.into()),
                }
            }
            Ok(carried)
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
            self.config.get_or_try_init(|| self.upload(config, Content::Bytes(Bytes::from_static(CONFIG)))).await?;
            let descriptor = describe(MediaType::ImageManifest, manifest);
            let manifest = Manifest { descriptor, bytes: Bytes::copy_from_slice(manifest) };
            Ok(self.client.push_manifest(&self.tag(key), &manifest).await?)
        })
    }

    fn repository(&self) -> Option<&Reference> {
        Some(&self.repository)
    }
}
