//! What the kernel shows of itself: `/proc`, `/sys`, control groups; and what of that a container doesn't see.

use super::cgroup::Shown;
use super::program::{Builder, Door, c_string};
use super::{Error, Spec};
use crate::sys::child::step::TargetKind;
use crate::sys::child::{Slot, Step};
use rustix::mount::MountAttrFlags;
use std::ffi::CString;
use std::path::Path;

/// Hidden under `/proc`, as containerd's default has it.
const MASKED_PROC: [&str; 10] = [
    "acpi",
    "asound",
    "interrupts",
    "kcore",
    "keys",
    "latency_stats",
    "sched_debug",
    "scsi",
    "timer_list",
    "timer_stats",
];
/// Hidden under `/sys`.
const MASKED_SYS: [&str; 2] = ["firmware", "devices/virtual/powercap"];
/// Read-only under `/proc`.
const PROTECTED_PROC: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

const QUIET: MountAttrFlags =
    MountAttrFlags::MOUNT_ATTR_NOSUID.union(MountAttrFlags::MOUNT_ATTR_NOEXEC).union(MountAttrFlags::MOUNT_ATTR_NODEV);

/// What is made while the host's files can be seen.
pub(super) struct Prepared {
    /// An empty folder, to hide others behind.
    empty: Slot,
    /// `/proc`. In a user namespace it can be made only while the host's can be seen.
    proc: Slot,
    /// The host's `/sys`, where none can be made: it shows the host's network, so its maker must have rights over that.
    sys: Option<Slot>,
    /// What is mounted for the control groups: version 2's, or a folder with a name for each of version 1.
    cgroups: Option<Slot>,
    /// Mounts of version 1's, by those names.
    hierarchies: Vec<(Slot, CString)>,
}

/// The flags of `/sys` and the control groups.
fn flags(spec: &Spec) -> MountAttrFlags {
    if spec.insecure { QUIET } else { QUIET.union(MountAttrFlags::MOUNT_ATTR_RDONLY) }
}

/// Adds the steps that need the host's files: the process's control groups are mounts of the host's, of the process's own
/// part of them. A new mount of each (as runc makes) would show the same in a new cgroup namespace and costs a tenth of a
/// millisecond for each.
pub(super) fn prepare(builder: &mut Builder<'_>, spec: &Spec, shown: Vec<Shown>) -> Result<Prepared, Error> {
    let empty = builder.folder(std::iter::empty())?;
    // Made here and never looked up by a path: what is hidden and protected is that of procfs whatever the image says.
    let proc = builder.kernels(c"proc", &[], QUIET, c"/proc")?;
    let borrowed = builder.is_in_user_namespace();
    let sys = borrowed.then(|| builder.host_tree(Path::new("/sys"), flags(spec))).transpose()?;
    let (unified, first): (Vec<Shown>, Vec<Shown>) = shown.into_iter().partition(|one| one.name.is_empty());
    let cgroups = match (unified.first(), first.is_empty()) {
        (_, false) => Some(builder.folder(first.iter().map(|one| one.name.clone()))?),
        (Some(one), true) => Some(builder.host(&one.folder, flags(spec))?),
        (None, true) => None,
    };
    let mut hierarchies = Vec::new();
    for one in first {
        hierarchies.push((builder.host(&one.folder, flags(spec))?, c_string(&one.name)?));
    }
    if left_to_runtime(builder) {
        lend(builder)?;
    }
    Ok(Prepared { empty, proc, sys, cgroups, hierarchies })
}

/// What a runtime sees of the kernel, in the child's own mount namespace: the processes of its own namespace, and control
/// groups that it can't change. So it makes none, which it would remove only if it came to its end, and its process stays in
/// the one that kiln made.
fn lend(builder: &mut Builder<'_>) -> Result<(), Error> {
    let proc = builder.file_system(c"proc", &[], QUIET)?;
    builder.push(Step::MountOnHost { mount: proc, path: c"/proc".to_owned() });
    let root = Path::new("/sys/fs/cgroup");
    if !root.exists() {
        return Ok(());
    }
    let mount = builder.host_tree(root, MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    builder.push(Step::MountOnHost { mount, path: c_string(root)? });
    // crun refuses places that have version 2 beside version 1.
    let second = root.join("unified");
    if second.exists() {
        let mount = builder.folder(std::iter::empty())?;
        builder.push(Step::MountOnHost { mount, path: c_string(second)? });
    }
    Ok(())
}

/// Whether a runtime mounts `/proc` and hides what is hidden.
fn left_to_runtime(builder: &Builder<'_>) -> bool {
    matches!(builder.door, Door::Runtime(_))
}

/// What is hidden from a process, as absolute paths.
pub(super) fn masked() -> Vec<String> {
    let under = |root: &str, names: &[&str]| names.iter().map(|n| format!("{root}/{n}")).collect::<Vec<_>>();
    [under("/proc", &MASKED_PROC), under("/sys", &MASKED_SYS)].concat()
}

/// What a process can't write to, as absolute paths.
pub(super) fn protected() -> Vec<String> {
    PROTECTED_PROC.iter().map(|n| format!("/proc/{n}")).collect()
}

/// Adds the steps that mount `/proc`, `/sys` and the control groups. `dev` is the mounted `/dev`.
pub(super) fn mount(builder: &mut Builder<'_>, spec: &Spec, prepared: Prepared, dev: Slot) -> Result<(), Error> {
    let proc = prepared.proc;
    let on = builder.target(c"/proc", TargetKind::Folder, true);
    // A runtime mounts another one upon it; but it must be there for nobody to be led through it (`Step::Target`).
    builder.push(Step::Mount { mount: proc, on, path: c"/proc".to_owned() });
    let sys = match prepared.sys {
        Some(sys) => sys,
        None => builder.kernels(c"sysfs", &[], flags(spec), c"/sys")?,
    };
    let on = builder.target(c"/sys", TargetKind::Folder, true);
    builder.push(Step::Mount { mount: sys, on, path: c"/sys".to_owned() });
    if let Some(mount) = prepared.cgroups {
        builder.place(mount, Path::new("/sys/fs/cgroup"), TargetKind::Folder)?;
        for (one, name) in prepared.hierarchies {
            builder.push(Step::MountOwn { mount: one, dir: mount, name });
        }
    }
    if spec.insecure || left_to_runtime(builder) {
        return Ok(());
    }
    for (root, path) in MASKED_PROC.map(|p| (proc, p)).into_iter().chain(MASKED_SYS.map(|p| (sys, p))) {
        builder.push(Step::Mask { root, path: c_string(path)?, null: dev, empty: prepared.empty });
    }
    for path in PROTECTED_PROC {
        builder.push(Step::Protect { root: proc, path: c_string(path)? });
    }
    Ok(())
}
