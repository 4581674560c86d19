//! kiln builds OCI images from Dockerfiles without a daemon.
//!
//! Data flows one way, and each module uses only those above it (`tests/layering.rs` holds that):
//!
//! | module | what it does | effects |
//! |---|---|---|
//! | [`report`] | spans, diagnostics, problems, progress events, and how each is drawn | none |
//! | [`oci`] | references, digests, platforms, descriptors, image configuration | none |
//! | [`sys`] | the system calls; the only `unsafe` | kernel |
//! | [`dockerfile`] | text to instructions with spans; word expansion; ignore rules; lints | none |
//! | [`plan`] | instructions, arguments and resolved bases to a [`plan::BuildPlan`] | none |
//! | [`store`] | verified blobs, names, cache records, locks | disk |
//! | [`layer`] | a tree to a tar stream and back | streams |
//! | [`snapshot`] | root filesystems: prepare, view, diff, commit | disk |
//! | [`sandbox`] | one process in a root filesystem | processes |
//! | [`in_place`] | the isolation level that runs a process in `/` itself | disk, processes |
//! | [`registry`] | the distribution protocol | network |
//! | [`source`] | names to pinned digests, contexts to hashed trees | network, disk |
//! | [`solve`] | keys, cache, the scheduler that runs a plan | all of these |
//! | [`export`] | a solved image to a registry, an archive, a directory | disk, network |
//! | [`cli`] | flags to requests, events to the terminal | terminal |
//!
//! Start reading at [`plan::op`], which names everything a build can do, then [`solve`].

pub mod cli;
pub mod dockerfile;
pub mod export;
pub mod in_place;
pub mod layer;
pub mod oci;
pub mod plan;
pub mod registry;
pub mod report;
pub mod sandbox;
pub mod snapshot;
pub mod solve;
pub mod source;
pub mod store;
#[allow(unsafe_code)]
pub mod sys;
