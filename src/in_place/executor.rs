//! The executor of the level `in-place`.

use super::attribute_calls::{self, AttributeCalls};
use super::bind_emulation::BindEmulation;
use super::caller::AssumedIdentity;
use super::confinement::{Confinement, Protection};
use super::inode_pool::InodePool;
use super::root_entries::RootEntries;
use super::root_listing::RootListing;
use super::shared_mounts::{self, SharedMounts};
use super::{entry_request, reaper, shebang};
use crate::sandbox::cgroup::{self, Group, Hierarchy};
use crate::sandbox::control::Control;
use crate::sandbox::host::{explained, streams};
use crate::sandbox::program::{CAPABILITIES, c_string};
use crate::sandbox::spec::clean;
use crate::sandbox::{
    Error, Executor, Exit, MountKind, Network, Part, Spec, Stdio, Stream, command, network_files, seccomp,
};
use crate::sys::child::step::{Identity, Stdio as Streams, Stream as Source};
use crate::sys::child::{Ended, Namespaces, Program, Slot, Step};
use crate::sys::landlock::Ruleset;
use crate::sys::notify::Listener;
use crate::sys::{Cancel, RootMount, Said};
use libc::sock_filter;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::collections::BTreeSet;
use std::ffi::CString;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Ends the processes of all RUNs.
///
/// # Errors
/// If they cannot be found, or do not end.
pub fn end_all() -> Result<(), Error> {
    reaper::end_runs()
}

/// Runs processes in `/`. One serves a whole build.
#[derive(Debug)]
pub struct InPlaceExecutor {
    resolv_conf: String,
    hosts: String,
    /// Kiln's own folder, on the file system of `/`.
    folder: PathBuf,
    hierarchies: Vec<Hierarchy>,
    /// What processes get.
    capabilities: CapabilitySet,
    filter: Vec<sock_filter>,
    /// The same without any network.
    alone: Vec<sock_filter>,
    confinement: Confinement,
    /// The filter that tells of changes of names.
    notifier: Vec<sock_filter>,
    attributes: attribute_calls::Table,
    /// One process runs at a time.
    stock: Mutex<InodePool>,
    runs: AtomicU64,
}

impl InPlaceExecutor {
    /// Looks at the place. `resolv_conf` and `hosts` are the container's files of these names; `folder` is a folder of kiln's own on
    /// the file system of `/`; `closed` are the names in `/` that processes mustn't reach, by this wall.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub fn new(
        [resolv_conf, hosts]: [String; 2],
        folder: PathBuf,
        closed: BTreeSet<Vec<u8>>,
        wall: Protection,
    ) -> Result<Self, Error> {
        let read = |path| std::fs::read_to_string(path).said("read", path);
        let hierarchies = cgroup::hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let permitted = rustix::thread::capabilities(None).call("capget")?.permitted;
        let capabilities = wall.capabilities(CAPABILITIES, permitted);
        Ok(Self {
            resolv_conf,
            hosts,
            stock: Mutex::new(InodePool::new(&folder.join("stock"))?),
            folder,
            hierarchies,
            capabilities,
            filter: seccomp::filter(capabilities),
            alone: seccomp::without_network(capabilities),
            confinement: Confinement::new(closed, wall),
            notifier: seccomp::notifier_of(&entry_request::CALLS, &attribute_calls::calls().collect::<Vec<_>>()),
            attributes: attribute_calls::Table::new(),
            runs: AtomicU64::new(0),
        })
    }

    /// Puts everything into its place that the spec shows.
    fn swaps(&self, spec: &Spec) -> Result<BindEmulation<'_>, Error> {
        let mut swaps = BindEmulation::new(Path::new("/"), &self.folder.join("swaps"), self.confinement.closed())?;
        for (path, content) in [
            ("/etc/resolv.conf", network_files::resolv_conf(&self.resolv_conf, spec.network)),
            ("/etc/hosts", hosts(spec, &self.hosts)),
        ] {
            part(Path::new(path), swaps.file(Path::new(path), &content, 0o644, (0, 0)))?;
        }
        for mount in &spec.mounts {
            let at = clean(&mount.target, "mount")?;
            if at == Path::new("/") {
                return Err(Error::Path { what: "mount", path: at, why: "the root can't be mounted on" });
            }
            let done = match &mount.kind {
                MountKind::Tree { root: RootMount::Dir(dir), path, .. } => swaps.tree(&at, dir, path),
                MountKind::Tree { .. } | MountKind::Layers { .. } => {
                    return Err(Error::Spec("layers can't be mounted at isolation level in-place".into()));
                }
                MountKind::Tmpfs { .. } => swaps.empty(&at),
                MountKind::File { content, mode, uid, gid } => swaps.file(&at, content, *mode, (*uid, *gid)),
            };
            part(&at, done)?;
        }
        let cwd = clean(&spec.cwd, "working directory")?;
        swaps
            .folder(&cwd, (spec.user.uid, spec.user.gid))
            .map_err(|source| Error::Part { part: Part::WorkingDirectory(cwd), source })?;
        Ok(swaps)
    }

    /// The steps of the child.
    fn program(
        &self,
        spec: &Spec,
        streams: [Source; 3],
        join: Vec<(OwnedFd, CString)>,
        wall: Option<Ruleset>,
    ) -> Result<Steps, Error> {
        let mut program = Program::default();
        let mut parts = Vec::new();
        program.push(Step::DieWithMaker);
        for (procs, path) in join {
            program.push(Step::JoinCgroup { procs, path });
        }
        program.push(Step::OomVictim);
        let mark = reaper::mark()?;
        program.push(Step::Limit {
            resource: reaper::MARK,
            name: c"rttime".into(),
            soft: Some(mark),
            hard: Some(mark),
        });
        program.push(Step::NewSession);
        program.push(Step::NewKeyring);
        // Wherever kiln itself was started: paths of the new root begin here.
        program.push(Step::AtRoot);
        let cwd = clean(&spec.cwd, "working directory")?;
        let step = Step::WorkIn { path: c_string(&cwd)?, uid: spec.user.uid, gid: spec.user.gid };
        push_part(&mut program, &mut parts, Part::WorkingDirectory(cwd), step);
        program.push(Step::NoNewPrivileges);
        // Before the table of open files becomes the child's own.
        let listener = wall.is_some().then(|| {
            let out = program.slot();
            program.push(Step::Notify { filter: self.notifier.clone(), out });
            out
        });
        program.push(Step::Stdio(Streams { streams, terminal: false }));
        for (name, soft, hard) in &spec.limits.ulimits {
            let resource = command::resource(name)?;
            let most = if resource == reaper::MARK { mark } else { u64::MAX };
            let finite = |n: u64| Some(n.min(most)).filter(|n| *n != u64::MAX);
            let step = Step::Limit { resource, name: c_string(name)?, soft: finite(*soft), hard: finite(*hard) };
            push_part(&mut program, &mut parts, Part::Limit(format!("{name}={soft}:{hard}")), step);
        }
        program.push(Step::Umask(0o022));
        if let Some(wall) = wall {
            program.push(Step::Restrict(wall.into_fd()));
        }
        let filter = if spec.network == Network::None { &self.alone } else { &self.filter };
        program.push(Step::Seccomp(filter.clone()));
        program.push(Step::Identity(Identity {
            uid: spec.user.uid,
            gid: spec.user.gid,
            groups: spec.user.groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect(),
            capabilities: self.capabilities,
            ambient: false,
            keeps_ids: false,
        }));
        program.push(Step::DieWithMaker);
        let exec = command::exec_of(&shebang::args(spec), spec)?;
        let candidates = exec.candidates.clone();
        program.push(Step::Exec(exec));
        Ok(Steps { program, parts, candidates, listener })
    }

    fn start(
        &self,
        spec: &Spec,
        group: Option<&Group>,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Ended, Error> {
        let (streams, pipes) = streams(spec.stdio)?;
        let join = group.map(Group::procs).transpose()?.unwrap_or_default();
        let mut stock = self.stock.lock().unwrap_or_else(PoisonError::into_inner);
        if self.confinement.stand() {
            stock.fill()?;
        }
        let wall = self.confinement.build(Path::new("/"), stock.all())?;
        let Steps { program, parts, candidates, listener } = self.program(spec, streams, join, wall)?;
        let control = Control { cancel, signals: spec.signals.as_ref(), through: false };
        let spawn =
            |program: Program| program.spawn(Namespaces::NONE).map_err(|f| explained(f, spec, &parts, &candidates));
        let Some(slot) = listener else {
            let ended = pipes.follow(&mut spawn(program)?, output, control);
            return end_all().and(ended);
        };
        let mut names = RootEntries::new(Path::new("/"), self.confinement.closed(), &mut stock)?;
        let attributes = AttributeCalls { table: &self.attributes, closed: self.confinement.closed() };
        let listing = RootListing::new(Path::new("/"))?;
        let (never, gone) = (Cancel::new()?, Cancel::new()?);
        let (hand_over, handed_over) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            // Whatever fails here, the thread waits no longer: this end is dropped.
            let (hand_over, handed_over) = (hand_over, handed_over);
            // The thread exists before the process does, which could use up all PIDs.
            let thread = std::thread::Builder::new().name("calls".into()).spawn_scoped(scope, || {
                let handed_over = handed_over;
                let Ok(listener) = handed_over.recv() else { return Ok(()) };
                let mut role = AssumedIdentity::default();
                let served = Listener::serve(&listener, &never, &mut |call| {
                    let role = &mut role;
                    let special = attributes.answer(call, role).or_else(|| listing.answer(call, role));
                    special.unwrap_or_else(|| names.answer(call, role))
                });
                gone.cancel();
                served
            });
            let serving = thread.call("clone")?;
            let mut child = spawn(program)?;
            let listener = child.take(slot).ok_or(Errno::BADF).call("seccomp")?;
            // The thread waits for it.
            let _ = hand_over.send(Listener::new(listener)?);
            let ended = pipes.follow(&mut child, output, control);
            let cleared = reaper::end_run(|| gone.is_set_within(reaper::PAUSE));
            never.cancel();
            let served = serving.join().unwrap_or(Ok(()));
            cleared.and(served.map_err(Error::Call)).and(ended)
        })
    }
}

struct Steps {
    program: Program,
    parts: Vec<(Range<usize>, Part)>,
    candidates: Vec<CString>,
    /// Where changes of names are told.
    listener: Option<Slot>,
}

impl Executor for InPlaceExecutor {
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        refuse(spec)?;
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let group = match spec.limits.needs_cgroup() {
            true => Some(Group::new(&self.hierarchies, &spec.limits, number)?),
            false => None,
        };
        let clean = SharedMounts::look(&shared_mounts::SHARED)?;
        let swaps = self.swaps(spec)?;
        let ended = self.start(spec, group.as_ref(), output, cancel);
        // Where it failed halfway, nobody has looked yet.
        let cleared = if ended.is_err() { end_all() } else { Ok(()) };
        let undone = swaps.end().and(clean.sweep());
        let ended = ended.map_err(|e| e.at_level("in-place"))?;
        cleared?;
        undone?;
        let out_of_memory = group.as_ref().is_some_and(Group::ran_out_of_memory);
        Ok(match ended {
            Ended::Exited(code) => Exit { code, signal: None, out_of_memory },
            Ended::Killed(signal) => Exit { code: 128 + signal, signal: Some(signal), out_of_memory },
        })
    }
}

/// The hosts of every sandbox, and those that the container knows besides: kiln itself reads this file meanwhile.
fn hosts(spec: &Spec, own: &str) -> Vec<u8> {
    let mut text = network_files::hosts(&spec.hostname, &spec.extra_hosts);
    let others = own.lines().filter(|line| {
        let address = line.split_whitespace().next().and_then(|a| a.parse::<IpAddr>().ok());
        address.is_some_and(|address| !address.is_loopback())
    });
    for line in others {
        text.extend_from_slice(line.as_bytes());
        text.push(b'\n');
    }
    text
}

/// What can't be had without a namespace or a mount.
fn refuse(spec: &Spec) -> Result<(), Error> {
    let refused = if spec.insecure {
        "--security=insecure"
    } else if spec.limits.shm_size.is_some() {
        "a size of /dev/shm"
    } else if spec.stdio == Stdio::Terminal {
        "a terminal"
    } else {
        return Ok(());
    };
    Err(Error::Spec(format!("isolation level in-place can't give a process {refused}")))
}

fn part(at: &Path, done: crate::sys::Result<()>) -> Result<(), Error> {
    done.map_err(|source| Error::Part { part: Part::Mount(at.to_owned()), source })
}

fn push_part(program: &mut Program, parts: &mut Vec<(Range<usize>, Part)>, part: Part, step: Step) {
    let at = program.steps().len();
    program.push(step);
    parts.push((at..at + 1, part));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_containers_own_hosts_are_known() {
        let mut spec = Spec::new(RootMount::Dir("/".into()), Vec::new());
        spec.extra_hosts = vec![("db".into(), "10.0.0.7".into())];
        let own = "127.0.0.1 localhost box\n# 10.0.0.1 no\n10.0.0.9\tregistry.local\n\n::1 localhost\n";
        let text = String::from_utf8(hosts(&spec, own)).unwrap();
        assert!(text.starts_with("127.0.0.1\tlocalhost buildkitsandbox\n"), "{text}");
        assert!(text.ends_with("10.0.0.7\tdb\n10.0.0.9\tregistry.local\n"), "{text}");
    }

    #[test]
    fn what_cannot_be_had_is_refused() {
        let mut spec = Spec::new(RootMount::Dir("/".into()), Vec::new());
        assert!(refuse(&spec).is_ok());
        spec.limits.shm_size = Some(1 << 20);
        assert!(refuse(&spec).unwrap_err().to_string().contains("/dev/shm"));
    }
}
