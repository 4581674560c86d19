//! From names to pinned content, and from there to files: base images, the context, git repositories, web files, objects
//! of clouds.
//!
//! Nothing is fetched before it is needed. [`Puller`] downloads and unpacks the layers that a step must read.

mod archive;
mod bucket;
mod context;
mod dockerfile;
mod error;
mod file;
mod git;
mod growing;
mod http;
mod image;
mod layers;
mod layout;
mod local;
mod remote;
mod repositories;
mod resolve;
mod stop;
mod unpack;

pub use archive::{Loaded, load};
pub use bucket::{Buckets, ObjectUrl, credential_files, has_azure_credentials};
pub use context::{Fetched, unpacked};
pub use dockerfile::{DockerfileText, ignore_patterns, ignore_rules, read_dockerfile};
pub use error::{Error, Result};
pub use file::FileTree;
pub use git::Git;
pub use image::stored_image;
pub use layers::{Puller, note_same, note_tally};
pub use local::LocalTree;
pub use remote::Remotes;
pub use repositories::{note_repository, repositories};
pub use resolve::Resolver;
pub use stop::stopped;
