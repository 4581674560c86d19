//! What the kernel shows of itself: `/proc`, `/sys`, control groups; and what of that a container doesn't see.

use super::program::{Builder, c_string};
use super::{Error, Spec};
use crate::sys::child::step::TargetKind;
use crate::sys::child::{Slot, Step};
use rustix::mount::MountAttrFlags;
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

/// A mounted hierarchy of control groups, version 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The name of its folder in `/sys/fs/cgroup`.
    pub folder: String,
    /// What it is mounted with: controllers, or a name.
    pub options: Vec<(String, Option<String>)>,
}

/// Adds the steps that mount `/proc`, `/sys` and the control groups. `dev` is the mounted `/dev`.
pub(super) fn mount(builder: &mut Builder, spec: &Spec, cgroups: &[Hierarchy], dev: Slot) -> Result<(), Error> {
    let writable = if spec.insecure { QUIET } else { QUIET.union(MountAttrFlags::MOUNT_ATTR_RDONLY) };
    // Made here and never looked up by a path: what is hidden and protected is that of procfs whatever the image says.
    let proc = builder.file_system(c"proc", &[], QUIET)?;
    let on = builder.target(c"/proc", TargetKind::Folder, true);
    builder.push(Step::Mount { mount: proc, on, path: c"/proc".to_owned() });
    let sys = builder.file_system(c"sysfs", &[], writable)?;
    let on = builder.target(c"/sys", TargetKind::Folder, true);
    builder.push(Step::Mount { mount: sys, on, path: c"/sys".to_owned() });
    control_groups(builder, cgroups, writable)?;
    if spec.insecure {
        return Ok(());
    }
    let empty = builder.file_system(c"tmpfs", &[("size", Some("0k"))], QUIET | MountAttrFlags::MOUNT_ATTR_RDONLY)?;
    for (root, path) in MASKED_PROC.map(|p| (proc, p)).into_iter().chain(MASKED_SYS.map(|p| (sys, p))) {
        builder.push(Step::Mask { root, path: c_string(path)?, null: dev, empty });
    }
    for path in PROTECTED_PROC {
        builder.push(Step::Protect { root: proc, path: c_string(path)? });
    }
    Ok(())
}

/// Version 2 is one file system; version 1 a tmpfs with a folder for each hierarchy. Without either the folder is empty.
fn control_groups(builder: &mut Builder, hierarchies: &[Hierarchy], flags: MountAttrFlags) -> Result<(), Error> {
    let path = c"/sys/fs/cgroup";
    match hierarchies {
        [] => Ok(()),
        [one] if one.folder.is_empty() => {
            let mount = builder.file_system(c"cgroup2", &[], flags)?;
            let on = builder.target(path, TargetKind::Folder, true);
            builder.push(Step::Mount { mount, on, path: path.to_owned() });
            Ok(())
        }
        several => {
            let dir = builder.file_system(c"tmpfs", &[("mode", Some("755"))], QUIET)?;
            let on = builder.target(path, TargetKind::Folder, true);
            builder.push(Step::Mount { mount: dir, on, path: path.to_owned() });
            several.iter().try_for_each(|one| hierarchy(builder, dir, one, flags))?;
            builder.push(Step::SetFlags { mount: dir, flags });
            Ok(())
        }
    }
}

fn hierarchy(builder: &mut Builder, dir: Slot, one: &Hierarchy, flags: MountAttrFlags) -> Result<(), Error> {
    let options: Vec<_> = one.options.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
    let mount = builder.file_system(c"cgroup", &options, flags)?;
    builder.push(Step::Folder { dir, name: c_string(&one.folder)?, mode: 0o755 });
    builder.place(mount, &Path::new("/sys/fs/cgroup").join(&one.folder), TargetKind::Folder)?;
    Ok(())
}

/// The hierarchies below `/sys/fs/cgroup` that `/proc/self/mountinfo` tells of. A hierarchy of version 2 alone is one with an
/// empty folder; beside some of version 1 it is left out, as it has no controllers then.
pub(super) fn hierarchies(mountinfo: &str) -> Vec<Hierarchy> {
    let mut found = Vec::new();
    let mut unified = false;
    for line in mountinfo.lines() {
        let mut fields = line.split(' ');
        let (Some(target), Some(mut rest)) = (fields.nth(4), line.split(" - ").nth(1).map(|r| r.split(' '))) else {
            continue;
        };
        let (kind, options) = (rest.next(), rest.nth(1).unwrap_or_default());
        match (kind, target.strip_prefix("/sys/fs/cgroup")) {
            (Some("cgroup2"), Some("")) => unified = true,
            (Some("cgroup"), Some(folder)) => {
                if let Some(one) = version_1(folder.trim_start_matches('/'), options) {
                    found.push(one);
                }
            }
            _ => {}
        }
    }
    if unified {
        return vec![Hierarchy { folder: String::new(), options: Vec::new() }];
    }
    found
}

fn version_1(folder: &str, options: &str) -> Option<Hierarchy> {
    if folder.is_empty() || folder.contains(['/', '\\']) {
        return None;
    }
    let options = options
        .split(',')
        .filter(|o| !matches!(*o, "rw" | "ro" | "xattr") && !o.starts_with("release_agent"))
        .map(|o| match o.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (o.to_owned(), None),
        })
        .collect();
    Some(Hierarchy { folder: folder.to_owned(), options })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_hierarchies_are_found() {
        let text = "31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
                    32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                    40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,release_agent=/x,name=systemd\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
                    nonsense\n";
        let found = hierarchies(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].folder, "cpu,cpuacct");
        assert_eq!(found[0].options, [("cpu".to_owned(), None), ("cpuacct".to_owned(), None)]);
        assert_eq!(found[1].options, [("name".to_owned(), Some("systemd".to_owned()))]);
    }

    #[test]
    fn version_2_is_one() {
        let found = hierarchies("31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n");
        assert_eq!(found, [Hierarchy { folder: String::new(), options: Vec::new() }]);
        assert!(hierarchies("").is_empty());
    }
}
