//! What a place gives to processes, whatever the level: looked at once, and used for each.

use super::cgroup::{self, Group, Hierarchy};
use super::control::Control;
use super::error::Part;
use super::overlay::{Calls, Way};
use super::program::{self, CAPABILITIES, Door, Place, Prepared, Rights};
use super::raw_sockets::{self, NoRawSockets, capabilities_for};
use super::recorded::{Recorder, Told};
pub(super) use super::streams::streams;
use super::{Error, Exit, Network, PrivateNetwork, Spec, Stream, oci, seccomp, terminal};
use crate::sys::child::{Child, Ended, Failure, Namespaces, Slot};
use crate::sys::notify::Listener;
use crate::sys::{Cancel, Said, netns, userns};
use libc::sock_filter;
use rustix::mount::FsOpenFlags;
use rustix::thread::CapabilitySet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What an executor has of its place.
#[derive(Debug)]
pub(super) struct Host {
    resolv_conf: String,
    pub(super) way: Way,
    hierarchies: Vec<Hierarchy>,
    permitted: CapabilitySet,
    filter: Vec<sock_filter>,
    /// For processes on kiln's own network.
    no_raw_sockets: Option<NoRawSockets>,
    /// Where there is a single number for all users: what of them is recorded instead.
    recorded: Option<Told>,
    groups: AtomicU64,
    /// What processes are on that don't ask for a network.
    network: Option<Arc<PrivateNetwork>>,
}

impl Host {
    /// Looks at the place. `resolv_conf` is the host's `/etc/resolv.conf`, empty if there is none.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub(super) fn new(resolv_conf: String) -> Result<Self, Error> {
        let read = |path| std::fs::read_to_string(path).said("read", path);
        let hierarchies = cgroup::hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let permitted = rustix::thread::capabilities(None).call("capget")?.permitted;
        let recorded = userns::is_single()?.then(Told::new);
        Ok(Self {
            resolv_conf,
            way: way()?,
            hierarchies,
            permitted,
            filter: seccomp::filter(CAPABILITIES & permitted),
            // There is but one listener for a process.
            no_raw_sockets: NoRawSockets::find(permitted, recorded.is_none())?,
            recorded,
            groups: AtomicU64::new(0),
            network: None,
        })
    }

    /// Puts processes that don't ask for a network on this one.
    pub(super) fn on(self, network: Option<Arc<PrivateNetwork>>) -> Self {
        Self { network, ..self }
    }

    fn group(&self, spec: &Spec) -> Result<Option<Group>, Error> {
        if !spec.limits.needs_cgroup() {
            return Ok(None);
        }
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        Group::new(&self.hierarchies, &spec.limits, number).map(Some)
    }

    /// The network of a process that has none, where it can't bring up its loopback device itself. Where this can't be had either, the
    /// process's own attempt says why.
    fn loopback(&self, spec: &Spec) -> Option<OwnedFd> {
        let needed = spec.network == Network::None && !self.permitted.contains(CapabilitySet::NET_ADMIN);
        needed.then(|| netns::with_loopback().ok()).flatten()
    }

    /// What a process may that comes by this door. `shares_network` says whether it is on kiln's own network.
    fn rights(&self, spec: &Spec, door: Door<'_>, shares_network: bool) -> Rights<'_> {
        let capabilities = self.permitted
            & match door {
                _ if spec.insecure => CapabilitySet::all(),
                Door::Runtime(_) => capabilities_for(shares_network),
                Door::Pivot | Door::Chroot => CAPABILITIES,
            };
        let own = self.no_raw_sockets.as_ref().filter(|_| shares_network && !spec.insecure);
        let recorded = self.recorded.as_ref().map(Told::filter);
        Rights {
            capabilities,
            filter: own.map_or(&self.filter, |own| &own.filter),
            notifier: recorded.or(own.and_then(|own| own.notifier.as_deref())),
            single: recorded.is_some(),
        }
    }

    /// Does something while the calls of a process are answered, if any are to be.
    fn answering(
        &self,
        spec: &Spec,
        listener: Option<OwnedFd>,
        follow: impl FnOnce() -> Result<Ended, Error>,
    ) -> Result<Ended, Error> {
        let Some(listener) = listener else { return follow() };
        let listener = Listener::new(listener)?;
        let recorder = self.recorded.as_ref().map(|told| Recorder::new(told, spec)).transpose()?;
        let stop = Cancel::new()?;
        std::thread::scope(|scope| {
            let answering = std::thread::Builder::new().spawn_scoped(scope, || match recorder {
                Some(recorder) => recorder.serve(listener, &stop),
                None => raw_sockets::serve(&listener, &stop),
            });
            let answering = answering.call("clone")?;
            let panicked = StopOnPanic(&stop);
            let ended = follow();
            drop(panicked);
            // It ends by itself with the process; where that couldn't be followed, it lives still.
            if ended.is_err() {
                stop.cancel();
            }
            match answering.join() {
                Ok(done) => ended.and_then(|ended| done.map(|()| ended)),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }

    /// Runs a process to its end, as [`super::Executor::run`] promises it, in a root that is entered by `door`.
    pub(super) fn run(
        &self,
        spec: &Spec,
        door: Door<'_>,
        output: &mut dyn FnMut(Stream, &[u8]),
        cancel: &Cancel,
    ) -> Result<Exit, Error> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let group = self.group(spec)?;
        let (streams, pipes) = streams(spec.stdio)?;
        let private = self.network.as_ref().filter(|_| spec.network == Network::Default);
        let loopback = self.loopback(spec);
        let place = Place {
            way: self.way,
            door,
            resolv_conf: private.map_or(self.resolv_conf.as_str(), |private| private.resolv_conf()),
            network: private.map(|private| private.namespace()).transpose()?.or(loopback),
            cgroups: cgroup::shown(&self.hierarchies, group.as_ref()),
            permitted: self.permitted,
            rights: self.rights(spec, door, raw_sockets::shares_network(spec, private.is_some())),
            join: group.as_ref().map(Group::procs).transpose()?.unwrap_or_default(),
        };
        let network = spec.network == Network::None && place.network.is_none();
        let Prepared { program, parts, terminal, listener, candidates, bundle } =
            program::prepare(spec, place, streams)?;
        let namespaces = Namespaces { network, ..Namespaces::default() };
        let mut child = program.spawn(namespaces).map_err(|f| match door {
            Door::Runtime(hand) if f.error.call == "execve" => hand.cannot_start(&f.error),
            _ => explained(f, spec, &parts, &candidates),
        })?;
        let control = Control { cancel, signals: spec.signals.as_ref(), through: bundle.is_some() };
        let terminal = terminal.and_then(|slot| child.take(slot));
        let listener = listener.and_then(|slot| child.take(slot));
        let ended = self.answering(spec, listener, || match terminal {
            Some(main) => terminal::connect(&main, &mut child, control),
            None => pipes.follow(&mut child, output, control),
        });
        finish(child, ended, group, spec, bundle)
    }
}

/// Sets a flag when the thread panics: the scope waits for the other thread before the process is killed.
struct StopOnPanic<'a>(&'a Cancel);

impl Drop for StopOnPanic<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.cancel();
        }
    }
}

/// Takes away what was made for the process, and says how it ended.
fn finish(
    mut child: Child,
    ended: Result<Ended, Error>,
    group: Option<Group>,
    spec: &Spec,
    bundle: Option<Slot>,
) -> Result<Exit, Error> {
    let ended = ended?;
    child.remove_stubs()?;
    if let Some(bundle) = bundle.and_then(|slot| child.take(slot))
        && ended != Ended::Exited(0)
    {
        oci::complaint(bundle, spec)?;
    }
    let out_of_memory = group.as_ref().is_some_and(Group::ran_out_of_memory);
    Ok(match ended {
        Ended::Exited(code) => Exit { code, signal: None, out_of_memory },
        Ended::Killed(signal) => Exit { code: 128 + signal, signal: Some(signal), out_of_memory },
    })
}

/// Whether the kernel takes the layers of an overlay one by one, and where an overlay may keep its notes.
fn way() -> Result<Way, Error> {
    let one_by_one = rustix::mount::fsopen(c"overlay", FsOpenFlags::FSOPEN_CLOEXEC)
        .and_then(|fs| rustix::mount::fsconfig_set_string(fs.as_fd(), c"lowerdir+", c"/"));
    let calls = if one_by_one.is_ok() { Calls::Fsconfig } else { Calls::Mount };
    Ok(Way { calls, user_attributes: !userns::is_initial()? })
}

/// A child's failure in terms of the spec.
pub(crate) fn explained(
    failure: Failure,
    spec: &Spec,
    parts: &[(std::ops::Range<usize>, Part)],
    candidates: &[std::ffi::CString],
) -> Error {
    if failure.error.call == "execve" {
        let program = spec.args.first().map_or("", String::as_str);
        let found = candidates.get(failure.candidate).map(|c| c.to_string_lossy());
        return Error::command(program, found.as_deref(), failure.error.errno);
    }
    let part = failure.step.and_then(|step| parts.iter().find(|(steps, _)| steps.contains(&step)));
    match part {
        Some((_, part)) => Error::Part { part: part.clone(), source: failure.error },
        None => Error::Call(failure.error),
    }
}
