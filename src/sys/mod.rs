//! The system calls that the other modules need and `rustix` alone doesn't make easy; the only `unsafe` of the crate.
//!
//! | file | what |
//! |---|---|
//! | [`credentials`](Credentials) | credentials of another process, assumed by one thread |
//! | [`error`](Error) | a failed call, with its name and its path |
//! | [`cancel`](Cancel) | a flag that can be polled |
//! | [`signals`](Signals) | signals as data: queues, and those to this process |
//! | [`fork`](fork()) | a copy of this process |
//! | [`file`] | confined opening, nodes, owners, times, copying, locks |
//! | [`input`] | opening files whose names come from outside |
//! | [`program`] | finding helper programs |
//! | [`tree`] | removing folders, however deep |
//! | [`ipc`] | shared memory, semaphores and queues that have no name in a folder |
//! | [`xattr`] | extended attributes, never following a link |
//! | [`landlock`] | what a process gives up for good |
//! | [`netns`] | a network namespace, and who connects it |
//! | [`userns`] | a user namespace that an ordinary user is root in |
//! | [`own_program`] | this program's file, out of reach of the processes that it starts |
//! | [`recorded`] | what files are meant to be, where they can't be made so |
//! | [`notify`] | calls of other processes, answered here |
//! | [`child`] | a process in new namespaces, prepared as data and made by `clone` |
//!
//! `rustix` is used directly wherever it is enough (its `RawDir` reads folders, for one); what stands here adds the
//! path to the error, the confinement, or the call itself. Nothing here keeps state between calls, and nothing reads
//! the environment.

mod cancel;
pub mod child;
mod credentials;
mod error;
pub mod file;
mod fork;
pub mod input;
pub mod ipc;
pub mod landlock;
pub mod netns;
pub mod notify;
pub mod own_program;
mod processors;
pub mod program;
pub mod recorded;
mod root;
mod signals;
pub mod tree;
pub mod userns;
pub mod xattr;

pub use cancel::Cancel;
pub use credentials::{AssumedCredentials, Credentials};
pub use error::{Error, Result, Said};
pub use fork::{Forked, fork};
pub use processors::ProcessorTime;
pub use root::{MountPoint, RootMount};
pub use signals::{BlockedSignals, SignalReceiver, SignalSender, Signals, set_default_action, signal_queue};

use std::path::Path;

/// The identity of this boot, from `/proc/sys/kernel/random/boot_id`: what was written under another one may have been
/// lost by a power cut.
pub fn boot_id() -> Result<String> {
    let path = Path::new("/proc/sys/kernel/random/boot_id");
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(text.trim().to_owned()),
        Err(e) => Err(Error::from_io("read", path, &e)),
    }
}

/// Whether this process was told to ignore a signal, as `nohup` does; not where that can't be found out.
pub fn ignores(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    signal > 0 && mask.checked_shr(signal.unsigned_abs() - 1).is_some_and(|m| m & 1 == 1)
}

/// Sets a variable of this process's environment, for what is executed or looked up by it from now on. Only before there are
/// other threads.
pub fn set_variable(name: &str, value: &std::ffi::OsStr) {
    // SAFETY: nobody reads or writes the environment at the same time, as this is the only thread.
    unsafe { std::env::set_var(name, value) }
}

/// Removes a variable from this process's environment. Only before there are other threads.
pub fn remove_variable(name: &str) {
    // SAFETY: nobody reads or writes the environment at the same time, as this is the only thread.
    unsafe { std::env::remove_var(name) }
}

/// Makes the C library resolve names of hosts by `/etc/hosts` and DNS alone, whatever `/etc/nsswitch.conf` says from now on:
/// so that no file that stands in `/` later is loaded as a plugin.
pub fn resolve_without_plugins() {
    #[cfg(target_env = "gnu")]
    {
        unsafe extern "C" {
            fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
        }
        // SAFETY: both are strings that end, and the function copies what it keeps. Before there are other threads.
        unsafe { __nss_configure_lookup(c"hosts".as_ptr(), c"files dns".as_ptr()) };
    }
}

/// Keeps what this process has in memory out of core dumps, also those that go to a program by a pipe.
///
/// Root's process becomes undumpable: what it executes isn't. Anybody else's has to stay dumpable to give its children a
/// user namespace, and gets the limit of one byte instead, with which the kernel makes no dump of either sort; what it
/// executes inherits that.
pub fn leave_no_core_dump() -> Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, getrlimit, set_dumpable_behavior, setrlimit};
    if rustix::process::geteuid().is_root() {
        return set_dumpable_behavior(DumpableBehavior::NotDumpable).call("prctl(PR_SET_DUMPABLE)");
    }
    let maximum = getrlimit(Resource::Core).maximum;
    let current = Some(maximum.map_or(1, |m| m.min(1)));
    setrlimit(Resource::Core, Rlimit { current, maximum }).call("setrlimit(RLIMIT_CORE)")
}

#[cfg(test)]
mod tests {
    #[test]
    fn signals_that_are_ignored_are_known() {
        // The runtime of every Rust program ignores it.
        assert!(super::ignores(libc::SIGPIPE));
        assert!(!super::ignores(libc::SIGSEGV) && !super::ignores(0) && !super::ignores(1000));
    }

    #[test]
    fn boot_id_is_a_uuid() {
        let id = super::boot_id().unwrap();
        assert_eq!(id.len(), 36);
        assert_eq!(id, super::boot_id().unwrap());
    }
}
