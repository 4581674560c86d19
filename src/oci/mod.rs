//! The OCI image specification's nouns: [`Digest`], [`Reference`], [`Platform`], [`Descriptor`], [`ImageConfig`].
//!
//! [`assemble`] makes the documents of an image out of them.
//!
//! Pure: nothing here reads a file or a socket. Manifests, indexes and descriptors are `oci-spec`'s; the image
//! configuration is kiln's own, because Docker's fields (`Healthcheck`, `OnBuild`, `Shell`) are missing there.

pub mod assemble;
mod config;
mod digest;
mod json;
mod platform;
mod reference;

pub use config::{ContainerConfig, Healthcheck, History, ImageConfig, RootFs};
pub use digest::{Digest, DigestError, Hasher};
pub use json::{JsonError, MAX_VALUES, read_json};
pub use oci_spec::image::{Descriptor, ImageIndex, ImageManifest, MediaType};
pub use platform::{Platform, PlatformError};
pub use reference::{Reference, ReferenceError};

/// Media types of Docker's image manifest, version 2, schema 2, which registries still serve.
pub mod docker {
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    /// A list of manifests by platform.
    pub const MANIFEST_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    /// An image configuration.
    pub const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    /// A gzip layer.
    pub const LAYER_GZIP: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";
}

/// Whether a descriptor of this type is a layer's that can be unpacked: a tar, as it is or in gzip or zstd, by OCI's name or Docker's.
pub fn is_layer(media_type: &MediaType) -> bool {
    let docker_layers = [
        docker::LAYER_GZIP,
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
    ];
    matches!(media_type, MediaType::ImageLayer | MediaType::ImageLayerGzip | MediaType::ImageLayerZstd)
        || docker_layers.contains(&media_type.to_string().as_str())
}

/// Whether a descriptor of this type is a manifest's or an index's, by OCI's name or Docker's.
pub fn is_manifest_or_index(media_type: &MediaType) -> bool {
    let docker = [docker::MANIFEST, docker::MANIFEST_LIST];
    matches!(media_type, MediaType::ImageManifest | MediaType::ImageIndex)
        || docker.contains(&media_type.to_string().as_str())
}

/// Whether a descriptor of this type is an image configuration's, by OCI's name or Docker's.
pub fn is_config(media_type: &MediaType) -> bool {
    *media_type == MediaType::ImageConfig || media_type.to_string() == docker::CONFIG
}

/// A descriptor of `bytes` under `media_type`.
pub fn describe(media_type: MediaType, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, bytes.len() as u64, Digest::of(bytes).to_spec())
}
