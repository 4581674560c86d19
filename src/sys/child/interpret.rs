//! One step after the other, in the child. Nothing called from here allocates, locks or panics.

use super::step::{Slot, Step};
use super::stubs::Stub;
use super::{Done, EMPTY, Fault, Named, fail, finish, identity, mounts, target};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, OwnedFd, RawFd};

/// What the child works with; all of it memory of its maker.
pub(super) struct State {
    /// Where steps put what they open.
    pub(super) slots: Vec<RawFd>,
    /// What was made to be mounted on; has room for all there can be.
    pub(super) stubs: Vec<Stub>,
    /// A pidfd of the maker.
    pub(super) maker: OwnedFd,
    /// What went wrong, and at which step.
    pub(super) failure: Option<(usize, Fault)>,
    /// The command's program that was tried last, or is to blame.
    pub(super) candidate: usize,
    /// Whether a folder was hidden already.
    pub(super) masked_folder: bool,
}

impl State {
    /// What stands in a slot.
    pub(super) fn get(&self, slot: Slot) -> Done<BorrowedFd<'_>> {
        match self.slots.get(slot.0) {
            // SAFETY: descriptors in slots are open until the maker takes them over.
            Some(fd) if *fd != EMPTY => Ok(unsafe { BorrowedFd::borrow_raw(*fd) }),
            _ => fail("slot", Errno::BADF),
        }
    }

    /// Puts a descriptor into a slot, which owns it from then on.
    pub(super) fn put(&mut self, slot: Slot, fd: OwnedFd) -> Done {
        match self.slots.get_mut(slot.0) {
            Some(place) if *place == EMPTY => {
                *place = fd.into_raw_fd();
                Ok(())
            }
            _ => fail("slot", Errno::BADF),
        }
    }
}

/// Interprets all steps; comes back only when one failed.
pub(super) fn run(steps: &[Step], state: &mut State) {
    for (number, step) in steps.iter().enumerate() {
        if let Err(fault) = one(step, state) {
            state.failure = Some((number, fault));
            return;
        }
    }
}

fn one(step: &Step, state: &mut State) -> Done {
    match step {
        Step::DieWithMaker => die_with_maker(state),
        Step::JoinCgroup { procs, .. } => rustix::io::write(procs, b"0").fault("write").map(drop),
        Step::NewCgroupNamespace => identity::unshare(libc::CLONE_NEWCGROUP),
        Step::OomVictim => {
            identity::oom_victim();
            Ok(())
        }
        Step::NewSession => rustix::process::setsid().fault("setsid").map(drop),
        Step::NewKeyring => identity::new_keyring(),
        Step::Umask(mask) => {
            rustix::process::umask(Mode::from_raw_mode(*mask));
            Ok(())
        }
        Step::Hostname(name) => match rustix::system::sethostname(name.to_bytes()) {
            Err(Errno::PERM) => Ok(()),
            set => set.fault("sethostname"),
        },
        Step::LoopbackUp => identity::loopback_up(),
        Step::OpenNetwork(out) => {
            let flags = OFlags::RDONLY | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(CWD, c"/proc/self/ns/net", flags, Mode::empty()).fault("open")?;
            state.put(*out, opened)
        }
        Step::JoinNetwork(namespace) => {
            let kind = Some(rustix::thread::LinkNameSpaceType::Network);
            rustix::thread::move_into_link_name_space(namespace.as_fd(), kind).fault("setns")
        }
        Step::AtRoot => rustix::process::chdir(c"/").fault("chdir"),
        Step::WorkIn { path, uid, gid } => target::work_in(path, *uid, *gid),
        Step::Target(wanted) => target::find_or_make(wanted, state),
        Step::Limit { resource, soft, hard, .. } => {
            let limit = rustix::process::Rlimit { current: *soft, maximum: *hard };
            rustix::process::setrlimit(*resource, limit).fault("setrlimit")
        }
        Step::OpenTerminal { pts, main, user, uid } => finish::open_terminal(state, *pts, *main, *user, *uid),
        Step::Stdio(stdio) => finish::stdio(stdio, state),
        Step::Seccomp(filter) => identity::seccomp(filter),
        Step::Notify { filter, out } => identity::notify(filter).and_then(|listener| state.put(*out, listener)),
        Step::NoNewPrivileges => rustix::thread::set_no_new_privs(true).fault("prctl(PR_SET_NO_NEW_PRIVS)"),
        Step::Restrict(ruleset) => crate::sys::landlock::restrict(ruleset).fault("landlock_restrict_self"),
        Step::Identity(identity) => identity::become_user(identity),
        Step::Exec(exec) => finish::exec(exec, state),
        _ => mounts::one(step, state),
    }
}

/// The signal is sent when the maker's thread ends, which stays in `spawn` and `wait` as long as the child lives.
fn die_with_maker(state: &State) -> Done {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).fault("prctl(PR_SET_PDEATHSIG)")?;
    // SAFETY: the maker's pidfd stays open until the command is executed.
    let maker = unsafe { BorrowedFd::borrow_raw(state.maker.as_raw_fd()) };
    let mut fds = [PollFd::new(&maker, PollFlags::IN)];
    match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(n) if n > 0 && fds.iter().any(|f| f.revents().contains(PollFlags::IN)) => fail("poll", Errno::OWNERDEAD),
        _ => Ok(()),
    }
}
