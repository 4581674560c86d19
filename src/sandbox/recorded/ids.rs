//! Who a process believes to be: the numbers that `setuid` and its kin change and `getuid` and its kin tell, as the kernel
//! keeps them (credentials(7)), without the kernel. Pure.

use rustix::io::Errno;
use std::collections::HashMap;

/// The real, effective, saved and file system's number of a user, or of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(super) struct Four {
    pub(super) real: u32,
    pub(super) effective: u32,
    pub(super) saved: u32,
    pub(super) files: u32,
}

impl Four {
    /// All the same.
    pub(super) fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(&self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }

    /// `setuid(2)`, `setgid(2)`.
    fn set(self, id: u32, privileged: bool) -> Result<Self, Errno> {
        match id {
            NONE => Err(Errno::INVAL),
            id if privileged => Ok(Self::all(id)),
            id if id == self.real || id == self.saved => Ok(Self { effective: id, files: id, ..self }),
            _ => Err(Errno::PERM),
        }
    }

    /// `setreuid(2)`, `setregid(2)`.
    fn set_two(self, real: u32, effective: u32, privileged: bool) -> Result<Self, Errno> {
        let real_allowed = real == NONE || real == self.real || real == self.effective;
        let effective_allowed = effective == NONE || self.has(effective);
        if !(privileged || real_allowed && effective_allowed) {
            return Err(Errno::PERM);
        }
        let mut new = Self { real: or(real, self.real), effective: or(effective, self.effective), ..self };
        if real != NONE || (effective != NONE && effective != self.real) {
            new.saved = new.effective;
        }
        Ok(Self { files: new.effective, ..new })
    }

    /// `setresuid(2)`, `setresgid(2)`.
    fn set_three(self, [real, effective, saved]: [u32; 3], privileged: bool) -> Result<Self, Errno> {
        if !privileged && [real, effective, saved].iter().any(|id| *id != NONE && !self.has(*id)) {
            return Err(Errno::PERM);
        }
        let effective = or(effective, self.effective);
        Ok(Self { real: or(real, self.real), effective, saved: or(saved, self.saved), files: effective })
    }

    /// `setfsuid(2)`, `setfsgid(2)`, which never fail.
    fn set_files(self, id: u32, privileged: bool) -> Self {
        let allowed = id != NONE && (privileged || self.has(id) || id == self.files);
        if allowed { Self { files: id, ..self } } else { self }
    }
}

/// "Leave it as it is."
const NONE: u32 = u32::MAX;

fn or(id: u32, before: u32) -> u32 {
    if id == NONE { before } else { id }
}

/// A process's users and groups.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(super) struct Ids {
    pub(super) user: Four,
    pub(super) group: Four,
    pub(super) groups: Vec<u32>,
    /// The program (device and inode) that had these numbers last, so that a set-id program's bits count once.
    pub(super) program: Option<(u64, u64)>,
    /// Whether that program keeps the right to change them (`PR_SET_KEEPCAPS`).
    pub(super) keeps_rights: bool,
}

/// A change that a process asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    User(u32),
    Group(u32),
    RealUser(u32, u32),
    RealGroup(u32, u32),
    AllUsers([u32; 3]),
    AllGroups([u32; 3]),
    FileUser(u32),
    FileGroup(u32),
    Groups(Vec<u32>),
}

impl Ids {
    /// A user's, as a container's process begins with.
    pub(super) fn of(uid: u32, gid: u32, mut groups: Vec<u32>) -> Self {
        // As the kernel tells them.
        groups.sort_unstable();
        Self { user: Four::all(uid), group: Four::all(gid), groups, ..Self::default() }
    }

    /// Whether it may do what root may.
    pub(super) fn is_privileged(&self) -> bool {
        self.user.effective == 0 || self.keeps_rights
    }

    /// Whether a group is one of its own.
    pub(super) fn is_in(&self, group: u32) -> bool {
        self.group.files == group || self.groups.contains(&group)
    }

    /// What it is after a change.
    pub(super) fn after(&self, change: Change) -> Result<Self, Errno> {
        let privileged = self.is_privileged();
        let mut new = self.clone();
        match change {
            Change::User(id) => new.user = self.user.set(id, privileged)?,
            Change::Group(id) => new.group = self.group.set(id, privileged)?,
            Change::RealUser(real, effective) => new.user = self.user.set_two(real, effective, privileged)?,
            Change::RealGroup(real, effective) => new.group = self.group.set_two(real, effective, privileged)?,
            Change::AllUsers(ids) => new.user = self.user.set_three(ids, privileged)?,
            Change::AllGroups(ids) => new.group = self.group.set_three(ids, privileged)?,
            Change::FileUser(id) => new.user = self.user.set_files(id, privileged),
            Change::FileGroup(id) => new.group = self.group.set_files(id, privileged),
            Change::Groups(_) if !privileged => return Err(Errno::PERM),
            Change::Groups(mut groups) => {
                groups.sort_unstable();
                new.groups = groups;
            }
        }
        Ok(new)
    }

    /// What it is after it began to execute a program; `owner` and `group` are there if that has the set-id bits.
    pub(super) fn executing(&self, program: (u64, u64), owner: Option<u32>, group: Option<u32>) -> Self {
        let change = |four: Four, id: Option<u32>| {
            let effective = id.unwrap_or(four.effective);
            Four { effective, saved: effective, files: effective, ..four }
        };
        let (user, group) = (change(self.user, owner), change(self.group, group));
        Self { user, group, groups: self.groups.clone(), program: Some(program), keeps_rights: false }
    }

    /// What a change of a file's owner or group (`None` leaves it) comes to, from what they are.
    pub(super) fn may_give(&self, from: (u32, u32), to: (Option<u32>, Option<u32>)) -> Result<(u32, u32), Errno> {
        let new = (to.0.unwrap_or(from.0), to.1.unwrap_or(from.1));
        let owns = self.user.files == from.0;
        let user_allowed = to.0.is_none() || (owns && new.0 == from.0);
        let group_allowed = to.1.is_none() || (owns && (self.is_in(new.1) || new.1 == from.1));
        if self.is_privileged() || (user_allowed && group_allowed) { Ok(new) } else { Err(Errno::PERM) }
    }
}

/// All that processes are or were, each under the number that marks a process.
#[derive(Debug, Default)]
pub(super) struct Table {
    all: Vec<Ids>,
    numbers: HashMap<Ids, u64>,
    /// How many numbers of groups are kept.
    size: usize,
}

/// More would be somebody's attempt to fill the memory.
const MOST: usize = 1 << 20;

impl Table {
    /// What a marked process is; root without a mark, or with one that it made up.
    pub(super) fn get(&self, mark: Option<u64>) -> Ids {
        mark.and_then(|mark| self.all.get(usize::try_from(mark).ok()?)).cloned().unwrap_or_default()
    }

    /// The mark for what a process becomes.
    pub(super) fn mark(&mut self, ids: Ids) -> Result<u64, Errno> {
        if let Some(number) = self.numbers.get(&ids) {
            return Ok(*number);
        }
        self.size += ids.groups.len() + 16;
        if self.size > MOST {
            return Err(Errno::AGAIN);
        }
        let number = self.all.len() as u64;
        self.all.push(ids.clone());
        self.numbers.insert(ids, number);
        Ok(number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn four(real: u32, effective: u32, saved: u32) -> Four {
        Four { real, effective, saved, files: effective }
    }

    #[test]
    fn users_change_as_in_the_kernel() {
        use Change::{AllUsers, RealUser, User};
        let denied = Err(Errno::PERM);
        for (from, change, to) in [
            (four(0, 0, 0), User(5), Ok(four(5, 5, 5))),
            (four(5, 5, 5), User(0), denied),
            (four(5, 5, 5), User(5), Ok(four(5, 5, 5))),
            (four(5, 0, 0), User(7), Ok(four(7, 7, 7))),
            (four(0, 5, 0), User(0), Ok(four(0, 0, 0))),
            (four(0, 0, 0), User(NONE), Err(Errno::INVAL)),
            (four(0, 0, 0), AllUsers([5, 6, 7]), Ok(four(5, 6, 7))),
            (four(5, 6, 7), AllUsers([NONE, 7, NONE]), Ok(four(5, 7, 7))),
            (four(5, 6, 7), AllUsers([8, NONE, NONE]), denied),
            (four(5, 6, 7), AllUsers([7, 5, 6]), Ok(four(7, 5, 6))),
            (four(0, 0, 0), RealUser(5, 5), Ok(four(5, 5, 5))),
            (four(5, 6, 7), RealUser(6, 5), Ok(four(6, 5, 5))),
            (four(5, 6, 7), RealUser(NONE, 7), Ok(four(5, 7, 7))),
            (four(5, 6, 7), RealUser(7, NONE), denied),
            (four(0, 0, 0), RealUser(NONE, 5), Ok(four(0, 5, 5))),
        ] {
            let ids = Ids { user: from, ..Ids::default() };
            let expected = to.map(|user| Ids { user, ..ids.clone() });
            assert_eq!(ids.after(change.clone()), expected, "{from:?} {change:?}");
        }
    }

    #[test]
    fn groups_are_for_root() {
        let root = Ids::default();
        let groups = root.after(Change::Groups(vec![9, 4])).unwrap();
        assert_eq!(groups.groups, [4, 9]);
        let user = groups.after(Change::AllUsers([5; 3])).unwrap();
        assert_eq!(user.after(Change::Groups(vec![])), Err(Errno::PERM));
        assert_eq!(user.after(Change::Group(4)), Err(Errno::PERM));
        assert_eq!(root.after(Change::Group(4)).unwrap().group, Four::all(4));
        assert_eq!(root.after(Change::FileUser(7)).unwrap().user, Four { files: 7, ..Four::default() });
        assert_eq!(user.after(Change::FileUser(0)).unwrap(), user);
    }

    #[test]
    fn only_root_gives_files_away() {
        let user = Ids::of(5, 5, vec![9]);
        for (from, to, expected) in [
            ((5, 5), (Some(5), Some(9)), Ok((5, 9))),
            ((5, 5), (None, Some(8)), Err(Errno::PERM)),
            ((5, 5), (Some(6), None), Err(Errno::PERM)),
            ((6, 9), (None, Some(9)), Err(Errno::PERM)),
            ((6, 9), (None, None), Ok((6, 9))),
        ] {
            assert_eq!(user.may_give(from, to), expected, "{from:?} {to:?}");
        }
        assert_eq!(Ids::default().may_give((5, 5), (Some(1), None)), Ok((1, 5)));
    }

    #[test]
    fn set_id_programs_give_their_owner() {
        let user = Ids::of(5, 5, vec![]);
        let sudo = user.executing((1, 2), Some(0), None);
        assert_eq!(sudo.user, four(5, 0, 0));
        assert!(sudo.is_privileged());
        assert_eq!(sudo.after(Change::User(0)).unwrap().user, Four::all(0));
    }

    #[test]
    fn marks_mean_what_they_were_made_for() {
        let mut table = Table::default();
        let (a, b) = (Ids::of(5, 5, vec![]), Ids::of(6, 6, vec![1]));
        let marks = [table.mark(a.clone()).unwrap(), table.mark(b.clone()).unwrap(), table.mark(a.clone()).unwrap()];
        assert_eq!(marks, [0, 1, 0]);
        assert_eq!([table.get(Some(1)), table.get(None), table.get(Some(77))], [b, Ids::default(), Ids::default()]);
        let many = (0..1000).map(|n| table.mark(Ids::of(n, 0, vec![n; 60_000]))).filter(Result::is_err).count();
        assert!(many > 900);
    }
}
