//! The level `chroot`: as `root`, where `pivot_root` is forbidden, as by Docker's seccomp profile with `--cap-add SYS_ADMIN`.
//!
//! The new root is moved over the old one and entered by `chroot`. The old one stays mounted below it in the process's mount
//! namespace, where no path leads: not by `..` either, also for a process that has left a changed root by the usual trick
//! (a second `chroot` below its working directory), since the walk up ends at the topmost mount of the namespace's root. To
//! unmount what lies above it takes CAP_SYS_ADMIN, which only `--security=insecure` gives.
//!
//! `/proc` and `/sys` are the host's where the kernel refuses new ones.

use super::host::Host;
use super::program::Door;
use super::{Error, Executor, Exit, PrivateNetwork, Spec, Stream};
use crate::sys::Cancel;
use std::sync::Arc;

/// Runs processes in a root entered by `chroot`. One serves a whole build; threads share it.
#[derive(Debug)]
pub struct ChrootExecutor {
    host: Host,
}

impl ChrootExecutor {
    /// Looks at the place once. `resolv_conf` is the host's `/etc/resolv.conf`, empty if there is none.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub fn new(resolv_conf: String) -> Result<Self, Error> {
        Ok(Self { host: Host::new(resolv_conf)? })
    }

    /// Puts processes that don't ask for a network on this one.
    pub fn on(self, network: Option<Arc<PrivateNetwork>>) -> Self {
        Self { host: self.host.on(network) }
    }
}

impl Executor for ChrootExecutor {
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error> {
        self.host.run(spec, Door::Chroot, output, cancel).map_err(|e| e.at_level("chroot"))
    }
}
