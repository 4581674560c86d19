//! A network that is neither the host's nor empty: a namespace that pasta or slirp4netns connects to the world, by sockets of
//! its own. Processes in it have none of the host's devices, and don't reach what listens on the host's loopback device.
//!
//! There is one for a whole build, as there is one host: to start pasta takes longer than most steps.

use super::Error;
use super::network_files::servers;
use crate::sys::{Said as _, netns, userns};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A program that connects a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Helper {
    /// `pasta`, of passt: processes have the addresses of the host.
    Pasta,
    /// `slirp4netns`: processes are in 10.0.2.0/24.
    Slirp4netns,
}

impl Helper {
    /// Its program, as `--network` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pasta => "pasta",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// The package that has it.
    fn package(self) -> &'static str {
        match self {
            Self::Pasta => "passt",
            Self::Slirp4netns => "slirp4netns",
        }
    }

    /// Where processes find the host's server of names.
    fn server(self) -> &'static str {
        match self {
            Self::Pasta => "169.254.1.1",
            Self::Slirp4netns => "10.0.2.3",
        }
    }

    /// Its arguments: the namespace is its standard input, and it writes to standard output when it is ready. By descriptors
    /// that a program leaves open, and not by paths, which its own confinement forbids it.
    fn args(self, names: bool) -> Vec<&'static str> {
        const NAMESPACE: &str = "/proc/self/fd/0";
        if self == Self::Slirp4netns {
            let flags = ["--configure", "--mtu=65520", "--disable-host-loopback", "--ready-fd=1", "--netns-type=path"];
            return [&flags[..], &[NAMESPACE, "tap0"]].concat();
        }
        let mut args = vec!["--foreground", "--config-net", "--netns-only", "--no-map-gw", "--quiet"];
        // No port is forwarded, in neither direction.
        args.extend(["-t", "none", "-u", "none", "-T", "none", "-U", "none"]);
        args.extend(["--pid", "/proc/self/fd/1", "--netns", NAMESPACE]);
        if names {
            args.extend(["--dns-forward", self.server()]);
        }
        // As nobody, which root becomes otherwise, it couldn't open the namespace.
        args.extend(["--runas", "0"]);
        args
    }
}

/// A connected namespace. Its helper ends when this is dropped, or with the thread that made it.
#[derive(Debug)]
pub struct PrivateNetwork {
    namespace: OwnedFd,
    resolv_conf: String,
    helper: Mutex<Child>,
}

impl PrivateNetwork {
    /// Connects a new one. `path` is `$PATH`, `resolv_conf` the host's.
    ///
    /// # Errors
    /// Where the program is missing or fails, or there can be no namespace.
    pub fn start(helper: Helper, path: &OsStr, resolv_conf: &str) -> Result<Self, Error> {
        let failed = |said: String| Error::Network { helper: helper.name(), said };
        let program = userns::find(helper.name(), path).ok_or_else(|| {
            failed(format!("it isn't in $PATH; Debian and Ubuntu have it in the package {}", helper.package()))
        })?;
        let namespace = netns::new()?;
        let input = namespace.try_clone().call("dup")?;
        let names = servers(resolv_conf).next().is_some();
        let mut command = Command::new(&program);
        command.args(helper.args(names)).env_clear().current_dir(Path::new("/"));
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = netns::spawn_bound(&mut command).map_err(|e| failed(e.to_string()))?;
        // The command holds ends of its own of what it was given.
        drop(command);
        let mut ready = [0; 16];
        let told = child.stdout.take().map(|mut out| out.read(&mut ready)).transpose();
        let network =
            Self { namespace, resolv_conf: forwarded(resolv_conf, helper.server()), helper: Mutex::new(child) };
        match told {
            Ok(Some(count)) if count > 0 => Ok(network),
            _ => Err(failed(network.complaint())),
        }
    }

    /// What a helper that failed said.
    fn complaint(&self) -> String {
        let mut child = self.helper.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = child.kill();
        let mut said = String::new();
        if let Some(errors) = child.stderr.take() {
            let _ = errors.take(4 << 10).read_to_string(&mut said);
        }
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|l| !l.is_empty() && !l.contains("syslog")).collect();
        if lines.is_empty() { "it ended without a word".into() } else { lines.join("; ") }
    }

    /// The namespace.
    pub(super) fn namespace(&self) -> Result<OwnedFd, Error> {
        Ok(self.namespace.as_fd().try_clone_to_owned().call("dup")?)
    }

    /// The `/etc/resolv.conf` of its processes.
    pub(super) fn resolv_conf(&self) -> &str {
        &self.resolv_conf
    }
}

impl Drop for PrivateNetwork {
    fn drop(&mut self) {
        let child = self.helper.get_mut().unwrap_or_else(PoisonError::into_inner);
        // It can only have ended already.
        let _ = child.kill();
        let _ = child.wait();
    }
}

/// The host's `/etc/resolv.conf` with the helper as its only server: the host's may be where processes don't reach it.
fn forwarded(host: &str, server: &str) -> String {
    if servers(host).next().is_none() {
        return host.to_owned();
    }
    let others = host.lines().filter(|line| !line.starts_with("nameserver"));
    others.map(str::to_owned).chain([format!("nameserver {server}")]).map(|line| line + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_asked_of_the_helper() {
        let host = "# x\nnameserver 127.0.0.53\nsearch example.org\nnameserver ::1\n";
        assert_eq!(forwarded(host, "10.0.2.3"), "# x\nsearch example.org\nnameserver 10.0.2.3\n");
        assert_eq!(forwarded("search a\n", "10.0.2.3"), "search a\n");
    }

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        for (helper, package) in [(Helper::Pasta, "passt"), (Helper::Slirp4netns, "slirp4netns")] {
            let error = PrivateNetwork::start(helper, OsStr::new("/nonexistent"), "").unwrap_err().to_string();
            assert!(error.contains(helper.name()) && error.contains(&format!("package {package}")), "{error}");
        }
    }
}
