//! The level `root`: namespaces, overlayfs and pivot_root, with the rights of root (CAP_SYS_ADMIN). Linux 5.12 at least.
//!
//! The process is pid 1 of its pid namespace: when it ends, everything it started ends, too. It has its own mount, ipc, uts
//! and cgroup namespaces, and a network namespace with a loopback device alone where its spec says
//! [`Network::None`](super::Network::None); otherwise it is on the host's network.
//!
//! A control group is made only where limits are asked for: making and removing one costs more than all the rest of a small
//! step (a removal waits for the kernel's grace periods), and pid 1's end is enough to end everything.

use super::host::Host;
use super::program::Door;
use super::{Error, Executor, Exit, PrivateNetwork, Spec, Stream};
use crate::sys::Cancel;
use std::sync::Arc;

/// Runs processes with the rights of root. One serves a whole build; threads share it.
#[derive(Debug)]
pub struct RootExecutor {
    host: Host,
}

impl RootExecutor {
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

impl Executor for RootExecutor {
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error> {
        let level = if self.host.way.user_attributes { "rootless" } else { "root" };
        self.host.run(spec, Door::Pivot, output, cancel).map_err(|e| e.at_level(level))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::overlay::Calls;
    use crate::sandbox::{Mount, MountKind};
    use crate::sys::RootMount;
    use std::fs;

    /// As on a kernel before 6.5. Needs root and Debian's busybox-static.
    #[test]
    fn overlays_by_mount_show_the_same() {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["base", "l:1", "l,2", "upper", "work", "up", "wk"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::copy("/bin/busybox", path("base/sh")).unwrap();
        fs::write(path("l:1/f"), "one\n").unwrap();
        fs::write(path("l,2/f"), "two\n").unwrap();
        fs::write(path("l,2/g"), "two\n").unwrap();
        let lowers = vec![path("l:1"), path("l,2")];
        let (upper, work) = (path("upper"), path("work"));
        let root = RootMount::Overlay { lowers: vec![path("l:1"), path("l,2"), path("base")], upper, work };
        let command = "read a < /f; read b < /tree/g; read c < /rw/f; echo x > /rw/new; echo y > /made; echo $a $b $c";
        let mut spec = Spec::new(root, ["/sh", "-c", command].map(String::from).to_vec());
        let other = RootMount::Overlay { lowers: lowers.clone(), upper: path("up"), work: path("wk") };
        let mount = |target: &str, kind| Mount { target: target.into(), kind };
        spec.mounts = vec![
            mount("/tree", MountKind::Layers { lowers, path: "".into() }),
            mount("/rw", MountKind::Tree { root: other, path: "".into(), readonly: false }),
        ];
        let mut executor = RootExecutor::new(String::new()).unwrap();
        executor.host.way.calls = Calls::Mount;
        let mut out = Vec::new();
        let exit = executor.run(&spec, &mut |_, bytes| out.extend_from_slice(bytes), &Cancel::new().unwrap());
        assert!(exit.as_ref().is_ok_and(|e| e.success()), "{exit:?} {}", String::from_utf8_lossy(&out));
        assert_eq!(out, b"one two one\n");
        let list = |name: &str| fs::read_dir(path(name)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(list("up"), ["new"]);
        assert_eq!(list("upper"), ["made"]);
    }
}
