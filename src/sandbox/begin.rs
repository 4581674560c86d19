//! The last steps of a child that becomes the command itself: terminal, working directory, limits, and the rights it loses.

use super::error::Part;
use super::program::{Builder, Prepared, Rights, c_string};
use super::spec::clean;
use super::{Error, Spec, Stdio, User, command, devices, recorded};
use crate::sys::child::step::{Identity, Stdio as Streams, Stream, TargetKind};
use crate::sys::child::{Slot, Step};
use crate::sys::landlock::{self, Ruleset};
use rustix::process::Resource;
use std::path::Path;

/// Adds the steps that make the child the command.
pub(super) fn hand_over(
    mut builder: Builder<'_>,
    spec: &Spec,
    dev: &devices::Mounted,
    rights: Rights<'_>,
    streams: [Stream; 3],
) -> Result<Prepared, Error> {
    let terminal = (spec.stdio == Stdio::Terminal).then(|| builder.terminal(spec, dev)).transpose()?;
    let streams = match &terminal {
        Some((_, user)) => [Stream::Slot(*user), Stream::Slot(*user), Stream::Slot(*user)],
        None => streams,
    };
    builder.work_in(spec)?;
    let listener = rights.notifier.map(|filter| builder.notifier(filter));
    builder.push(Step::Stdio(Streams { streams, terminal: terminal.is_some() }));
    builder.limits(spec)?;
    builder.rights(spec, rights);
    let exec = command::exec(spec)?;
    let candidates = exec.candidates.clone();
    builder.push(Step::Exec(exec));
    let Builder { program, parts, .. } = builder;
    Ok(Prepared { program, parts, terminal: terminal.map(|(main, _)| main), listener, candidates, bundle: None })
}

impl Builder<'_> {
    /// A terminal of the sandbox's own; its two sides. `/dev/console` is the second.
    fn terminal(&mut self, spec: &Spec, dev: &devices::Mounted) -> Result<(Slot, Slot), Error> {
        let (main, user) = (self.program.slot(), self.program.slot());
        self.push(Step::OpenTerminal { pts: dev.pts, main, user, uid: self.given(spec.user.uid) });
        let console = self.program.slot();
        // The first terminal of a new devpts has the number 0.
        self.push(Step::CloneInside { root: dev.pts, path: c"0".to_owned(), out: console });
        self.place(console, Path::new("/dev/console"), TargetKind::File)?;
        Ok((main, user))
    }

    /// The folder that the process starts in, made if it isn't there.
    pub(super) fn work_in(&mut self, spec: &Spec) -> Result<(), Error> {
        let cwd = clean(&spec.cwd, "working directory")?;
        let (path, uid, gid) = (c_string(&cwd)?, self.given(spec.user.uid), self.given(spec.user.gid));
        self.part(Part::WorkingDirectory(cwd), |b| {
            b.push(Step::WorkIn { path, uid, gid });
            Ok(())
        })
    }

    /// Has calls told from here on. Whoever records knows the process by a mark.
    fn notifier(&mut self, filter: &[libc::sock_filter]) -> Slot {
        if self.single {
            let (soft, hard) = (Some(recorded::FIRST), None);
            self.push(Step::Limit { resource: Resource::Locks, name: c"locks".to_owned(), soft, hard });
        }
        let out = self.program.slot();
        self.push(Step::Notify { filter: filter.to_vec(), out });
        out
    }

    /// What the process may use, and its mask.
    fn limits(&mut self, spec: &Spec) -> Result<(), Error> {
        for (name, soft, hard) in &spec.limits.ulimits {
            let finite = |n: u64| (n != u64::MAX).then_some(n);
            let resource = command::resource(name)?;
            // No kernel limits it, and the mark stands there.
            if resource == Resource::Locks && self.single {
                continue;
            }
            let step = Step::Limit { resource, name: c_string(name)?, soft: finite(*soft), hard: finite(*hard) };
            self.part(Part::Limit(format!("{name}={soft}:{hard}")), |b| {
                b.push(step);
                Ok(())
            })?;
        }
        self.push(Step::Umask(0o022));
        Ok(())
    }

    /// Keeps the process, and whatever becomes of it, from processes outside: on the host's network are their abstract sockets, of which
    /// many ask for nothing but the user's number.
    pub(super) fn keep_apart(&mut self, spec: &Spec) {
        let apart = landlock::abi().and_then(Ruleset::apart).unwrap_or_default().filter(|_| !spec.insecure);
        if let Some(apart) = apart {
            self.push(Step::Restrict(apart.into_fd()));
        }
    }

    /// What takes rights away. The filter comes first: it is loaded with CAP_SYS_ADMIN, as `no_new_privs` stays off.
    fn rights(&mut self, spec: &Spec, rights: Rights<'_>) {
        self.keep_apart(spec);
        if !spec.insecure {
            self.push(Step::Seccomp(rights.filter.to_vec()));
        }
        let User { uid, gid, groups } = &spec.user;
        self.push(Step::Identity(Identity {
            uid: *uid,
            gid: *gid,
            groups: groups.iter().map(|g| rustix::fs::Gid::from_raw(*g)).collect(),
            capabilities: rights.capabilities,
            ambient: spec.insecure,
            keeps_ids: self.single,
        }));
        // A change of user has undone the first.
        self.push(Step::DieWithMaker);
    }
}
