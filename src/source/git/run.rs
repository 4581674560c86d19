//! Running the git program.

use super::Git;
use crate::source::error::{Error, Result};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{ErrorKind, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// The most that git's output may have, in bytes: a repository with a million references has this much.
const MOST: usize = 128 << 20;

/// Settings that no repository may change.
const SETTINGS: [&str; 12] = [
    "-c",
    "core.hooksPath=/dev/null",
    "-c",
    "core.fsmonitor=false",
    "-c",
    "core.autocrlf=false",
    "-c",
    "init.defaultBranch=master",
    "-c",
    "advice.detachedHead=false",
    "-c",
    "gc.auto=0",
];

/// How ssh is run: as the user says in `$GIT_SSH_COMMAND`, and so that it asks nothing on the terminal. Host keys are
/// checked as ever: unknown ones are refused.
pub(super) fn ssh_command(own: Option<String>) -> String {
    let own = own.filter(|c| !c.trim().is_empty()).unwrap_or_else(|| "ssh".into());
    let program = own.split_whitespace().next().unwrap_or_default();
    // Others have other options.
    let is_openssh = Path::new(program).file_name().is_some_and(|name| name == "ssh");
    if is_openssh { format!("{own} -o BatchMode=yes") } else { own }
}

impl Git {
    /// Runs git, in a folder if one is given, and returns what it writes. `remote` is what errors name.
    pub(super) fn run(&self, remote: &str, folder: Option<&Path>, args: &[&str]) -> Result<String> {
        let none = || Error::NoGit(crate::registry::shown(remote));
        // It may be gone since it was looked for.
        let program = self.program.as_ref().filter(|p| p.exists()).ok_or_else(none)?;
        let mut command = Command::new(program);
        command.args(SETTINGS).args(args).env_clear().envs(self.environment.iter().map(|(k, v)| (k, v)));
        command.envs([
            ("GIT_ALLOW_PROTOCOL", self.protocols.as_str()),
            ("GIT_CONFIG_NOSYSTEM", "1"),
            ("GIT_CONFIG_GLOBAL", "/dev/null"),
            ("GIT_TERMINAL_PROMPT", "0"),
            ("GIT_ASKPASS", "true"),
            ("GIT_LFS_SKIP_SMUDGE", "1"),
            ("GIT_SSH_COMMAND", self.ssh.as_str()),
            ("LC_ALL", "C"),
        ]);
        command.envs(self.token.variables(remote));
        if let Some(folder) = folder {
            command.current_dir(folder);
        }
        // A group of its own: its helpers end with it.
        command.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().map_err(|e| self.failed(remote, e.to_string()))?;
        let (ok, output, errors) = self.watch(remote, Running(child))?;
        if ok {
            return Ok(String::from_utf8_lossy(&output).into_owned());
        }
        Err(self.failed(remote, self.token.hidden(&said(&String::from_utf8_lossy(&errors), remote))))
    }

    /// Reads a child's output until it ends, or the build is stopped.
    fn watch(&self, remote: &str, mut child: Running) -> Result<(bool, Vec<u8>, Vec<u8>)> {
        let failed = |e: std::io::Error| self.failed(remote, e.to_string());
        let (Some(mut stdout), Some(mut stderr)) = (child.0.stdout.take(), child.0.stderr.take()) else {
            return Err(self.failed(remote, "it has no output".into()));
        };
        let (mut output, mut errors) = (Vec::new(), Vec::new());
        let (mut more_output, mut more_errors) = (true, true);
        while more_output || more_errors {
            let wanted = |more| if more { PollFlags::IN } else { PollFlags::empty() };
            let mut fds = [
                PollFd::new(&stdout, wanted(more_output)),
                PollFd::new(&stderr, wanted(more_errors)),
                PollFd::new(&self.cancel, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Err(rustix::io::Errno::INTR) => continue,
                other => other.map_err(|e| failed(e.into()))?,
            };
            let [out, err, _] = fds.map(|fd| !fd.revents().is_empty());
            if self.cancel.is_cancelled() {
                return Err(Error::Cancelled);
            }
            if out && more_output {
                more_output = read_some(&mut stdout, &mut output).map_err(failed)?;
            }
            if err && more_errors {
                more_errors = read_some(&mut stderr, &mut errors).map_err(failed)?;
            }
        }
        let status = child.0.wait().map_err(failed)?;
        Ok((status.success(), output, errors))
    }
}

/// A process that is killed with its helpers unless it has ended.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.0.try_wait(), Ok(None)) {
            if let Some(group) = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw) {
                let _ = kill_process_group(group, Signal::KILL);
            }
            let _ = self.0.wait();
        }
    }
}

/// Reads what is there; whether there may be more.
fn read_some(from: &mut impl Read, into: &mut Vec<u8>) -> std::io::Result<bool> {
    let mut buffer = [0; 16 << 10];
    match from.read(&mut buffer) {
        Ok(0) => Ok(false),
        Ok(n) if into.len() + n > MOST => Err(std::io::Error::other("it writes without end")),
        Ok(n) => {
            into.extend_from_slice(buffer.get(..n).unwrap_or_default());
            Ok(true)
        }
        Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
        Err(e) => Err(e),
    }
}

/// What git said of a failure: its last lines, without secrets of the address.
fn said(errors: &str, remote: &str) -> String {
    let shown = crate::registry::shown(remote);
    let secret = remote.split_once("://").and_then(|(_, rest)| rest.split(['/', '?']).next()?.rsplit_once('@'));
    let mut text = errors.replace(remote, &shown);
    if let Some((user, _)) = secret {
        text = text.replace(user, "…");
    }
    let lines: Vec<&str> = text.lines().map(str::trim).filter(|l| !l.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(4)..).unwrap_or_default().join("; ");
    let clean: String = last.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(600).collect();
    if clean.is_empty() { "git failed without a word".into() } else { clean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ssh_is_run_as_its_user_says_and_checks_host_keys() {
        for (own, want) in [
            (None, "ssh -o BatchMode=yes"),
            (Some(" "), "ssh -o BatchMode=yes"),
            (Some("/usr/bin/ssh -i key"), "/usr/bin/ssh -i key -o BatchMode=yes"),
            (Some("plink -batch"), "plink -batch"),
        ] {
            let command = ssh_command(own.map(str::to_owned));
            assert_eq!(command, want);
            assert!(!command.contains("HostKey") && !command.contains("KnownHosts"), "{command}");
        }
    }
}
