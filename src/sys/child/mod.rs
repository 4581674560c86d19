//! A process in new namespaces, prepared as data.
//!
//! [`Program::spawn`] makes a process with `clone(CLONE_VM | CLONE_VFORK)`: it runs in the caller's memory, on a stack of
//! its own, while the calling thread waits until it has executed its command or failed. That costs nothing per megabyte
//! of the caller's memory, as `fork` would, and lets the child leave what it finds (the failure, the stubs it made)
//! directly in the caller's memory. It forbids the child to allocate, to take a lock or to panic: it may be killed at any
//! point and other threads of the caller go on meanwhile. So the caller prepares everything as a list of [`Step`]s whose
//! strings and buffers exist already, and the child interprets it, system call after system call.
//!
//! Until the step [`Step::Stdio`], the child shares the table of open files with its maker. What it opens is named by a
//! [`Slot`], and what stands in a slot at the end belongs to the [`Child`]; so the caller gets a descriptor of the new root,
//! although that is mounted in the child's namespace alone, without passing it over a socket.
//!
//! | file | what |
//! |---|---|
//! | [`step`] | the steps |
//! | `interpret` | one step, in the child |
//! | `mounts` | the steps that mount |
//! | `target` | finding and making what is mounted on, confined to the new root |
//! | `identity` | user, groups, capabilities, seccomp |
//! | `finish` | standard streams, signals, the command |
//! | `spawn` | clone |
//! | `wait` | the running child, in its maker |
//! | [`stubs`] | removing what was made to be mounted on |

mod finish;
mod identity;
mod interpret;
mod mounts;
mod spawn;
pub mod step;
pub mod stubs;
mod target;
mod wait;

pub(in crate::sys) use identity::last_errno;
pub use spawn::{Failure, Namespaces};
pub use step::{Slot, Step};
pub use wait::{Child, Ended};

use super::{Error, Said as _};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::MountAttrFlags;
use std::os::fd::{AsFd, RawFd};

/// What a child is to do, and the memory it does it with.
#[derive(Debug, Default)]
pub struct Program {
    steps: Vec<Step>,
    slots: Vec<RawFd>,
    /// How many stubs there can be at most.
    stub_room: usize,
}

/// A slot that nothing stands in.
const EMPTY: RawFd = -1;

impl Program {
    /// A place for a descriptor that a step opens.
    pub fn slot(&mut self) -> Slot {
        self.slots.push(EMPTY);
        Slot(self.slots.len() - 1)
    }

    /// Adds a step to the end.
    pub fn push(&mut self, step: Step) {
        if let Step::Target(target) = &step {
            // Each component may have to be made, and a link that leads nowhere can lengthen the way.
            self.stub_room += target.path.to_bytes().iter().filter(|b| **b == b'/').count() + 16;
        }
        self.steps.push(step);
    }

    /// The steps so far.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }
}

/// Forbids to open devices in what is mounted at `path`, but not in what is mounted below it.
///
/// # Errors
/// Where nothing is mounted there, or CAP_SYS_ADMIN is missing.
pub fn forbid_devices(path: &std::path::Path) -> super::Result<()> {
    let mount = rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).said("open", path)?;
    mounts::set_own_flags(mount, MountAttrFlags::MOUNT_ATTR_NODEV).map_err(|f| Error::new(f.call, path, f.errno))
}

/// Sets flags of a mount that isn't mounted anywhere.
pub(super) fn set_flags(mount: impl AsFd, flags: MountAttrFlags) -> super::Result<()> {
    mounts::set_own_flags(mount, flags).map_err(|f| Error { call: f.call, path: None, errno: f.errno })
}

/// A system call that failed in the child; the step it was part of knows the path.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fault {
    call: &'static str,
    errno: Errno,
}

type Done<T = ()> = std::result::Result<T, Fault>;

/// Names the call: `rustix::…().fault("fsmount")?`.
trait Named<T> {
    fn fault(self, call: &'static str) -> Done<T>;
}

impl<T> Named<T> for rustix::io::Result<T> {
    fn fault(self, call: &'static str) -> Done<T> {
        self.map_err(|errno| Fault { call, errno })
    }
}

fn fail<T>(call: &'static str, errno: Errno) -> Done<T> {
    Err(Fault { call, errno })
}

impl Fault {
    fn at(self, step: &Step) -> Error {
        Error { call: self.call, path: step.about(), errno: self.errno }
    }
}
