//! The isolation level `in-place`: a RUN's process runs in `/` itself, without a namespace and without a mount. It is made for
//! root in an ordinary container, under Docker's default seccomp profile and capabilities.
//!
//! A stage's root filesystem is switched into `/` while its RUN executes, and the container's own files are set aside meanwhile.
//! One process runs at a time. Each mechanism of the other levels has a substitute here:
//!
//! | other levels | here | file |
//! |---|---|---|
//! | an overlay as the root | entries of `/` are renamed out, and those of the stage in | [`host_root`] |
//! | a layer's changes in the overlay's upper directory | a stat walk against an index | [`snapshotter`] |
//! | bind, cache, secret and tmpfs mounts, `/etc/hosts`, `/etc/resolv.conf` | renamed to their targets and back | `bind_emulation` |
//! | nothing of the host is visible | Landlock rules | [`confinement`] |
//! | … and where the kernel has no Landlock | credentials exist in memory only, while a RUN runs | [`hidden_files`], [`hidden_copy`] |
//! | the end of the PID namespace | a resource limit marks the processes of a RUN, which are found by it and killed | `reaper` |
//! | programs in `/dev` (heredocs) | the shell is given their interpreter | `shebang` |
//! | a tmpfs at `/dev` of each process | new files in shared mounts are removed | `shared_mounts` |
//! | `--network=none` | a filter that allows Unix sockets only | [`executor`] |
//!
//! Landlock has no exceptions: a rule for `/` would be one for kiln's own directory as well. So `/` is *split*
//! ([`SplitDirectory`](confinement::SplitDirectory)): it has no rule, and each of its entries has one. kiln answers some system calls of
//! the process through seccomp user notification (`responder`):
//!
//! | calls | file |
//! |---|---|
//! | those that create, rename or remove entries of split directories | `entry_request` decodes, `root_entries` answers, from a pool of inodes (`inode_pool`) that have a rule |
//! | those that list split directories | `root_listing` |
//! | those that change modes, owners, times and attributes, which Landlock does not restrict | `attribute_calls`, `hidden_owners` |
//! | those that change the limits and the scheduling of other processes | `process_calls` |
//! | those that connect to Unix sockets, on kernels whose Landlock does not restrict that | `socket_calls`, `socket_address`, `mute_sockets`, `datagram_relay` |
//!
//! `caller` has the credentials with which kiln acts for the process, `kept_processes` those processes that it could not look into any more.
//!
//! A second process, the [`supervisor`], cleans up when kiln is killed.
//!
//! Without CAP_SYS_ADMIN, Landlock and seccomp filters require `no_new_privs`: programs with the set-user-ID bit or with file
//! capabilities gain nothing. Only a RUN of a user other than root notices.

mod attribute_calls;
mod bind_emulation;
mod caller;
pub mod confinement;
mod crash_journal;
mod datagram_relay;
mod directory_metadata;
mod entry_request;
pub mod executor;
pub mod hidden_copy;
pub mod hidden_files;
mod hidden_owners;
pub mod host_root;
mod inode_pool;
mod kept_processes;
pub mod layout;
mod mute_sockets;
mod process_calls;
mod reaper;
mod responder;
mod root_entries;
mod root_listing;
mod shared_mounts;
mod shebang;
pub mod snapshotter;
mod socket_address;
mod socket_calls;
pub mod supervisor;
mod switch;
mod volumes;

pub use confinement::{Protection, SplitDirectory};
pub use executor::{InPlaceExecutor, end_all};
pub use hidden_copy::HiddenCopy;
pub use hidden_files::HiddenFiles;
pub use host_root::HostRoot;
pub use layout::Layout;
pub use snapshotter::{InPlaceSnapshotter, remove_copies};
