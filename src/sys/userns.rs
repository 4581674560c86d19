//! A user namespace in which an ordinary user is root, with a range of numbers for the users of images.
//!
//! The kernel lets a user map one number alone; `newuidmap` and `newgidmap`, which are setuid, map those that the system's
//! administrator has given to the user. They must run outside of the namespace, and a process can't leave one. So a child
//! makes the namespace and waits in it; once it is mapped, this process joins it, and where anything is refused on the way,
//! this process is where it was. Root of a container, who has no rights over mounts either, maps all numbers to themselves.

pub use super::program::find;
use super::{Error, Result, Said};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::process::{DumpableBehavior, Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions};
use std::ffi::OsString;
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

/// Numbers outside that stand for numbers inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// The first inside.
    pub inside: u32,
    /// The first outside.
    pub outside: u32,
    /// How many.
    pub count: u32,
}

/// Why a namespace couldn't be entered.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// A call failed.
    #[error("{error}")]
    Call {
        /// The call.
        error: Error,
        /// AppArmor's profile of the process that was in the new namespace, where there is one.
        profile: Option<String>,
    },
    /// One of the programs that map numbers failed, or couldn't be started.
    #[error("{program}: {said}")]
    Program {
        /// Which.
        program: String,
        /// What it said.
        said: String,
    },
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::Call { error, profile: None }
    }
}

/// The inode of the first user namespace (`USER_NS_INIT_INO` in `linux/nsfs.h`).
const FIRST: u64 = 0xEFFF_FFFD;

/// Whether this process is in the user namespace that the system started with. One with the same numbers isn't it.
///
/// # Errors
/// Where `/proc` isn't mounted.
pub fn is_initial() -> Result<bool> {
    let all = numbers()?.uids.split_whitespace().eq(["0", "0", "4294967295"]);
    let path = "/proc/self/ns/user";
    Ok(all && std::fs::metadata(path).said("stat", path)?.ino() == FIRST)
}

/// The numbers of a user namespace, as `/proc/PID/uid_map` and `gid_map` have them: first inside, first outside, how many.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Of users.
    pub uids: String,
    /// Of groups.
    pub gids: String,
}

/// Those of this process's namespace, as the one around it knows them.
///
/// # Errors
/// Where `/proc` isn't mounted.
pub fn numbers() -> Result<Numbers> {
    let read = |path| std::fs::read_to_string(path).said("read", path);
    Ok(Numbers { uids: read("/proc/self/uid_map")?, gids: read("/proc/self/gid_map")? })
}

impl Numbers {
    /// All numbers that there are inside, each for itself.
    fn same(&self) -> Self {
        let same = |text: &str| {
            let ranges = text.lines().filter_map(|line| {
                let mut fields = line.split_whitespace();
                let (first, count) = (fields.next()?, fields.nth(1)?);
                Some(format!("{first} {first} {count}\n"))
            });
            ranges.collect()
        };
        Self { uids: same(&self.uids), gids: same(&self.gids) }
    }

    /// Whether each number stands for itself.
    pub fn are_the_same_outside(&self) -> bool {
        let same = |text: &str| {
            text.lines().all(|line| {
                let mut fields = line.split_whitespace();
                fields.next() == fields.next()
            })
        };
        same(&self.uids) && same(&self.gids)
    }

    /// Whether there is one user and one group alone.
    pub fn is_single(&self) -> bool {
        let single = |text: &str| text.split_whitespace().nth(2) == Some("1") && text.lines().count() == 1;
        single(&self.uids) && single(&self.gids)
    }
}

/// Whether a single number, of a user and of a group, is all there is in this process's user namespace.
///
/// # Errors
/// Where `/proc` isn't mounted.
pub fn is_single() -> Result<bool> {
    Ok(numbers()?.is_single())
}

/// Where the numbers of a namespace come from.
#[derive(Debug, Clone, Copy)]
pub enum Map<'a> {
    /// Ranges that `newuidmap` and `newgidmap`, which have these paths, may map.
    Ranges {
        /// The programs.
        programs: [&'a Path; 2],
        /// Of users.
        uids: &'a [Range],
        /// Of groups.
        gids: &'a [Range],
    },
    /// All numbers that there are here, each for itself: root's images have root's owners. It takes CAP_SETUID, CAP_SETGID and,
    /// since Linux 5.12, CAP_SETFCAP.
    Same,
    /// The user's own number and group alone, which the kernel lets anybody map but root without CAP_SETFCAP.
    Own {
        /// The user.
        uid: u32,
        /// The group.
        gid: u32,
    },
}

/// Joins a new user namespace with these numbers, and a mount namespace of its own in it, as its root. To be called
/// before there are threads.
///
/// # Errors
/// [`Refused`]; the process is then in the namespaces it was in, unless the very last call, for the mounts, failed.
pub fn enter(map: Map<'_>) -> std::result::Result<(), Refused> {
    let holder = Holder::start()?;
    match map {
        Map::Ranges { programs, uids, gids } => {
            for (program, ranges) in programs.into_iter().zip([uids, gids]) {
                map_by(program, holder.pid, ranges)?;
            }
        }
        Map::Same => {
            let Numbers { uids, gids } = numbers()?.same();
            holder.write([("uid_map", uids), ("gid_map", gids)])?;
        }
        // Who gives up changing groups may map one.
        Map::Own { uid, gid } => {
            let (uid, gid) = (format!("0 {uid} 1\n"), format!("0 {gid} 1\n"));
            holder.write([("setgroups", "deny".to_owned()), ("uid_map", uid), ("gid_map", gid)])?;
        }
    }
    // SAFETY: takes no pointer.
    if unsafe { libc::setns(holder.pidfd.as_raw_fd(), libc::CLONE_NEWUSER) } != 0 {
        return Err(last("setns").into());
    }
    drop(holder);
    // SAFETY: takes no pointer.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return Err(last("unshare(CLONE_NEWNS)").into());
    }
    // The change of namespace has closed /proc/self to its owner.
    rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable).call("prctl(PR_SET_DUMPABLE)")?;
    Ok(())
}

fn last(call: &'static str) -> Error {
    Error { call, path: None, errno: Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO) }
}

/// Runs one of the programs that map numbers.
fn map_by(program: &Path, pid: Pid, ranges: &[Range]) -> std::result::Result<(), Refused> {
    let failed = |said: String| Refused::Program { program: program.display().to_string(), said };
    let numbers = ranges.iter().flat_map(|r| [r.inside, r.outside, r.count]);
    let args = std::iter::once(pid.to_string()).chain(numbers.map(|n| n.to_string())).map(OsString::from);
    let output = Command::new(program).args(args).stdin(Stdio::null()).output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(failed(if said.is_empty() { output.status.to_string() } else { said }))
}

/// A child in a new user namespace that does nothing but keep it; killed when dropped.
struct Holder {
    pid: Pid,
    pidfd: OwnedFd,
}

impl Holder {
    fn start() -> std::result::Result<Self, Refused> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
        // SAFETY: the child makes system calls alone, and never comes back.
        let pid = match unsafe { libc::fork() } {
            0 => hold(&write),
            pid => Pid::from_raw(pid).filter(|_| pid > 0).ok_or_else(|| last("fork"))?,
        };
        drop(write);
        let pidfd = match rustix::process::pidfd_open(pid, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(errno) => {
                let _ = rustix::process::kill_process(pid, Signal::KILL);
                return Err(Error { call: "pidfd_open", path: None, errno }.into());
            }
        };
        let holder = Self { pid, pidfd };
        let mut answer = [0; 5];
        std::fs::File::from(read).read_exact(&mut answer).call("read")?;
        let [step, number @ ..] = answer;
        let errno = Errno::from_raw_os_error(i32::from_le_bytes(number).max(1));
        let call = match step {
            0 => return Ok(holder),
            1 => "unshare(CLONE_NEWUSER)",
            _ => "mount",
        };
        Err(Refused::Call { error: Error { call, path: None, errno }, profile: holder.profile() })
    }

    /// AppArmor's profile of it: a namespace's may be another than its maker's.
    fn profile(&self) -> Option<String> {
        let folder = format!("/proc/{}/attr", self.pid.as_raw_pid());
        let own = std::fs::read_to_string(format!("{folder}/apparmor/current"));
        let text = own.or_else(|_| std::fs::read_to_string(format!("{folder}/current"))).ok()?;
        Some(text.trim_end_matches(['\0', '\n']).to_owned()).filter(|text| !text.is_empty())
    }

    /// Writes its numbers.
    fn write<const N: usize>(&self, files: [(&str, String); N]) -> std::result::Result<(), Refused> {
        for (file, text) in files {
            let path = format!("/proc/{}/{file}", self.pid.as_raw_pid());
            std::fs::write(&path, text)
                .map_err(|e| Refused::Call { error: Error::from_io("write", file, &e), profile: self.profile() })?;
        }
        Ok(())
    }
}

/// In the child: makes the namespace, tries a mount in it (a security module may give a namespace and take its rights), says
/// what came of it, and waits to be killed.
fn hold(answer: &OwnedFd) -> ! {
    // SAFETY: system calls with plain numbers and constant strings; the process has one thread.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
        // Its maker, which joins it, may have closed itself to all who could look into its memory.
        libc::prctl(libc::PR_SET_DUMPABLE, 1);
        let step = if libc::unshare(libc::CLONE_NEWUSER) != 0 {
            1
        } else if libc::unshare(libc::CLONE_NEWNS) != 0
            || libc::mount(
                std::ptr::null(),
                c"/".as_ptr(),
                std::ptr::null(),
                libc::MS_REC | libc::MS_PRIVATE,
                std::ptr::null(),
            ) != 0
        {
            2
        } else {
            0
        };
        let [a, b, c, d] = (*libc::__errno_location()).to_le_bytes();
        let bytes: [u8; 5] = [step, a, b, c, d];
        libc::write(answer.as_raw_fd(), bytes.as_ptr().cast(), bytes.len());
        loop {
            libc::pause();
        }
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It can only have ended already.
        let _ = rustix::process::pidfd_send_signal(&self.pidfd, Signal::KILL);
        let _ = rustix::process::waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Does something in a child, before there are threads: for what a process can't come back from. Gives what came of it.
///
/// # Errors
/// Those of `act`; those of making the child.
pub fn in_child(act: impl FnOnce() -> std::result::Result<(), String>) -> std::result::Result<(), String> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call("pipe2").map_err(|e| e.to_string())?;
    // SAFETY: there is one thread, so the child may do whatever this process may. It never comes back.
    let child = match unsafe { libc::fork() } {
        0 => {
            let answer = act().map_or_else(|why| why, |()| DONE.to_owned());
            let _ = std::fs::File::from(write).write_all(answer.as_bytes());
            // SAFETY: ends this process without running anything of its maker's.
            unsafe { libc::_exit(0) }
        }
        child => Pid::from_raw(child).filter(|_| child > 0).ok_or_else(|| last("fork").to_string())?,
    };
    drop(write);
    let mut answer = String::new();
    let heard = std::fs::File::from(read).read_to_string(&mut answer);
    let _ = rustix::process::waitpid(Some(child), WaitOptions::empty());
    heard.map_err(|e| e.to_string())?;
    if answer == DONE { Ok(()) } else { Err(answer) }
}

/// What a child says that has nothing to complain of.
const DONE: &str = "done";

/// The ranges that `/etc/subuid` or `/etc/subgid` gives to a user by any of these names (a number is one), after the user's
/// own number, which is 0 inside. `None` where there are none, or too many to count.
pub fn ranges(text: &str, names: &[&str], own: u32) -> Option<Vec<Range>> {
    let mut ranges = vec![Range { inside: 0, outside: own, count: 1 }];
    let mut inside = 1u32;
    for line in text.lines() {
        let mut fields = line.trim().split(':');
        let (Some(name), Some(first), Some(count), None) = (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if let (true, Ok(outside), Ok(count)) = (names.contains(&name), first.parse(), count.parse::<u32>())
            && count > 0
        {
            ranges.push(Range { inside, outside, count });
            inside = inside.checked_add(count)?;
        }
    }
    (ranges.len() > 1).then_some(ranges)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_follow_the_users_own_number() {
        let text = "root:1:2\nme:100000:65536\n# me:1:1\n1000:300000:10\nme:x:1\nme:1:0\nme:1:2:3\n";
        let range = |inside, outside, count| Range { inside, outside, count };
        assert_eq!(
            ranges(text, &["me", "1000"], 1000).unwrap(),
            [range(0, 1000, 1), range(1, 100_000, 65536), range(65537, 300_000, 10)]
        );
        assert_eq!(ranges(text, &["you"], 1), None);
        assert_eq!(ranges("me:1:4294967295\nme:5:9\n", &["me"], 1), None, "more numbers than there are");
    }

    #[test]
    fn numbers_stand_for_themselves() {
        let numbers = |uids: &str| Numbers { uids: uids.into(), gids: "         0          0 4294967295\n".into() };
        let same = numbers(" 0 100000 65536\n 65536 7 2\n").same();
        assert_eq!(same.uids, "0 0 65536\n65536 65536 2\n");
        assert_eq!(same.gids, "0 0 4294967295\n");
        assert!(!numbers("0 1000 1\n").is_single(), "of its groups");
    }

    #[test]
    fn a_child_says_what_came_of_it() {
        assert_eq!(in_child(|| Ok(())), Ok(()));
        assert_eq!(in_child(|| Err("refused".into())), Err("refused".into()));
    }
}
