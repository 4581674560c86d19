//! The credentials of the process that makes a call, and the identity in which kiln's thread acts for it.

use super::kept_processes::{Change, KeptProcesses};
use crate::sys::notify::Call;
use crate::sys::{AssumedCredentials, Credentials};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::ffi::{CStr, CString};

/// The process that makes a call, as far as access to files is concerned.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// The number of the process.
    pub(super) process: u32,
    pub(super) umask: u32,
    pub(super) credentials: Credentials,
}

impl Caller {
    /// The caller; `None` if the call does not wait any more.
    pub(super) fn of(call: &Call<'_>) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", call.thread())).ok()?;
        if call.is_alive() { parse(&status) } else { None }
    }

    /// Whether it is neither root nor has a capability that gives rights over other users' files.
    pub(super) fn is_unprivileged(&self) -> bool {
        self.credentials.uid != 0 && !self.credentials.capabilities.intersects(OVER_FILES)
    }
}

/// The capabilities that matter for access to files and for changes of their attributes.
const OVER_FILES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::DAC_READ_SEARCH)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::LINUX_IMMUTABLE)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// The identity of the thread that answers calls: kiln's own, or that of a caller. The thread keeps an identity for as many calls as
/// it fits.
#[derive(Debug, Default)]
pub(super) struct AssumedIdentity {
    now: Option<(Credentials, AssumedCredentials)>,
    kept: KeptProcesses,
}

impl AssumedIdentity {
    /// Reads the string at an address of the caller.
    ///
    /// # Errors
    /// As [`Call::string`].
    pub(super) fn read(&mut self, call: &Call<'_>, address: u64) -> Result<CString, Errno> {
        self.look(call, || call.string(address))
    }

    /// Reads the bytes at an address of the caller.
    ///
    /// # Errors
    /// As [`Call::bytes`].
    pub(super) fn bytes(&mut self, call: &Call<'_>, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        self.look(call, || call.bytes(address, length))
    }

    /// Looks into the caller. Without CAP_SYS_PTRACE, the kernel allows that only to a process of the same user and group that has all
    /// capabilities of the caller. So this is tried with the present identity, with kiln's own and with the caller's IDs, and
    /// the thread keeps the identity that may.
    ///
    /// # Errors
    /// `EACCES` if none of them may, and nothing of the process was [kept](Self::keep): it is a copy of a process that changed its IDs,
    /// for example.
    pub(super) fn look<T>(&mut self, call: &Call<'_>, look: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match look() {
            Err(Errno::ACCESS) => {}
            looked => return looked,
        }
        if self.now.take().is_some() {
            match look() {
                Err(Errno::ACCESS) => {}
                looked => return looked,
            }
        }
        let credentials = Caller::of(call).ok_or(Errno::SRCH)?.credentials;
        self.set(&Credentials { capabilities: CapabilitySet::all(), ..credentials })?;
        match (look(), self.kept.get(call)) {
            (Err(Errno::ACCESS), Some(kept)) => {
                call.look_by(kept);
                look()
            }
            (looked, _) => looked,
        }
    }

    /// Keeps what is needed to look into the caller, which is about to change its IDs, or forgets it.
    pub(super) fn keep(&mut self, call: &Call<'_>, change: Change) {
        match change {
            // One that cannot be looked into has changed them before.
            Change::Ids => {
                if let Ok(kept) = self.look(call, || call.keep()) {
                    self.kept.insert(call, kept);
                }
            }
            Change::Root => self.kept.remove(call),
        }
    }

    /// Assumes a caller's credentials, capabilities included, so that the kernel refuses kiln what it would refuse the caller.
    ///
    /// # Errors
    /// As [`Credentials::assume`].
    pub(super) fn assume(&mut self, caller: &Caller) -> Result<(), Errno> {
        if is_own(&caller.credentials)? {
            self.leave();
            return Ok(());
        }
        self.set(&caller.credentials)
    }

    /// Does something with a caller's credentials as real and effective ones, which sockets tell their peers. Afterwards the thread
    /// has kiln's own identity.
    ///
    /// # Errors
    /// As [`Credentials::assume_fully`], and those of `act`.
    pub(super) fn fully<T>(
        &mut self,
        credentials: &Credentials,
        act: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<T, Errno> {
        self.leave();
        let assumed = if is_own(credentials)? { None } else { Some(credentials.assume_fully()?) };
        let done = act();
        drop(assumed);
        done
    }

    fn set(&mut self, credentials: &Credentials) -> Result<(), Errno> {
        if self.now.as_ref().is_some_and(|(same, _)| same == credentials) {
            return Ok(());
        }
        self.now = None;
        self.now = Some((credentials.clone(), credentials.assume()?));
        Ok(())
    }

    /// Returns to kiln's own identity.
    pub(super) fn leave(&mut self) {
        self.now = None;
    }
}

/// The caller's descriptor that a path begins with, and the rest of the path behind it: `/dev/stdout` or `/proc/self/fd/3/name`. To kiln
/// these paths would mean its own descriptors.
pub(super) fn own_descriptor(path: &CStr) -> Option<(i32, Option<CString>)> {
    let number = match path.to_bytes() {
        b"/dev/stdin" => return Some((0, None)),
        b"/dev/stdout" => return Some((1, None)),
        b"/dev/stderr" => return Some((2, None)),
        path => {
            let directories = [&b"/proc/self/fd/"[..], b"/proc/thread-self/fd/", b"/dev/fd/"];
            directories.iter().find_map(|directory| path.strip_prefix(*directory))?
        }
    };
    let (number, rest) = match number.iter().position(|b| *b == b'/') {
        None => (number, None),
        Some(at) => (number.get(..at)?, number.get(at..)),
    };
    let digits = std::str::from_utf8(number).ok().filter(|n| n.bytes().all(|b| b.is_ascii_digit()))?;
    let rest = rest.map(|rest| rest.iter().skip_while(|b| **b == b'/').copied().collect::<Vec<u8>>());
    Some((digits.parse().ok()?, rest.map(CString::new).transpose().ok()?))
}

/// Whether kiln's own identity gives no other rights over files than these credentials.
fn is_own(credentials: &Credentials) -> Result<bool, Errno> {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if (credentials.uid, credentials.gid) != (uid, gid) {
        return Ok(false);
    }
    let permitted = rustix::thread::capabilities(None)?.permitted;
    let missing = (permitted & OVER_FILES) - credentials.capabilities;
    // Who overrides permissions needs no groups.
    Ok(missing.is_empty() && credentials.capabilities.contains(CapabilitySet::DAC_OVERRIDE))
}

/// The caller in `/proc/PID/status`: its umask, its IDs for file access and its effective capabilities.
fn parse(status: &str) -> Option<Caller> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let last = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
    let groups = field("Groups:")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let capabilities = CapabilitySet::from_bits_retain(u64::from_str_radix(field("CapEff:")?, 16).ok()?);
    let credentials = Credentials { uid: last("Uid:")?, gid: last("Gid:")?, groups, capabilities };
    let umask = u32::from_str_radix(field("Umask:")?, 8).ok()?;
    Some(Caller { process: field("Tgid:")?.parse().ok()?, umask, credentials })
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATUS: &str = "Name:\tsh\nUmask:\t0027\nTgid:\t77\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \nCapEff:\t0000000000000001\n";

    #[test]
    fn a_status_is_read() {
        let caller = parse(STATUS).unwrap();
        let expected = Credentials { uid: 4, gid: 8, groups: vec![9, 10], capabilities: CapabilitySet::CHOWN };
        assert_eq!(caller, Caller { process: 77, umask: 0o27, credentials: expected });
        assert!(parse("Umask:\t0022\nUid:\t1\t2\n").is_none());
    }

    #[test]
    fn paths_that_begin_with_a_descriptor() {
        for (path, expected) in [
            (c"/dev/stdout", Some((1, None))),
            (c"/proc/self/fd/12", Some((12, None))),
            (c"/dev/fd/0", Some((0, None))),
            (c"/proc/self/fd/12/x", Some((12, Some(c"x")))),
            (c"/proc/thread-self/fd/3//x/y", Some((3, Some(c"x/y")))),
            (c"/proc/self/fd/3/", Some((3, Some(c"")))),
            (c"/proc/self/fd/", None),
            (c"/proc/self/fd/+1", None),
            (c"/proc/1/fd/1", None),
            (c"dev/fd/0", None),
        ] {
            let expected = expected.map(|(number, rest): (i32, Option<&CStr>)| (number, rest.map(CStr::to_owned)));
            assert_eq!(own_descriptor(path), expected, "{path:?}");
        }
    }

    #[test]
    fn only_other_users_without_capabilities_are_unprivileged() {
        let mut caller = parse(STATUS).unwrap();
        assert!(!caller.is_unprivileged());
        caller.credentials.capabilities = CapabilitySet::NET_RAW;
        assert!(caller.is_unprivileged());
        caller.credentials.uid = 0;
        assert!(!caller.is_unprivileged());
    }
}
