//! The credentials of another process, assumed by the calling thread alone.

use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::process::DumpableBehavior;
use rustix::thread::{CapabilitySet, CapabilitySets};

/// The credentials of a process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// The user ID for file access (`fsuid`).
    pub uid: u32,
    /// The group ID for file access (`fsgid`).
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
    /// Effective capabilities.
    pub capabilities: CapabilitySet,
}

/// While this guard exists, the thread has other credentials.
#[derive(Debug)]
pub struct AssumedCredentials {
    own: Own,
    /// A guard belongs to the thread that made it.
    _here: std::marker::PhantomData<*const ()>,
}

/// What the thread returns to.
#[derive(Debug)]
struct Own {
    uid: u32,
    gid: u32,
    /// The real and effective IDs, if they were changed.
    ids: Option<[(Uid, Gid); 2]>,
    groups: Vec<Gid>,
    capabilities: CapabilitySets,
    /// Changes of user IDs make a process dumpable where the machine says so.
    dumpable: Option<DumpableBehavior>,
}

impl Credentials {
    /// Assumes these credentials for access to files, with the capabilities that this process is permitted as well. The thread's real,
    /// effective and saved IDs remain.
    ///
    /// # Errors
    /// `EPERM` if this process may not change its IDs.
    pub fn assume(&self) -> Result<AssumedCredentials, Errno> {
        let mut assumed = AssumedCredentials::none()?;
        assumed.set_groups(&self.groups)?;
        self.finish(assumed)
    }

    /// Assumes these credentials also as real and effective IDs, which a socket tells its peer. The saved IDs remain, so that the
    /// thread can return. Meanwhile a process of this user may send it signals.
    ///
    /// # Errors
    /// As [`assume`](Self::assume).
    pub fn assume_fully(&self) -> Result<AssumedCredentials, Errno> {
        let mut assumed = AssumedCredentials::none()?;
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        assumed.own.ids = Some([
            (rustix::process::getuid(), rustix::process::getgid()),
            (rustix::process::geteuid(), rustix::process::getegid()),
        ]);
        assumed.set_groups(&self.groups)?;
        rustix::thread::set_thread_res_gid(gid, gid, None)?;
        rustix::thread::set_thread_res_uid(uid, uid, None)?;
        self.finish(assumed)
    }

    fn finish(&self, assumed: AssumedCredentials) -> Result<AssumedCredentials, Errno> {
        fsgid(Some(self.gid));
        fsuid(Some(self.uid));
        assumed.stay_undumpable();
        let permitted = assumed.own.capabilities.permitted;
        set_effective(assumed.own.capabilities, permitted & self.capabilities)?;
        if (fsuid(None), fsgid(None)) == (self.uid, self.gid) { Ok(assumed) } else { Err(Errno::PERM) }
    }
}

impl AssumedCredentials {
    /// A guard that returns to what the thread has now.
    fn none() -> Result<Self, Errno> {
        let own = Own {
            uid: fsuid(None),
            gid: fsgid(None),
            ids: None,
            groups: rustix::process::getgroups()?,
            capabilities: rustix::thread::capabilities(None)?,
            dumpable: rustix::process::dumpable_behavior().ok(),
        };
        Ok(Self { own, _here: std::marker::PhantomData })
    }

    fn set_groups(&mut self, groups: &[u32]) -> Result<(), Errno> {
        let groups: Vec<Gid> = groups.iter().map(|g| Gid::from_raw(*g)).collect();
        if groups == self.own.groups { Ok(()) } else { rustix::thread::set_thread_groups(&groups) }
    }

    fn stay_undumpable(&self) {
        if self.own.dumpable == Some(DumpableBehavior::NotDumpable) {
            let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
}

impl Drop for AssumedCredentials {
    fn drop(&mut self) {
        let Own { uid, gid, ids, groups, capabilities, .. } = &self.own;
        // Raising permitted capabilities again always succeeds, and with them so does everything else.
        let _ = set_effective(*capabilities, capabilities.permitted);
        if let Some([real, effective]) = ids {
            let _ = rustix::thread::set_thread_res_uid(real.0, effective.0, None);
            let _ = rustix::thread::set_thread_res_gid(real.1, effective.1, None);
        }
        fsuid(Some(*uid));
        fsgid(Some(*gid));
        let _ = rustix::thread::set_thread_groups(groups);
        let _ = set_effective(*capabilities, capabilities.effective);
        self.stay_undumpable();
    }
}

fn set_effective(sets: CapabilitySets, effective: CapabilitySet) -> Result<(), Errno> {
    rustix::thread::set_capabilities(None, CapabilitySets { effective, ..sets })
}

/// Sets the thread's `fsuid`, and returns the previous one. Without a new one, nothing changes.
fn fsuid(new: Option<u32>) -> u32 {
    // SAFETY: takes a plain number; concerns this thread alone. No user has the number -1.
    (unsafe { libc::syscall(libc::SYS_setfsuid, new.unwrap_or(u32::MAX)) }) as u32
}

/// The same for its `fsgid`.
fn fsgid(new: Option<u32>) -> u32 {
    // SAFETY: as above.
    (unsafe { libc::syscall(libc::SYS_setfsgid, new.unwrap_or(u32::MAX)) }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    fn is_root() -> bool {
        let root = rustix::process::geteuid().is_root();
        if !root {
            eprintln!("skipped: needs root");
        }
        root
    }

    fn credentials(uid: u32, capabilities: CapabilitySet) -> Credentials {
        Credentials { uid, gid: uid + 1, groups: vec![77], capabilities }
    }

    #[test]
    fn a_thread_has_the_credentials_of_another_user_for_a_while() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "").unwrap();
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let before = (rustix::process::getgroups().unwrap(), rustix::thread::capabilities(None).unwrap());
        let assumed = credentials(1234, CapabilitySet::empty()).assume().unwrap();
        assert!(std::fs::read(&secret).is_err(), "it belongs to root");
        assert_eq!(rustix::process::getgroups().unwrap(), [Gid::from_raw(77)]);
        std::fs::write(dir.path().join("new"), "").unwrap();
        drop(assumed);
        assert!(std::fs::read(&secret).is_ok());
        let new = dir.path().join("new").metadata().unwrap();
        assert_eq!((new.uid(), new.gid()), (1234, 1235));
        assert_eq!((rustix::process::getgroups().unwrap(), rustix::thread::capabilities(None).unwrap()), before);
    }

    #[test]
    fn a_socket_tells_its_peer_the_assumed_ids() {
        if !is_root() {
            return;
        }
        let pair = |credentials: Credentials| {
            let _assumed = credentials.assume_fully().unwrap();
            std::os::unix::net::UnixStream::pair().unwrap().0
        };
        let before = rustix::thread::capabilities(None).unwrap();
        let socket = pair(credentials(1234, CapabilitySet::empty()));
        let peer = rustix::net::sockopt::socket_peercred(&socket).unwrap();
        assert_eq!((peer.uid.as_raw(), peer.gid.as_raw()), (1234, 1235));
        assert_eq!((rustix::process::getuid(), rustix::process::geteuid()), (Uid::ROOT, Uid::ROOT));
        assert_eq!((fsuid(None), rustix::thread::capabilities(None).unwrap()), (0, before));
        assert_eq!(rustix::process::getgid(), Gid::ROOT);
    }

    #[test]
    fn capabilities_are_those_of_the_other_process() {
        if !is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        std::fs::write(&file, "").unwrap();
        let give = || std::os::unix::fs::chown(&file, Some(5), None);
        let root = Credentials { uid: 0, gid: 0, groups: Vec::new(), capabilities: CapabilitySet::empty() };
        let assumed = root.assume().unwrap();
        assert!(give().is_err(), "root without CAP_CHOWN");
        drop(assumed);
        let assumed = credentials(1234, CapabilitySet::CHOWN).assume().unwrap();
        give().unwrap();
        drop(assumed);
        give().unwrap();
    }
}
