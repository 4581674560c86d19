//! What a child can be told to do.

use rustix::mount::MountAttrFlags;
use rustix::process::Resource;
use rustix::thread::CapabilitySet;
use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// A place for a descriptor that one step opens and later ones use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot(pub(super) usize);

/// One thing that a child does. Steps before [`Step::EnterRoot`] (or what stands in its place: [`Step::CoverRoot`],
/// [`Step::LookFrom`]) see the host's files, those after it only the new root's.
#[derive(Debug)]
pub enum Step {
    /// Dies when its maker dies, even if that has happened already. Again after [`Step::Identity`], which undoes it.
    DieWithMaker,
    /// Moves itself into a control group.
    JoinCgroup {
        /// Its `cgroup.procs` (or `tasks`), open for writing.
        procs: OwnedFd,
        /// Its name, for errors.
        path: CString,
    },
    /// Makes the control groups that it is in the root of a new cgroup namespace.
    NewCgroupNamespace,
    /// Becomes the first process, with its children, that the kernel kills when memory runs out. Where that cannot be set, it is not.
    OomVictim,
    /// Leaves its maker's session and terminal.
    NewSession,
    /// Leaves its maker's keyring; a kernel without keyrings is no failure.
    NewKeyring,
    /// Sets the mask of permissions.
    Umask(u32),
    /// Sets the name of the machine. Where a filter forbids this call alone (podman's, for containers), it keeps the one it has.
    Hostname(CString),
    /// Brings up the loopback device.
    LoopbackUp,
    /// Opens the network namespace that the child is in.
    OpenNetwork(Slot),
    /// Joins a network namespace.
    JoinNetwork(OwnedFd),
    /// Cuts all mounts off from the host's.
    PrivateMounts,
    /// Makes an overlay.
    Overlay(Overlay),
    /// Makes a mount of a folder of the host with all that is mounted below it.
    CloneHostTree {
        /// The folder.
        path: CString,
        /// The mount.
        out: Slot,
    },
    /// Makes an overlay by `mount(2)`, for kernels whose `fsconfig` doesn't know `lowerdir+` (before 6.5).
    OverlayByMount(OverlayByMount),
    /// Makes a mount of a file or folder of the host (not of what is mounted below it).
    CloneHost {
        /// The file or folder.
        path: CString,
        /// The mount.
        out: Slot,
    },
    /// Makes a mount of something inside a mount: links on the way stay inside.
    CloneInside {
        /// The mount; mounted somewhere.
        root: Slot,
        /// The path in it.
        path: CString,
        /// The new mount.
        out: Slot,
    },
    /// Makes a mount of something in a folder that nobody but the maker has written to.
    CloneOwn {
        /// The folder, mounted somewhere.
        dir: Slot,
        /// The name in it.
        name: CString,
        /// The new mount.
        out: Slot,
    },
    /// Makes a file system that has no device.
    FileSystem(FileSystem),
    /// Changes the flags of a mount that isn't mounted anywhere yet, and of all below it.
    SetFlags {
        /// The mount.
        mount: Slot,
        /// What is set.
        flags: MountAttrFlags,
    },
    /// Mounts on a folder of the host, by path, in the child's own namespace.
    MountOnHost {
        /// The mount.
        mount: Slot,
        /// The folder.
        path: CString,
    },
    /// Makes a mount, already mounted, the root, and drops the old one.
    EnterRoot(Slot),
    /// Makes a mount, already mounted, the root where `pivot_root` is forbidden: it is moved over the old root, so that also who
    /// finds a way out of a changed root (`chroot` to a folder below the own one) comes to it again.
    CoverRoot(Slot),
    /// Goes to a mount, already mounted, which somebody else makes the root; steps after it see its files alone.
    LookFrom(Slot),
    /// Finds what is to be mounted on, in the new root, or makes it.
    Target(Target),
    /// Mounts on what a [`Step::Target`] found.
    Mount {
        /// The mount.
        mount: Slot,
        /// Where.
        on: Slot,
        /// For errors.
        path: CString,
    },
    /// Mounts on something in a folder that nobody but the maker has written to.
    MountOwn {
        /// The mount.
        mount: Slot,
        /// The folder, mounted.
        dir: Slot,
        /// The name in it.
        name: CString,
    },
    /// Gives a mounted tmpfs the mode of the folder it stands on, if that was there before.
    CopyMode {
        /// The folder.
        from: Slot,
        /// The tmpfs.
        to: Slot,
    },
    /// Hides a file or folder of a mount, if it is there: a file behind `null`, a folder behind `empty`.
    Mask {
        /// The mount.
        root: Slot,
        /// The path in it.
        path: CString,
        /// A mounted folder with a device `null` in it.
        null: Slot,
        /// An empty read-only tmpfs; mounted with the first folder that is hidden.
        empty: Slot,
    },
    /// Makes a file or folder of a mount read-only, if it is there.
    Protect {
        /// The mount.
        root: Slot,
        /// The path in it.
        path: CString,
    },
    /// Makes a device.
    Device {
        /// The folder.
        dir: Slot,
        /// Its name there.
        name: CString,
        /// Major number.
        major: u32,
        /// Minor number.
        minor: u32,
        /// Whether it is a block device.
        block: bool,
        /// Its mode.
        mode: u32,
    },
    /// Makes a symbolic link.
    Link {
        /// The folder.
        dir: Slot,
        /// Its name there.
        name: CString,
        /// What it says.
        target: CString,
    },
    /// Makes a folder.
    Folder {
        /// The folder it is made in.
        dir: Slot,
        /// Its name there.
        name: CString,
        /// Its mode.
        mode: u32,
    },
    /// Makes an empty file that nobody may open, to be mounted on.
    Point {
        /// The folder it is made in.
        dir: Slot,
        /// Its name there.
        name: CString,
    },
    /// Writes a file.
    File {
        /// The folder it is made in.
        dir: Slot,
        /// Its name there.
        name: CString,
        /// Its bytes.
        content: Vec<u8>,
        /// Its mode.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
    /// Allocates a terminal.
    OpenTerminal {
        /// A mounted devpts.
        pts: Slot,
        /// The side for the maker.
        main: Slot,
        /// The side for the command.
        user: Slot,
        /// Who owns the latter.
        uid: u32,
    },
    /// Goes to the root that it has already, where that takes the place of a new one.
    AtRoot,
    /// Goes to a folder of the new root, made (mode 0755) with its parents if it isn't there.
    WorkIn {
        /// The folder.
        path: CString,
        /// Its owner, if it is made.
        uid: u32,
        /// Its group, if it is made.
        gid: u32,
    },
    /// Sets a resource limit.
    Limit {
        /// Which.
        resource: Resource,
        /// Its name, for errors.
        name: CString,
        /// The limit that counts; `None` is no limit.
        soft: Option<u64>,
        /// What the process may raise it to.
        hard: Option<u64>,
    },
    /// Takes the table of open files for itself, and sets the standard streams. [`Step::Exec`] closes everything else.
    Stdio(Stdio),
    /// Loads a seccomp filter.
    Seccomp(Vec<libc::sock_filter>),
    /// Loads a seccomp filter that tells of calls, for [`notify::Listener`](crate::sys::notify::Listener). To come before
    /// [`Step::Stdio`], so that the maker gets the listener; nobody answers before the command is executed, so the filter
    /// must let through what the steps in between call: `unshare`, `fcntl`, `dup3`, `ioctl`, `close_range`, `prlimit64`,
    /// `umask`, `prctl`, `capset`, `setgroups`, `setresuid`, `setresgid` (those three not without
    /// [`Identity::keeps_ids`]), `poll`, `rt_sigaction`, `rt_sigprocmask`, `execve`, `faccessat`, `seccomp`.
    Notify {
        /// The filter.
        filter: Vec<libc::sock_filter>,
        /// The listener.
        out: Slot,
    },
    /// Gives up gaining rights by executing programs, for good.
    NoNewPrivileges,
    /// Gives up for good what a [ruleset](crate::sys::landlock::Ruleset) doesn't allow. After [`Step::NoNewPrivileges`].
    Restrict(OwnedFd),
    /// Becomes a user.
    Identity(Identity),
    /// Becomes the command. The last step.
    Exec(Exec),
}

/// An overlay made with `fsopen`.
#[derive(Debug)]
pub struct Overlay {
    /// A folder that the paths start from, so that they are short.
    pub base: CString,
    /// The layers below, the topmost first.
    pub lowers: Vec<CString>,
    /// The folder that gets the changes and the one for overlayfs itself; without them it is read-only.
    pub upper: Option<(CString, CString)>,
    /// Whether what overlayfs notes is in attributes that any user may set, as in a user namespace.
    pub user_attributes: bool,
    /// The mount.
    pub out: Slot,
}

/// An overlay made with `mount(2)`.
#[derive(Debug)]
pub struct OverlayByMount {
    /// A folder that the paths in `options` start from.
    pub base: CString,
    /// As the manual page of mount(8) describes them.
    pub options: CString,
    /// A folder of the host that it is mounted on, in the child's namespace.
    pub at: CString,
    /// The mount.
    pub out: Slot,
}

/// A file system that has no device.
#[derive(Debug)]
pub struct FileSystem {
    /// Its type (`tmpfs`).
    pub kind: &'static CStr,
    /// Its options; those without a value are flags.
    pub options: Vec<(CString, Option<CString>)>,
    /// The mount's flags.
    pub flags: MountAttrFlags,
    /// A folder of the host that is bound read-only, with all that is mounted below it, where the kernel refuses a new one.
    pub otherwise: Option<CString>,
    /// The mount.
    pub out: Slot,
}

/// Something to be mounted on.
#[derive(Debug)]
pub struct Target {
    /// Absolute, without `.`, `..`, empty components.
    pub path: CString,
    /// What it must be, and what is made where nothing is.
    pub kind: TargetKind,
    /// Whether a symbolic link at the end is an error (as for `/proc`).
    pub plain: bool,
    /// What was found or made.
    pub out: Slot,
}

/// What is mounted on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// A folder.
    Folder,
    /// Anything but a folder; an empty file is made.
    File,
    /// What a mount's root is.
    Like(Slot),
}

/// Where a standard stream comes from.
#[derive(Debug)]
pub enum Stream {
    /// A descriptor.
    Fd(OwnedFd),
    /// The one of the maker with this number.
    Inherit(RawFd),
    /// One that a step opened.
    Slot(Slot),
}

/// The standard streams.
#[derive(Debug)]
pub struct Stdio {
    /// Input, output and errors.
    pub streams: [Stream; 3],
    /// Whether the first is a terminal that becomes the session's.
    pub terminal: bool,
}

/// Who the command runs as.
#[derive(Debug)]
pub struct Identity {
    /// The user.
    pub uid: u32,
    /// The group.
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<rustix::fs::Gid>,
    /// What is permitted, effective, and kept in the bounding set.
    pub capabilities: CapabilitySet,
    /// Whether they are inheritable and ambient too.
    pub ambient: bool,
    /// Whether user and groups stay what they are, as where no other numbers can be had.
    pub keeps_ids: bool,
}

/// A command.
#[derive(Debug)]
pub struct Exec {
    /// Where its program may be; the first that can be executed is.
    pub candidates: Vec<CString>,
    /// Its arguments, the name first.
    pub args: Pointers,
    /// Its environment, `NAME=value`.
    pub env: Pointers,
}

/// Strings with the array of pointers that `execve` wants.
#[derive(Debug)]
pub struct Pointers {
    /// Kept alive for `array`.
    strings: Vec<CString>,
    array: Vec<*const libc::c_char>,
}

impl Pointers {
    /// Lays the array out.
    pub fn new(strings: Vec<CString>) -> Self {
        let array = strings.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Self { strings, array }
    }

    /// The strings.
    pub fn strings(&self) -> &[CString] {
        &self.strings
    }

    /// The array, ended by a null pointer; valid as long as `self`.
    pub(in crate::sys) fn as_ptr(&self) -> *const *const libc::c_char {
        self.array.as_ptr()
    }
}

impl Step {
    /// The path that the step is about, for its error.
    pub fn about(&self) -> Option<PathBuf> {
        let path = match self {
            Self::JoinCgroup { path, .. }
            | Self::CloneHost { path, .. }
            | Self::CloneHostTree { path, .. }
            | Self::CloneInside { path, .. }
            | Self::MountOnHost { path, .. }
            | Self::Mount { path, .. }
            | Self::Mask { path, .. }
            | Self::Protect { path, .. }
            | Self::WorkIn { path, .. } => path.as_c_str(),
            Self::Hostname(name) | Self::Limit { name, .. } => name,
            Self::Overlay(overlay) => overlay.upper.as_ref().map_or(&overlay.base, |(upper, _)| upper),
            Self::OverlayByMount(overlay) => &overlay.at,
            Self::FileSystem(fs) => fs.kind,
            Self::Target(target) => &target.path,
            Self::Device { name, .. }
            | Self::Link { name, .. }
            | Self::Folder { name, .. }
            | Self::Point { name, .. }
            | Self::CloneOwn { name, .. }
            | Self::MountOwn { name, .. }
            | Self::File { name, .. } => name,
            Self::Exec(exec) => exec.args.strings.first()?,
            Self::DieWithMaker
            | Self::OomVictim
            | Self::NewCgroupNamespace
            | Self::NewSession
            | Self::NewKeyring
            | Self::Umask(_)
            | Self::LoopbackUp
            | Self::OpenNetwork(_)
            | Self::JoinNetwork(_)
            | Self::AtRoot
            | Self::PrivateMounts
            | Self::SetFlags { .. }
            | Self::EnterRoot(_)
            | Self::CoverRoot(_)
            | Self::LookFrom(_)
            | Self::CopyMode { .. }
            | Self::OpenTerminal { .. }
            | Self::Stdio(_)
            | Self::Seccomp(_)
            | Self::Notify { .. }
            | Self::NoNewPrivileges
            | Self::Restrict(_)
            | Self::Identity(_) => return None,
        };
        Some(PathBuf::from(OsStr::from_bytes(path.to_bytes())))
    }
}
