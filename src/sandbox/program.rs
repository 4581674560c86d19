//! A spec to the steps of a child, in the order of runc: namespaces, mounts made while the host's files can still be seen,
//! the new root, what is mounted in it, and then everything that takes rights away, or an OCI runtime that does that.

use super::cgroup::Shown;
use super::error::Part;
use super::oci::{self, Hand};
use super::overlay::{self, Way};
pub(super) use super::raw_sockets::CAPABILITIES;
use super::spec::clean;
use super::{Error, Mount, MountKind, Spec, Stdio, begin, devices, kernel, network_files};
use crate::sys::RootMount;
use crate::sys::child::step::{FileSystem, Stream, Target, TargetKind};
use crate::sys::child::{Program, Slot, Step};
use rustix::mount::MountAttrFlags;
use rustix::thread::CapabilitySet;
use std::ffi::{CStr, CString, OsStr};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

/// What the place gives, besides the spec.
pub(super) struct Place<'a> {
    /// How overlays are made.
    pub(super) way: Way,
    /// How the new root is entered.
    pub(super) door: Door<'a>,
    /// The host's `/etc/resolv.conf`.
    pub(super) resolv_conf: &'a str,
    /// The control groups that the process is in, and where it sees them.
    pub(super) cgroups: Vec<Shown>,
    /// What kiln itself may.
    pub(super) permitted: CapabilitySet,
    /// What the process may.
    pub(super) rights: Rights<'a>,
    /// The network of the process, where it is there already.
    pub(super) network: Option<OwnedFd>,
    /// `cgroup.procs` of the group to join, if there is one; of several under version 1.
    pub(super) join: Vec<(OwnedFd, CString)>,
}

/// What a process may.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights<'a> {
    /// Its capabilities, and its bounding set.
    pub(super) capabilities: CapabilitySet,
    /// The filter for a process that isn't `insecure`.
    pub(super) filter: &'a [libc::sock_filter],
    /// The filter that tells kiln of calls, where there is one.
    pub(super) notifier: Option<&'a [libc::sock_filter]>,
    /// Whether a single number stands for all users and groups, and `notifier` tells of what it can't have.
    pub(super) single: bool,
}

/// How a process comes to have the new root as its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Door<'a> {
    /// By `pivot_root`: nothing of the old root is left.
    Pivot,
    /// By `chroot`, with the old root covered.
    Chroot,
    /// A runtime does it, and takes the rights away.
    Runtime(Hand<'a>),
}

/// The program and what its maker needs to know of it.
pub(super) struct Prepared {
    pub(super) program: Program,
    /// The parts of the spec that steps belong to.
    pub(super) parts: Vec<(Range<usize>, Part)>,
    /// The caller's side of the terminal.
    pub(super) terminal: Option<Slot>,
    /// The listener of [`Rights::notifier`].
    pub(super) listener: Option<Slot>,
    /// The programs that the command's name may mean, in the order they are tried.
    pub(super) candidates: Vec<CString>,
    /// The folder that a runtime got.
    pub(super) bundle: Option<Slot>,
}

/// Lays the steps out.
///
/// # Errors
/// What the kernel would not take: a path with a zero byte, an unknown limit, no command.
pub(super) fn prepare(spec: &Spec, place: Place<'_>, streams: [Stream; 3]) -> Result<Prepared, Error> {
    let Place { way, door, resolv_conf, cgroups, permitted, rights, network: private, join } = place;
    let mut builder = Builder::new(spec, way, door, permitted)?;
    builder.single = rights.single;
    builder.namespaces(spec, join, private)?;
    let root = builder.root(&spec.root)?;
    let devices = devices::prepare(&mut builder, spec)?;
    let files = builder.files(network(spec, resolv_conf).into_iter())?;
    let kernel = kernel::prepare(&mut builder, spec, cgroups)?;
    let mut sources = Vec::new();
    for mount in &spec.mounts {
        let at = clean(&mount.target, "mount")?;
        let source = builder.part(Part::Mount(at.clone()), |b| b.source(mount))?;
        sources.push((at, source));
    }
    builder.enter(root)?;
    let dev = devices::mount(&mut builder, spec, devices)?;
    kernel::mount(&mut builder, spec, kernel, dev.dir)?;
    for (path, file) in files {
        builder.place(file, Path::new(path), TargetKind::File)?;
    }
    for (at, source) in sources {
        builder.part(Part::Mount(at.clone()), |b| b.place_source(source, &at))?;
    }
    match door {
        Door::Runtime(hand) => oci::hand_over(builder, spec, &dev, (hand, rights.capabilities), streams),
        Door::Pivot | Door::Chroot => begin::hand_over(builder, spec, &dev, rights, streams),
    }
}

/// The files that every sandbox has in `/etc`.
fn network(spec: &Spec, resolv_conf: &str) -> [(&'static str, Vec<u8>); 2] {
    [
        ("/etc/resolv.conf", network_files::resolv_conf(resolv_conf, spec.network)),
        ("/etc/hosts", network_files::hosts(&spec.hostname, &spec.extra_hosts)),
    ]
}

/// Where a mount comes from.
enum Source {
    /// A mount made before the root was entered.
    Made(Slot),
    /// A tmpfs, made with the mode of what it is mounted on.
    Tmpfs(Option<u64>),
}

/// A root filesystem, and whether it is mounted somewhere already.
struct Root {
    mount: Slot,
    at: Option<CString>,
}

/// Adds steps.
pub(super) struct Builder<'a> {
    pub(super) program: Program,
    way: Way,
    pub(super) door: Door<'a>,
    /// Whether devices can be made.
    makes_devices: bool,
    /// A folder of the host that mounts may be mounted on, in the child's namespace, to look into them.
    pub(super) scratch: CString,
    /// The tmpfs that holds files, once there is one.
    memory: Option<Slot>,
    /// How many it holds.
    held: usize,
    /// Folders in it that are there by name.
    beside: Vec<&'static str>,
    /// What no mount that the process can write to has: devices that can be opened, unless it may do anything.
    guard: MountAttrFlags,
    /// Whether a single number stands for all users and groups.
    pub(super) single: bool,
    pub(super) parts: Vec<(Range<usize>, Part)>,
}

impl<'a> Builder<'a> {
    fn new(spec: &Spec, way: Way, door: Door<'a>, permitted: CapabilitySet) -> Result<Self, Error> {
        let scratch = match &spec.root {
            RootMount::Overlay { work, .. } => work,
            RootMount::Dir(dir) => dir,
        };
        let scratch = c_string(scratch)?;
        let guard = if spec.insecure { MountAttrFlags::empty() } else { MountAttrFlags::MOUNT_ATTR_NODEV };
        let makes_devices = !way.user_attributes && permitted.contains(CapabilitySet::MKNOD);
        let program = Program::default();
        Ok(Self {
            program,
            way,
            door,
            makes_devices,
            scratch,
            memory: None,
            held: 0,
            beside: Vec::new(),
            guard,
            single: false,
            parts: Vec::new(),
        })
    }

    /// Whether there can be no file systems that belong to the host's namespaces.
    pub(super) fn is_in_user_namespace(&self) -> bool {
        self.way.user_attributes
    }

    /// Whether devices can be made.
    pub(super) fn makes_devices(&self) -> bool {
        self.makes_devices
    }

    /// A user's or group's number, as files can be given it.
    pub(super) fn given(&self, id: u32) -> u32 {
        if self.single { 0 } else { id }
    }

    /// Adds steps that belong to a part of the spec.
    pub(super) fn part<T>(&mut self, part: Part, add: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<T, Error> {
        let first = self.program.steps().len();
        let result = add(self)?;
        self.parts.push((first..self.program.steps().len(), part));
        Ok(result)
    }

    fn root(&mut self, root: &RootMount) -> Result<Root, Error> {
        let mount = self.program.slot();
        let at = c_string(root.written())?;
        let step = overlay::mount(root, self.way, &at, mount)?;
        let mounted = matches!(step, Step::OverlayByMount(_));
        self.push(step);
        self.push(Step::SetFlags { mount, flags: self.guard });
        Ok(Root { mount, at: (!mounted).then_some(at) })
    }

    fn enter(&mut self, root: Root) -> Result<(), Error> {
        let Root { mount, at } = root;
        if let Door::Runtime(_) = self.door {
            return oci::enter(self, mount);
        }
        if let Some(path) = at {
            self.push(Step::MountOnHost { mount, path });
        }
        let chroot = matches!(self.door, Door::Chroot);
        self.push(if chroot { Step::CoverRoot(mount) } else { Step::EnterRoot(mount) });
        Ok(())
    }

    pub(super) fn push(&mut self, step: Step) {
        self.program.push(step);
    }

    fn namespaces(
        &mut self,
        spec: &Spec,
        cgroups: Vec<(OwnedFd, CString)>,
        network: Option<OwnedFd>,
    ) -> Result<(), Error> {
        self.push(Step::DieWithMaker);
        let has_loopback = network.is_some();
        if let Some(namespace) = network {
            self.push(Step::JoinNetwork(namespace));
        }
        for (procs, path) in cgroups {
            self.push(Step::JoinCgroup { procs, path });
        }
        let runtime = matches!(self.door, Door::Runtime(_));
        if !runtime {
            self.push(Step::NewCgroupNamespace);
        }
        // A runtime connects the terminal itself, and is told of its size by a signal to kiln's session.
        if !runtime || spec.stdio != Stdio::Terminal {
            self.push(Step::NewSession);
        }
        self.push(Step::NewKeyring);
        self.push(Step::Umask(0));
        self.push(Step::Hostname(c_string(&spec.hostname)?));
        if spec.network == super::Network::None && !has_loopback {
            self.push(Step::LoopbackUp);
        }
        self.push(Step::PrivateMounts);
        Ok(())
    }

    /// Writes files into memory and makes a mount of each.
    fn files<'f>(&mut self, files: impl Iterator<Item = (&'f str, Vec<u8>)>) -> Result<Vec<(&'f str, Slot)>, Error> {
        let flags = READ_ONLY.union(MountAttrFlags::MOUNT_ATTR_NOEXEC);
        files.map(|(path, content)| Ok((path, self.file(content, 0o644, (0, 0), flags)?))).collect()
    }

    fn file(
        &mut self,
        content: Vec<u8>,
        mode: u32,
        (uid, gid): (u32, u32),
        flags: MountAttrFlags,
    ) -> Result<Slot, Error> {
        let (dir, name) = self.held()?;
        self.push(Step::File { dir, name: name.clone(), content, mode, uid, gid });
        Ok(self.shown(dir, name, flags))
    }

    /// A character device that everybody may use.
    pub(super) fn device(&mut self, major: u32, minor: u32, flags: MountAttrFlags) -> Result<Slot, Error> {
        let (dir, name) = self.held()?;
        self.push(Step::Device { dir, name: name.clone(), major, minor, block: false, mode: 0o666 });
        Ok(self.shown(dir, name, flags))
    }

    /// A read-only folder in memory, with these empty folders in it.
    pub(super) fn folder(&mut self, inner: impl Iterator<Item = String>) -> Result<Slot, Error> {
        let (dir, name) = self.held()?;
        self.push(Step::Folder { dir, name: name.clone(), mode: 0o755 });
        for inner in inner {
            let name = c_string(Path::new(OsStr::from_bytes(name.as_bytes())).join(inner))?;
            self.push(Step::Folder { dir, name, mode: 0o755 });
        }
        Ok(self.shown(dir, name, READ_ONLY.union(MountAttrFlags::MOUNT_ATTR_NOEXEC)))
    }

    /// The tmpfs that all of kiln's own files lie in, which the process sees only parts of.
    pub(super) fn memory(&mut self) -> Result<Slot, Error> {
        if let Some(dir) = self.memory {
            return Ok(dir);
        }
        let dir = self.file_system(c"tmpfs", &[("mode", Some("0700"))], MountAttrFlags::empty())?;
        self.push(Step::MountOnHost { mount: dir, path: self.scratch.clone() });
        self.memory = Some(dir);
        Ok(dir)
    }

    /// That tmpfs, and a new name there.
    fn held(&mut self) -> Result<(Slot, CString), Error> {
        self.held += 1;
        Ok((self.memory()?, c_string(self.held.to_string())?))
    }

    fn shown(&mut self, dir: Slot, name: CString, flags: MountAttrFlags) -> Slot {
        let out = self.program.slot();
        self.push(Step::CloneOwn { dir, name, out });
        self.push(Step::SetFlags { mount: out, flags });
        out
    }

    /// A mount of a file or folder of the host's.
    pub(super) fn host(&mut self, path: &Path, flags: MountAttrFlags) -> Result<Slot, Error> {
        let out = self.program.slot();
        self.push(Step::CloneHost { path: c_string(path)?, out });
        self.push(Step::SetFlags { mount: out, flags });
        Ok(out)
    }

    /// A mount of a folder of the host's with all that is mounted below it.
    pub(super) fn host_tree(&mut self, path: &Path, flags: MountAttrFlags) -> Result<Slot, Error> {
        let out = self.program.slot();
        self.push(Step::CloneHostTree { path: c_string(path)?, out });
        self.push(Step::SetFlags { mount: out, flags });
        Ok(out)
    }

    /// A mount of a file system without a device, not mounted yet.
    pub(super) fn file_system(
        &mut self,
        kind: &'static CStr,
        options: &[(&str, Option<&str>)],
        flags: MountAttrFlags,
    ) -> Result<Slot, Error> {
        self.file_system_or(kind, options, flags, None)
    }

    /// The same of what a process has but one of. Where no new one can be had, the host's is good enough by a `chroot` and in a
    /// user namespace (a container's `/proc`, of which something is hidden, forbids another one).
    pub(super) fn kernels(
        &mut self,
        kind: &'static CStr,
        options: &[(&str, Option<&str>)],
        flags: MountAttrFlags,
        hosts: &CStr,
    ) -> Result<Slot, Error> {
        let otherwise = matches!(self.door, Door::Chroot) || self.is_in_user_namespace();
        let otherwise = otherwise.then(|| hosts.to_owned());
        self.file_system_or(kind, options, flags, otherwise)
    }

    fn file_system_or(
        &mut self,
        kind: &'static CStr,
        options: &[(&str, Option<&str>)],
        flags: MountAttrFlags,
        otherwise: Option<CString>,
    ) -> Result<Slot, Error> {
        let out = self.program.slot();
        let options = options
            .iter()
            .map(|(name, value)| Ok((c_string(name)?, value.map(c_string).transpose()?)))
            .collect::<Result<_, Error>>()?;
        self.push(Step::FileSystem(FileSystem { kind, options, flags, otherwise, out }));
        Ok(out)
    }

    /// Where mounts are mounted to look into them: on one another, and never on a runtime's bundle.
    fn look(&mut self) -> Result<CString, Error> {
        match self.door {
            Door::Runtime(_) => self.beside("look"),
            Door::Pivot | Door::Chroot => Ok(self.scratch.clone()),
        }
    }

    /// A folder in the tmpfs of kiln's own files, by its path.
    pub(super) fn beside(&mut self, name: &'static str) -> Result<CString, Error> {
        let dir = self.memory()?;
        if !self.beside.contains(&name) {
            self.beside.push(name);
            self.push(Step::Folder { dir, name: c_string(name)?, mode: 0o755 });
        }
        c_string(Path::new(OsStr::from_bytes(self.scratch.to_bytes())).join(name))
    }

    /// Makes what a mount of the spec shows, as long as the host's files can be seen.
    fn source(&mut self, mount: &Mount) -> Result<Source, Error> {
        match &mount.kind {
            MountKind::Tmpfs { size } => Ok(Source::Tmpfs(*size)),
            MountKind::File { content, mode, uid, gid } => {
                let owner = (self.given(*uid), self.given(*gid));
                self.file(content.clone(), *mode, owner, READ_ONLY).map(Source::Made)
            }
            MountKind::Tree { root, path, readonly } => {
                let whole = self.program.slot();
                let step = overlay::mount(root, self.way, &self.look()?, whole)?;
                self.inside(step, whole, path, *readonly)
            }
            MountKind::Layers { lowers, path } => {
                let whole = self.program.slot();
                let step = overlay::layers(lowers, self.way, &self.look()?, whole)?;
                self.inside(step, whole, path, true)
            }
        }
    }

    /// A mount of something inside a tree that a step makes; links in it lead nowhere else.
    fn inside(&mut self, step: Step, whole: Slot, path: &Path, readonly: bool) -> Result<Source, Error> {
        let mounted = matches!(step, Step::OverlayByMount(_));
        let path = path.strip_prefix("/").unwrap_or(path);
        let all = path.as_os_str().is_empty();
        self.push(step);
        let mut part = whole;
        // What is looked into must be mounted, what is mounted elsewhere later must not be.
        if !all && !mounted {
            let path = self.look()?;
            self.push(Step::MountOnHost { mount: whole, path });
        }
        if !all || mounted {
            part = self.program.slot();
            self.push(Step::CloneInside { root: whole, path: c_string(path)?, out: part });
        }
        let readonly = if readonly { MountAttrFlags::MOUNT_ATTR_RDONLY } else { MountAttrFlags::empty() };
        self.push(Step::SetFlags { mount: part, flags: self.guard | readonly });
        Ok(Source::Made(part))
    }

    fn place_source(&mut self, source: Source, at: &Path) -> Result<(), Error> {
        if at == Path::new("/") {
            return Err(Error::Path { what: "mount", path: at.to_owned(), why: "the root can't be mounted on" });
        }
        match source {
            Source::Made(mount) => self.place(mount, at, TargetKind::Like(mount)).map(drop),
            Source::Tmpfs(size) => {
                let size = size.map(|s| s.to_string());
                let options: Vec<_> = size.iter().map(|s| ("size", Some(s.as_str()))).collect();
                let flags = self.guard | MountAttrFlags::MOUNT_ATTR_NOSUID;
                let mount = self.file_system(c"tmpfs", &options, flags)?;
                let on = self.place(mount, at, TargetKind::Folder)?;
                self.push(Step::CopyMode { from: on, to: mount });
                Ok(())
            }
        }
    }

    /// Mounts on a path of the new root, which is made if it isn't there; gives what is mounted on.
    pub(super) fn place(&mut self, mount: Slot, at: &Path, kind: TargetKind) -> Result<Slot, Error> {
        let path = c_string(at)?;
        let on = self.target(&path, kind, false);
        self.push(Step::Mount { mount, on, path });
        Ok(on)
    }

    pub(super) fn target(&mut self, path: &CStr, kind: TargetKind, plain: bool) -> Slot {
        let out = self.program.slot();
        self.push(Step::Target(Target { path: path.to_owned(), kind, plain, out }));
        out
    }
}

/// For files that only kiln writes.
const READ_ONLY: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_RDONLY.union(MountAttrFlags::MOUNT_ATTR_NOSUID).union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// A string for the kernel.
pub(crate) fn c_string(text: impl AsRef<OsStr>) -> Result<CString, Error> {
    CString::new(text.as_ref().as_bytes())
        .map_err(|_| Error::Spec(format!("{:?} holds a zero byte", text.as_ref().to_string_lossy())))
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
