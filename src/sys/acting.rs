//! The calling thread as somebody else, for as long as files are concerned: what it may open, who owns what it makes, and
//! whose memory it may read.

use rustix::fs::Gid;
use rustix::io::Errno;
use rustix::process::DumpableBehavior;

/// Who somebody is to file systems.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Someone {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// This thread is somebody else; dropped, it is who it was.
#[derive(Debug)]
pub struct Acting {
    uid: u32,
    gid: u32,
    groups: Vec<Gid>,
    /// Changes of user undo what keeps a process out of core dumps and from being looked into, where the machine says so.
    dumpable: Option<DumpableBehavior>,
    /// A guard of one thread is nothing to another.
    _here: std::marker::PhantomData<*const ()>,
}

impl Someone {
    /// Lets the calling thread act as this one. Somebody who isn't root may no more with files than such a user; what else
    /// this process may stays.
    ///
    /// # Errors
    /// `EPERM` for who may not change users.
    pub fn act(&self) -> Result<Acting, Errno> {
        let groups = rustix::process::getgroups()?;
        let dumpable = rustix::process::dumpable_behavior().ok();
        let acting = Acting { uid: uid(None), gid: gid(None), groups, dumpable, _here: std::marker::PhantomData };
        let wanted: Vec<Gid> = self.groups.iter().map(|g| Gid::from_raw(*g)).collect();
        rustix::thread::set_thread_groups(&wanted)?;
        gid(Some(self.gid));
        uid(Some(self.uid));
        acting.stay_undumpable();
        if (uid(None), gid(None)) == (self.uid, self.gid) { Ok(acting) } else { Err(Errno::PERM) }
    }
}

impl Acting {
    fn stay_undumpable(&self) {
        if self.dumpable == Some(DumpableBehavior::NotDumpable) {
            let _ = rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable);
        }
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        uid(Some(self.uid));
        gid(Some(self.gid));
        // Whoever may set a user may go back to the groups that it had.
        let _ = rustix::thread::set_thread_groups(&self.groups);
        self.stay_undumpable();
    }
}

/// Sets this thread's user for files; the one that it had. Without one to set, nothing changes.
fn uid(new: Option<u32>) -> u32 {
    // SAFETY: takes a plain number; concerns this thread alone. No user has the number -1.
    (unsafe { libc::syscall(libc::SYS_setfsuid, new.unwrap_or(u32::MAX)) }) as u32
}

/// The same of its group.
fn gid(new: Option<u32>) -> u32 {
    // SAFETY: as above.
    (unsafe { libc::syscall(libc::SYS_setfsgid, new.unwrap_or(u32::MAX)) }) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    #[test]
    fn a_thread_is_somebody_else_for_a_while() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(dir.path().join("secret"), "").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(dir.path().join("secret"), mode).unwrap();
        let groups = rustix::process::getgroups().unwrap();
        let someone = Someone { uid: 1234, gid: 4321, groups: vec![77] };
        let acting = someone.act().unwrap();
        assert!(std::fs::read(dir.path().join("secret")).is_err(), "it is root's alone");
        assert_eq!(rustix::process::getgroups().unwrap(), [Gid::from_raw(77)]);
        drop(acting);
        assert!(std::fs::read(dir.path().join("secret")).is_ok());
        assert_eq!(rustix::process::getgroups().unwrap(), groups);
        let acting = Someone { uid: 0, gid: 4321, groups: Vec::new() }.act().unwrap();
        std::fs::write(dir.path().join("new"), "").unwrap();
        drop(acting);
        assert_eq!(dir.path().join("new").metadata().unwrap().gid(), 4321);
    }
}
