//! The executor of the level `in-place`.

use super::bind_emulation::BindEmulation;
use super::confinement::{Confinement, Protection, SplitDirectory};
use super::host_root::HostRoot;
use super::inode_pool::InodePool;
use super::responder::{InterceptedCalls, Responder};
use super::shared_mounts::{self, SharedMounts};
use super::{reaper, shebang};
use crate::sandbox::cgroup::{self, Group, Hierarchy};
use crate::sandbox::control::Control;
use crate::sandbox::host::explained;
use crate::sandbox::program::c_string;
use crate::sandbox::spec::clean;
use crate::sandbox::streams::streams;
use crate::sandbox::{
    Error, Executor, Exit, MountKind, Network, Part, Spec, Stdio, Stream, capabilities_for, command, network_files,
    seccomp,
};
use crate::sys::child::step::{Identity, Stdio as Streams, Stream as Source};
use crate::sys::child::{Ended, Namespaces, Program, Slot, Step};
use crate::sys::landlock::Ruleset;
use crate::sys::notify::Listener;
use crate::sys::{Cancel, RootMount, Said};
use libc::sock_filter;
use rustix::io::Errno;
use rustix::thread::CapabilitySet;
use std::collections::HashMap;
use std::ffi::CString;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

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
    host: Arc<HostRoot>,
    hierarchies: Vec<Hierarchy>,
    /// What kiln has, and what processes get.
    permitted: CapabilitySet,
    capabilities: CapabilitySet,
    filter: Vec<sock_filter>,
    /// The same without any network.
    alone: Vec<sock_filter>,
    protection: Protection,
    intercepted: InterceptedCalls,
    /// The pools of split directories that earlier RUNs used. One RUN executes at a time.
    pools: Mutex<HashMap<PathBuf, InodePool>>,
    runs: AtomicU64,
}

impl InPlaceExecutor {
    /// Looks at the place. `resolv_conf` and `hosts` are the container's files of these names. Processes are confined by this
    /// protection to the stage that is switched into `host`.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub fn new([resolv_conf, hosts]: [String; 2], host: Arc<HostRoot>, protection: Protection) -> Result<Self, Error> {
        let read = |path| std::fs::read_to_string(path).said("read", path);
        let hierarchies = cgroup::hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let permitted = rustix::thread::capabilities(None).call("capget")?.permitted;
        let capabilities = protection.capabilities(capabilities_for(false), permitted);
        Ok(Self {
            resolv_conf,
            hosts,
            host,
            hierarchies,
            permitted,
            capabilities,
            // Processes are on kiln's own network, where they would read what it sends. `socket_calls` answers `socketcall`.
            filter: seccomp::without_raw_sockets(capabilities, true),
            alone: seccomp::without_network(capabilities),
            intercepted: InterceptedCalls::new(&protection),
            protection,
            pools: Mutex::default(),
            runs: AtomicU64::new(0),
        })
    }

    /// Does all that a RUN needs but the execution of its command, which no stage has.
    ///
    /// # Errors
    /// Whatever a RUN would fail with.
    pub fn probe(&self) -> Result<(), Error> {
        let spec = Spec::new(RootMount::Dir("/".into()), vec!["/bin/kiln-probe".into()]);
        match self.run(&spec, &mut |_, _| {}, &Cancel::new()?) {
            Ok(_) | Err(Error::Command { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// What is hidden from processes at the moment.
    fn confinement(&self) -> Confinement {
        Confinement::new(self.host.split_directories(), self.protection.clone())
    }

    /// Puts everything that the spec mounts into its place.
    fn binds<'a>(&'a self, spec: &Spec, confinement: &'a Confinement) -> Result<BindEmulation<'a>, Error> {
        let mut binds = BindEmulation::new(&self.host, confinement)?;
        for (path, content) in [
            ("/etc/resolv.conf", network_files::resolv_conf(&self.resolv_conf, spec.network)),
            ("/etc/hosts", hosts(spec, &self.hosts)),
        ] {
            part(Path::new(path), binds.file(Path::new(path), &content, 0o644, (0, 0)))?;
        }
        for mount in &spec.mounts {
            let at = clean(&mount.target, "mount")?;
            if at == Path::new("/") {
                return Err(Error::Path { what: "mount", path: at, why: "the root can't be mounted on" });
            }
            let done = match &mount.kind {
                MountKind::Tree { root: RootMount::Dir(dir), path, .. } => binds.tree(&at, dir, path),
                MountKind::Tree { .. } | MountKind::Layers { .. } => {
                    return Err(Error::Spec("layers can't be mounted at isolation level in-place".into()));
                }
                MountKind::Tmpfs { .. } => binds.empty(&at),
                MountKind::File { content, mode, uid, gid } => binds.file(&at, content, *mode, (*uid, *gid)),
            };
            part(&at, done)?;
        }
        let cwd = clean(&spec.cwd, "working directory")?;
        binds
            .folder(&cwd, (spec.user.uid, spec.user.gid))
            .map_err(|source| Error::Part { part: Part::WorkingDirectory(cwd), source })?;
        Ok(binds)
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
        // Before kiln is told of calls: it answers none before the command is executed. Capabilities remain until then.
        program.push(Step::Identity(identity(spec, self.permitted, false)));
        // Before the table of open files becomes the child's own.
        let listener = wall.is_some().then(|| {
            let out = program.slot();
            program.push(Step::Notify { filter: self.intercepted.filter().to_vec(), out });
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
        program.push(Step::Identity(identity(spec, self.capabilities, true)));
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
        // What was bound may have hidden more.
        let confinement = self.confinement();
        let mut pools = self.take_pools(&confinement)?;
        let wall = confinement.ruleset(pools.iter().flat_map(InodePool::all))?;
        let Steps { program, parts, candidates, listener } = self.program(spec, streams, join, wall)?;
        let control = Control { cancel, signals: spec.signals.as_ref(), through: false };
        let spawn =
            |program: Program| program.spawn(Namespaces::NONE).map_err(|f| explained(f, spec, &parts, &candidates));
        let Some(slot) = listener else {
            let ended = pipes.follow(&mut spawn(program)?, output, control);
            return end_all().and(ended);
        };
        let mut responder = Responder::new(&self.intercepted, &self.host, &confinement, &mut pools)?;
        let (never, gone) = (Cancel::new()?, Cancel::new()?);
        let (hand_over, handed_over) = std::sync::mpsc::channel();
        let ended = std::thread::scope(|scope| {
            // Whatever fails here, the thread waits no longer: this end is dropped.
            let (hand_over, handed_over) = (hand_over, handed_over);
            // The thread exists before the process does, which could use up all PIDs.
            let thread = std::thread::Builder::new().name("calls".into()).spawn_scoped(scope, || {
                let handed_over = handed_over;
                let Ok(listener) = handed_over.recv() else { return Ok(()) };
                let served = responder.serve(&listener, &never);
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
        });
        self.keep_pools(&confinement, pools);
        ended
    }

    /// A full pool for each split directory; none where nothing has rules.
    fn take_pools(&self, confinement: &Confinement) -> Result<Vec<InodePool>, Error> {
        let mut known = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        let take = |dir: &SplitDirectory| {
            let mut pool = known.remove(&dir.pool).map_or_else(|| InodePool::new(&dir.pool), Ok)?;
            if confinement.has_rules() {
                pool.fill()?;
            }
            Ok(pool)
        };
        confinement.directories().iter().map(take).collect()
    }

    /// Keeps pools for the next RUN; those in volumes are removed when the stage leaves.
    fn keep_pools(&self, confinement: &Confinement, pools: Vec<InodePool>) {
        let paths = confinement.directories().iter().map(|dir| dir.pool.clone());
        let kept = paths.zip(pools).filter(|(path, _)| path.starts_with(self.host.work()));
        self.pools.lock().unwrap_or_else(PoisonError::into_inner).extend(kept);
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
        let shared = SharedMounts::record(&shared_mounts::SHARED)?;
        let confinement = self.confinement();
        let binds = self.binds(spec, &confinement)?;
        let ended = self.start(spec, group.as_ref(), output, cancel);
        let cleared = match &ended {
            // Nothing helps against these.
            Ok(_) | Err(Error::Survivors { .. }) => Ok(()),
            // Where it failed halfway, nobody has looked yet.
            Err(_) => end_all(),
        };
        let undone = binds.end().and(shared.restore());
        let ended = ended.map_err(|e| e.at_level("in-place"))?;
        cleared?;
        undone?;
        if let Some(path) = self.host.take_wanted_mount() {
            return Err(Error::Occupied(path));
        }
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

/// The user of a process, and its capabilities.
fn identity(spec: &Spec, capabilities: CapabilitySet, keeps_ids: bool) -> Identity {
    Identity {
        uid: spec.user.uid,
        gid: spec.user.gid,
        groups: spec.user.groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect(),
        capabilities,
        ambient: false,
        keeps_ids,
    }
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
