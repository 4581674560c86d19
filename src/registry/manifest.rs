//! Manifests and indexes: from a name to one image, and back.

use super::auth::Scopes;
use super::endpoint::Endpoint;
use super::select::{best, platform};
use super::{Body, Call, Client, Error, read_body};
use crate::oci::{
    Descriptor, Digest, ImageConfig, ImageIndex, ImageManifest, MediaType, Platform, Reference, docker, is_config,
    is_layer, is_manifest_or_index, read_json,
};
use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Response};
use serde::Deserialize;
use serde_json::Value;

/// The largest manifest that kiln takes, as containerd and the distribution project have it.
const MAX_MANIFEST: u64 = 4 << 20;
/// The largest image configuration that kiln takes.
const MAX_CONFIG: u64 = 8 << 20;
/// How many indexes may stand inside each other.
const MAX_DEPTH: usize = 4;

const DIGEST_HEADER: &str = "docker-content-digest";

/// What kiln asks for. Schema 1 isn't in it, but registries that have nothing else send it all the same.
const ACCEPTED: HeaderValue = HeaderValue::from_static(
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, application/vnd.docker.distribution.manifest.v2+json, \
     */*;q=0.1",
);

/// A manifest or index as it came, its digest checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// Media type, digest and size of `bytes`.
    pub descriptor: Descriptor,
    /// The document.
    pub bytes: Bytes,
}

/// What a document says that it is.
#[derive(Deserialize)]
struct Named {
    #[serde(rename = "mediaType")]
    media_type: Option<String>,
}

/// What a manifest's bytes say.
#[derive(Debug, Clone, PartialEq)]
pub enum Document {
    /// One image.
    Image(ImageManifest),
    /// Several, by platform.
    Index(ImageIndex),
}

/// An image of a registry: everything but its layers.
#[derive(Debug, Clone)]
pub struct Image {
    /// What the name led to: an index, or the manifest itself.
    pub top: Manifest,
    /// The image's manifest.
    pub manifest: Manifest,
    /// The same, read: layer digests are sound, and as many as the configuration's `diff_ids`.
    pub parsed: ImageManifest,
    /// The image's configuration.
    pub config: ImageConfig,
    /// The configuration as it came.
    pub config_bytes: Bytes,
}

impl Manifest {
    /// Takes bytes that nobody vouches for as a manifest of the type that they themselves or `content_type` name.
    pub fn new(content_type: &str, bytes: Bytes) -> Self {
        let named = serde_json::from_slice::<Named>(&bytes).ok().and_then(|named| named.media_type);
        let media_type = MediaType::from(named.as_deref().unwrap_or(content_type));
        Self { descriptor: crate::oci::describe(media_type, &bytes), bytes }
    }

    /// Takes bytes as the manifest or index that a descriptor is of.
    ///
    /// # Errors
    /// [`Error::Content`], with `what` as its subject, where they say that they are something else.
    pub fn described(what: &str, descriptor: &Descriptor, bytes: Bytes) -> Result<Self, Error> {
        let stated = descriptor.media_type().to_string();
        let manifest = Self::new(&stated, bytes);
        manifest.is_as_stated(what, "its descriptor", &stated).map(|()| manifest)
    }

    /// Refuses a media type that somebody states, if it isn't the document's own.
    fn is_as_stated(&self, what: &str, by: &str, stated: &str) -> Result<(), Error> {
        let own = self.descriptor.media_type().to_string();
        if stated.is_empty() || stated == own {
            return Ok(());
        }
        let [stated, own] = [stated, &own].map(super::error::printable);
        let why = format!("{by} states the media type {stated}, but the document is {own}");
        Err(Error::Content { what: what.into(), why })
    }

    /// The digest of the bytes.
    ///
    /// # Errors
    /// If the descriptor's digest is of an algorithm that kiln doesn't know.
    pub fn digest(&self) -> Result<Digest, Error> {
        digest_of("manifest", &self.descriptor)
    }

    /// Reads the document. It must be what its media type says and nothing else besides (CVE-2021-41190).
    ///
    /// # Errors
    /// [`Error::Content`], with `what` as its subject.
    pub fn document(&self, what: &str) -> Result<Document, Error> {
        let bad = |why: String| Error::Content { what: what.into(), why };
        let value: Value = read_json(&self.bytes).map_err(|e| bad(format!("no JSON: {e}")))?;
        let has = |field| value.get(field).is_some_and(|v| !v.is_null());
        if value.get("schemaVersion").and_then(Value::as_u64) == Some(1) {
            return Err(bad(
                "a manifest of Docker's schema 1, which has been obsolete since 2017: push the image anew".into(),
            ));
        }
        let kind = self.descriptor.media_type().to_string();
        let is_index = match kind.as_str() {
            "application/vnd.oci.image.index.v1+json" | docker::MANIFEST_LIST => true,
            "application/vnd.oci.image.manifest.v1+json" | docker::MANIFEST => false,
            // Registries of old say text/plain.
            _ if has("mediaType") => return Err(bad(format!("no image, but {}", super::error::printable(&kind)))),
            _ => has("manifests"),
        };
        match (is_index, has("manifests"), has("layers") || has("config")) {
            (_, true, true) => return Err(bad("a manifest and an index at once".into())),
            (true, false, true) => return Err(bad(format!("its media type is {kind}, but it is an image manifest"))),
            (false, true, false) => return Err(bad(format!("its media type is {kind}, but it is an index"))),
            _ => {}
        }
        let document = if is_index {
            serde_json::from_value(value).map(Document::Index)
        } else {
            serde_json::from_value(value).map(Document::Image)
        };
        document.map_err(|e| bad(format!("no sound manifest: {}", super::error::printable(&e.to_string()))))
    }
}

impl Client {
    /// What a name leads to, without fetching it: one HEAD, which registries don't count against their limits. A pinned
    /// reference gives its own digest.
    ///
    /// # Errors
    /// As the registry has it; the mirrors' failures are only reported.
    pub async fn resolve(&self, reference: &Reference) -> Result<Descriptor, Error> {
        let what = &format!("lookup of {reference}");
        self.at_first(reference, what, |at| async move { self.resolve_at(&at, reference, what).await }).await
    }

    /// Asks the mirrors and then the registry itself, until somebody answers.
    async fn at_first<T, F: Future<Output = Result<T, Error>>>(
        &self,
        reference: &Reference,
        what: &str,
        ask: impl Fn(Endpoint) -> F,
    ) -> Result<T, Error> {
        for endpoint in self.sources(reference)? {
            match ask(endpoint.clone()).await {
                Err(error) if endpoint.mirror_of.is_some() => self.pass_over(&endpoint, &error),
                other => return other,
            }
        }
        Err(Error::Setup(format!("{what}: nowhere to look")))
    }

    async fn resolve_at(&self, endpoint: &Endpoint, reference: &Reference, what: &str) -> Result<Descriptor, Error> {
        let response = self.manifest_request(endpoint, reference, what, Method::HEAD).await?;
        match described(&response) {
            Some(descriptor) => {
                let digest = digest_of(what, &descriptor)?;
                matches_pin(endpoint, reference, what, &digest)?;
                Ok(descriptor)
            }
            // The header is optional: take the bytes and compute it.
            None => Ok(self.manifest_at(endpoint, reference, what).await?.descriptor),
        }
    }

    /// Whether the registry itself, whatever its mirrors say, has the manifest that a reference pins: then it has all that
    /// the manifest names, too, or it wouldn't have taken it.
    ///
    /// # Errors
    /// As the registry has it.
    pub async fn has_manifest(&self, pinned: &Reference) -> Result<bool, Error> {
        let what = format!("lookup of {pinned}");
        match self.manifest_request(&self.origin(pinned), pinned, &what, Method::HEAD).await {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Fetches the manifest or index of a name. Its bytes have the digest that the reference pins, or else the one
    /// that the registry names, or else whichever they have.
    ///
    /// # Errors
    /// As the registry has it; [`Error::Digest`], [`Error::TooLarge`].
    pub async fn manifest(&self, reference: &Reference) -> Result<Manifest, Error> {
        let what = &format!("pull of {reference}");
        self.at_first(reference, what, |at| async move { self.manifest_at(&at, reference, what).await }).await
    }

    async fn manifest_at(&self, endpoint: &Endpoint, reference: &Reference, what: &str) -> Result<Manifest, Error> {
        self.retry_at(endpoint)
            .run(|| async {
                let response = self.manifest_once(endpoint, reference, what, Method::GET).await?;
                let header = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
                let named = header(DIGEST_HEADER).and_then(|d| d.parse::<Digest>().ok());
                let content_type = header(CONTENT_TYPE.as_str()).unwrap_or_default();
                let bytes = read_body(&self.inner.transport, what, response, MAX_MANIFEST).await?;
                if let Some(want) = reference.digest.clone().or(named) {
                    verify(endpoint, what, &bytes, &want)?;
                }
                let content_type = content_type.split(';').next().unwrap_or_default().trim();
                let mut manifest = Manifest::new(content_type, bytes);
                // Old registries, and web servers that serve files, send other types.
                if is_manifest_or_index(&MediaType::from(content_type)) {
                    manifest.is_as_stated(what, "the registry", content_type)?;
                }
                if let Some(pinned) = &reference.digest {
                    manifest.descriptor.set_digest(pinned.to_spec());
                }
                Ok(manifest)
            })
            .await
    }

    async fn manifest_request(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        what: &str,
        method: Method,
    ) -> Result<Response, Error> {
        self.retry_at(endpoint).run(|| self.manifest_once(endpoint, reference, what, method.clone())).await
    }

    async fn manifest_once(
        &self,
        endpoint: &Endpoint,
        reference: &Reference,
        what: &str,
        method: Method,
    ) -> Result<Response, Error> {
        let repository = endpoint.repository(&reference.repository);
        let scopes = Scopes::pull(&repository);
        let path = format!("{repository}/manifests/{}", reference.locator());
        let mut call = Call::new(what, endpoint, &scopes, method, path);
        call.headers.insert(ACCEPT, ACCEPTED);
        self.expect(&call, &[200]).await
    }

    /// Fetches an image's manifest and configuration for a platform. An image that stands alone, outside of an index,
    /// is taken whatever its platform is; its configuration says.
    ///
    /// # Errors
    /// [`Error::Platform`] where an index has nothing that `wanted` runs; else as [`Client::manifest`].
    pub async fn image(&self, reference: &Reference, wanted: &Platform) -> Result<Image, Error> {
        let what = format!("pull of {reference}");
        let top = self.manifest(reference).await?;
        let mut manifest = top.clone();
        for _ in 0..MAX_DEPTH {
            match manifest.document(&what)? {
                Document::Image(parsed) => return self.complete(reference, &what, top, manifest, parsed).await,
                Document::Index(index) => {
                    let chosen = choose(&what, &index, wanted)?;
                    let stated = chosen.media_type().to_string();
                    manifest = self.manifest(&reference.pinned(digest_of(&what, chosen)?)).await?;
                    manifest.is_as_stated(&what, "the index", &stated)?;
                }
            }
        }
        Err(Error::Content { what, why: "indexes inside indexes without end".into() })
    }

    async fn complete(
        &self,
        reference: &Reference,
        what: &str,
        top: Manifest,
        manifest: Manifest,
        parsed: ImageManifest,
    ) -> Result<Image, Error> {
        let bad = |why: &str| Error::Content { what: what.into(), why: why.into() };
        check_parts(what, &parsed)?;
        let config_bytes = self.small_blob(reference, parsed.config(), MAX_CONFIG).await?;
        let config: ImageConfig = read_json(&config_bytes)
            .map_err(|e| bad(&format!("no sound image configuration: {}", super::error::printable(&e.to_string()))))?;
        if config.rootfs.diff_ids.len() != parsed.layers().len() {
            return Err(bad("its configuration names another number of layers than its manifest"));
        }
        Ok(Image { top, manifest, parsed, config, config_bytes })
    }

    /// Writes a manifest or index under the reference's tag, or, where the reference has a digest, under its digest
    /// alone. Everything that it names must be there already.
    ///
    /// # Errors
    /// As the registry has it; [`Error::Protocol`] if it stored something else.
    pub async fn push_manifest(&self, reference: &Reference, manifest: &Manifest) -> Result<(), Error> {
        let endpoint = self.origin(reference);
        let digest = manifest.digest()?;
        let tag = reference.tag_or_latest().filter(|_| reference.digest.is_none());
        let (mark, locator) = tag.map_or(('@', digest.as_str()), |tag| (':', tag));
        let what = format!("push of {}/{}{mark}{locator}", reference.registry, reference.repository);
        let scopes = Scopes::push(&reference.repository, None);
        let path = format!("{}/manifests/{locator}", reference.repository);
        let content_type = HeaderValue::try_from(manifest.descriptor.media_type().to_string())
            .map_err(|_| Error::Content { what: what.clone(), why: "its media type is none".into() })?;
        let mut call = Call::new(&what, &endpoint, &scopes, Method::PUT, path);
        call.headers.insert(CONTENT_TYPE, content_type);
        call.body = Body::Bytes(manifest.bytes.clone());
        let response = self.inner.config.retry.run(|| self.expect(&call, &[201, 200, 202])).await?;
        match response.headers().get(DIGEST_HEADER).and_then(|v| v.to_str().ok()?.parse::<Digest>().ok()) {
            Some(got) if got.algorithm() == digest.algorithm() && got != digest => {
                let why = format!("it stored {got} where {digest} was sent");
                Err(Error::Protocol { what, host: endpoint.name, why })
            }
            _ => Ok(()),
        }
    }
}

fn choose<'a>(what: &str, index: &'a ImageIndex, wanted: &Platform) -> Result<&'a Descriptor, Error> {
    best(wanted, index.manifests()).first().copied().ok_or_else(|| {
        let all = index.manifests().iter().filter_map(platform).filter(|p| p.os != "unknown");
        Error::Platform {
            what: what.into(),
            wanted: wanted.clone(),
            have: all.map(|p| super::error::printable(&p.to_string())).take(12).collect(),
        }
    })
}

/// The descriptor that the headers of an answer make, where they are complete.
fn described(response: &Response) -> Option<Descriptor> {
    let header = |name: &str| response.headers().get(name)?.to_str().ok();
    let digest: Digest = header(DIGEST_HEADER)?.parse().ok()?;
    let size: u64 = header(CONTENT_LENGTH.as_str())?.parse().ok()?;
    let media_type = header(CONTENT_TYPE.as_str())?.split(';').next()?.trim();
    Some(Descriptor::new(MediaType::from(media_type), size, digest.to_spec()))
}

fn matches_pin(endpoint: &Endpoint, reference: &Reference, what: &str, got: &Digest) -> Result<(), Error> {
    match &reference.digest {
        Some(want) if want != got => {
            Err(Error::Digest { what: what.into(), host: endpoint.name.clone(), got: got.clone(), want: want.clone() })
        }
        _ => Ok(()),
    }
}

fn verify(endpoint: &Endpoint, what: &str, bytes: &[u8], want: &Digest) -> Result<(), Error> {
    let mut hasher = want.hasher();
    hasher.update(bytes);
    let got = hasher.finish();
    if got == *want {
        return Ok(());
    }
    Err(Error::Digest { what: what.into(), host: endpoint.name.clone(), got, want: want.clone() })
}

/// Looks at what a manifest says of its configuration and layers: their digests must be of a known algorithm, and none may be
/// stated as a part of another kind. Kinds that are unknown here are those of artifacts. How a layer is compressed is told by
/// its bytes later, as containerd does.
///
/// # Errors
/// [`Error::Content`], with `what` as its subject.
pub fn check_parts(what: &str, manifest: &ImageManifest) -> Result<(), Error> {
    let (config, layers) = (manifest.config(), manifest.layers());
    let configs = std::iter::once(("configuration", config, is_layer(config.media_type())));
    let parts = configs.chain(layers.iter().map(|layer| ("layer", layer, is_config(layer.media_type()))));
    for (part, descriptor, is_other) in parts {
        digest_of(what, descriptor)?;
        let media_type = descriptor.media_type();
        if is_other || is_manifest_or_index(media_type) {
            let why = format!("its {part} {} is stated as {media_type}, which is none", descriptor.digest());
            return Err(Error::Content { what: what.into(), why });
        }
    }
    Ok(())
}

/// A descriptor's digest, if it is one that kiln can check.
pub(crate) fn digest_of(what: &str, descriptor: &Descriptor) -> Result<Digest, Error> {
    Digest::try_from(descriptor.digest()).map_err(|e| Error::Content { what: what.into(), why: e.to_string() })
}
