//! Objects of S3, Google's and Azure's stores: contexts as Kaniko takes them.
//!
//! The protocols and the signing are those of the crate `object_store`; the connections are [`Client`]'s, so that
//! proxies, certificates and patience are the same everywhere. Who kiln is, the environment and the machine say, by the
//! names that the providers' own tools know. An object is a blob of kiln's store, and asked for again only if it has
//! changed. No error has anything of a credential in it.

mod address;
mod connector;
mod credentials;
mod profile;
#[cfg(test)]
mod tests;

pub use address::{ObjectUrl, Provider};
pub use credentials::files as credential_files;

use super::context::{Fetched, unpacked};
use super::error::{Error, Result};
use super::http::{self, Known};
use crate::oci::Digest;
use crate::registry::Client;
use crate::store::{Key, Store};
use crate::sys::Cancel;
use connector::{Connector, Heard};
use credentials::Settings;
use futures_util::StreamExt as _;
use object_store::path::Path;
use object_store::{GetOptions, GetResult};
use std::io::Write as _;
use tokio::task::spawn_blocking;

/// Fetches objects. Clones are cheap.
#[derive(Clone)]
pub struct Buckets {
    client: Client,
    settings: Settings,
}

impl std::fmt::Debug for Buckets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Buckets").finish_non_exhaustive()
    }
}

/// Whether the environment has anything to ask for an object of Azure's with; without, its addresses are a web server's.
pub fn has_azure_credentials(env: &dyn Fn(&str) -> Option<String>) -> bool {
    credentials::has_azure(env)
}

impl Buckets {
    /// With what the environment says of endpoints and credentials.
    pub fn new(client: Client, env: &dyn Fn(&str) -> Option<String>) -> Self {
        Self { client, settings: Settings::new(env) }
    }

    /// A tar in a bucket, compressed or not, or a Dockerfile alone; `store` keeps what it is unpacked to, `blobs` the
    /// object.
    ///
    /// # Errors
    /// [`Error::Object`]; as [`unpacked`].
    pub async fn context(&self, blobs: &Store, store: &Store, url: &ObjectUrl, cancel: &Cancel) -> Result<Fetched> {
        let content = tokio::select! {
            content = self.fetch(blobs, url) => content?,
            () = super::stopped(cancel) => return Err(Error::Cancelled),
        };
        let gone = || self.failed(url, "it has been pruned from the store meanwhile".into(), None);
        let blob = blobs.blob(&content, None)?.ok_or_else(gone)?;
        let (store, cancel, name) = (store.clone(), cancel.clone(), url.to_string());
        spawn_blocking(move || unpacked(&store, blob.verified(), &name, &cancel)).await?
    }

    /// Gets an object into the store, unless it is there and hasn't changed.
    async fn fetch(&self, store: &Store, url: &ObjectUrl) -> Result<Digest> {
        let key = self.record(url);
        let known = store.record::<Known>(http::FILES, &key)?;
        let known = match known {
            Some(known) if store.blob(&known.content, None)?.is_some() => Some(known),
            _ => None,
        };
        let connector = Connector::new(self.client.clone());
        let etag = known.as_ref().and_then(|k| k.etag.clone());
        let object = match self.open(url, etag, &connector).await {
            Ok(object) => object,
            Err(object_store::Error::NotModified { .. }) if known.is_some() => {
                return known.map(|k| k.content).ok_or_else(|| self.failed(url, "it is gone".into(), None));
            }
            Err(error) => return Err(self.error(url, &error, &connector)),
        };
        let (etag, changed) = (object.meta.e_tag.clone(), Some(object.meta.last_modified.timestamp()));
        let content = self.receive(store, url, object, &connector).await?;
        let known = Known { url: url.to_string(), content: content.clone(), etag, changed };
        store.put_record(http::FILES, &key, &known)?;
        Ok(content)
    }

    async fn open(
        &self,
        url: &ObjectUrl,
        etag: Option<String>,
        connector: &Connector,
    ) -> object_store::Result<GetResult> {
        let unusable = |why: String| object_store::Error::NotSupported { source: why.into() };
        let store = credentials::store(url, &self.settings, connector).map_err(unusable)?;
        let options = GetOptions { if_none_match: etag, ..GetOptions::default() };
        store.get_opts(&Path::parse(&url.key)?, options).await
    }

    /// Writes an object into the store as it comes.
    async fn receive(
        &self,
        store: &Store,
        url: &ObjectUrl,
        object: GetResult,
        connector: &Connector,
    ) -> Result<Digest> {
        let mut ingest = store.ingest()?;
        let mut chunks = object.into_stream();
        while let Some(chunk) = chunks.next().await {
            let written = ingest.write_all(&chunk.map_err(|e| self.error(url, &e, connector))?);
            written.map_err(|source| crate::store::Error::Io { what: "write", path: ingest.path().into(), source })?;
        }
        Ok(ingest.commit(None)?)
    }

    /// Under what an object is known: two endpoints have two buckets of a name.
    fn record(&self, url: &ObjectUrl) -> Key {
        let at = match url.provider {
            Provider::S3 => self.settings.s3_endpoint().map(|(_, endpoint)| endpoint),
            Provider::Google => self.settings.get("STORAGE_EMULATOR_HOST"),
            Provider::Azure => None,
        };
        Key::of(format!("object\0{}\0{url}", at.unwrap_or_default()).as_bytes())
    }

    fn failed(&self, url: &ObjectUrl, why: String, hint: Option<String>) -> Error {
        Error::Object { address: url.to_string(), why, hint }
    }

    /// What a failure means, by what was heard rather than by the library's words, which may show a whole answer.
    fn error(&self, url: &ObjectUrl, error: &object_store::Error, connector: &Connector) -> Error {
        match connector.heard() {
            Some(Heard::NoIdentity) => {
                let why = "there are no credentials for it, and this machine has no role of a cloud's";
                self.failed(url, why.into(), Some(to_set(url.provider).into()))
            }
            Some(Heard::Silence(error)) => self.failed(url, error.to_string(), self.about_endpoint(url)),
            Some(Heard::Answer { host, status, said, region }) => {
                let why = match (status, said.as_str()) {
                    (404, "") => format!("{host} has no such object"),
                    (_, "") => format!("{host} answers {status}"),
                    _ => format!("{host} answers {status} ({said})"),
                };
                self.failed(url, why, hint(url, status, &said, region.as_deref()))
            }
            None => match error {
                object_store::Error::NotSupported { source } => {
                    self.failed(url, source.to_string(), Some(to_set(url.provider).into()))
                }
                object_store::Error::InvalidPath { .. } => {
                    self.failed(url, format!("{:?} is no name that kiln can ask for", url.key), None)
                }
                _ => {
                    let why = "the credentials can't be used for it, or its answer makes no sense";
                    self.failed(url, why.into(), Some(to_set(url.provider).into()))
                }
            },
        }
    }

    fn about_endpoint(&self, url: &ObjectUrl) -> Option<String> {
        let (name, _) = self.settings.s3_endpoint().filter(|_| url.provider == Provider::S3)?;
        Some(format!("the address is that of ${name}; S3_FORCE_PATH_STYLE=true asks without a host for each bucket"))
    }
}

/// What a user has to set, by provider.
fn to_set(provider: Provider) -> &'static str {
    match provider {
        Provider::S3 => {
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (and AWS_SESSION_TOKEN, where there is one), or have them in \
             ~/.aws/credentials; AWS_REGION is the bucket's, S3_ENDPOINT that of a store which isn't Amazon's"
        }
        Provider::Google => "set GOOGLE_APPLICATION_CREDENTIALS to the file of a service account's key",
        Provider::Azure => "set AZURE_STORAGE_ACCESS_KEY to a key of the storage account",
    }
}

fn hint(url: &ObjectUrl, status: u16, said: &str, region: Option<&str>) -> Option<String> {
    let elsewhere = matches!(status, 301 | 307) || said.starts_with("AuthorizationHeaderMalformed");
    match (status, region) {
        _ if elsewhere && url.provider == Provider::S3 => {
            let region = region.map(|r| format!(": {r}")).unwrap_or_default();
            Some(format!("set AWS_REGION to the bucket's region{region}"))
        }
        (404, _) => Some(format!("check the name of the bucket, {}, and of the object, {}", url.bucket, url.key)),
        (400..=403, _) => Some(format!("{}, and check that they may read the object", to_set(url.provider))),
        _ => None,
    }
}
