//! What the command line needs to know about its surroundings, read once and passed on.

use super::own_program::{self, State};
use super::rootless::Rootless;
use crate::in_place::supervisor::SupervisorLink;
use crate::sandbox::PrivateNetwork;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

/// The process's surroundings. Nothing else in `cli` reads them, so a test can make any.
#[derive(Debug, Clone, Default)]
pub struct Env {
    /// The environment variables.
    pub vars: BTreeMap<OsString, OsString>,
    /// The working directory; relative paths of the command line start there.
    pub cwd: PathBuf,
    /// This program.
    pub program: PathBuf,
    /// The effective user; the one outside of the user namespace.
    pub uid: u32,
    /// Whether the process is in a user namespace of its own.
    pub rootless: Rootless,
    /// Whether this process has executed itself a second time ([`own_program`]).
    pub executed_again: bool,
    /// Why processes that it starts could reach this program's file, where it should be out of their reach.
    pub exposed: Option<String>,
    /// The process that supervises this one, where there is one.
    pub supervisor: Option<SupervisorLink>,
    /// The network of processes that don't ask for another, unless it is the host's.
    pub network: Option<Arc<PrivateNetwork>>,
    /// What names of hosts are resolved by, where the files of a RUN may stand in `/` later. `None` leaves them to the system.
    pub name_files: Option<NameFiles>,
    /// How many cores the process may use.
    pub cores: usize,
    /// The terminal behind standard error, where it is one.
    pub terminal: Option<Terminal>,
    /// The terminal behind standard output, where it is one.
    pub output: Option<Terminal>,
}

/// The texts of the files that say how names of hosts are resolved; empty where there is no such file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFiles {
    /// `/etc/hosts`
    pub hosts: String,
    /// `/etc/resolv.conf`
    pub resolv_conf: String,
}

/// The size of a terminal, in character cells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terminal {
    /// Characters in a line.
    pub columns: usize,
    /// Lines.
    pub rows: usize,
}

impl Env {
    /// The surroundings of this process. Fails where the working directory is gone, or `/proc` isn't mounted.
    pub fn current() -> io::Result<Self> {
        let mut vars: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
        let before = own_program::state_before(&mut vars);
        let executed_again = before.is_some();
        let State { program, uid, rootless } = match before {
            Some(state) => state,
            None => State {
                program: std::env::current_exe()?.into(),
                uid: rustix::process::geteuid().as_raw(),
                rootless: Rootless::Untried,
            },
        };
        Ok(Self {
            vars,
            cwd: std::env::current_dir()?,
            program: program.into(),
            uid,
            rootless,
            executed_again,
            exposed: None,
            supervisor: None,
            network: None,
            name_files: None,
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            terminal: Terminal::behind_stderr(),
            output: Terminal::behind(io::stdout()),
        })
    }

    /// Where programs are looked for: `$PATH`, empty where it isn't set.
    pub fn path(&self) -> OsString {
        self.vars.get(OsStr::new("PATH")).cloned().unwrap_or_default()
    }

    /// A variable's value; one that is no UTF-8 counts as unset.
    pub fn var(&self, name: &str) -> Option<&str> {
        self.vars.get(OsStr::new(name)).and_then(|v| v.to_str())
    }

    /// A variable's value, unless it is empty.
    pub fn set_var(&self, name: &str) -> Option<&str> {
        self.var(name).filter(|v| !v.is_empty())
    }
}

impl NameFiles {
    /// The files as they are now.
    pub fn read() -> Self {
        let text = |path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned();
        Self { hosts: text("/etc/hosts"), resolv_conf: text("/etc/resolv.conf") }
    }
}

impl Terminal {
    /// The terminal behind standard error, with its size now.
    pub fn behind_stderr() -> Option<Self> {
        Self::behind(io::stderr())
    }

    /// The terminal behind a stream, with its size now.
    fn behind(stream: impl io::IsTerminal + std::os::fd::AsFd) -> Option<Self> {
        if !stream.is_terminal() {
            return None;
        }
        let size = rustix::termios::tcgetwinsize(&stream).ok();
        let known = |n: u16, otherwise| if n == 0 { otherwise } else { usize::from(n) };
        Some(Self { columns: known(size.map_or(0, |s| s.ws_col), 80), rows: known(size.map_or(0, |s| s.ws_row), 24) })
    }
}
