//! System V's shared memory, semaphores and message queues (sysvipc(7)): they outlive who made them, and stand in no folder.

use super::{Result, Said};
use rustix::io::Errno;
use std::collections::BTreeSet;

/// Such an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    kind: Kind,
    id: i32,
    /// Whose it is.
    uid: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Memory,
    Semaphores,
    Queue,
}

/// The kinds, the files in `/proc/sysvipc` that list them, and the columns of the number and the owner.
const KINDS: [(Kind, &str, usize, usize); 3] = [
    (Kind::Memory, "/proc/sysvipc/shm", 1, 7),
    (Kind::Semaphores, "/proc/sysvipc/sem", 1, 4),
    (Kind::Queue, "/proc/sysvipc/msg", 1, 7),
];

/// All that there are in this process's namespace; none where the kernel has no such thing.
pub fn all() -> BTreeSet<Object> {
    let of = |(kind, path, id, uid)| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        text.lines().filter_map(|line| parse(kind, line, id, uid)).collect::<Vec<_>>()
    };
    KINDS.into_iter().flat_map(of).collect()
}

/// A line of a list; its first one has names of columns.
fn parse(kind: Kind, line: &str, id: usize, uid: usize) -> Option<Object> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    Some(Object { kind, id: columns.get(id)?.parse().ok()?, uid: columns.get(uid)?.parse().ok()? })
}

impl Object {
    /// Removes it, as its owner where that is another user. That it isn't there is no error.
    ///
    /// # Errors
    /// `EPERM` for what belongs to a user that this process can't be.
    pub fn remove(self) -> Result<()> {
        let done = match self.remove_as_oneself() {
            Err(Errno::PERM) => as_user(self.uid, || self.remove_as_oneself()),
            done => done,
        };
        match done {
            Err(Errno::INVAL | Errno::IDRM) => Ok(()),
            done => done.call(match self.kind {
                Kind::Memory => "shmctl(IPC_RMID)",
                Kind::Semaphores => "semctl(IPC_RMID)",
                Kind::Queue => "msgctl(IPC_RMID)",
            }),
        }
    }

    fn remove_as_oneself(self) -> std::result::Result<(), Errno> {
        // SAFETY: to remove needs no pointer.
        let result = unsafe {
            match self.kind {
                Kind::Memory => libc::shmctl(self.id, libc::IPC_RMID, std::ptr::null_mut()),
                Kind::Semaphores => libc::semctl(self.id, 0, libc::IPC_RMID),
                Kind::Queue => libc::msgctl(self.id, libc::IPC_RMID, std::ptr::null_mut()),
            }
        };
        if result == 0 { Ok(()) } else { Err(super::child::last_errno()) }
    }
}

/// Does something as another user, in this thread alone (the C library's calls concern all threads).
fn as_user<T>(uid: u32, act: impl FnOnce() -> std::result::Result<T, Errno>) -> std::result::Result<T, Errno> {
    let own = rustix::process::geteuid().as_raw();
    let dumpable = rustix::process::dumpable_behavior().ok();
    set_user(uid)?;
    let done = act();
    set_user(own)?;
    // A change of user may make a process dumpable, or not.
    if let Some(dumpable) = dumpable {
        let _ = rustix::process::set_dumpable_behavior(dumpable);
    }
    done
}

fn set_user(effective: u32) -> std::result::Result<(), Errno> {
    // SAFETY: takes plain numbers; -1 leaves a number as it is.
    let result = unsafe { libc::syscall(libc::SYS_setresuid, u32::MAX, effective, u32::MAX) };
    if result == 0 { Ok(()) } else { Err(super::child::last_errno()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read() {
        let names = "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid";
        let line = "     16962          5   666               1048576     3     3      0  1000     0  1000     0";
        assert_eq!(parse(Kind::Memory, names, 1, 7), None);
        assert_eq!(parse(Kind::Memory, line, 1, 7), Some(Object { kind: Kind::Memory, id: 5, uid: 1000 }));
    }

    #[test]
    fn an_object_is_found_and_removed() {
        // SAFETY: makes a new segment, which nobody maps.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 4096, libc::IPC_CREAT | 0o600) };
        if id < 0 {
            eprintln!("skipped: this kernel has no shared memory of System V's");
            return;
        }
        let find = || all().into_iter().find(|object| (object.kind, object.id) == (Kind::Memory, id));
        let object = find().unwrap();
        object.remove().unwrap();
        assert_eq!(find(), None);
        object.remove().unwrap();
    }
}
