//! The credentials of the process that makes a call, and the identity in which kiln's thread acts for it.

use crate::sys::notify::Call;
use crate::sys::{Acting, Someone};
use rustix::io::Errno;
use std::ffi::CString;

/// The process that makes a call, as far as it matters for new files.
pub(super) struct Caller {
    pub(super) umask: u32,
    pub(super) who: Someone,
}

impl Caller {
    /// The caller; `None` if the call does not wait any more.
    pub(super) fn of(call: &Call<'_>) -> Option<Self> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", call.thread())).ok()?;
        if call.is_alive() { parse(&status) } else { None }
    }
}

/// The identity of the thread that answers calls: kiln's own, or that of a caller. The kernel lets a process look only into
/// processes of its own user and group. The thread keeps an identity for as many calls as it fits.
#[derive(Default)]
pub(super) struct AssumedIdentity(Option<(Someone, Acting)>);

impl AssumedIdentity {
    /// Reads the string at an address of the caller, with whatever identity may read it.
    ///
    /// # Errors
    /// As [`Call::string`].
    pub(super) fn read(&mut self, call: &Call<'_>, address: u64) -> Result<CString, Errno> {
        self.look(call, || call.string(address))
    }

    /// Reads bytes at an address likewise.
    ///
    /// # Errors
    /// As [`Call::bytes`].
    pub(super) fn bytes(&mut self, call: &Call<'_>, address: u64, length: usize) -> Result<Vec<u8>, Errno> {
        self.look(call, || call.bytes(address, length))
    }

    /// Looks into the caller: with the present identity, with kiln's own, or with the caller's. Keeps the one that may.
    fn look<T>(&mut self, call: &Call<'_>, look: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
        match look() {
            Err(Errno::ACCESS) => {}
            looked => return looked,
        }
        if self.0.take().is_some() {
            match look() {
                Err(Errno::ACCESS) => {}
                looked => return looked,
            }
        }
        self.take(&Caller::of(call).ok_or(Errno::SRCH)?.who)?;
        look()
    }

    /// Does something as kiln itself.
    pub(super) fn apart<T>(&mut self, act: impl FnOnce() -> Result<T, Errno>) -> Result<T, Errno> {
        let who = self.0.take().map(|(who, _)| who);
        let done = act();
        who.map_or(Ok(()), |who| self.take(&who)).and(done)
    }

    /// Assumes somebody's identity; kiln's own if the user and group are the same.
    ///
    /// # Errors
    /// As [`Someone::act`].
    pub(super) fn take(&mut self, who: &Someone) -> Result<(), Errno> {
        if self.0.as_ref().is_some_and(|(same, _)| same == who) {
            return Ok(());
        }
        self.0 = None;
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        if (who.uid, who.gid) != own {
            self.0 = Some((who.clone(), who.act()?));
        }
        Ok(())
    }

    /// The user of this identity.
    pub(super) fn uid(&self) -> u32 {
        self.0.as_ref().map_or_else(|| rustix::process::geteuid().as_raw(), |(who, _)| who.uid)
    }

    /// Returns to kiln's own identity.
    pub(super) fn leave(&mut self) {
        self.0 = None;
    }
}

/// The umask and the IDs for file access in `/proc/PID/status`.
fn parse(status: &str) -> Option<Caller> {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let last = |name: &str| field(name)?.split_whitespace().nth(3)?.parse().ok();
    let groups = field("Groups:")?.split_whitespace().map(str::parse).collect::<Result<_, _>>().ok()?;
    let who = Someone { uid: last("Uid:")?, gid: last("Gid:")?, groups };
    Some(Caller { umask: u32::from_str_radix(field("Umask:")?, 8).ok()?, who })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read() {
        let status = "Name:\tsh\nUmask:\t0027\nUid:\t1\t2\t3\t4\nGid:\t5\t6\t7\t8\nGroups:\t9 10 \n";
        let caller = parse(status).unwrap();
        assert_eq!(caller.umask, 0o27);
        assert_eq!(caller.who, Someone { uid: 4, gid: 8, groups: vec![9, 10] });
        assert!(parse("Umask:\t0022\nUid:\t1\t2\n").is_none());
    }
}
