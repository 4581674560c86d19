//! A user namespace with a single number: what a process asks for beyond that is recorded, and it is told that it was done.
//!
//! The kernel gives nobody but the one user anything there: no change of owner, no device, no other user. So the calls
//! that ask for it are answered by kiln ([`Listener`]): owners and devices are noted with the files
//! ([`sys::recorded`](crate::sys::recorded)), and who a process is, in a mark that its children inherit. Calls that tell of
//! files and users tell what was recorded, so that programs that copy a file's owner (`cp -a`, `tar`, `sed -i`) or make sure
//! of their user (`apt`, `su`) do what they do as root.
//!
//! What is different from real users, and stays so: a process may read and write what any other one may, whatever it
//! believes to be (a `RUN` as `USER app` *can* write to root's files); directory listings have devices as regular
//! files, which they are; 32-bit programs, and `openat2` with `O_CREAT`, are not seen. None of this is a wall between
//! processes: all of them have the rights of the one user, and no more, and so has kiln where it answers.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the calls, and the thread that answers them |
//! | `files` | those about files |
//! | `ids` | who a process believes to be |

mod files;
mod ids;

use super::Error;
use super::seccomp::{self, When};
use super::spec::{MountKind, Spec, User};
use crate::sys::notify::{Answer, Call, Listener, without_umask};
use crate::sys::recorded::Records;
use crate::sys::{Cancel, RootMount, Said as _};
use ids::{Change, Ids, Table};
use libc::sock_filter;
use rustix::io::Errno;
use std::collections::HashMap;

/// The mark of a process as it begins.
pub(super) const FIRST: u64 = 0;

/// How a call names a file.
#[derive(Debug, Clone, Copy)]
enum Named {
    /// By a path, its first argument; whether a link at the end is followed.
    Path(bool),
    /// By a descriptor, its first argument.
    Descriptor,
    /// By a descriptor to start from, a path, and flags in this argument.
    From(usize),
}

/// What a call asks for. Numbers are those of arguments.
#[derive(Debug, Clone, Copy)]
enum Asked {
    Owner(Named, usize),
    Status(Named, usize),
    Statusx,
    /// The path's descriptor, if it has one, the path, the flags, the mode.
    Open(Option<usize>, usize, Option<usize>, usize),
    Folder(Option<usize>, usize),
    Node(Option<usize>, usize),
    Link(Option<usize>, usize),
    /// Something that makes overlayfs bring a file up, to another name or time.
    Move(Option<usize>, usize),
    /// The limit that the mark stands in: the old value's argument, if there is one.
    Limit(Option<usize>),
    /// Whether capabilities are kept when the user changes.
    KeepRights,
    Change(fn(&Call<'_>) -> Change),
    ChangeOfFiles(fn(&Call<'_>) -> Change, fn(&Ids) -> u32),
    Groups,
    TellGroups,
    Tell(fn(&Ids) -> u32),
    TellThree(fn(&Ids) -> [u32; 3]),
}

/// The calls.
static CALLS: [(&str, When, Asked); 44] = {
    use Asked::{
        Change as Set, ChangeOfFiles, Folder, Groups, KeepRights, Limit, Link, Move, Node, Open, Owner, Status,
        Statusx, Tell, TellGroups, TellThree,
    };
    use When::Always;
    const LOCKS: u32 = libc::RLIMIT_LOCKS;
    const MAKING: u32 = (libc::O_CREAT | (libc::O_TMPFILE & !libc::O_DIRECTORY)) as u32;
    [
        ("chown", Always, Owner(Named::Path(true), 1)),
        ("lchown", Always, Owner(Named::Path(false), 1)),
        ("fchown", Always, Owner(Named::Descriptor, 1)),
        ("fchownat", Always, Owner(Named::From(4), 2)),
        ("stat", Always, Status(Named::Path(true), 1)),
        ("lstat", Always, Status(Named::Path(false), 1)),
        ("fstat", Always, Status(Named::Descriptor, 1)),
        ("newfstatat", Always, Status(Named::From(3), 2)),
        ("statx", Always, Statusx),
        ("creat", Always, Open(None, 0, None, 1)),
        ("open", When::With(1, MAKING), Open(None, 0, Some(1), 2)),
        ("openat", When::With(2, MAKING), Open(Some(0), 1, Some(2), 3)),
        ("mkdir", Always, Folder(None, 0)),
        ("mkdirat", Always, Folder(Some(0), 1)),
        ("mknod", Always, Node(None, 0)),
        ("mknodat", Always, Node(Some(0), 1)),
        ("symlink", Always, Link(None, 1)),
        ("symlinkat", Always, Link(Some(1), 2)),
        ("rename", Always, Move(None, 0)),
        ("renameat", Always, Move(Some(0), 1)),
        ("renameat2", Always, Move(Some(0), 1)),
        ("link", Always, Move(None, 0)),
        ("linkat", Always, Move(Some(0), 1)),
        ("utimensat", Always, Move(Some(0), 1)),
        // pam_limits gives all limits what those of pid 1 are.
        ("getrlimit", When::Is(0, LOCKS), Limit(Some(1))),
        ("setrlimit", When::Is(0, LOCKS), Limit(None)),
        ("prlimit64", When::Is(1, LOCKS), Limit(Some(3))),
        ("prctl", When::Is(0, libc::PR_SET_KEEPCAPS.cast_unsigned()), KeepRights),
        ("setuid", Always, Set(|c| Change::User(id(c, 0)))),
        ("setgid", Always, Set(|c| Change::Group(id(c, 0)))),
        ("setreuid", Always, Set(|c| Change::RealUser(id(c, 0), id(c, 1)))),
        ("setregid", Always, Set(|c| Change::RealGroup(id(c, 0), id(c, 1)))),
        ("setresuid", Always, Set(|c| Change::AllUsers([id(c, 0), id(c, 1), id(c, 2)]))),
        ("setresgid", Always, Set(|c| Change::AllGroups([id(c, 0), id(c, 1), id(c, 2)]))),
        ("setfsuid", Always, ChangeOfFiles(|c| Change::FileUser(id(c, 0)), |ids| ids.user.files)),
        ("setfsgid", Always, ChangeOfFiles(|c| Change::FileGroup(id(c, 0)), |ids| ids.group.files)),
        ("setgroups", Always, Groups),
        ("getgroups", Always, TellGroups),
        ("getuid", Always, Tell(|ids| ids.user.real)),
        ("geteuid", Always, Tell(|ids| ids.user.effective)),
        ("getgid", Always, Tell(|ids| ids.group.real)),
        ("getegid", Always, Tell(|ids| ids.group.effective)),
        ("getresuid", Always, TellThree(|ids| [ids.user.real, ids.user.effective, ids.user.saved])),
        ("getresgid", Always, TellThree(|ids| [ids.group.real, ids.group.effective, ids.group.saved])),
    ]
};

fn id(call: &Call<'_>, index: usize) -> u32 {
    call.int(index).cast_unsigned()
}

/// The filter that tells of the calls, and what each asks for; the same for all processes.
#[derive(Debug)]
pub(super) struct Told {
    filter: Vec<sock_filter>,
    asked: HashMap<libc::c_long, Asked>,
}

impl Told {
    pub(super) fn new() -> Self {
        let names: Vec<_> = CALLS.iter().map(|(name, when, _)| (*name, *when)).collect();
        let asked = CALLS.iter().filter_map(|(name, _, asked)| Some((seccomp::number(name)?, *asked))).collect();
        Self { filter: seccomp::notifier(&names), asked }
    }

    /// The filter.
    pub(super) fn filter(&self) -> &[sock_filter] {
        &self.filter
    }
}

/// Answers the calls of one process and all that it starts.
#[derive(Debug)]
pub(super) struct Recorder<'a> {
    told: &'a Told,
    table: Table,
    records: Records,
    root: &'a RootMount,
}

impl<'a> Recorder<'a> {
    /// For a process that has the mark [`FIRST`].
    ///
    /// # Errors
    /// If what is recorded of the layers that it sees can't be read.
    pub(super) fn new(told: &'a Told, spec: &'a Spec) -> Result<Self, Error> {
        let mut records = Records::default();
        let mounted = spec.mounts.iter().flat_map(|mount| match &mount.kind {
            MountKind::Tree { root, .. } => layers(root),
            MountKind::Layers { lowers, .. } => lowers.iter().collect(),
            _ => Vec::new(),
        });
        for layer in layers(&spec.root).into_iter().chain(mounted) {
            records.read(layer)?;
        }
        let User { uid, gid, groups } = &spec.user;
        let mut table = Table::default();
        // The first of the table.
        table.mark(Ids::of(*uid, *gid, groups.clone())).said("setgroups", "/etc/group")?;
        Ok(Self { told, table, records, root: &spec.root })
    }

    /// Answers until nobody is left who could ask, or `stop` is set; then writes what was recorded beside the layer.
    ///
    /// # Errors
    /// If the kernel gives no calls any more, or that can't be written.
    pub(super) fn serve(mut self, listener: Listener, stop: &Cancel) -> Result<(), Error> {
        without_umask().call("unshare(CLONE_FS)")?;
        listener.serve(stop, &mut |call| self.answer(call).unwrap_or_else(Answer::Errno))?;
        drop(listener);
        match self.root {
            RootMount::Overlay { upper, .. } => Ok(self.records.write(upper)?),
            RootMount::Dir(dir) => Ok(self.records.write_all(dir)?),
        }
    }

    fn answer(&mut self, call: &Call<'_>) -> Result<Answer, Errno> {
        let Some(asked) = self.told.asked.get(&call.number()) else { return Ok(Answer::Continue) };
        match *asked {
            Asked::Owner(named, owner) => self.owner(call, named, owner),
            Asked::Status(named, buffer) => self.status(call, named, buffer),
            Asked::Statusx => self.statusx(call),
            Asked::Open(from, path, flags, mode) => self.open(call, (from, path), flags, mode),
            Asked::Folder(from, path) => self.folder(call, (from, path)),
            Asked::Node(from, path) => self.node(call, (from, path)),
            Asked::Link(from, path) => self.link(call, (from, path)),
            Asked::Move(from, path) => Ok(self.bring_up(call, (from, path))),
            Asked::Limit(old) => {
                if let Some(address) = old.map(|index| call.argument(index)).filter(|address| *address != 0) {
                    call.write(address, &[0xff; size_of::<libc::rlimit>()])?;
                }
                Ok(Answer::Value(0))
            }
            Asked::KeepRights => {
                let ids = Ids { keeps_rights: call.argument(1) != 0, ..self.ids(call)? };
                self.become_with(call, ids)?;
                Ok(Answer::Continue)
            }
            Asked::Change(change) => self.change(call, change(call)).map(|()| Answer::Value(0)),
            Asked::ChangeOfFiles(change, was) => {
                let before = was(&self.ids(call)?);
                self.change(call, change(call))?;
                Ok(Answer::Value(before.into()))
            }
            Asked::Groups => self.groups(call),
            Asked::TellGroups => self.tell_groups(call),
            Asked::Tell(what) => Ok(Answer::Value(what(&self.ids(call)?).into())),
            Asked::TellThree(what) => {
                for (index, id) in what(&self.ids(call)?).into_iter().enumerate() {
                    call.write(call.argument(index), &id.to_ne_bytes())?;
                }
                Ok(Answer::Value(0))
            }
        }
    }

    /// Who the process is. A program with the set-id bits counts from its first call on: nothing before is told.
    fn ids(&mut self, call: &Call<'_>) -> Result<Ids, Errno> {
        let mut ids = self.table.get(call.mark()?);
        if ids.user.effective == 0 {
            return Ok(ids);
        }
        let file = call.program()?;
        let stat = rustix::fs::fstat(&file)?;
        let program = (stat.st_dev, stat.st_ino);
        if ids.program == Some(program) {
            return Ok(ids);
        }
        ids.keeps_rights = false;
        if stat.st_mode & (libc::S_ISUID | libc::S_ISGID) == 0 {
            return Ok(ids);
        }
        let owner = self.records.get(&file)?.unwrap_or_default();
        let user = (stat.st_mode & libc::S_ISUID != 0).then_some(owner.uid);
        let group = (stat.st_mode & libc::S_ISGID != 0).then_some(owner.gid);
        let ids = ids.executing(program, user, group);
        call.set_mark(self.table.mark(ids.clone())?)?;
        Ok(ids)
    }

    fn change(&mut self, call: &Call<'_>, change: Change) -> Result<(), Errno> {
        let new = self.ids(call)?.after(change)?;
        self.become_with(call, new)
    }

    fn become_with(&mut self, call: &Call<'_>, mut ids: Ids) -> Result<(), Errno> {
        if ids.user.effective != 0 || ids.keeps_rights {
            let stat = rustix::fs::fstat(call.program()?)?;
            ids.program = Some((stat.st_dev, stat.st_ino));
        }
        call.set_mark(self.table.mark(ids)?)
    }

    fn groups(&mut self, call: &Call<'_>) -> Result<Answer, Errno> {
        let count = usize::try_from(call.int(0)).map_err(|_| Errno::INVAL)?;
        if count > MOST_GROUPS {
            return Err(Errno::INVAL);
        }
        let bytes = call.bytes(call.argument(1), count * size_of::<u32>())?;
        let groups = bytes.chunks_exact(4).filter_map(|id| Some(u32::from_ne_bytes(id.try_into().ok()?))).collect();
        self.change(call, Change::Groups(groups)).map(|()| Answer::Value(0))
    }

    fn tell_groups(&mut self, call: &Call<'_>) -> Result<Answer, Errno> {
        let groups = self.ids(call)?.groups;
        let room = usize::try_from(call.int(0)).map_err(|_| Errno::INVAL)?;
        if room > 0 {
            if room < groups.len() {
                return Err(Errno::INVAL);
            }
            let bytes: Vec<u8> = groups.iter().flat_map(|id| id.to_ne_bytes()).collect();
            call.write(call.argument(1), &bytes)?;
        }
        Ok(Answer::Value(groups.len() as i64))
    }
}

/// The kernel's `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65536;

/// The folders that a root filesystem's files lie in.
fn layers(root: &RootMount) -> Vec<&std::path::PathBuf> {
    match root {
        RootMount::Overlay { lowers, upper, .. } => lowers.iter().chain([upper]).collect(),
        RootMount::Dir(dir) => vec![dir],
    }
}
