//! What the processes of a RUN can reach: the stage's own files, `/proc`, `/sys` and `/dev`, and nothing else that lies in `/` or in
//! another [split directory](SplitDirectory).

use crate::sandbox::Error;
use crate::sys::landlock::{self, Rights, Ruleset};
use crate::sys::{Result, Said, file};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// How the processes of a RUN are kept from files that are not theirs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Protection {
    /// By Landlock, in this version of its interface.
    Landlock(u32),
    /// By removing credentials while they run, and by giving them one capability less than every other process of the container has,
    /// so that they cannot look into these. They can reach everything else.
    Removal {
        /// Why there is no Landlock.
        why: String,
    },
}

impl Protection {
    /// The best that this kernel, and the seccomp filter of this process, allow.
    pub fn find() -> Self {
        match landlock::abi() {
            Ok(abi) => Self::Landlock(abi),
            Err(why) => Self::Removal { why: why.to_string() },
        }
    }

    /// Why nothing should run in place with this protection, unless the user forces it.
    pub fn refusal(&self, forced: bool) -> Option<String> {
        match self {
            Self::Removal { why } if !forced => Some(format!(
                "there is no Landlock here ({why}), so a RUN could change kiln's program, other stages and volumes; it needs Linux 5.13 with \
                 Landlock and a seccomp profile that allows it, or --force-in-place to accept that"
            )),
            _ => None,
        }
    }

    /// Whether the rules cover connections to Unix sockets.
    pub(super) fn restricts_sockets(&self) -> bool {
        matches!(self, Self::Landlock(abi) if *abi >= landlock::RESOLVES_UNIX)
    }

    /// The part of the capabilities in `usual` that a RUN gets, where kiln and the container's other processes have `permitted`: the
    /// kernel lets a process look into another one that has no capability that the first one lacks.
    pub(super) fn capabilities(&self, usual: CapabilitySet, permitted: CapabilitySet) -> CapabilitySet {
        let given = usual & permitted;
        match self {
            Self::Removal { .. } if given == permitted => {
                let least = SPARED.into_iter().find(|one| given.contains(*one));
                given - least.unwrap_or(CapabilitySet::empty())
            }
            _ => given,
        }
    }
}

/// The capabilities that a build misses least, the least first.
const SPARED: [CapabilitySet; 6] = [
    CapabilitySet::AUDIT_WRITE,
    CapabilitySet::SETPCAP,
    CapabilitySet::NET_RAW,
    CapabilitySet::SYS_CHROOT,
    CapabilitySet::MKNOD,
    CapabilitySet::NET_BIND_SERVICE,
];

/// A directory that no Landlock rule names: each of its entries has a rule instead, except the hidden ones.
///
/// Landlock rules only allow, and a rule for a directory covers everything below it. So a directory that contains something hidden
/// cannot have a rule. Its existing entries get one each, kiln emulates the creation of new entries ([`RootEntries`]) and opens
/// the directory for processes that list it ([`RootListing`]).
///
/// `/` is always split, because kiln's own directory lies in it. Every ancestor of a split directory is split, too.
///
/// [`RootEntries`]: super::root_entries::RootEntries
/// [`RootListing`]: super::root_listing::RootListing
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SplitDirectory {
    /// Its absolute path. A RUN cannot rename or remove it.
    pub path: PathBuf,
    /// Names in it that no process may reach.
    pub hidden: BTreeSet<Vec<u8>>,
    /// A directory of kiln's own on the same file system, at or below a hidden name, for the inodes that become new entries. It is
    /// made when it is needed.
    pub pool: PathBuf,
}

impl SplitDirectory {
    /// Opens the directory; `None` if the stage has no such directory. A link in its place leads to what has rules of its own.
    pub(super) fn open(&self) -> Result<Option<OwnedFd>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(CWD, &self.path, flags, Mode::empty()) {
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => Ok(None),
            fd => fd.said("open", &self.path).map(Some),
        }
    }

    /// Whether a path lies at or below one of the hidden names.
    fn hides(&self, path: &Path) -> bool {
        let name = path.strip_prefix(&self.path).ok().and_then(|inside| inside.iter().next());
        name.is_some_and(|name| self.hidden.contains(name.as_bytes()))
    }
}

/// What the processes of a RUN can reach, and what is hidden from them.
#[derive(Debug)]
pub(super) struct Confinement {
    directories: Vec<SplitDirectory>,
    protection: Protection,
}

impl Confinement {
    pub(super) fn new(directories: Vec<SplitDirectory>, protection: Protection) -> Self {
        Self { directories, protection }
    }

    /// Whether Landlock rules protect what is hidden, so that new entries of split directories need a rule as well.
    pub(super) fn has_rules(&self) -> bool {
        matches!(self.protection, Protection::Landlock(_))
    }

    /// The split directories.
    pub(super) fn directories(&self) -> &[SplitDirectory] {
        &self.directories
    }

    /// The paths of all hidden names.
    pub(super) fn hidden_paths(&self) -> impl Iterator<Item = PathBuf> {
        self.directories.iter().flat_map(|dir| dir.hidden.iter().map(|name| dir.path.join(OsStr::from_bytes(name))))
    }

    /// Whether a split directory has this path.
    pub(super) fn is_split(&self, path: &Path) -> bool {
        self.directories.iter().any(|dir| dir.path == path)
    }

    /// Whether an absolute path without links lies at or below a hidden name.
    pub(super) fn hides(&self, path: &Path) -> bool {
        self.directories.iter().any(|dir| dir.hides(path))
    }

    /// Fails with `EACCES` if an open file lies at or below a hidden name.
    pub(super) fn refuse_hidden(&self, file: impl AsFd) -> std::result::Result<(), Errno> {
        let path = file::path_of(file).map_err(|e| e.errno)?;
        if self.hides(&path) { Err(Errno::ACCESS) } else { Ok(()) }
    }

    /// The rules for the entries that split directories have now, and for `more`; nothing where the kernel has no Landlock.
    pub(super) fn ruleset(
        &self,
        more: impl Iterator<Item = Result<OwnedFd>>,
    ) -> std::result::Result<Option<Ruleset>, Error> {
        let Protection::Landlock(abi) = self.protection else { return Ok(None) };
        let ruleset = Ruleset::new(abi)?;
        for directory in &self.directories {
            self.allow_entries(&ruleset, directory)?;
        }
        for file in more {
            ruleset.allow_all(file?)?;
        }
        Ok(Some(ruleset))
    }

    /// Adds a rule for each entry of a split directory, if the stage has that directory.
    fn allow_entries(&self, ruleset: &Ruleset, directory: &SplitDirectory) -> Result<()> {
        let path = &directory.path;
        if directory.open()?.is_none() {
            return Ok(());
        }
        for entry in std::fs::read_dir(path).said("read", path)? {
            let name = entry.said("read", path)?.file_name();
            let entry = path.join(&name);
            if directory.hidden.contains(name.as_bytes()) || self.is_split(&entry) {
                continue;
            }
            // A symbolic link has no rights. The file that it leads to has them.
            if entry.is_symlink() {
                continue;
            }
            match READ_ONLY.iter().any(|path| entry == Path::new(path)) {
                true => ruleset.allow(open(&entry)?, Rights::READ)?,
                false => ruleset.allow_all(open(&entry)?)?,
            }
        }
        Ok(())
    }
}

/// Directories of the kernel's in which a RUN can change nothing: a file there may belong to kiln's process (`oom_score_adj`), to
/// the container (its control group) or to the whole machine. What `/proc/self/fd` leads to has rights of its own.
const READ_ONLY: [&str; 2] = ["/proc", "/sys"];

fn open(path: &Path) -> Result<OwnedFd> {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()).said("open", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_landlock_processes_have_less_than_all_others() {
        let usual = CapabilitySet::CHOWN | CapabilitySet::SETPCAP | CapabilitySet::AUDIT_WRITE;
        let removal = Protection::Removal { why: String::new() };
        for (protection, permitted, given) in [
            (&removal, usual, usual - CapabilitySet::AUDIT_WRITE),
            (&removal, usual | CapabilitySet::SYS_PTRACE, usual),
            (&removal, CapabilitySet::CHOWN | CapabilitySet::SETPCAP, CapabilitySet::CHOWN),
            (&removal, CapabilitySet::CHOWN, CapabilitySet::CHOWN),
            (&Protection::Landlock(1), usual, usual),
        ] {
            assert_eq!(protection.capabilities(usual, permitted), given, "{protection:?} {permitted:?}");
        }
    }

    fn split(path: &str, hidden: &[&str]) -> SplitDirectory {
        let hidden = hidden.iter().map(|name| name.as_bytes().to_vec()).collect();
        SplitDirectory { path: path.into(), hidden, pool: PathBuf::new() }
    }

    #[test]
    fn paths_at_and_below_hidden_names_are_hidden() {
        let directories = vec![split("/", &["kiln"]), split("/etc", &["secret"]), split("/tmp", &[".kiln"])];
        let confinement = Confinement::new(directories, Protection::Landlock(1));
        for (path, hidden) in [
            ("/", false),
            ("/kiln", true),
            ("/kiln/store/x", true),
            ("/kiln2", false),
            ("/etc", false),
            ("/etc/secret", true),
            ("/etc/secret/deep", true),
            ("/etc/passwd", false),
            ("/usr/etc/secret", false),
            ("/tmp/.kiln/pool", true),
            ("/tmp/kiln", false),
            ("/.kiln", false),
            ("pipe:[7]", false),
        ] {
            assert_eq!(confinement.hides(Path::new(path)), hidden, "{path}");
        }
        assert!(confinement.is_split(Path::new("/etc")) && !confinement.is_split(Path::new("/usr")));
    }

    #[test]
    fn entries_that_are_split_themselves_need_no_rule_and_absent_directories_none() {
        let Protection::Landlock(abi) = Protection::find() else {
            eprintln!("skipped: this kernel has no Landlock");
            return;
        };
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        std::fs::create_dir_all(path("etc/secret")).unwrap();
        std::fs::write(path("etc/passwd"), "").unwrap();
        std::os::unix::fs::symlink("nowhere", path("link")).unwrap();
        let directories = vec![split(&path(""), &["kiln"]), split(&path("etc"), &["secret"]), split(&path("tmp"), &[])];
        let confinement = Confinement::new(directories, Protection::Landlock(abi));
        assert!(confinement.ruleset(std::iter::empty()).unwrap().is_some());
    }
}
