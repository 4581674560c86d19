//! From names to pinned content, and from there to files: base images, the context, git repositories, web files.
//!
//! Nothing is fetched before it is needed. [`Puller`] downloads and unpacks the layers that a step must read.

mod error;
mod growing;
mod layers;
mod local;
mod unpack;

pub use error::{Error, Result};
pub use layers::Puller;
pub use local::LocalTree;
