//! The level `root`: namespaces, overlayfs and pivot_root, with the rights of root (CAP_SYS_ADMIN). Linux 5.12 at least.
//!
//! The process is pid 1 of its pid namespace: when it ends, everything it started ends, too. It has its own mount, ipc, uts
//! and cgroup namespaces, and a network namespace with a loopback device alone where its spec says [`Network::None`];
//! otherwise it is on the host's network.
//!
//! A control group is made only where limits are asked for: making and removing one costs more than all the rest of a small
//! step (a removal waits for the kernel's grace periods), and pid 1's end is enough to end everything.

use super::cgroup::{self, Group, Hierarchy};
use super::control::Control;
use super::error::Part;
use super::output::Pipes;
use super::overlay::{Calls, Way};
use super::program::{self, CAPABILITIES, Place, Prepared};
use super::recorded::{Recorder, Told};
use super::{Error, Executor, Exit, Network, Spec, Stdio, Stream, seccomp, terminal};
use crate::sys::child::step::Stream as Source;
use crate::sys::child::{Child, Ended, Failure, Namespaces};
use crate::sys::notify::Listener;
use crate::sys::{Cancel, Said, userns};
use libc::sock_filter;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::FsOpenFlags;
use rustix::pipe::PipeFlags;
use rustix::thread::CapabilitySet;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

/// Runs processes with the rights of root. One serves a whole build; threads share it.
#[derive(Debug)]
pub struct RootExecutor {
    resolv_conf: String,
    way: Way,
    hierarchies: Vec<Hierarchy>,
    permitted: CapabilitySet,
    filter: Vec<sock_filter>,
    /// Where there is a single number for all users: what of them is recorded instead.
    recorded: Option<Told>,
    groups: AtomicU64,
}

impl RootExecutor {
    /// Looks at the place once. `resolv_conf` is the host's `/etc/resolv.conf`, empty if there is none.
    ///
    /// # Errors
    /// If `/proc` isn't mounted.
    pub fn new(resolv_conf: String) -> Result<Self, Error> {
        let read = |path| std::fs::read_to_string(path).said("read", path);
        let hierarchies = cgroup::hierarchies(&read("/proc/self/mountinfo")?, &read("/proc/self/cgroup")?);
        let permitted = rustix::thread::capabilities(None).call("capget")?.permitted;
        Ok(Self {
            resolv_conf,
            way: way()?,
            hierarchies,
            permitted,
            filter: seccomp::filter(CAPABILITIES & permitted),
            recorded: userns::is_single()?.then(Told::new),
            groups: AtomicU64::new(0),
        })
    }

    fn group(&self, spec: &Spec) -> Result<Option<Group>, Error> {
        if !spec.limits.needs_cgroup() {
            return Ok(None);
        }
        let number = self.groups.fetch_add(1, Ordering::Relaxed);
        Group::new(&self.hierarchies, &spec.limits, number).map(Some)
    }

    /// Does something while the calls of a process are answered, if any are to be.
    fn recording(
        &self,
        spec: &Spec,
        listener: Option<OwnedFd>,
        follow: impl FnOnce() -> Result<Ended, Error>,
    ) -> Result<Ended, Error> {
        let (Some(told), Some(listener)) = (&self.recorded, listener) else { return follow() };
        let (listener, recorder) = (Listener::new(listener)?, Recorder::new(told, spec)?);
        let stop = Cancel::new()?;
        std::thread::scope(|scope| {
            let answering = scope.spawn(|| recorder.serve(listener, &stop));
            let ended = follow();
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
}

impl Executor for RootExecutor {
    fn run(&self, spec: &Spec, output: &mut dyn FnMut(Stream, &[u8]), cancel: &Cancel) -> Result<Exit, Error> {
        if cancel.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let group = self.group(spec)?;
        let (streams, pipes) = streams(spec.stdio)?;
        let place = Place {
            way: self.way,
            resolv_conf: &self.resolv_conf,
            cgroups: cgroup::shown(&self.hierarchies, group.as_ref()),
            permitted: self.permitted,
            filter: &self.filter,
            recorded: self.recorded.as_ref().map(Told::filter),
            join: group.as_ref().map(Group::procs).transpose()?.unwrap_or_default(),
        };
        let Prepared { program, parts, terminal, listener, candidates } = program::prepare(spec, place, streams)?;
        let namespaces = Namespaces { network: spec.network == Network::None };
        let mut child = program.spawn(namespaces).map_err(|f| explained(f, spec, &parts, &candidates))?;
        let control = Control { cancel, signals: spec.signals.as_ref() };
        let terminal = terminal.and_then(|slot| child.take(slot));
        let listener = listener.and_then(|slot| child.take(slot));
        let ended = self.recording(spec, listener, || match terminal {
            Some(main) => terminal::connect(&main, &mut child, control),
            None => pipes.follow(&mut child, output, control),
        });
        finish(child, ended, group)
    }
}

/// Takes away what was made for the process, and says how it ended.
fn finish(mut child: Child, ended: Result<Ended, Error>, group: Option<Group>) -> Result<Exit, Error> {
    let ended = ended?;
    child.remove_stubs()?;
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

/// The streams of the process, and the caller's ends of those that are captured.
fn streams(stdio: Stdio) -> Result<([Source; 3], Pipes), Error> {
    if stdio != Stdio::Captured {
        return Ok(([Source::Inherit(0), Source::Inherit(1), Source::Inherit(2)], Pipes::new(Vec::new())));
    }
    let null = rustix::fs::openat(CWD, "/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let null = null.said("open", "/dev/null")?;
    let (out, out_end) = pipe()?;
    let (err, err_end) = pipe()?;
    let pipes = Pipes::new(vec![(Stream::Stdout, out), (Stream::Stderr, err)]);
    Ok(([Source::Fd(null), Source::Fd(out_end), Source::Fd(err_end)], pipes))
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Error> {
    let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).call("pipe2")?;
    // Of this end alone: the process expects an ordinary pipe.
    rustix::io::ioctl_fionbio(&read, true).call("ioctl(FIONBIO)")?;
    Ok((read, write))
}

/// A child's failure in terms of the spec.
fn explained(
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{Mount, MountKind};
    use crate::sys::RootMount;
    use std::fs;

    /// As on a kernel before 6.5. Needs root and Debian's busybox-static.
    #[test]
    fn overlays_by_mount_show_the_same() {
        if !rustix::process::geteuid().is_root() || !std::path::Path::new("/bin/busybox").exists() {
            eprintln!("skipped: needs root and /bin/busybox");
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        for name in ["base", "l:1", "l,2", "upper", "work", "up", "wk"] {
            fs::create_dir(path(name)).unwrap();
        }
        fs::copy("/bin/busybox", path("base/sh")).unwrap();
        fs::write(path("l:1/f"), "one\n").unwrap();
        fs::write(path("l,2/f"), "two\n").unwrap();
        fs::write(path("l,2/g"), "two\n").unwrap();
        let lowers = vec![path("l:1"), path("l,2")];
        let (upper, work) = (path("upper"), path("work"));
        let root = RootMount::Overlay { lowers: vec![path("l:1"), path("l,2"), path("base")], upper, work };
        let command = "read a < /f; read b < /tree/g; read c < /rw/f; echo x > /rw/new; echo y > /made; echo $a $b $c";
        let mut spec = Spec::new(root, ["/sh", "-c", command].map(String::from).to_vec());
        let other = RootMount::Overlay { lowers: lowers.clone(), upper: path("up"), work: path("wk") };
        let mount = |target: &str, kind| Mount { target: target.into(), kind };
        spec.mounts = vec![
            mount("/tree", MountKind::Layers { lowers, path: "".into() }),
            mount("/rw", MountKind::Tree { root: other, path: "".into(), readonly: false }),
        ];
        let mut executor = RootExecutor::new(String::new()).unwrap();
        executor.way.calls = Calls::Mount;
        let mut out = Vec::new();
        let exit = executor.run(&spec, &mut |_, bytes| out.extend_from_slice(bytes), &Cancel::new().unwrap());
        assert!(exit.as_ref().is_ok_and(|e| e.success()), "{exit:?} {}", String::from_utf8_lossy(&out));
        assert_eq!(out, b"one two one\n");
        let list = |name: &str| fs::read_dir(path(name)).unwrap().map(|e| e.unwrap().file_name()).collect::<Vec<_>>();
        assert_eq!(list("up"), ["new"]);
        assert_eq!(list("upper"), ["made"]);
    }
}
