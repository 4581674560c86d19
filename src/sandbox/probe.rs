//! Which isolation levels work here, found out by trying: what a filter or a security module forbids can't be read anywhere.

use super::overlay::{self, Calls};
use super::program::c_string;
use super::{Error, Limits, Part, cgroup};
use crate::sys::child::step::FileSystem;
use crate::sys::child::{Namespaces, Program, Step};
use crate::sys::{self, RootMount, Said, userns};
use rustix::mount::MountAttrFlags;
use rustix::thread::CapabilitySet;
use std::collections::BTreeSet;
use std::path::Path;

/// An isolation level and whether it works here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Level {
    /// Its name, as `--isolation` takes it.
    pub name: &'static str,
    /// Whether a process can be run at this level.
    pub works: bool,
    /// The call that was refused, and what would have to be allowed.
    pub why_not: Option<String>,
    /// What there is to say of a level that works.
    pub remark: Option<String>,
}

/// What each level needs of root, to give files the owners, modes and capabilities of an image, and to start its users' processes.
/// Without CAP_FSETID the kernel takes set-group-ID bits away, and nothing fails.
const NEEDED: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::SETUID);

/// Names of capabilities, for a sentence.
fn names(capabilities: CapabilitySet) -> String {
    let names: BTreeSet<&str> = capabilities.iter_names().map(|(name, _)| name).collect();
    let names: Vec<&str> = names.into_iter().collect();
    match names.as_slice() {
        [first @ .., before, last] => {
            first.iter().map(|name| format!("{name}, ")).collect::<String>() + before + " and " + last
        }
        names => names.concat(),
    }
}

/// The capabilities that each level needs, as a list for people.
pub fn needed_capabilities() -> String {
    format!("the capabilities {}", names(NEEDED))
}

/// Which of those this process lacks where it is, in a sentence; `None` where it has all.
pub fn missing_capabilities() -> Option<String> {
    let own = rustix::thread::capabilities(None).map_or(CapabilitySet::empty(), |sets| sets.effective);
    let missing = NEEDED.difference(own);
    (!missing.is_empty())
        .then(|| format!("{} missing: it needs {}, as Docker gives them", names(missing), needed_capabilities()))
}

/// What the level `root` needs.
fn needs_root() -> String {
    format!(
        "it needs root with CAP_SYS_ADMIN and {}, and a seccomp profile and security module that allow clone, mount and pivot_root: \
         in a container, start it with --privileged",
        needed_capabilities()
    )
}

/// What the same needs in a user namespace.
const NEEDS_NAMESPACE: &str = "it needs a seccomp profile and security module that allow clone, mount and pivot_root in user \
     namespaces: in a container, start it with --security-opt seccomp=unconfined --security-opt apparmor=unconfined";

/// What the levels below need, too.
fn needs_mount() -> String {
    format!(
        "it needs CAP_SYS_ADMIN, CAP_SYS_CHROOT and {}, and a seccomp profile and security module that allow clone and mount: in a \
         container, start it with --cap-add SYS_ADMIN and without AppArmor's profile",
        needed_capabilities()
    )
}

/// What `in-place` needs.
fn needs_docker() -> String {
    format!(
        "it needs root with {}, as Docker gives them, and a seccomp profile no stricter than Docker's",
        needed_capabilities()
    )
}

/// What a step without a network needs besides.
const NEEDS_LOOPBACK: &str = "to bring up the loopback device of RUN --network=none takes CAP_NET_ADMIN, or a seccomp profile and \
     security module that allow user namespaces";

/// What `oci` needs.
fn needs_runtime() -> String {
    format!(
        "it needs what its runtime needs: CAP_SYS_ADMIN and {}, or a user namespace, and a seccomp profile and security module that \
         allow clone, mount and pivot_root",
        needed_capabilities()
    )
}

/// What a new `/proc` needs in a user namespace (`mount_too_revealing` in the kernel).
pub(super) const NEEDS_PROC: &str = "a new /proc can be mounted only where nothing of the present one is hidden: in a container, \
     start it with --security-opt unmask=ALL (Docker: systempaths=unconfined, Kubernetes: procMount: Unmasked)";

/// A way to run a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Whether the new root is entered by `pivot_root`; by `chroot` otherwise.
    pub pivot: bool,
    /// Whether the new root is an overlay; a folder otherwise.
    pub overlay: bool,
}

/// Tries a way with the rights that this process has, be it those of root or of a user namespace's. Overlays are tried in
/// `folder`, which must be on the file system that will hold the root filesystems; nothing is left there.
///
/// # Errors
/// The call that was refused, and what would have to be allowed.
pub fn probe(folder: &Path, way: Way) -> Result<(), String> {
    attempt(folder, way).map_err(|error| why(&error, way))
}

/// A kind of limit and whether it can be set here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// What is limited.
    pub name: &'static str,
    /// Why it can't be.
    pub why_not: Option<String>,
}

/// Tries to limit memory and processor time, by making a control group with each; none is left.
pub fn limits() -> Vec<Limit> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let place = cgroup::hierarchies(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    let memory = Limits { memory: Some(1 << 30), ..Limits::default() };
    let processor = Limits { cpu_shares: Some(1024), ..Limits::default() };
    let tried = |name, limits: &Limits| {
        let made = cgroup::Group::new(&place, limits, u64::MAX);
        Limit { name, why_not: made.err().map(|error| error.to_string()) }
    };
    vec![tried("memory", &memory), tried("cpu", &processor)]
}

/// Tries to make a new `/proc`, as every process gets one, in a user namespace. `folder` is one to work in.
///
/// # Errors
/// The call that was refused, and what would have to be allowed.
pub fn new_proc(folder: &Path) -> Result<(), String> {
    let mut program = Program::default();
    let mount = program.slot();
    program.push(Step::DieWithMaker);
    program.push(Step::PrivateMounts);
    let (kind, flags) = (c"proc", MountAttrFlags::MOUNT_ATTR_NODEV);
    program.push(Step::FileSystem(FileSystem { kind, options: vec![], flags, otherwise: None, out: mount }));
    let made = c_string(folder).map_err(|e| e.to_string()).and_then(|path| {
        program.push(Step::MountOnHost { mount, path });
        let mut child = program.spawn(Namespaces::default()).map_err(|f| f.error.to_string())?;
        child.wait().map(drop).map_err(|e| e.to_string())
    });
    made.map_err(|error| format!("{error}: {NEEDS_PROC}"))
}

/// What helps where a call of a level was refused.
pub(super) fn needs(level: &str, call: &sys::Error) -> String {
    let proc = matches!(call.call, "mount" | "fsmount") && call.path.as_deref() == Some(Path::new("proc"));
    let needs = match level {
        _ if proc => NEEDS_PROC.to_owned(),
        _ if call.call == "ioctl(SIOCSIFFLAGS)" => NEEDS_LOOPBACK.to_owned(),
        "root" => needs_root(),
        "rootless" => NEEDS_NAMESPACE.to_owned(),
        "chroot" => needs_mount(),
        "in-place" => needs_docker(),
        _ => needs_runtime(),
    };
    format!("isolation level {level}: {needs}")
}

fn why(error: &Error, way: Way) -> String {
    let needs = match way.pivot {
        true if userns::is_initial().unwrap_or(true) => needs_root(),
        true => NEEDS_NAMESPACE.to_owned(),
        false => needs_mount(),
    };
    match error {
        // A filter says EPERM.
        Error::Part { part: Part::Mount(at), source }
            if source.errno == rustix::io::Errno::ACCESS && missing_capabilities().is_none() =>
        {
            format!(
                "{source}: no overlay can be made in {}: a directory there is of a group or user that this user namespace does not know, or \
             a security module (AppArmor, SELinux) forbids it",
                at.display()
            )
        }
        Error::Part { part: Part::Mount(at), source } if !source.is_denied() => format!(
            "{source}: no overlay can be made in {}; the store must be on a file system like ext4, xfs, btrfs or tmpfs \
             (not on overlayfs itself)",
            at.display()
        ),
        Error::Call(call) | Error::Part { source: call, .. } if call.is_denied() => format!("{call}: {needs}"),
        Error::Call(call) if call.errno == rustix::io::Errno::NOSYS => {
            format!("{call}: it needs Linux 5.12, and a seccomp profile that allows the call")
        }
        Error::Call(call) => call.to_string(),
        other => other.to_string(),
    }
}

/// Makes a process like a sandbox's, as far as the new root, of empty folders.
fn attempt(folder: &Path, tried: Way) -> Result<(), Error> {
    let dir = tempfile::Builder::new().prefix(".probe-").tempdir_in(folder).said("mkdir", folder)?;
    // As the store has its own.
    sys::file::keep_own_group(dir.path());
    let path = |name: &str| dir.path().join(name);
    for name in ["lower", "upper", "work"] {
        std::fs::create_dir(path(name)).said("mkdir", path(name))?;
    }
    let root = match tried.overlay {
        true => RootMount::Overlay { lowers: vec![path("lower")], upper: path("upper"), work: path("work") },
        false => RootMount::Dir(path("upper")),
    };
    let mut program = Program::default();
    let mount = program.slot();
    for step in [Step::DieWithMaker, Step::NewCgroupNamespace, Step::NewSession, Step::PrivateMounts] {
        program.push(step);
    }
    let overlay = program.steps().len();
    let way = overlay::Way { calls: Calls::Mount, user_attributes: !userns::is_initial()? };
    let at = c_string(path("upper"))?;
    program.push(overlay::mount(&root, way, &at, mount)?);
    program.push(Step::SetFlags { mount, flags: MountAttrFlags::MOUNT_ATTR_NODEV });
    if !tried.overlay {
        program.push(Step::MountOnHost { mount, path: at });
    }
    program.push(if tried.pivot { Step::EnterRoot(mount) } else { Step::CoverRoot(mount) });
    let mut child = program.spawn(Namespaces::default()).map_err(|failure| match failure.step {
        Some(step) if step == overlay => Error::Part { part: Part::Mount(folder.to_owned()), source: failure.error },
        _ => Error::Call(failure.error),
    })?;
    child.wait()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::Error as CallError;

    const WAYS: [Way; 4] = [
        Way { pivot: true, overlay: true },
        Way { pivot: true, overlay: false },
        Way { pivot: false, overlay: true },
        Way { pivot: false, overlay: false },
    ];

    #[test]
    fn says_why_or_works_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for way in WAYS {
            let found = probe(dir.path(), way);
            assert!(rustix::process::geteuid().is_root() || found.is_err());
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "{way:?}: {found:?}");
        }
    }

    #[test]
    fn capabilities_are_listed_for_people() {
        assert_eq!(
            needed_capabilities(),
            "the capabilities CHOWN, DAC_OVERRIDE, FOWNER, FSETID, SETFCAP, SETGID, SETPCAP and SETUID"
        );
        assert_eq!(names(CapabilitySet::KILL), "KILL");
        assert_eq!(names(CapabilitySet::KILL | CapabilitySet::CHOWN), "CHOWN and KILL");
        assert!(missing_capabilities().is_none_or(|text| text.contains("missing: it needs the capabilities CHOWN")));
    }

    #[test]
    fn reasons_name_the_call_and_the_remedy() {
        let call = |errno| Error::Call(CallError { call: "clone", path: None, errno });
        let [best, .., last] = WAYS;
        let text = why(&call(rustix::io::Errno::PERM), best);
        assert!(text.starts_with("clone: Operation not permitted") && text.contains("CAP_SYS_ADMIN"), "{text}");
        assert!(why(&call(rustix::io::Errno::PERM), last).contains("--cap-add SYS_ADMIN"));
        assert!(why(&call(rustix::io::Errno::NOSYS), best).contains("5.12"));
    }
}
