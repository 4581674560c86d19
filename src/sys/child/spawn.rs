//! Making the child.

use super::interpret::{self, State};
use super::stubs;
use super::wait::Child;
use super::{EMPTY, Program};
use crate::sys::{Error, Result, Said};
use rustix::process::{DumpableBehavior, Pid, PidfdFlags};
use std::ffi::{c_int, c_void};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// The namespaces that are new for a child, besides those of mounts, processes, messages and names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Namespaces {
    /// Its network has a loopback device alone.
    pub network: bool,
    /// None is new, whatever else is asked for.
    pub none: bool,
    /// Only a network is new, and a user namespace that it belongs to.
    pub users_network: bool,
}

impl Namespaces {
    /// All are its maker's.
    pub const NONE: Self = Self { network: false, none: true, users_network: false };
    /// Only a network is new, and a user namespace that it belongs to.
    pub const USERS_NETWORK: Self = Self { network: false, none: false, users_network: true };

    fn flags(self) -> c_int {
        if self.none {
            return 0;
        }
        if self.users_network {
            return libc::CLONE_NEWUSER | libc::CLONE_NEWNET;
        }
        let always = libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;
        always | if self.network { libc::CLONE_NEWNET } else { 0 }
    }
}

/// Why a child didn't come to its command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{error}")]
pub struct Failure {
    /// The call that failed.
    pub error: Error,
    /// The index of the step in the program; `None` where the process couldn't be made at all.
    pub step: Option<usize>,
    /// For `execve`: the index of the candidate that is to blame; the number of candidates where none is there.
    pub candidate: usize,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, step: None, candidate: 0 }
    }
}

/// Bytes of the child's stack; the interpreter's buffers take a good 30,000.
const STACK: usize = 256 << 10;

struct Job<'a> {
    program: &'a Program,
    state: State,
}

impl Program {
    /// Makes the child and waits until it has executed its command.
    ///
    /// # Errors
    /// The first step that failed; by then the child is gone and the stubs it had made are removed.
    pub fn spawn(mut self, namespaces: Namespaces) -> std::result::Result<Child, Failure> {
        let maker = rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).call("pidfd_open")?;
        let slots = std::mem::take(&mut self.slots);
        let state = State {
            slots,
            stubs: Vec::with_capacity(self.stub_room),
            maker,
            failure: None,
            candidate: 0,
            masked_folder: false,
        };
        let mut job = Job { program: &self, state };
        let (pid, pidfd) = clone(&mut job, namespaces.flags())?;
        let State { slots, stubs, failure, candidate, .. } = job.state;
        let slots = slots.into_iter().map(own).collect();
        let child = Child::new(pid, pidfd, slots, stubs);
        let Some((number, fault)) = failure else { return Ok(child) };
        let error = match self.steps.get(number) {
            Some(step) => fault.at(step),
            None => Error { call: fault.call, path: None, errno: fault.errno },
        };
        // The step's failure is what matters; a stub that stays is the lesser one.
        let _ = child.wait_and_take().map(|(_, made)| stubs::remove(made));
        Err(Failure { error, step: Some(number), candidate })
    }
}

fn own(fd: RawFd) -> Option<OwnedFd> {
    // SAFETY: the child put it there for its maker to own; nobody else knows it.
    (fd != EMPTY).then(|| unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Runs the job in a new process that shares this one's memory and open files, until that executes a command or exits.
fn clone(job: &mut Job<'_>, namespaces: c_int) -> Result<(Pid, OwnedFd)> {
    let stack = Stack::new()?;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::CLONE_PIDFD | libc::SIGCHLD | namespaces;
    let mut pidfd: RawFd = EMPTY;
    let dumpable = rustix::process::dumpable_behavior().ok();
    let masked = Masked::all();
    // SAFETY: the stack is the child's alone and outlives it, as this thread waits (CLONE_VFORK); so does the job, which
    // nobody else touches meanwhile. Signals are blocked, so that no handler of this process runs in the child.
    let pid = unsafe { libc::clone(child, stack.top(), flags, std::ptr::from_mut(job).cast(), &raw mut pidfd) };
    let errno = super::identity::last_errno();
    drop(masked);
    // A change of user in the child marks the shared memory as not to be dumped.
    if let Some(DumpableBehavior::Dumpable) = dumpable {
        let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable);
    }
    let made = (pid > 0).then_some(pid).and_then(Pid::from_raw).zip(own(pidfd));
    made.ok_or(Error { call: "clone", path: None, errno })
}

extern "C" fn child(job: *mut c_void) -> c_int {
    // SAFETY: `clone` passes the job on, and its maker waits.
    let job = unsafe { &mut *job.cast::<Job<'_>>() };
    interpret::run(&job.program.steps, &mut job.state);
    // SAFETY: ends this process without running anything of its maker's.
    unsafe { libc::_exit(127) }
}

/// All signals blocked in this thread, until dropped.
struct Masked(libc::sigset_t);

impl Masked {
    fn all() -> Self {
        // SAFETY: both sets are this function's own.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Masked {
    fn drop(&mut self) {
        // SAFETY: restores what was there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, std::ptr::null_mut()) };
    }
}

/// Memory for a stack, with a page at its end that faults.
struct Stack(*mut c_void);

impl Stack {
    fn new() -> Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK;
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: asks for new memory anywhere, and makes its lowest page inaccessible.
        unsafe {
            let base = libc::mmap(std::ptr::null_mut(), STACK, access, flags, -1, 0);
            if base == libc::MAP_FAILED || libc::mprotect(base, 4096, libc::PROT_NONE) != 0 {
                return Err(Error { call: "mmap", path: None, errno: super::identity::last_errno() });
            }
            Ok(Self(base))
        }
    }

    /// Stacks grow down.
    fn top(&self) -> *mut c_void {
        self.0.wrapping_byte_add(STACK)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the memory is this value's own.
        unsafe { libc::munmap(self.0, STACK) };
    }
}
