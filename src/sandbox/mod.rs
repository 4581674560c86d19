//! One process in a root filesystem, kept from the host by namespaces, capabilities and a seccomp filter.
//!
//! What the process sees is what BuildKit's runc worker shows it: pid 1 in namespaces of its own, an overlay as its root,
//! `/proc`, `/sys` and `/dev` as a container has them, Docker's default capabilities and seccomp profile. Nothing is
//! mounted in the host's mount namespace, so that a sandbox whose maker was killed leaves no mount behind.
//!
//! The program that uses an executor must be protected ([`own_program`](crate::sys::own_program)): the process reaches its file.
//!
//! | file | what |
//! |---|---|
//! | [`spec`] | what is to run |
//! | [`Executor`] | who runs it; the contract of every isolation level |
//! | [`root`] | the level `root`: namespaces made by root |
//! | [`chroot`] | the level `chroot`: as `root`, without `pivot_root` |
//! | [`oci`] | the level `oci`: by an installed runtime |
//! | `host` | what a place gives to every process |
//! | `program` | a spec to the steps of a child |
//! | `begin` | its last steps, but for those of a runtime |
//! | `command` | its program and arguments |
//! | `overlay` | short paths for overlayfs |
//! | [`capabilities_for`] | what a process may, and why it has no raw sockets |
//! | `recorded` | a user namespace with a single number |
//! | `devices` | `/dev` |
//! | `kernel` | `/proc`, `/sys`, control groups, and what of them is hidden |
//! | [`network_files`] | hosts and resolv.conf |
//! | [`private_network`] | a network by pasta or slirp4netns |
//! | [`seccomp`] | Docker's profile to a filter |
//! | [`cgroup`] | limits, and whether memory ran out |
//! | `output` | what the process writes |
//! | `control` | signals for the process, and its end from outside |
//! | [`terminal`] | a person's terminal connected to the sandbox's |
//! | [`probe`] | which levels work here |

mod begin;
pub mod cgroup;
pub mod chroot;
pub(crate) mod command;
pub(crate) mod control;
mod devices;
mod error;
pub(crate) mod host;
mod kernel;
pub mod network_files;
pub mod oci;
mod output;
mod overlay;
pub mod private_network;
pub mod probe;
pub(crate) mod program;
mod raw_sockets;
mod recorded;
pub mod root;
pub mod seccomp;
pub mod spec;
pub mod terminal;

pub use chroot::ChrootExecutor;
pub use error::{Error, Part};
pub use oci::{OciExecutor, forbid_devices};
pub use private_network::{Helper, PrivateNetwork};
pub use probe::Level;
pub use raw_sockets::capabilities_for;
pub use root::RootExecutor;
pub use spec::{Limits, Mount, MountKind, Network, Spec, Stdio, User};

use crate::sys::{Cancel, MountPoint};

/// What every process has something mounted on. A root filesystem that has these needs none of them made, nor taken away.
pub const MOUNT_POINTS: [MountPoint; 5] = [
    MountPoint { path: "proc", folder: true },
    MountPoint { path: "sys", folder: true },
    MountPoint { path: "dev", folder: true },
    MountPoint { path: "etc/resolv.conf", folder: false },
    MountPoint { path: "etc/hosts", folder: false },
];

/// Which of its streams a process wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its status, 0 to 255; 128 + the signal's number for one that a signal killed, as shells and Docker have it.
    pub code: i32,
    /// The signal that killed it.
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of it for want of memory; an executor only knows where a limit was asked for.
    pub out_of_memory: bool,
}

impl Exit {
    /// Whether it ended well.
    pub fn success(self) -> bool {
        self.code == 0
    }
}

/// Runs processes at one isolation level.
///
/// The contract of every implementation:
///
/// - `run` comes back when the process has ended and *nothing of it lives any more*: no process it started, no mount, no
///   control group, no temporary file, whether it ended well, failed, was cancelled, or never started.
/// - The root filesystem is changed by what the process did and by nothing else: what had to be made to mount something on
///   is gone again if it is still empty.
/// - A process that ran and failed is an [`Exit`], not an error. An error says that it wasn't run, or not to its end.
/// - Two runs at the same time don't know of each other, unless their specs name the same folders.
/// - The spec comes from hostile files: names in it, and links in the root filesystem, lead nowhere outside.
pub trait Executor: Send + Sync {
    /// Runs one process to its end, handing on what it writes in the order of its arrival, in the calling thread.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the flag was set before the end; [`Error::Command`] if there is no such program or it can't
    /// be executed; [`Error::Call`] if the kernel refused something.
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error>;
}
